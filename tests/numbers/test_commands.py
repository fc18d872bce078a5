"""train.py, generate.py and evaluate on real numbers, as a user calls them."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import call, mistake, train

from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training import checkpoint as checkpoints

CONFIG = """\
model: {process: gaussian, T: 20, variance: learned, reverse_model: {width: 16, num_blocks: 1}}
training: {epochs: 4, validate_every_n_epochs: 2, num_val_samples: 50, num_bound_draws: 64,
  num_examples: 20, warmup_steps: 2}
data: {batch_size: 32}
"""
PICTURES = [
    "loss_curve.png",
    "validation.png",
    "samples.png",
    "forward_process.png",
    "reverse_process.gif",
    "sample_evolution_throughout_training.gif",
]


def make_run(folder: Path, D: int = 2, config: str = CONFIG) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    for name, count in (("train", 100), ("val", 40)):
        np.savetxt(folder / f"{name}.txt", 3 + 0.1 * rng.normal(size=(count, D)))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained run folder and its results folder."""
    cwd = tmp_path_factory.mktemp("gaussian")
    run_dir = make_run(cwd / "run")
    out = call("train.py", "run", cwd=cwd).stdout
    return run_dir, cwd / out.strip()


def numbers(text: str) -> np.ndarray:
    return np.array([[float(v) for v in line.split()] for line in text.splitlines()])


def test_results(trained):
    _, results_dir = trained
    results = json.loads((results_dir / "results.json").read_text())
    assert results["status"] == "finished"
    assert results["process"] == "gaussian"
    assert len(results["energy_distance"]) == len(results["bound"]["val"]) == 3
    assert results["final_bound"]["val"]["standard_error"] > 0
    assert results["bound"]["val"][0] == pytest.approx(
        -2.5, abs=1.5
    )  # two numbers of deviation 0.1
    for name in PICTURES:
        assert (results_dir / name).stat().st_size > 1000, name
    lines = (results_dir / "metrics.jsonl").read_text().splitlines()
    assert "energy_distance" in json.loads(lines[-1])


@pytest.mark.parametrize("D", [1, 4])
def test_numbers_of_other_sizes_are_drawn_too(tmp_path, D):
    config = CONFIG.replace("epochs: 4", "epochs: 2").replace("learned", "posterior")
    config = config.replace("T: 20", "T: 8")
    if D == 4:
        config = config.replace("batch_size: 32", "batch_size: 32, shape: [2, 2]")
    make_run(tmp_path / "run", D, config)
    done = call("train.py", "run", cwd=tmp_path)
    assert "could not be" not in done.stderr
    results_dir = tmp_path / done.stdout.strip()
    for name in PICTURES:
        assert (results_dir / name).stat().st_size > 1000, name
    # the GIF shows the sampler that was asked for, also of a single sample
    gifs = [tmp_path / "ancestral.gif", tmp_path / "deterministic.gif"]
    for gif, options in zip(gifs, ([], ["--deterministic"]), strict=True):
        best = results_dir / "checkpoints" / "model_best.pt"
        assert call("generate.py", best, 1, "--steps", 5, *options, "--gif", gif).stderr == ""
    assert gifs[0].read_bytes() != gifs[1].read_bytes()


def test_resume_goes_on_bit_for_bit(trained, tmp_path):
    _run_dir, results_dir = trained
    # the schedule of the learning rate knows the last epoch, so it is stopped by patience of time
    run_dir = make_run(tmp_path / "run")
    first = train(run_dir, "--set", "training.max_minutes=0.00001")
    train(run_dir, "--resume", "--set", "training.max_minutes=null")
    a, b = (
        torch.load(folder / "checkpoints" / "model_epoch_4.pt", weights_only=True)
        for folder in (results_dir, first)
    )
    for name, weight in a["weights"].items():
        assert torch.equal(weight, b["weights"][name]), name
    assert torch.equal(a["process_state"]["mean"], b["process_state"]["mean"])


def test_generate(trained):
    run_dir, results_dir = trained
    best = results_dir / "checkpoints" / "model_best.pt"

    def generate(*arguments: object) -> str:
        return call("generate.py", best, *arguments, cwd=run_dir).stdout

    x = numbers(generate(200))
    assert x.shape == (200, 2)
    assert abs(x.mean() - 3) < 0.1
    few = numbers(generate(3, "--batch-size", 2))
    assert np.allclose(few, x[:3], atol=1e-5)
    ddim = ("--steps", 5, "--deterministic", "--gif", "way.gif")
    assert numbers(generate(4, *ddim)).shape == (4, 2)
    assert (run_dir / "way.gif").stat().st_size > 1000
    given = "3.0512345678901"  # comes back to the last digit
    lines = [line.split() for line in generate(5, "--given", f"{given} ?").splitlines()]
    assert [line[0] for line in lines] == [given] * 5
    assert len({line[1] for line in lines}) > 1
    (run_dir / "noisy.txt").write_text("3.5 3.0\n2.9 ?\n")
    options = ("--denoise", "noisy.txt", "--noise-std", 0.3, "--particles", 32)
    assert numbers(generate(5, *options)).shape == (10, 2)
    mean = numbers(generate(1, *options, "--mean"))
    assert mean.shape == (2, 2)
    assert 2.9 < mean[0, 0] < 3.4  # drawn towards the data


