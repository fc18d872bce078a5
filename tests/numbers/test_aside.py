"""Columns in which nothing varies: kept aside while a model learns the others, and written back."""

import json
import math

import numpy as np
import pytest
import torch
from processes import call, mistake, only_results_dir, without_pictures

from bernoulli_diffusion import numbers
from bernoulli_diffusion.config import Config
from bernoulli_diffusion.numbers.data import Aside, place_in_file, read_real_vectors
from bernoulli_diffusion.system.errors import UserError

ASIDE = Aside(np.array([0, 2]), np.array([7.0, -1.5]))
VARYING = np.array([[1.0, 2.0], [3.0, 5.0], [2.5, 4.0]])
LINES = np.array([[7, 1, -1.5, 2], [7, 3, -1.5, 5], [7, 2.5, -1.5, 4]])


@pytest.fixture
def train(tmp_path):
    np.savetxt(tmp_path / "train.txt", LINES)
    return read_real_vectors(tmp_path / "train.txt")


def test_taken_off_and_put_back():
    assert (ASIDE.taken_off(LINES) == VARYING).all()
    assert (ASIDE.put_back(VARYING) == LINES).all()
    assert (ASIDE.put_back(VARYING[0]) == LINES[0]).all()
    other = LINES.copy()
    other[1, 2], other[0, 0] = 3, math.nan
    assert ASIDE.first_other(LINES) is None
    assert ASIDE.first_other(other) == (1, 1)


def test_messages_count_columns_as_the_file_does(train, tmp_path):
    assert [place_in_file(number, ASIDE) for number in range(3)] == [1, 3, 4]
    assert place_in_file(2, None) == 2
    far = tmp_path / "far.txt"
    np.savetxt(far, [[7, 1, -1.5, 1e20]])
    with pytest.raises(UserError, match=r"far.txt:1:4: 1e\+20 is more than a million"):
        read_real_vectors(far, like=train)
    np.savetxt(far, LINES * [1, 1, 1, 1e-15] + [0, 0, 0, 5], fmt="%.17g")
    with pytest.raises(UserError, match=r"column 4 hardly varies around 5"):
        read_real_vectors(far)


def test_reading_keeps_them_aside(train, tmp_path):
    assert (train.values == VARYING).all()
    assert train.length == 2
    assert all((a == b).all() for a, b in zip(train.aside, ASIDE, strict=True))
    assert train.part(range(2)).aside is train.aside
    np.savetxt(tmp_path / "val.txt", LINES[:2])
    val = read_real_vectors(tmp_path / "val.txt", like=train)
    assert (val.values == VARYING[:2]).all()
    np.savetxt(tmp_path / "val.txt", LINES + np.array([[0], [1], [0]]) * [0, 0, 2, 0])
    with pytest.raises(UserError, match=r"val.txt:2:3: 0.5, but this column is -1.5 in every line"):
        read_real_vectors(tmp_path / "val.txt", like=train)
    with pytest.raises(UserError, match=r"column 1 is 7 in every line \(and 1 more such"):
        read_real_vectors(tmp_path / "train.txt", keep_aside=False)  # the pixels of an image
    assert read_real_vectors(tmp_path / "train.txt", width=1.0).aside is None  # blurred, they vary
    whole = train.sha256()
    np.savetxt(tmp_path / "train.txt", LINES + np.eye(4)[0])
    assert read_real_vectors(tmp_path / "train.txt").sha256() != whole


def test_the_process_writes_them_back_and_takes_them_as_known(train):
    process = numbers.new_process(Config(), train, "cpu")
    x_0 = train.tensor(slice(None))
    assert process.as_written(x_0) == pytest.approx(LINES, rel=1e-5)
    assert process.mean_as_written(x_0) == pytest.approx(LINES, rel=1e-5)
    patterns = torch.tensor([[7, 1, math.nan, math.nan], [math.nan, math.nan, -1.5, 2]]).double()
    inside = torch.tensor([[1, math.nan], [math.nan, 2]]).double()
    assert process.evidence_of(patterns).equal(process.evidence_of(inside))
    known = numbers.are_known(patterns)
    expected = numbers.all_but_impossible(process, numbers.are_known(inside))
    assert numbers.all_but_impossible(process, known).equal(expected)
    patterns[1, 2] = 3
    with pytest.raises(UserError, match=r"pattern 2, number 3: 3, but it is -1.5 in all training"):
        process.evidence_of(patterns)
    far = torch.tensor([math.nan, math.nan, math.nan, 1e30]).double()
    with pytest.raises(UserError, match=r"number 4: 1e\+30 is more than a million deviations"):
        process.evidence_of(far)  # the number's place in the file
    assert process.evidence_of(patterns, noise=0.1).shape == (2, 2, 2)  # seen through noise
    assert numbers.values_in_file(process.state(), 2) == 4


def test_a_checkpoint_has_them(train):
    state = numbers.new_process(Config(), train, "cpu").state()
    process = numbers.saved_process(Config(), state, 2, "cpu")
    assert all((a == b).all() for a, b in zip(process.aside, ASIDE, strict=True))
    for wrong in (
        {"aside_columns": torch.tensor([2, 0])},
        {"aside_columns": torch.tensor([0, 4])},
        {"aside_columns": torch.tensor([-1, 2])},
        {"aside_columns": torch.tensor([0.0, 2.0])},
        {"aside_columns": torch.tensor([0])},
        {"aside_values": torch.tensor([1.0, 2.0])},
        {"aside_values": torch.tensor(1.0).double()},
    ):
        with pytest.raises(ValueError, match="aside"):
            numbers.saved_process(Config(), state | wrong, 2, "cpu")
    del state["aside_values"]
    with pytest.raises(ValueError, match="not a mean"):
        numbers.saved_process(Config(), state, 2, "cpu")


def test_from_a_file_to_samples_and_answers(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    varying = np.random.default_rng(0).normal(size=(60, 2))
    np.savetxt(run_dir / "train.txt", ASIDE.put_back(varying), fmt="%.6g")
    np.savetxt(run_dir / "val.txt", ASIDE.put_back(varying[:20] + 0.1), fmt="%.6g")
    (run_dir / "config.yaml").write_text(
        "model: {process: gaussian, T: 10, reverse_model: {width: 8, num_blocks: 1}}\n"
        "training: {epochs: 2, num_val_samples: 20, num_bound_draws: 64}\n"
    )
    done = call("train.py", run_dir, prepare=without_pictures)
    assert "60 samples of 2 numbers, 2 columns aside that never vary" in done.stderr
    assert json.loads((only_results_dir(run_dir) / "results.json").read_text())["length"] == 2
    drawn = call("generate.py", run_dir, 5)
    samples = np.array([line.split() for line in drawn.stdout.splitlines()], float)
    assert (samples[:, ASIDE.columns] == ASIDE.values).all()
    assert len({*map(tuple, samples)}) == 5
    (tmp_path / "short.txt").write_text("1\n2\n")
    told = mistake("evaluate", run_dir, tmp_path / "short.txt")
    assert "samples of 1 numbers, but the model's have 4" in told
    for way in (["--particles", 32], ["--replace", 2]):
        answered = call("generate.py", run_dir, 3, "--given", "? 0.5 ? ?", *way)
        answers = np.array([line.split() for line in answered.stdout.splitlines()], float)
        assert (answers[:, ASIDE.columns] == ASIDE.values).all()
        assert (answers[:, 1] == 0.5).all()
