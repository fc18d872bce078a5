"""evaluate.py: its numbers against the exact bound and law, its output, its mistakes."""

import csv
import json
import math

import exact
import imageio.v3 as iio
import numpy as np
import processes
import pytest
import torch
from test_command_line import CONFIG, STRINGS, assert_mistake, make_run, train

from bernoulli_diffusion import evaluate
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.pictures import surprise_map
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import Effort, bound_of_each, exact_law, plan_bound
from bernoulli_diffusion.results import plots

Z_LIMIT = 4.5


def build(L: int, T: int, seed: int = 0) -> Diffusion:
    return Diffusion(BernoulliDiffusionProcess(T), exact.random_model(L, T, seed))


def all_strings(L: int) -> BitStrings:
    return BitStrings.from_bits(exact.states(L).numpy())


def bounds(diffusion, strings, effort, seed=0):
    parts = bound_of_each(diffusion, strings, effort, seed)
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


@pytest.mark.parametrize(("L", "T"), [(3, 4), (5, 30)])
def test_bound_of_each_string(L, T):
    diffusion = build(L, T)
    truth = exact.bound(diffusion.reverse_model)
    effort = plan_bound(diffusion, all_strings(L), 0.003, seed=1)
    bits, error = bounds(diffusion, all_strings(L), effort)
    assert ((bits - truth).abs() < Z_LIMIT * error).all()
    mean_error = error.square().sum().sqrt() / len(error)
    assert mean_error < 0.004 * truth.mean()  # as asked, but for the error of the pilot


@pytest.mark.parametrize("lines", [[0], [0, 7]])
def test_a_loose_precision_is_kept_too(lines):
    """Of few lines: few strata of a line have more than their share of the pilot's variance."""
    diffusion = build(3, 100)
    strings = all_strings(3).part(lines)
    effort = plan_bound(diffusion, strings, 0.05, seed=0)
    bits, _ = zip(*(bounds(diffusion, strings, effort, seed) for seed in range(40)), strict=True)
    truth = exact.bound(diffusion.reverse_model)[lines].mean()
    means = torch.stack(bits).mean(dim=1)
    assert (means - truth).square().mean().sqrt() < 0.06 * truth


def test_any_share_of_the_controls_leaves_the_mean_as_it_is():
    diffusion = build(3, 10)
    truth = exact.bound(diffusion.reverse_model)
    for share in (-2.0, 0.0, 3.0):
        effort = Effort(8_000, torch.full((2, 8), share).double(), torch.zeros(64))
        bits, error = bounds(diffusion, all_strings(3), effort)
        assert ((bits - truth).abs() < Z_LIMIT * error).all()


def test_standard_errors_are_calibrated():
    diffusion = build(3, 10)
    truth = exact.bound(diffusion.reverse_model)
    effort = plan_bound(diffusion, all_strings(3), 0.05, seed=0)
    z = []
    for seed in range(40):
        bits, error = bounds(diffusion, all_strings(3), effort, seed)
        z.append((bits.mean() - truth.mean()) / (error.square().sum().sqrt() / len(error)))
    z = torch.stack(z)
    assert abs(z.mean()) < Z_LIMIT / 40**0.5
    assert 0.7 < z.std() < 1.3


def test_controls_lower_the_variance():
    """For a network that knows nothing, the number of wrong bits is all there is to know."""
    L, T = 8, 100
    model = exact.TableModel(torch.zeros(T + 1, 2**L, L))
    diffusion = Diffusion(BernoulliDiffusionProcess(T), model)
    effort = plan_bound(diffusion, all_strings(L), 0.01, seed=0)
    plain = bounds(
        diffusion, all_strings(L), Effort(64, torch.zeros(2, 8).double(), torch.zeros(64))
    )
    controlled = bounds(diffusion, all_strings(L), Effort(64, effort.shares, effort.profile))
    assert controlled[1].square().mean() < 0.1 * plain[1].square().mean()
    assert controlled[0].mean().item() == pytest.approx(L, abs=0.05)


def test_a_bound_does_not_depend_on_the_batch(monkeypatch):
    diffusion = build(3, 10)
    effort = Effort(40, torch.zeros(2, 8).double(), torch.zeros(64))
    whole = bounds(diffusion, all_strings(3), effort)
    for elements in (3 * 15, 3 * 100):  # a part of a string, and two strings, at a time
        monkeypatch.setattr("bernoulli_diffusion.likelihood.ELEMENTS_PER_BATCH", elements)
        part = bounds(diffusion, all_strings(3), effort)
        for a, b in zip(part, whole, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("L", "T"), [(1, 3), (3, 4), (6, 30)])
