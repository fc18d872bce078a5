"""The Monte Carlo bound against the enumerated one, its standard error, and the baseline."""

import math

import covering
import exact
import numpy as np
import pytest
import torch

from bernoulli_diffusion import likelihood
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.measures import independent_bits
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import bound_draws, draws_per_line, estimate_bound, joined

L, T = 6, 30
Z_LIMIT = 4.5  # two-sided 7e-6; seeds are fixed, so a failure is a change of the code, not bad luck


def build(seed: int, scale: float = 1.5) -> Diffusion:
    return Diffusion(BernoulliDiffusionProcess(T), exact.random_model(L, T, seed, scale))


def some_strings(numbers) -> BitStrings:
    return BitStrings.from_bits(exact.states(L)[list(numbers)].numpy())


def mean_bound(diffusion: Diffusion, numbers) -> float:
    """The exact mean bound of strings given by number, repeats counted."""
    return exact.bound(diffusion.reverse_model)[list(numbers)].mean().item()


SETS = {
    "one": [37],
    "few, with repeats": [0, 5, 5, 5, 63, 40],
    "all": range(64),
    "thousands, unevenly": [*range(64), *range(0, 64, 3)] * 40,
}


@pytest.mark.parametrize("numbers", SETS.values(), ids=SETS.keys())
def test_estimate_is_within_its_standard_error_of_the_exact_bound(numbers):
    diffusion = build(seed=30)
    estimate = estimate_bound(diffusion, some_strings(numbers), 40_000, seed=31)
    assert 0 < estimate.monte_carlo_error < 0.2
    off = estimate.bits - mean_bound(diffusion, numbers)
    assert abs(off) < Z_LIMIT * estimate.monte_carlo_error


@pytest.mark.parametrize("heterogeneous", [False, True])
@pytest.mark.parametrize(("kind", "lines"), [("bits", 300), ("bits", 2100), ("numbers", 300)])
def test_errors_cover(kind, heterogeneous, lines):
    """(estimate - truth) / error over 60 files has the deviation 1, known to 9%, and no bias.

    tests/stress/stress_coverage.py has the whole table.
    """
    cell = covering.Cell("validation", kind, heterogeneous, lines)
    for z in np.array(covering.outcomes(cell, range(60))).T:
        if not np.isnan(z).any():
            assert abs(z.std() - 1) < Z_LIMIT * 0.09
            assert abs(z.mean()) < Z_LIMIT * 0.13


def test_evaluate_and_particles_cover():
    for measurement in ("evaluate", "particles"):
        for kind in ("bits", "numbers"):
            cell = covering.Cell(measurement, kind, False, 20)
            for z in np.array(covering.outcomes(cell, range(10))).T:
                assert 0.3 < np.sqrt((z**2).mean()) < 2.0  # 1 +- 0.22, and 4.5 times that


@pytest.mark.parametrize("kind", ["bits", "numbers"])
def test_equal_networks_are_called_different_in_one_case_of_twenty(kind):
    """4 of 80, give or take 1.9; by the two errors it would be none, by one of them many."""
    found = list(covering.differences(kind, True, 300, range(80)))
    wrong = sum(d.is_lower or d.is_higher for d, _, _ in found)
    assert wrong < 4 + Z_LIMIT * 1.9
    assert all(d.standard_error < apart for d, _, apart in found)


def test_many_lines_are_drawn_once_few_in_fours():
    assert [draws_per_line(n, 2048) for n in (1, 300, 512, 513, 2047, 2048, 10**6)] == [
        *(2048, 8, 4, 4, 4, 1, 1)
    ]


@pytest.mark.parametrize("R", [1, 8])
def test_times_fill_the_unit_interval_evenly(R):
    """Of 300 lines each draw has its place in a line's strata, and together they leave no gap."""
    diffusion = build(seed=1)
    draws = bound_draws(diffusion, some_strings([5] * 300), R, seed=2)
    counts = torch.bincount(draws.bins.flatten(), minlength=64)
    assert (counts.double() * 64 / (300 * R) - 1).abs().max() < 0.5
    if R == 8:
        strata = draws.bins // 16
        assert (strata == torch.tensor([0, 1, 1, 0, 2, 3, 3, 2])).all()


