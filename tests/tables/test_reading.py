"""Every form in which people keep a table is read, or told with a cure."""

import bz2
import gzip
import io
import json
import lzma
import shlex
import tracemalloc
import zipfile

import numpy as np
import pytest

from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables import reading
from bernoulli_diffusion.tables.reading import read
from bernoulli_diffusion.tables.table import Strings, Table
from bernoulli_diffusion.training.run_folder import read_run_folder

BITS = (np.random.default_rng(0).random((50, 8)) < 0.4).astype(int)
HEADER = ",".join(f"q{i}" for i in range(8)) + "\n"


def lines(separator: str, form=str) -> str:
    return "".join(separator.join(map(form, row)) + "\n" for row in BITS)


def saved(array, save=np.save) -> bytes:
    stream = io.BytesIO()
    save(stream, array)
    return stream.getvalue()


def saved_z(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def zipped(**files: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


WITHOUT_NAMES = {
    "plain": lines(""),
    "debd": lines(","),
    "amat": lines(" ").replace("\n", " \n"),
    "tsv": lines("\t"),
    "quoted": lines(",", '"{}"'.format),
    "true_false": lines(",", lambda v: str(bool(v))),
    "savetxt": lines(" ", "{:.18e}".format),
    "floats": lines(",", "{}.0".format),
    "plus_minus_1": lines(" ", lambda v: str(2 * v - 1)),
    "gz": gzip.compress(lines("").encode()),
    "npy": saved(BITS),
    "bool npy": saved(BITS.astype(bool)),
    "plus_minus_1 npy": saved((2 * BITS - 1).astype(np.int8)),
    "npz": saved_z(x=BITS, about=np.array([1.0])),
    "excel_sep": "sep=;\r\n" + lines(";"),
    "pbm": "P1\n8 50\n" + lines(" "),
    "pbm packed": b"P4\n8 50\n" + np.packbits(BITS, axis=1).tobytes(),
    "comment": "# mine\n" + lines(""),
    "json": json.dumps(BITS.tolist()),
    "json lines": "\n".join(map(json.dumps, BITS.tolist())),
    "zip": zipped(**{"data/bits.csv": lines(",")}),
    "bz2": bz2.compress(lines(",").encode()),
    "xz": lzma.compress(lines(",").encode()),
    "bom": b"\xef\xbb\xbf" + lines("").encode(),
    "utf-16": lines(",").encode("utf-16"),
    "mac ends": lines(",").replace("\n", "\r"),
    "bars": lines("|"),
    "weighted": "".join("3|" + ",".join(map(str, row)) + "\n" for row in BITS),
}
WITH_NAMES = {
    "csv_header": HEADER + lines(","),
    "tsv_header": HEADER.replace(",", "\t") + lines("\t"),
    "quoted_header": HEADER + lines(",", '"{}"'.format),
    "arff": "% a comment\n@relation x\n"
    + "".join(f"@attribute q{i} {{0,1}}\n" for i in range(8))
    + "@data\n"
    + lines(","),
    "json records": json.dumps([{f"q{i}": int(v) for i, v in enumerate(row)} for row in BITS]),
    "json columns": json.dumps({f"q{i}": BITS[:, i].tolist() for i in range(8)}),
    "structured npy": saved(
        np.array([tuple(r) for r in BITS], dtype=[(f"q{i}", int) for i in range(8)])
    ),
}


def as_file(tmp_path, data, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("form", WITHOUT_NAMES)
def test_bits_without_names_are_strings(form, tmp_path):
    found = read(as_file(tmp_path, WITHOUT_NAMES[form]))
    assert isinstance(found, Strings)
    assert (found.bits == BITS).all()
    assert found.understood
    if form == "weighted":
        assert (found.weights == 3).all()


@pytest.mark.parametrize("form", WITH_NAMES)
def test_names_make_a_table(form, tmp_path):
    table = read(as_file(tmp_path, WITH_NAMES[form]))
    assert isinstance(table, Table)
    assert list(table.columns) == [f"q{i}" for i in range(8)]
    assert len(table) == 50
    found = [[int(values.text(row)) for values in table.columns.values()] for row in range(50)]
    assert (np.array(found) == BITS).all()


def test_values_of_an_array_stand_in_the_order_of_their_rows(tmp_path):
    """By it a column that counts the rows is told from one that holds the same numbers."""
    table = read(
        as_file(tmp_path, saved(np.array([[3.0, 9], [1, 8], [np.nan, 7], [3, 9]])), "t.npy")
    )
    first, second = table.columns.values()
    assert (first.texts, first.codes.tolist()) == (["3.0", "1.0"], [0, 1, -1, 0])
    assert (second.texts, second.codes.tolist()) == (["9.0", "8.0", "7.0"], [0, 1, 2, 0])


def test_unknown_bits(tmp_path):
    found = read(as_file(tmp_path, lines("").replace("0", "?", 3)))
    assert (found.bits == -1).sum() == 3


def test_an_index_column_is_a_column_without_a_name(tmp_path):
    rows = "".join(f"{i}," + ",".join(map(str, row)) + "\n" for i, row in enumerate(BITS))
    assert list(read(as_file(tmp_path, "," + HEADER + rows)).columns)[:2] == ["", "q0"]
    # R writes no name at all for it
    assert list(read(as_file(tmp_path, HEADER + rows)).columns)[:2] == ["", "q0"]


def test_decimal_commas_quotes_and_gaps_stay_as_they_are_spelled(tmp_path):
    text = 'town;height;seen\n"Aix; south";1,75;yes\nBonn;NA;no\nBonn;1,8;\n'
    table = read(as_file(tmp_path, text))
    assert table.form["separator"] == ";"
    assert [table.columns["town"].text(i) for i in range(3)] == ["Aix; south", "Bonn", "Bonn"]
    assert [table.columns["height"].text(i) for i in range(3)] == ["1,75", None, "1,8"]
    assert table.columns["height"].missing_text == "NA"
    assert table.columns["seen"].text(2) is None


def test_windows_1252(tmp_path):
    table = read(as_file(tmp_path, "town,n\nK\xf6ln,1\nBonn,2\n".encode("cp1252")))
    assert table.columns["town"].texts == ["K\xf6ln", "Bonn"]


def test_a_line_end_within_quotes(tmp_path):
    table = read(as_file(tmp_path, 'a,b\n"one\ntwo",3\nfour,5\n'))
    assert table.columns["a"].texts == ["one\ntwo", "four"]


@pytest.mark.parametrize(
    ("first", "has_names"),
    [("sex,vote", True), ("M,yes", False), ("2019,2020", False), ("a,1", False)],
)
def test_whether_the_first_line_has_names(first, has_names, tmp_path):
    table = read(as_file(tmp_path, first + "\n" + "M,yes\nF,no\nF,yes\nM,no\n"))
    assert (list(table.columns) == first.split(",")) == has_names
    assert len(table) == 5 - has_names


def test_names_can_be_said_to_be_there(tmp_path):
    path = as_file(tmp_path, "2019,2020\n1,0\n0,1\n")
    assert list(read(path, header=True).columns) == ["2019", "2020"]


ROWS = "".join(f"{i % 7},x{i % 3},{i % 5}.5\n" for i in range(40))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("?,no,null\n" + ROWS, ["?", "no", "null"]),  # words that stand for gaps elsewhere
        ("n,x1,m\n" + ROWS, ["n", "x1", "m"]),  # x1 is a level too
        ("town,2019,2020,2021\n" + "".join(f"Bonn,{i}.5,1.5,{i % 3}\n" for i in range(40)), None),
        ("0,1,2,3,4\n" + "1,0,2,1,0\n0,0,1,2,0\n" * 9, list("01234")),  # pandas numbers columns
        ("preis;ort\n" + "".join(f"1,{i};Bonn\n" for i in range(40)) + "2,5;preis\n", None),
        ("#n\tx\tm\n" + ROWS.replace(",", "\t"), ["n", "x", "m"]),
        ("# n,x,m\n" + ROWS, ["n", "x", "m"]),  # np.savetxt
        ("PK,P1,b\n" + ROWS, ["PK", "P1", "b"]),  # how zip archives and pictures begin
        ("P1\tP2\tP3\n" + ROWS.replace(",", "\t"), ["P1", "P2", "P3"]),
        ("P4,P5,P6\n" + ROWS, ["P4", "P5", "P6"]),
        ("PAR1,PAR2,PAR3\n" + ROWS, ["PAR1", "PAR2", "PAR3"]),
        ("BZh,b,c\n" + ROWS, ["BZh", "b", "c"]),
        ("[id],x,{m}\n" + ROWS, ["[id]", "x", "{m}"]),
        ("full name,seen\n" + "Ann Lee,2024-01-02 12:05\nBo Li,2024-01-02 12:06\n" * 9, None),
        ("time\n" + "".join(f"2024-01-{i:02} 12:05\n" for i in range(10, 29)), None),
        ("a;b;;\n" + "1;x;;\n2;y;;\n", ["a", "b"]),  # Excel
        ("a,b\n" + "1,x,\n1,y,\n", ["a", "b"]),
    ],
)
def test_names_in_the_first_line_are_found(text, names, tmp_path):
    table = read(as_file(tmp_path, text))
    names = names or text.splitlines()[0].replace(";", ",").split(",")
    assert list(table.columns) == names
    assert len(table) == len(text.splitlines()) - 1


@pytest.mark.parametrize("decimal", ["1,5;2,5;3,25", "1,5 2,5 3,25", "1,5\t2,5\t3,25"])
def test_decimal_commas_without_names_separate_nothing(decimal, tmp_path):
    table = read(as_file(tmp_path, f"{decimal}\n" * 5))
    assert [v.texts for v in table.columns.values()] == [["1,5"], ["2,5"], ["3,25"]]


def test_what_may_be_names_is_told(tmp_path):
    assert "--header yes" in read(as_file(tmp_path, "Bonn,1\nAix,2\nBonn,3\n")).understood
    assert "--header yes" not in read(as_file(tmp_path, "7,1\n8,2\n9,3\n")).understood


@pytest.mark.parametrize(
    "data",
    [
        '[{"a": 1, "b": NaN}, {"a": 2, "b": "x\u2028y"}]',
        '{"a": {"0": 1, "1": 2}, "b": {"0": null, "1": "x\u2028y"}}',  # DataFrame.to_json
        '{"columns": ["a", "b"], "index": [0, 1], "data": [[1, null], [2, "x\u2028y"]]}',
        '{"a": 1, "b": null}\n{"a": 2, "b": "x\u2028y"}\n',
    ],
)
def test_forms_of_json(data, tmp_path):
    columns = read(as_file(tmp_path, data)).columns
    assert [[v.text(0), v.text(1)] for v in columns.values()] == [["1", "2"], [None, "x\u2028y"]]


def test_words_for_gaps_are_known_to_every_form(tmp_path):
    for data in ("a,b\n-99,1\n-99.0,2\n5,3\n", '[{"a": -99}, {"a": -99.0}, {"a": 5}]'):
        values = read(as_file(tmp_path, data), missing=["-99"]).columns["a"]
        assert [values.text(row) for row in range(3)] == [None, None, "5"]
        assert values.missing_text == "-99"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", ["the file is empty"]),
        ("a,b\n\n1,2\n\n1,2,3\n", [":5:", "3 values"]),
        ('a,b\n"1\n",2\n1,2,3\n', [":4:", "3 values"]),
        ("a;b\n" + "1;2\n" * 20 + "1;2;3\n" + "1;2\n" * 20, [":22:", "3 values"]),
        ("Sales of May\n\na,b\n" + ROWS, [":1:", "1 name,", "above the names"]),
        ("a,b\n" + "1,2,3\n" * 9, [":1:", "2 names,", "name every column"]),
        ("a,,\n1,2,3\n4,5,6\n", ["columns 2 and 3", "have no name"]),
        ('a,b\n1,2\n3,"oops\n' + "1,2\n" * 9, [":3:", "a quote not closed"]),
        ("a,b\n1,2\n" + "x" * 200_000 + ",2\n", [":3:", "131,072 characters"]),
        (b"P1 8 50\n0102", ["PBM"]),
        ("# nothing\n", ["nothing but comments"]),
        ("a,b\n", ["no records"]),
        ("a,b\n1,2\n1,2,3\n", [":3:", "3 values, but 2 columns"]),
        ("a,b,a\n1,2,3\n4,5,6\n", ["columns 1 and 3", "'a'", "a name of its own"]),
        (b"\x00\x01\x02binary\x00", ["not a text file"]),
        (b"\x1f\x8bnot gzip", ["cannot be unpacked"]),
        (zipped(a="0", b="1"), ["holds 2 files", "unpack it"]),
        (saved_z(x=BITS, y=BITS), ["x, y"]),
        (saved(np.arange(3)), ["shape 3", "rows x columns"]),
        ("0110\n01\n", [":2:", "2 characters"]),
        ('[{"a": [1]}]', ["expected numbers and text"]),
        ('{"a": [1, 2], "b": [1]}', ["different lengths"]),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(data, words, tmp_path):
    with pytest.raises(UserError) as error:
        read(as_file(tmp_path, data))
    assert "\n" not in str(error.value)
    for word in ["table.csv", *words]:
        assert word in str(error.value)


def test_a_table_that_is_too_large_is_told_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("bernoulli_diffusion.tables.text.MAX_VALUES", 100)
    with pytest.raises(UserError, match=r"shuf -n 6"):
        read(as_file(tmp_path, HEADER + lines(",")))


# --- What unpacks to more than fits into memory


BOMB = b"a,b\n" + b"0,1\n" * 500_000  # 2 MB, which a few kB hold


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 1 << 20)
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("pack", "command"),
    [
        (gzip.compress, "zcat"),
        (lambda data: gzip.compress(data[: 1 << 19]) * 4, "zcat"),  # in several members
        (bz2.compress, "bzcat"),
        (lzma.compress, "xzcat"),
        (lambda data: zipped(**{"bits.csv": data.decode()}), "unzip -p"),
        (lambda data: saved(np.zeros(len(data), np.int8), np.savez_compressed), "unzip -p"),
        (bytes, "cat"),
    ],
)
def test_what_unpacks_to_too_much_is_told_before_it_is_unpacked(
    pack, command, little_memory, tmp_path
):
    path = as_file(tmp_path, pack(BOMB), "table.gz")
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with pytest.raises(UserError, match="may not fit into memory") as told:
        read(path)
    of_lzma = 10 << 20 if command == "xzcat" else 0  # its dictionary
    assert tracemalloc.get_traced_memory()[1] - before < 4 * reading.MOST_BYTES + of_lzma
    assert f"{command} {path} | shuf" in str(told.value)
    assert "\n" not in str(told.value)
    (tmp_path / "train.gz").write_bytes(path.read_bytes())
    if command != "cat":  # a run folder's own file may be of any size
        with pytest.raises(UserError, match="may not fit into memory"):
            read_run_folder(tmp_path)


@pytest.mark.parametrize(("value", "rows"), [(0.0, 2_000_000), ("x" * 1000, 20_000)])
def test_parquet_that_unpacks_to_too_much_is_told(value, rows, monkeypatch, tmp_path):
    """Equal values take a few bytes in the file, and by what it says of itself; in memory they do not."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(reading, "MOST_BYTES", 1 << 20)
    path = tmp_path / "table.parquet"
    pandas.DataFrame({"a": [value] * rows}).to_parquet(path)
    assert path.stat().st_size < 1 << 17
    with pytest.raises(
        UserError, match="1 MiB of data inside, which may not fit into memory"
    ) as told:
        read(path)
    assert "\n" not in str(told.value)
    cure = shlex.split(str(told.value).partition("rows: ")[2])
    monkeypatch.chdir(tmp_path)
    exec(cure[-1])
    assert len((tmp_path / "part.csv").read_text().split()) == min(rows, 100_000) + 1
    monkeypatch.undo()
    assert len(read(path)) == rows
