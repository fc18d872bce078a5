"""Forms in which people have a file of bits or numbers, put where train.txt is expected."""

import gzip
import io
import json
import lzma
import zipfile

import numpy as np
import pytest

from bernoulli_diffusion.bits.data import read_bit_strings
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables import plain
from bernoulli_diffusion.training.run_folder import read_run_folder

BITS = (np.random.default_rng(0).random((50, 8)) < 0.4).astype(int)


def joined(separator: str, spelled=str, bits=BITS) -> str:
    return "".join(separator.join(map(spelled, row)) + "\n" for row in bits)


def numpy_file(array, save=np.save) -> bytes:
    stream = io.BytesIO()
    save(stream, array)
    return stream.getvalue()


def zipped(text: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("mine.csv", text)
    return stream.getvalue()


NAMES = ",".join(f"q{i}" for i in range(8)) + "\n"
WITH_INDEX = "".join(f"{i},{joined(',', bits=[row])}" for i, row in enumerate(BITS))
PLAIN = joined("")
FORMS = {
    "commas": joined(","),
    "trailing spaces": joined(" ").replace("\n", " \n"),
    "tabs": joined("\t"),
    "semicolons": joined(";"),
    "bars": joined("|"),
    "names": NAMES + joined(","),
    "names and numbers of rows": "," + NAMES + WITH_INDEX,
    "row names of R": NAMES
    + "".join(f"{i},{joined(',', bits=[r])}" for i, r in enumerate(BITS, 1)),
    "quotes": joined(",", lambda v: f'"{v}"'),
    "True and False": joined(",", lambda v: str(bool(v))),
    "TRUE and FALSE of R": joined(" ", lambda v: str(bool(v)).upper()),
    "np.savetxt": joined(" ", lambda v: f"{v:.18e}"),
    "np.savetxt, %d": joined(" ", "{:d}".format),
    "1.0": joined(",", lambda v: f"{v}.0"),
    "1.": joined(" ", lambda v: f"{v}."),
    "-1 and 1": joined(" ", lambda v: str(2 * v - 1)),
    "spins with signs": joined(" ", lambda v: f"{2 * v - 1:+d}"),
    "Excel": "sep=;\r\n" + joined(";"),
    "comment": "# mine\n" + PLAIN,
    "JSON": json.dumps(BITS.tolist()),
    "JSON of booleans": json.dumps(BITS.astype(bool).tolist()),
    "JSON lines": "".join(json.dumps(row) + "\n" for row in BITS.tolist()),
    "ARFF": "@relation r\n"
    + "".join(f"@attribute a{i} {{0,1}}\n" for i in range(8))
    + "@data\n"
    + joined(","),
    "PBM": "P1\n8 50\n" + joined(" "),
    "PBM, packed": b"P4\n8 50\n" + np.packbits(BITS, axis=1).tobytes(),
    "gz": gzip.compress(PLAIN.encode()),
    "xz": lzma.compress(joined(",").encode()),
    "zip": zipped(joined(",")),
    "UTF-16": PLAIN.encode("utf-16"),
    "npy": numpy_file(BITS),
    "npy of bool": numpy_file(BITS.astype(bool)),
    "npy of float": numpy_file(BITS.astype(float)),
    "npy of images": numpy_file(BITS.reshape(50, 2, 4)),
    "npz": numpy_file(BITS, lambda stream, array: np.savez_compressed(stream, data=array)),
}


def write(path, content) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("form", FORMS)
def test_bits(tmp_path, form):
    write(tmp_path / "train.txt", FORMS[form])
    write(tmp_path / "val.txt", PLAIN)
    folder = read_run_folder(tmp_path)
    assert (folder.train.bits() == BITS).all()
    [note] = [n for n in folder.notes if "train.txt" in n and "50 strings" in n]
    assert note.startswith(f"{tmp_path / 'train.txt'}: ")


def test_weights_are_kept(tmp_path):
    lines = joined(",").splitlines()
    text = "".join(f"{i % 3 + 0.5}|{line}\n" for i, line in enumerate(lines))
    write(tmp_path / "train.txt", text)
    found = read_run_folder(tmp_path, ["data.hold_out=0"]).train
    assert (found.bits() == BITS).all()
    assert (found.weights == np.arange(50) % 3 + 0.5).all()


def test_gaps_stay_gaps(tmp_path):
    write(tmp_path / "train.txt", "0,,1\n1,?,0\n1,1,NA\n")
    strings = read_run_folder(tmp_path).train
    assert strings.tensor(slice(None)).tolist() == [[0, 0.5, 1], [1, 0.5, 0], [1, 1, 0.5]]


@pytest.mark.parametrize("name", ["csv", "npy", "txt.gz", "data"])
def test_other_endings(tmp_path, name):
    """train.csv and val.csv where train.txt and val.txt are expected."""
    content = {"csv": joined(","), "npy": numpy_file(BITS), "txt.gz": gzip.compress(PLAIN.encode())}
    for part in ("train", "val"):
        write(tmp_path / f"{part}.{name}", content.get(name, PLAIN))
    folder = read_run_folder(tmp_path)
    assert (folder.val.bits() == BITS).all()
    assert not folder.is_split


def test_numbers(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 3))
    for number, content in enumerate(
        (
            numpy_file(values),
            "a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in values.tolist()),
            gzip.compress(
                "".join("\t".join(map(repr, r)) + "\n" for r in values.tolist()).encode()
            ),
        )
    ):
        run_dir = tmp_path / str(number)
        run_dir.mkdir()
        write(run_dir / "train.txt", content)
        folder = read_run_folder(run_dir, ["model.process=gaussian"])
        assert (folder.train.values == values).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,age\nAda,36\nAlan,41\n", "if this is a table, make a run folder of it: python -m"),
        ("01 01\n00 01\n", "if this is a table"),  # not bits: perhaps codes
        ("0110\n0120\n0110\n", r"train.txt:2:3: expected 0 or 1, found '2'$"),
        ("0110\n011\n", r"train.txt:2: 3 characters, but the lines above have 4"),
        ("0.5\n0.25\n", r"train.txt:1:2: expected 0 or 1, found '.'; to train on numbers"),
        ("\x7fELF", r"train.txt:1:1: expected 0 or 1"),
    ],
)
def test_what_holds_more_than_bits(tmp_path, text, message):
    write(tmp_path / "train.txt", text)
    with pytest.raises(UserError, match=message) as caught:
        read_run_folder(tmp_path)
    assert str(caught.value).count("\n") == 0


def test_a_val_of_another_length(tmp_path):
    write(tmp_path / "train.txt", joined(","))
    write(tmp_path / "val.txt", "0,1\n")
    with pytest.raises(UserError, match=r"val\.txt:1: 2 characters, but the strings of train"):
        read_run_folder(tmp_path)


def test_a_column_that_numbers_the_rows_is_told(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(",a,b\n0,1,0\n1,1,1\n")
    samples, understood = plain.read(path, read_bit_strings, "")
    assert samples.bits().tolist() == [[1, 0], [1, 1]]
    assert understood.endswith("; the first column numbers the rows and is left out")
