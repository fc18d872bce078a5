"""The training loop without a folder: data in memory in, a trained Diffusion out."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.measures import independent_bits
from bernoulli_diffusion.config import Config, DataConfig, ModelConfig, TrainingConfig
from bernoulli_diffusion.likelihood import estimate_bound, exact_law
from bernoulli_diffusion.numbers.data import RealVectors
from bernoulli_diffusion.sampling import sample
from bernoulli_diffusion.training.loop import Plan, fit
from bernoulli_diffusion.training.network import live_source
from bernoulli_diffusion.training.run_folder import RunFolder, fill_defaults
from bernoulli_diffusion.training.trainer import Trainer

X = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 1, 1]] * 50, dtype=np.uint8)


def config_of(process: str = "bernoulli", **training) -> Config:
    model = ModelConfig(process=process, T=50, reverse_model={"width": 16, "num_blocks": 1})
    training = {"epochs": 100, "lr": 0.02, "warmup_steps": 5, "ema_decay": 0.9} | training
    return Config(model, TrainingConfig(**training), DataConfig(batch_size=50))


# --- The learning rate


def plan(epochs: int, **training) -> Plan:
    """Of epochs of one step."""
    return Plan(TrainingConfig(epochs=epochs, **training), steps_per_epoch=1)


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_constant_learning_rate(warmup):
    rate = plan(8, lr=0.5, lr_schedule="constant", warmup_steps=warmup).learning_rate
    for step in range(8):
        assert rate(step) == pytest.approx(0.5 * (step + 1) / warmup if step < warmup else 0.5)


def test_cosine_learning_rate():
    rate = plan(100, lr=0.5, warmup_steps=0).learning_rate
    assert rate(0) == 0.5
    assert rate(25) == pytest.approx(0.5 * (1 + math.sqrt(0.5)) / 2)
    assert rate(50) == pytest.approx(0.25)
    assert 0 < rate(99) < 0.001
    assert rate(100) == pytest.approx(0)


def test_warm_up_and_cosine_multiply():
    rate = plan(10, lr=1, warmup_steps=4).learning_rate
    for step in range(10):
        cosine = (1 + math.cos(math.pi * step / 10)) / 2
        assert rate(step) == pytest.approx(min(1, (step + 1) / 4) * cosine)


# --- Data in, a Diffusion out


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_two_strings_are_learnt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, state = config_of(), torch.random.get_rng_state()
    before = copy.deepcopy(config)
    diffusion = fit(BitStrings.from_bits(X), config)
    law = exact_law(diffusion, 5)
    assert law[[0b10000, 0b01111]].tolist() == pytest.approx([0.5, 0.5], abs=0.15)
    [samples] = sample(diffusion, length=5, rows=range(3), seed=0)
    assert samples.shape == (3, 5)
    # and nothing else is touched
    assert config == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not list(Path().iterdir())


def test_the_weights_are_those_of_a_run_folder(tmp_path, monkeypatch):
    config, train = config_of(epochs=3), BitStrings.from_bits(X)
    diffusion = fit(train, config)
    fill_defaults(config, len(train))
    trainer = Trainer(
        RunFolder(tmp_path, config, train, None, live_source(None)), torch.device("cpu"), quiet=True
    )
    monkeypatch.setattr(trainer.files, "draw_progress", lambda: None)
    monkeypatch.setattr(trainer.files, "draw_reverse_process", lambda *_: None)
    trainer.train()
    assert equal(diffusion.reverse_model, trainer.averaged.reverse_model)


def test_with_val_the_best_weights_are_taken():
    """What is held out is unlike what is trained on: it is soon forgotten."""
    train, val = BitStrings.from_bits(X), BitStrings.from_bits(1 - X[:, ::-1])
    how = {"lr_schedule": "constant", "validate_every_n_epochs": 1}
    best = fit(train, config_of(epochs=30, **how), val)
    last, short = (fit(train, config_of(epochs=n, **how)) for n in (30, 1))
    assert not equal(best.reverse_model, last.reverse_model)
    assert equal(best.reverse_model, short.reverse_model)
    stopped = fit(train, config_of(epochs=10**6, patience=2, **how), val)
    assert equal(stopped.reverse_model, short.reverse_model)


def test_without_epochs_val_decides_and_the_best_weights_are_taken():
    """Independent bits: there is nothing to learn, and the network that looked at the data knows it."""
    bits = np.random.default_rng(0).random((300, 12)) < 0.3
    train, val = (BitStrings.from_bits(x.astype(np.uint8)) for x in (bits[:60], bits[60:]))
    config = config_of(epochs=None, lr=0.003, ema_decay=0.9)
    config.model.T = 20
    diffusion = fit(train, config, val)
    bound = estimate_bound(diffusion, val, 4000, seed=1)
    assert bound.bits < independent_bits(train, val) + 3 * bound.standard_error


def test_real_numbers():
    x = np.random.default_rng(0).normal([3.0, -1.0], 0.1, (100, 2))
    train = RealVectors(x, x.mean(0), x.std(0))
    diffusion = fit(train, config_of("gaussian"))
    [samples] = sample(diffusion, length=2, rows=range(200), seed=0)
    values = diffusion.process.to_data(samples)
    assert values.mean(0) == pytest.approx([3, -1], abs=0.1)