def test_controls_have_mean_zero():
    diffusion = build(seed=3)
    for R, n in ((1, 8000), (4, 2000)):
        draws = bound_draws(diffusion, some_strings([37, 5] * (n // 2)), R, seed=4)
        for control in draws.controls:
            z = control.mean() / (control.std() / control.numel() ** 0.5)
            assert abs(z) < Z_LIMIT


def test_same_seed_same_estimate():
    diffusion, strings = build(seed=33), some_strings(range(20))
    first, again, other = (estimate_bound(diffusion, strings, 500, seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert estimate_bound(diffusion, strings, 500, 5) == first
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize("R", [4, 16])
def test_a_line_has_the_same_draws_whatever_is_asked_beside_it(R, monkeypatch):
    diffusion, strings = build(seed=33), some_strings(range(20))
    whole = bound_draws(diffusion, strings, R, seed=1)
    monkeypatch.setattr(likelihood, "ELEMENTS_PER_BATCH", 8 * L)  # a part of a line at a time
    polls = []
    parts = [
        bound_draws(diffusion, strings, R, 1, lines=lines, poll=lambda: polls.append(1))
        for lines in (range(7), range(7, 7), range(7, 20))
    ]
    for one, other in zip(joined(parts), whole, strict=True):
        # some processors round a part of a batch differently: float32, of terms of some bits
        torch.testing.assert_close(one, other, rtol=1e-5, atol=5e-5)
    assert len(polls) == 20 * R // 8 if R > 8 else 10


def test_each_draw_of_whole_numbers_has_a_blur_of_its_own(monkeypatch):
    oracle = covering.NumbersOracle()
    data, _ = oracle.file(50, False, np.random.default_rng(0))
    seen, original = [], oracle.process.sample_x_t
    monkeypatch.setattr(
        oracle.process, "sample_x_t", lambda x_0, t, u: seen.append(x_0) or original(x_0, t, u)
    )
    for seed in (1, 2):
        bound_draws(oracle.diffusion, data, 8, seed)
    values = torch.cat(seen).double() * oracle.deviation + oracle.centre + 0.5
    parts = values - torch.from_numpy(data.values).repeat_interleave(8, 0).repeat(2, 1)
    assert (parts > -1e-3).all()
    assert (parts < 1 + 1e-3).all()
    assert len(parts[:, 0].unique()) > 0.99 * len(parts)


# --- Independent bits


def test_independent_bits_is_the_code_length_of_smoothed_frequencies():
    rng = np.random.default_rng(0)
    train = rng.random((57, 9)) < np.linspace(0, 1, 9)  # with columns of only 0 and only 1
    other = rng.random((23, 9)) < 0.5
    expected = 0.0
    for string in other:
        for i in range(9):
            p = (sum(int(row[i]) for row in train) + 1) / (57 + 2)
            expected -= math.log2(p if string[i] else 1 - p)
    got = independent_bits(BitStrings.from_bits(train), BitStrings.from_bits(other))
    assert got == pytest.approx(expected / 23, rel=1e-12)


def test_independent_bits_of_fair_bits_is_their_number():
    everything = BitStrings.from_bits(exact.states(L).numpy())
    assert independent_bits(everything, some_strings([0, 1, 2])) == pytest.approx(L, rel=1e-12)


def test_independent_bits_of_more_strings_than_fit_a_chunk():
    n = 70_000
    bits = np.zeros((n, 2), np.uint8)
    bits[66_000:, 0] = 1  # all in the second chunk
    strings = BitStrings.from_bits(bits)
    p, q = (4000 + 1) / (n + 2), 1 / (n + 2)
    share = 4000 / n
    expected = -share * math.log2(p) - (1 - share) * math.log2(1 - p) - math.log2(1 - q)
    assert independent_bits(strings, strings) == pytest.approx(expected, rel=1e-10)
