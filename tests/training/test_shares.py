"""Shares of an ensemble: they lower the bound where that can be, and never do harm."""

import exact
import numpy as np
import pytest
import torch
from oracles import NumbersOracle

from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.training.network import Ensemble
from bernoulli_diffusion.training.shares import (
    Draws,
    fit_confidence,
    fit_shares,
    mean_and_error,
    mixed,
)

L, T = 4, 6
Z_LIMIT = 4.5
DATA = torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 0], [0, 1, 0, 1]])


def strings() -> BitStrings:
    return BitStrings.from_bits(DATA.repeat(25, 1).byte().numpy())


def diffusion(logits: torch.Tensor) -> Diffusion:
    return Diffusion(BernoulliDiffusionProcess(T), exact.TableModel(logits).eval())


def ideal() -> torch.Tensor:
    """(T + 1, 2^L, L), what the best network says, with log-odds that are not endless."""
    model, x = exact.IdealModel(DATA, T), exact.states(L).float()
    return torch.stack([model(x, torch.full((2**L,), t)).clamp(-6, 6) for t in range(T + 1)])


def noise(seed: int) -> torch.Tensor:
    return 2 * torch.randn(T + 1, 2**L, L, generator=torch.Generator().manual_seed(seed))


def test_draws_estimate_the_exact_bound():
    model = exact.random_model(L, T, seed=1)
    expected = exact.bound(model)[exact.index(DATA)].mean().item()
    draws = Draws(BernoulliDiffusionProcess(T), strings(), seed=2, num_draws=20_000)
    one = Diffusion(BernoulliDiffusionProcess(T), model)
    bits, error = mean_and_error(draws.bits(draws.logits(one)))
    assert error < 0.1
    assert abs(bits - expected) < Z_LIMIT * error


def test_whole_numbers_that_are_drawn_again_have_another_blur():
    """Ten lines, a hundred draws: what is added to a line is new each time, within its cell."""
    oracle = NumbersOracle()
    data, _ = oracle.file(10, False, np.random.default_rng(0))
    draws = Draws(oracle.process, data, seed=1, num_draws=100)
    values = draws.x_0.double() * oracle.deviation + oracle.centre + 0.5
    blur = values - values.floor()
    assert len(blur[:, 0].unique()) == 100
    assert 0.4 < blur.mean() < 0.6


def test_the_bound_of_an_ensemble_is_that_of_the_mean_log_odds():
    tables = [ideal() + noise(3), ideal() - 0.5 * noise(3), noise(4)]
    together = Ensemble([exact.TableModel(table) for table in tables], [0.3, 0.6, 0.1])
    mean = exact.TableModel(
        sum(w * table for w, table in zip([0.3, 0.6, 0.1], tables, strict=True))
    )
    x = exact.states(L).float()
    for t in range(1, T + 1):
        times = torch.full((2**L,), t)
        torch.testing.assert_close(together(x, times), mean(x, times))
    assert (exact.bound(mean) >= -exact.law(mean).log2() - 1e-9).all()


def test_errors_that_cancel_get_equal_shares():
    right, off = ideal(), noise(5)
    fitted = fit_shares([diffusion(right + off), diffusion(right - off)], strings(), seed=6)
    assert fitted.shares == pytest.approx([0.5, 0.5], abs=0.05)
    gain, error = fitted.gain
    assert gain > 10 * error
    mean = exact.TableModel(
        sum(w * (right + s * off) for w, s in zip(fitted.shares, (1, -1), strict=True))
    )
    expected = exact.bound(mean)[exact.index(DATA)].mean().item()
    assert abs(fitted.bound[0] - expected) < Z_LIMIT * fitted.bound[1]


def test_who_only_does_harm_gets_nothing():
    fitted = fit_shares([diffusion(noise(7)), diffusion(ideal()), diffusion(noise(8))], strings())
    assert fitted.shares == [0, 1, 0]
    assert fitted.bound == fitted.of_members[1]
    assert fitted.gain == (0, 0)
    assert min(fitted.of_members) == fitted.of_members[1]


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0, 5.0, 1e6])
def test_confidence_is_where_the_bound_is_least(times):
    """Of what is right but times too sure, and then of what is sure of nothing but noise."""
    draws = Draws(BernoulliDiffusionProcess(T), strings(), seed=5)
    sure, independent = draws.logits(diffusion(ideal())), torch.zeros(len(draws.x_0), L)
    part = times * sure + 0.1
    grid = torch.linspace(0, 1, 201).tolist()
    bounds = [draws.bits(share * part).mean().item() for share in grid]
    for start in (0.0, 0.5, 1.0):
        [confidence] = fit_confidence(draws, part[None], independent, torch.tensor([start]))
        assert abs(confidence - grid[bounds.index(min(bounds))]) <= 1 / 64 + 0.005


def test_confidence_in_several_parts_is_where_the_bound_is_least():
    """Of two that err in different ways, and of one that knows nothing, from wherever it starts."""
    draws = Draws(BernoulliDiffusionProcess(T), strings(), seed=5)
    sure, independent = draws.logits(diffusion(ideal())), torch.zeros(len(draws.x_0), L)
    generator = torch.Generator().manual_seed(6)
    errors = torch.randn(3, *sure.shape, generator=generator)
    parts = torch.stack([sure + 1.0 * errors[0], sure + 2.0 * errors[1], 2 * errors[2]])
    found = [
        fit_confidence(draws, parts, independent, torch.tensor(start))
        for start in ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    ]
    grid = [i / 40 for i in range(41)]
    bounds = {
        (a, b, c): draws.bits(mixed(parts, independent, torch.tensor([a, b, c]))).mean().item()
        for a in grid
        for b in grid
        for c in (0.0, 0.05)
        if a + b + c <= 1
    }
    best = min(bounds, key=bounds.get)
    assert min(best[:2]) > 0.1
    for confidence in found:
        assert (confidence - torch.tensor(best)).abs().max() <= 0.04
        assert draws.bits(mixed(parts, independent, confidence)).mean() <= bounds[best] + 1e-4


def test_the_same_seed_chooses_the_same_shares():
    models = [diffusion(ideal() + noise(9)), diffusion(ideal() + noise(10))]
    assert fit_shares(models, strings(), seed=1) == fit_shares(models, strings(), seed=1)
    assert fit_shares(models, strings(), seed=1) != fit_shares(models, strings(), seed=2)


def test_a_single_string_and_a_single_member():
    one = BitStrings.from_bits(DATA[:1].byte().numpy())
    fitted = fit_shares([diffusion(noise(11))], one)
    assert fitted.shares == [1]
