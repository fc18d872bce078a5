"""From a file to a synthetic file, questions by name and gaps filled in, as they are typed."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from processes import call, mistake, train, without_trees

from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables import answering, generating
from bernoulli_diffusion.tables.encoding import Encoding
from bernoulli_diffusion.training import checkpoint as checkpoints

N = 1200
RANDOM = np.random.default_rng(0)
AGE = RANDOM.integers(18, 48, N)
SMOKER = np.where(RANDOM.random(N) < np.where(AGE < 30, 0.7, 0.2), "yes", "no")
TOWN = np.where(
    SMOKER == "yes", RANDOM.choice(["Aix", "Bonn"], N), RANDOM.choice(["Ulm", "Aix"], N)
)
PAY = [
    None if s == "yes" and a < 25 else f"{x:.2f}"
    for s, a, x in zip(SMOKER, AGE, RANDOM.gamma(2, 900, N), strict=True)
]
HEADER = ["id", "age", "agesq", "smoker", "town", "pay", "land"]
ROWS = [
    [f"p{i:04d}x", str(a), str(a * a), s, t, "NA" if p is None else p, "here"]
    for i, a, s, t, p in zip(RANDOM.permutation(N), AGE, SMOKER, TOWN, PAY, strict=True)
]


def records(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text), delimiter=";"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint trained for a few seconds on a table that was written with semicolons."""
    folder = tmp_path_factory.mktemp("people")
    with open(folder / "people.csv", "w", newline="") as file:
        csv.writer(file, delimiter=";", lineterminator="\n").writerows([HEADER, *ROWS])
    call("prepare", folder / "people.csv", folder / "run")
    (folder / "run" / "config.yaml").write_text(
        "model: {T: 100, reverse_model: {width: 64, num_blocks: 1}}\n"
        "training: {epochs: 25, lr: 0.005, validate_every_n_epochs: 25, num_bound_draws: 64,"
        " num_val_samples: 50}\n"
    )
    return train(folder / "run", prepare=without_trees) / "checkpoints" / "model_best.pt"


@pytest.fixture(scope="module")
def synthetic(model):
    return records(call("generate.py", model, 600).stdout)


def test_the_same_table_comes_out(synthetic):
    assert len(synthetic) == 600
    assert list(synthetic[0]) == HEADER[1:]  # the id is left out
    columns = {name: {row[name] for row in synthetic} for name in HEADER[1:]}
    real = {name: {row[i] for row in ROWS} for i, name in enumerate(HEADER)}
    for name in HEADER[1:]:  # values on the data's own grid, levels neither lost nor invented
        assert columns[name] <= real[name]
    for name in ("smoker", "town", "land"):
        assert columns[name] == real[name]
    assert all(int(row["agesq"]) == int(row["age"]) ** 2 for row in synthetic)
    share = np.mean([row["pay"] == "NA" for row in synthetic])
    assert abs(share - np.mean([p is None for p in PAY])) < 0.06


def test_what_goes_together_stays_together(synthetic):
    young = [row["smoker"] == "yes" for row in synthetic if int(row["age"]) < 30]
    old = [row["smoker"] == "yes" for row in synthetic if int(row["age"]) >= 30]
    assert abs(np.mean(young) - 0.7) < 0.12
    assert abs(np.mean(old) - 0.2) < 0.12


@pytest.fixture(scope="module")
def loaded(model):
    """The same model in this process: Encoding and Diffusion."""
    checkpoint = checkpoints.load(model)
    return Encoding.of_state(checkpoint["columns"]), checkpoints.restore(checkpoint, model)


def listed(columns) -> list[dict]:
    number = len(next(iter(columns.values())).codes)
    return [{name: values.text(i) for name, values in columns.items()} for i in range(number)]


