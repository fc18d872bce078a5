"""compare --on FILE: several models on one file, from the same draws."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from oracles import BitsOracle, NumbersOracle

from bernoulli_diffusion import compare, evaluate, on_file
from bernoulli_diffusion.on_file import Model

RUNS = Path(__file__).parent / "version_1_0"
Z_LIMIT = 4.0  # two-sided 6e-5; seeds are fixed


@pytest.fixture
def call(call_here):
    return lambda *arguments, command=compare: call_here(command, *arguments)


@pytest.mark.parametrize("kind", [BitsOracle, NumbersOracle])
def test_differences_are_those_that_are_known_and_better_known_than_the_bounds(kind):
    """Of each line the bounds of both models are known exactly (oracles.py)."""
    one, other = kind(), kind(mirrored=True)
    samples, number = one.file(400, False, np.random.default_rng(0))
    models = [Model(Path(name), m.diffusion, samples) for name, m in (("a", one), ("b", other))]
    found = on_file.compare(models, 0.01, seed=1)
    true = [oracle.bounds(number) for oracle in (one, other)]
    for bound, bits in zip(found.bounds, true, strict=True):
        assert abs(bound.bits - bits.mean()) < Z_LIMIT * bound.monte_carlo_error
        assert bound.monte_carlo_error < 0.02 * bound.bits
    by, difference = found.difference(1, 0), true[1] - true[0]
    assert abs(by.bits - difference.mean()) < Z_LIMIT * by.monte_carlo_error
    # the error for the law is at least that of lines whose bounds are known
    assert by.standard_error > 0.7 * difference.std() / len(difference) ** 0.5
    assert found.difference(0, 1).bits == -by.bits


@pytest.mark.parametrize("kind", [BitsOracle, NumbersOracle])
def test_two_models_that_are_nearly_equal_share_their_noise(kind):
    change = {"noise": 0.42} if kind is BitsOracle else {"bend": 0.26}
    one, other = kind(), kind(**change)
    samples, _ = one.file(300, False, np.random.default_rng(0))
    models = [Model(Path(name), m.diffusion, samples) for name, m in (("a", one), ("b", other))]
    found = on_file.compare(models, 0.01, seed=1)
    by = found.difference(1, 0)
    assert by.monte_carlo_error < found.bounds[0].monte_carlo_error / 4
    assert by.standard_error < found.bounds[0].standard_error / 4


@pytest.fixture(params=["bits", "numbers"])
def run_dir(request, tmp_path) -> Path:
    """A finished run, and a stopped one that has no best checkpoint."""
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def test_what_is_printed_and_written(run_dir, tmp_path, call):
    """The bounds are those of evaluate; a copy of a model is no different from it."""
    best = run_dir / "results" / "finished" / "checkpoints" / "model_best.pt"
    copy = shutil.copy(best, tmp_path / "copy.pt")
    file, numbers = run_dir / "val.txt", tmp_path / "numbers.json"
    how = ("--precision", 0.05, "--seed", 3)
    code, printed, told = call(run_dir, copy, "--on", file, "--json", numbers, *how)
    assert code == 0, told
    assert "stopped: no trained model in this folder" in told
    assert printed.startswith(f"{file}: 12 lines; ")
    assert f"  1  {best}\n  2  {copy}\n" in printed
    report = json.loads(numbers.read_text())
    _, alone, _ = call(best, file, *how, command=evaluate)
    alone = json.loads(alone)["bound"]
    for model in report["models"]:
        for name, value in model["bound"].items():
            assert value == pytest.approx(alone[name], rel=1e-6)
    [difference] = report["differences"]
    assert (difference["bits"], difference["bits_law_standard_error"]) == (0.0, 0.0)
    assert not difference["is_beyond_chance"]
    assert "0.000 ± 0.000" in printed
    assert max(map(len, printed.splitlines()[1:5])) < 80


def test_three_models_have_a_table_of_all_differences(tmp_path, call):
    best = RUNS / "bits" / "results" / "finished" / "checkpoints" / "model_best.pt"
    copies = [shutil.copy(best, tmp_path / f"{k}.pt") for k in range(3)]
    _, printed, _ = call(*copies, "--on", RUNS / "bits" / "val.txt", "--precision", 0.1)
    table = printed.partition("less that of a column\n\n")[2].splitlines()[:3]
    assert [line.count("±") for line in table] == [0, 1, 2]


def test_mistakes_are_told_in_one_line(tmp_path, call):
    bits, numbers = (RUNS / kind / "results" / "finished" for kind in ("bits", "numbers"))
    short = tmp_path / "short.txt"
    short.write_text("0101\n")
    strange = tmp_path / "strange.txt"
    strange.write_text("hello\n")
    (tmp_path / "results" / "nothing yet").mkdir(parents=True)
    val = RUNS / "bits" / "val.txt"
    for arguments, hint in (
        ((bits, numbers, "--on", val), "a model of real numbers, "),
        ((bits, "--on", short), "strings of 4 bits, but the model's have 8"),
        ((bits, "--on", strange), "strange.txt:1:1: expected 0 or 1"),
        ((bits, "--on", tmp_path / "none.txt"), "none.txt"),
        ((tmp_path, "--on", val), "no trained model there"),
        ((val, "--on", val), "not a checkpoint"),
        ((bits, "--precision", 0.1), "--precision goes with --on FILE"),
        ((bits, "--on", val, "--sort", "time"), "--sort does not go with --on FILE"),
        (("--on", val), "expected a run folder"),
    ):
        code, printed, told = call(*arguments)
        assert (code, printed) == (2, ""), arguments
        assert hint in told.splitlines()[-1]
        assert sum(line.startswith("error") for line in told.splitlines()) == 1