def test_exact_law(L, T):
    diffusion = build(L, T)
    law = exact_law(diffusion, L)
    torch.testing.assert_close(law, exact.law(diffusion.reverse_model), rtol=1e-5, atol=1e-7)
    assert law.sum().item() == pytest.approx(1, abs=1e-6)


def test_surprise_map_is_a_figure(tmp_path):
    bits = np.eye(6, dtype=np.uint8)
    for shape in (None, (2, 3), (1, 6)):
        path = tmp_path / f"{shape}.png"
        plots.write_figure(surprise_map(bits, np.full((6, 6), 0.3), 6, shape), path)
        assert iio.imread(path).ndim == 3


# --- The command


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    make_run(folder, config_yaml=CONFIG + "\n")
    return train(folder)


@pytest.fixture
def call(call_here):
    return lambda *arguments: call_here(evaluate, *arguments, "--device", "cpu")


def test_the_command(call, run_dir, tmp_path):
    table, why, picture = tmp_path / "t.tsv", tmp_path / "e.tsv", tmp_path / "h.png"
    arguments = "--precision", 0.01, "--particles", 32, "--repeats", 3, "--exact"
    files = "--per-line", table, "--explain", why, "--heatmap", picture
    done = call(run_dir.best, run_dir.run_dir / "train.txt", *arguments, *files)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"] == 16
    assert report["length"] == 8
    bound, likelihood = report["bound"], report["likelihood"]
    assert bound["nats"] == pytest.approx(bound["bits"] * math.log(2))
    assert bound["bits_per_bit"] == pytest.approx(bound["bits"] / 8)
    assert bound["bits_standard_error"] < 0.015 * bound["bits"]
    assert report["exact"]["bits"] < bound["bits"] + 4 * bound["bits_standard_error"]
    off = abs(likelihood["bits"] - report["exact"]["bits"])
    assert off < 4 * likelihood["bits_standard_error"] + 0.05
    assert 1 <= likelihood["effective_sample_size"] <= 32
    assert report["baselines"]["uniform_bits"] == 8
    assert report["baselines"]["independent_bits"] == pytest.approx(8, abs=0.01)
    rows = list(csv.DictReader(table.open(), delimiter="\t"))
    assert [row["line"] for row in rows] == [str(n) for n in range(1, 17)]
    for column, part in (("bound", bound), ("exact", report["exact"])):
        mean = sum(float(row[f"{column}_bits"]) for row in rows) / 16
        assert mean == pytest.approx(part["bits"], rel=1e-4)
    p = np.loadtxt(why, skiprows=1)
    assert p.shape == (16, 8)
    assert ((p > 0) & (p < 1)).all()
    assert iio.imread(picture).ndim == 3


def test_the_same_seed_gives_the_same_report(call, run_dir):
    arguments = run_dir.best, run_dir.run_dir / "train.txt", "--precision", 0.02
    first = call(*arguments)
    assert call(*arguments).stdout == first.stdout
    assert call(*arguments, "--seed", 1).stdout != first.stdout


def test_in_a_process_of_its_own(run_dir):
    done = processes.call(
        "evaluate", run_dir.best, run_dir.run_dir / "train.txt", "--precision", 0.05
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["samples"] == len(STRINGS)


def test_mistakes(call, run_dir, tmp_path):
    good, long = run_dir.run_dir / "train.txt", tmp_path / "long.txt"
    long.write_text("010101010\n")
    bad = tmp_path / "bad.txt"
    bad.write_text("01010101\n0101x101\n")
    for arguments, expected in [
        ((good, "--particles", 0), "from 1"),
        ((good, "--repeats", 3), "--particles"),
        ((good, "--precision", 0), "above 0"),
        ((good, "--precision", 1e-12), "draws of each line; ask for "),
        ((good, "--precision", "x"), "above 0"),
        ((tmp_path / "none.txt",), "no such file"),
        ((long,), ["9 bits", "8"]),
        ((bad,), "bad.txt:2:5"),
        ((good, "--per-line", tmp_path), "folder"),
        ((good, "--particles", 2**21), "1048576"),
    ]:
        assert_mistake(call(run_dir.best, *arguments), expected)


def test_exact_is_for_short_strings(call, run_dir, monkeypatch):
    monkeypatch.setattr(evaluate, "MAX_EXACT_LENGTH", 7)
    outcome = call(run_dir.best, run_dir.run_dir / "train.txt", "--exact")
    assert_mistake(outcome, ["--exact", "at most 7 bits", "these have 8"])