def test_a_record_is_a_function_of_its_seed_and_number(loaded, synthetic):
    pieces = answering.samples(*loaded, 7, 0, generating.STEPS, 3, "cpu")
    few = [row for piece in pieces for row in listed(piece)]
    assert [{k: v or "NA" for k, v in row.items()} for row in few] == synthetic[:7]
    [other] = answering.samples(*loaded, 7, 1, 64, 1024, "cpu")
    assert listed(other) != few


def test_other_forms_by_the_name_of_the_file(loaded):
    encoding, _ = loaded
    columns = encoding.texts(np.zeros((2, 4), int), np.zeros((2, 4)))
    [text] = answering.written(iter([columns]), encoding, Path("few.tsv"))
    assert text.decode().startswith("age\tagesq\tsmoker")
    with pytest.raises(UserError, match=r"smoker: not a column of numbers; write a \.csv"):
        list(answering.written(iter([columns]), encoding, Path("few.npy")))


@pytest.mark.parametrize("name", ["few.xlsx", "few.csv.gz", "few.json"])
def test_a_name_that_promises_another_form_is_a_mistake(name, model, tmp_path):
    line = mistake("generate.py", model, 3, "--output", tmp_path / name)
    assert name in line
    assert ".csv" in line
    assert list(tmp_path.iterdir()) == []


def test_questions_by_name(model):
    options = ("--particles", 64, "--steps", 50, "--given", "age>=20, age<30, pay!=")
    found = records(call("generate.py", model, 200, *options).stdout)
    assert len(found) == 200
    assert all(20 <= int(row["age"]) < 30 and row["pay"] != "NA" for row in found)
    meant = (AGE >= 20) & (AGE < 30) & np.array([p is not None for p in PAY])
    share = np.mean([row["smoker"] == "yes" for row in found])
    assert abs(share - np.mean(SMOKER[meant] == "yes")) < 0.13


def test_alternatives_and_parts_of_bins(loaded):
    found = listed(answering.conditional(*loaded, "town=Ulm|Bonn, pay>=2500", 40, 0, 32, 40, 4096))
    assert {row["town"] for row in found} == {"Ulm", "Bonn"}
    assert all(float(row["pay"]) >= 2500 for row in found)


def test_gaps_are_filled(loaded, tmp_path):
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("id,smoker,age,town,agesq\na,yes,,Bonn,\nb,,20,,400\nc,no,40,Ulm,1600\n")
    columns, _ = answering.filled(*loaded, gaps, 2, 0, 32, 40, 4096, False)
    rows = listed(columns)
    assert [row["id"] for row in rows] == list("aabbcc")
    assert all(row["age"] and row["smoker"] and row["town"] for row in rows)
    assert all(int(row["agesq"]) == int(row["age"]) ** 2 for row in rows)
    assert rows[0]["smoker"] == "yes"
    assert list(rows[5].values()) == ["c", "no", "40", "Ulm", "1600"]
    columns, _ = answering.filled(*loaded, gaps, 1, 0, 32, 40, 4096, True)
    rows = listed(columns)
    assert [row["id"] for row in rows] == list("abc")
    assert 0.5 <= float(rows[1]["P(smoker)"]) <= 1
    assert rows[2]["P(smoker)"] is None
    gaps.write_text("id,smoker,age\na,yes,\nb,Yes,\n")
    with pytest.raises(UserError, match=r"gaps.csv: record 2: smoker was never 'Yes' in training"):
        answering.filled(*loaded, gaps, 2, 0, 32, 40, 4096, False)


def test_a_wrong_question_is_told_in_one_line(model):
    told = mistake("generate.py", model, 5, "--given", "smoker=Yes")
    assert "never 'Yes' in training; did you mean 'yes'" in told


def test_an_edited_description_must_be_prepared_again(model):
    run = model.parents[3]
    yaml = run / "columns.yaml"
    before = yaml.read_text()
    yaml.write_text(before + "# looked at\n")
    told = mistake("train.py", run, "--quiet")
    yaml.write_text(before)
    assert "was edited" in told
    assert "bernoulli_diffusion.prepare" in told