def test_whole_numbers_are_answered_by_whole_numbers(tmp_path):
    """Two equal columns of 0 and 1, blurred by the noise of dequantizing."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    config = CONFIG.replace("epochs: 4", "epochs: 60").replace("T: 20", "T: 50")
    config = config.replace("validate_every_n_epochs: 2", "validate_every_n_epochs: 60, lr: 0.02")
    (run_dir / "config.yaml").write_text(
        config.replace("batch_size: 32", "batch_size: 250, dequantize: 1")
    )
    bits = np.random.default_rng(0).integers(0, 2, 1000)
    np.savetxt(run_dir / "train.txt", np.stack([bits, bits], axis=1), fmt="%d")
    best = train(run_dir) / "checkpoints" / "model_best.pt"
    (run_dir / "given.txt").write_text("0 ?\n1 ?\n? ?\n")
    options = ["--given-file", "given.txt", "--particles", 32, "--independent"]
    lines = call("generate.py", best, 50, *options, cwd=run_dir).stdout.splitlines()
    assert lines[:50].count("0 0") >= 40
    assert lines[50:100].count("1 1") >= 40
    assert lines[100:].count("0 0") + lines[100:].count("1 1") >= 35  # by chance 25


def test_evaluate(trained):
    run_dir, results_dir = trained
    best = results_dir / "checkpoints" / "model_best.pt"
    options = ("--precision", 0.05, "--particles", 16)
    report = json.loads(call("evaluate", best, "val.txt", *options, cwd=run_dir).stdout)
    bound, likelihood = report["bound"], report["likelihood"]
    error = bound["bits_standard_error"] + likelihood["bits_standard_error"]
    assert likelihood["bits"] < bound["bits"] + 4 * error
    assert report["baselines"]["isotropic_gaussian_bits"] == pytest.approx(-2.5, abs=0.6)
    assert bound["bits_per_number"] == pytest.approx(bound["bits"] / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", 3, "--denoise", "val.txt", "--flip-probability", 0.1), "--noise-std"),
        (("generate", 3, "--denoise", "val.txt"), "go together"),
        (("generate", 3, "--given", "3.0"), "--given: 1 numbers and ?, but the model's"),
        (("evaluate", "one.txt"), "one.txt: samples of 1 numbers, but the model's have 2"),
        (("evaluate", "far.txt"), "far.txt:2:1: 1e+20 is more than a million deviations from"),
        (("generate", 3, "--given", "? 1e20"), "number 2: 1e+20 is more than a million deviations"),
        (("evaluate", "val.txt", "--exact"), "--exact: for models of bits"),
    ],
    ids=str,
)
def test_mistakes(trained, arguments, message, monkeypatch):
    run_dir, results_dir = trained
    (run_dir / "one.txt").write_text("1\n2\n")
    (run_dir / "far.txt").write_text("3 3\n1e20 3\n")
    best = results_dir / "checkpoints" / "model_best.pt"
    command, *rest = arguments
    monkeypatch.chdir(run_dir)
    monkeypatch.setattr(sys, "argv", [command, *map(str, (best, *rest))])
    with pytest.raises(UserError, match=re.escape(message)):
        importlib.import_module(f"bernoulli_diffusion.{command}").main()


def test_settings_of_real_numbers_are_refused_for_bits(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.txt").write_text("01\n10\n")
    setting = "model.variance=learned"
    told = mistake("train.py", tmp_path / "run", "--set", setting)
    assert "model.variance: learned is for real numbers" in told


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"mean": torch.zeros(2).double()},
        {"mean": torch.zeros(3).double(), "deviation": torch.ones(3).double()},
        {"mean": torch.zeros(2).double(), "deviation": torch.zeros(2).double()},
        {"mean": torch.zeros(2), "deviation": torch.ones(2)},
    ],
    ids=["none", "half", "size", "zero", "type"],
)
def test_checkpoints_with_another_process_state_are_refused(trained, tmp_path, state):
    _, results_dir = trained
    saved = torch.load(results_dir / "checkpoints" / "model_best.pt", weights_only=True)
    torch.save(saved | {"process_state": state}, tmp_path / "model.pt")
    loaded = checkpoints.load(tmp_path / "model.pt")
    with pytest.raises(UserError, match="not a sound checkpoint: process_state"):
        checkpoints.restore(loaded, tmp_path / "model.pt")
