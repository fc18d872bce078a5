"""python -m bernoulli_diffusion.prepare, as it is typed."""

import csv
import json

import numpy as np
import pytest
from processes import call

from bernoulli_diffusion.prepare import parse_types
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables import judging
from bernoulli_diffusion.tables.encoding import Encoding
from bernoulli_diffusion.tables.preparing import prepare, to_lines

RANDOM = np.random.default_rng(0)
N = 120
PEOPLE = "name,age,smoker,town\n" + "".join(
    f"person {i} of the list,{RANDOM.integers(18, 50)},{RANDOM.choice(['yes', 'no'])},"
    f"{RANDOM.choice(['Bonn', 'Trier', 'NA'])}\n"
    for i in range(N)
)


@pytest.fixture
def people(tmp_path):
    (tmp_path / "people.csv").write_text(PEOPLE)
    return tmp_path / "people.csv"


def test_a_run_folder_is_made(people, tmp_path):
    run_dir = tmp_path / "runs" / "people"
    done = call("prepare", people, run_dir, "--val", "0.1", "--test", "0.2", "--seed", "3")
    assert done.stdout == f"{run_dir}\n"
    assert "name: left out" in done.stderr
    assert f"train.py {run_dir}" in done.stderr
    lines = {p: (run_dir / f"{p}.txt").read_text().split() for p in ("train", "val", "test")}
    assert [len(v) for v in lines.values()] == [84, 12, 24]
    columns = json.loads((run_dir / "encoding.json").read_text())["columns"]
    length = len(columns[1]["texts"]) - 1 + 1 + 2  # age, smoker, town and its gaps
    assert {len(line) for part in lines.values() for line in part} == {length}
    call("prepare", people, tmp_path / "again", "--val", "0.1", "--test", "0.2", "--seed", "3")
    for name in ("train.txt", "val.txt", "test.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (run_dir / name).read_bytes()


def test_running_it_again_changes_nothing(tmp_path):
    heavy = RANDOM.choice([0, 0, 0, 1], 3000) * RANDOM.normal(size=3000).round(3)
    (tmp_path / "t.csv").write_text(
        "x,y\n" + "".join(f"{x},{i % 3}\n" for i, x in enumerate(heavy))
    )
    found = []
    for _ in range(2):
        call("prepare", tmp_path / "t.csv", tmp_path / "run")
        found.append([path.read_bytes() for path in sorted((tmp_path / "run").iterdir())])
    assert found[0] == found[1]


def test_running_it_again_knows_all_names_and_levels(tmp_path):
    """columns.yaml gives back every character, and what was found about a column that is left out."""
    odd = [
        "\U0001f600",
        "no",
        "null",
        "~",
        "x: y",
        "# c",
        "a\nb",
        'say "hi"',
        "\x7f",
        "\x85y",
        "\u2028",
    ]
    names = ["\U0001f600 mood", *odd[2:], "key"]
    rows = [[odd[(i + j) % 11] for j in range(10)] + [f"k{i}"] for i in range(60)]
    with open(tmp_path / "t.csv", "w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    found = []
    for wish in ({names[0]: "ordered"}, {}):
        prepare(tmp_path / "t.csv", tmp_path / "run", types=wish, header=True)
        found.append({path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()})
    assert found[0] == found[1]


def test_other_files_are_read_as_the_table_was(tmp_path):
    """With the same words for gaps, and names in the first line or none."""
    text = "".join(f"{i % 4},{-99 if i % 3 else i % 7}\n" for i in range(40))
    (tmp_path / "t.csv").write_text(text)
    prepare(tmp_path / "t.csv", tmp_path / "run", val=0.0, missing=["-99"])
    whole = json.loads((tmp_path / "run" / "encoding.json").read_text())
    encoding = Encoding.of_state({k: whole[k] for k in ("format_version", "form", "columns")})
    assert encoding.columns[1].gaps == "a value"
    strings = judging.read_records(encoding, tmp_path / "t.csv")
    assert to_lines(strings.bits()) == (tmp_path / "run" / "train.txt").read_bytes()
    (tmp_path / "one.csv").write_text("3,-99\n")  # alone it could be anything
    assert judging.read_records(encoding, tmp_path / "one.csv").bits()[0, -1] == 1


def test_types_that_are_asked_for():
    assert parse_types(['zip=number, "a,b"=category', "c=d=text"]) == {
        "zip": "number",
        "a,b": "category",
        "c=d": "left out",
    }
    with pytest.raises(UserError, match="--as n: constant is found, not asked for"):
        parse_types(["n=constant"])


def test_a_very_long_name(tmp_path):
    (tmp_path / "t.csv").write_text("n" * 2000 + ",t\n" + "1,a\n2,b\n3,a\n")
    for _ in range(2):
        prepare(tmp_path / "t.csv", tmp_path / "run")


def test_an_edited_columns_yaml_is_taken_up(people, tmp_path):
    call("prepare", people, tmp_path / "run")
    path = tmp_path / "run" / "columns.yaml"
    length = len((tmp_path / "run" / "train.txt").read_text().split()[0])
    path.write_text(path.read_text().replace("type: whole number", "type: left out"))
    call("prepare", people, tmp_path / "run")
    assert len((tmp_path / "run" / "train.txt").read_text().split()[0]) < length
    path.write_text(path.read_text().replace("smoker:", "smokre:"))
    done = call("prepare", people, tmp_path / "run", code=2)
    assert "did you mean 'smoker'" in done.stderr


def test_types_and_held_out_files(people, tmp_path):
    (tmp_path / "val.csv").write_text("".join(PEOPLE.splitlines(True)[:11]))
    done = call(
        "prepare",
        people,
        tmp_path / "run",
        "--val",
        tmp_path / "val.csv",
        "--as",
        "age=category",
        "--drop",
        "town",
    )
    assert len((tmp_path / "run" / "val.txt").read_text().split()) == 10
    assert len((tmp_path / "run" / "train.txt").read_text().split()) == N
    assert "age: category" in done.stderr
    assert "town: left out" in done.stderr


def test_bits_without_names_become_strings(tmp_path):
    (tmp_path / "bits.data").write_text("0,1,1\n1,0,?\n" * 20)
    call("prepare", tmp_path / "bits.data", tmp_path / "run", "--val", "0")
    assert (tmp_path / "run" / "train.txt").read_text() == "011\n10?\n" * 20
    assert not (tmp_path / "run" / "columns.yaml").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--as", "agee=number"], ["no column 'agee'", "did you mean 'age'"]),
        (["--as", "age=numbr"], ["'numbr' is no type"]),
        (["--as", "age"], ["NAME=TYPE"]),
        (["--as", "town=number"], ["town", "it holds '"]),
        (["--val", "0.7", "--test", "0.4"], ["none is left"]),
        (["--val", "nowhere.csv"], ["nowhere.csv", "no such file"]),
        (["--val", "1.5"], ["a share from 0 to 1"]),
        (["--drop", "age", "--drop", "smoker", "--drop", "town"], ["no column is left", "--as"]),
    ],
)
def test_wrong_input_is_told_in_one_line_and_leaves_nothing(options, words, people, tmp_path):
    done = call("prepare", people, tmp_path / "run", *options, code=2)
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ")
    for word in words:
        assert word in error
    assert not (tmp_path / "run").exists()


def test_a_train_txt_of_somebody_else_is_left_alone(people, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.txt").write_text("0110\n")
    done = call("prepare", people, tmp_path / "run", code=2)
    assert "was not made from a table" in done.stderr
    assert (tmp_path / "run" / "train.txt").read_text() == "0110\n"


def test_weights_in_a_file_of_bits(tmp_path):
    (tmp_path / "bits.wdata").write_text("3|0,1,1\n1|1,0,0\n")
    call("prepare", tmp_path / "bits.wdata", tmp_path / "run", "--val", "0")
    assert (tmp_path / "run" / "train.txt").read_text() == "011\n100\n"
    assert (tmp_path / "run" / "weights.txt").read_text() == "3\n1\n"
