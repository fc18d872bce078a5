"""The Monte Carlo bound against the enumerated one, its standard error, and the baseline."""

import math

import exact
import numpy as np
import pytest
import torch

from bernoulli_diffusion import likelihood
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.measures import independent_bits
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import estimate_bound

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
    bits, standard_error = estimate_bound(diffusion, some_strings(numbers), 200_000, seed=31)
    assert 0 < standard_error < 0.2
    assert abs(bits - mean_bound(diffusion, numbers)) < Z_LIMIT * standard_error


@pytest.mark.parametrize(
    ("numbers", "lowest", "highest"), [([37], 0.7, 1.4), (range(64), 0.7, 1.6)], ids=["one", "all"]
)
def test_standard_error_is_calibrated(numbers, lowest, highest):
    """The spread of 50 estimates, known to 10%, against the reported error: within four times that.

    With many different strings the reported error may be too large, never too small: every string
    is drawn equally often, and neighbouring strata do not show what that saves.
    """
    diffusion, strings = build(seed=32), some_strings(numbers)
    results = [estimate_bound(diffusion, strings, 4096, seed) for seed in range(50)]
    bits, errors = (torch.tensor(v, dtype=torch.float64) for v in zip(*results, strict=True))
    reported = errors.square().mean().sqrt().item()
    assert lowest < reported / bits.std().item() < highest
    # and there is no bias that a single estimate would be too coarse to show
    z = (bits.mean() - mean_bound(diffusion, numbers)) / (bits.std() / math.sqrt(50))
    assert abs(z) < Z_LIMIT


def test_stratified_times_beat_independent_ones():
    """A network whose bound is spread evenly over t: the strata take the spread over t away."""
    diffusion = Diffusion(
        BernoulliDiffusionProcess(T), exact.TableModel(torch.zeros(T + 1, 2**L, L))
    )
    n, strings = 4096, some_strings([37])
    stratified = estimate_bound(diffusion, strings, n, seed=0)
    torch.manual_seed(0)
    x_0 = exact.states(L)[37].float().expand(n, -1)
    values = diffusion.one_t_estimate(x_0, torch.rand(n), torch.rand(n, L))
    assert stratified.standard_error < 0.97 * values.std().item() / math.sqrt(n)
    assert abs(stratified.bits - L) < Z_LIMIT * stratified.standard_error


class RecordingDiffusion:
    """Stands for a Diffusion: remembers what it was asked, and calls every bound the time's u."""

    def __init__(self):
        self.x_0, self.u_t, self.u_x = [], [], []

    def one_t_estimate(self, x_0, u_t, u_x):
        for seen, value in zip((self.x_0, self.u_t, self.u_x), (x_0, u_t, u_x), strict=True):
            seen.append(value)
        return u_t


@pytest.mark.parametrize(
    ("num_strings", "num_draws", "total"),
    [(1, 1, 1), (1, 100, 100), (7, 100, 105), (64, 10, 64), (64, 64, 64), (64, 65, 128)],
)
def test_every_string_is_drawn_equally_often(num_strings, num_draws, total):
    """At least num_draws draws, one in each of `total` strata of the unit interval."""
    recorder = RecordingDiffusion()
    estimate = estimate_bound(recorder, some_strings(range(num_strings)), num_draws, seed=1)
    x_0, u_t, u_x = (torch.cat(v) for v in (recorder.x_0, recorder.u_t, recorder.u_x))
    times_seen = torch.bincount(exact.index(x_0), minlength=num_strings)
    assert times_seen.tolist() == [total // num_strings] * num_strings
    assert (u_t * total).floor().sort().values.tolist() == list(range(total))
    assert ((u_x >= 0) & (u_x < 1)).all()
    assert len(u_x.unique()) > 0.99 * u_x.numel()
    assert estimate.bits == pytest.approx(u_t.double().mean().item())
    if total == 1:
        assert math.isnan(estimate.standard_error)
    else:
        differences = u_t.double().diff().square().sum().item() / (total - 1)
        assert estimate.standard_error == pytest.approx(math.sqrt(differences / 2 / total))


@pytest.mark.parametrize("num_draws", [64, 6400])
def test_strings_are_not_tied_to_times(num_draws):
    """Correlation of a string's number with its time, over 6,400 draws: of 100 seeds, or of one."""
    recorder = RecordingDiffusion()
    for seed in range(6400 // num_draws):
        estimate_bound(recorder, some_strings(range(64)), num_draws, seed)
    pair = torch.stack([exact.index(torch.cat(recorder.x_0)).float(), torch.cat(recorder.u_t)])
    assert abs(torch.corrcoef(pair)[0, 1].item()) * math.sqrt(6400) < Z_LIMIT


def test_same_seed_same_estimate():
    diffusion, strings = build(seed=33), some_strings(range(20))
    first, again, other = (estimate_bound(diffusion, strings, 500, seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert estimate_bound(diffusion, strings, 500, 5) == first
    assert torch.random.get_rng_state().equal(before)


def test_batches_are_bounded_and_polled(monkeypatch):
    monkeypatch.setattr(likelihood, "ELEMENTS_PER_BATCH", 60)  # ten strings at a time
    recorder, polls = RecordingDiffusion(), []
    estimate_bound(recorder, some_strings(range(8)), 64, seed=3, poll=lambda: polls.append(1))
    assert [len(x) for x in recorder.x_0] == [10] * 6 + [4]
    assert len(polls) == 7


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
