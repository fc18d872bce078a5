"""Conditionals, likelihoods and denoising against the exact law of the model, by enumeration."""

import math

import exact
import pytest
import torch

from bernoulli_diffusion import conditioning
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.process import CERTAIN, BernoulliDiffusionProcess
from bernoulli_diffusion.conditioning import (
    Walk,
    _log_mean,
    conditional_samples,
    denoised,
    denoised_mean,
    leave_one_out,
    log2_likelihoods,
    replaced,
    run_particles,
    systematic,
)
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.noise import Noise

Z_LIMIT = 4.5  # two-sided 7e-6; seeds are fixed


def build(L: int, T: int, seed: int = 0, scale: float = 1.0) -> Diffusion:
    return Diffusion(BernoulliDiffusionProcess(T), exact.random_model(L, T, seed, scale))


@pytest.fixture(params=["every step", "thinned"])
def sampler(request, monkeypatch):
    """Either way down, whatever is faster."""
    thinned = request.param == "thinned"
    monkeypatch.setattr(conditioning, "is_thinning_faster", lambda *_: thinned)
    return request.param


def likelihood_of(observed: torch.Tensor, x: torch.Tensor, p: float) -> torch.Tensor:
    """P(observed | x) for a channel that flips bits with probability p; -1 is unknown. (N,)"""
    each = torch.where(x == observed, 1 - p, p)
    return torch.where(observed < 0, torch.ones_like(each), each).prod(dim=1)


OBSERVED = [
    ([1, -1, 0, -1], 0.0),
    ([1, 1, 0, 0], 0.0),
    ([-1, -1, -1, -1], 0.0),
    ([0, 1, 1, -1], 0.1),
    ([1, 1, 0, 1], 0.3),
    ([1, 0, 1, 0], 0.5),
]


@pytest.mark.parametrize(("observed", "p"), OBSERVED)
def test_probability_of_what_is_observed_is_unbiased(sampler, observed, p):
    """The mean over runs is the sum of p(x_0) P(observed | x_0), with few particles too."""
    diffusion, observed = build(4, 8), torch.tensor(observed).float()
    law = exact.law(diffusion.reverse_model)
    truth = (law * likelihood_of(observed, exact.states(4), p)).sum()
    if p == 0.5:  # evidence of nothing is no evidence
        truth = torch.tensor(1.0)
    evidence = diffusion.process.evidence_of(observed, p).repeat(2000, 1)
    ratio = run_particles(diffusion, evidence, 6, seed=1).log_evidence.exp() / truth
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.1
    assert abs(ratio.mean() - 1) < Z_LIMIT * error + 1e-5


@pytest.mark.parametrize(("observed", "p"), OBSERVED)
def test_conditional_law_is_bayes_rule(sampler, observed, p):
    diffusion, observed = build(4, 8), torch.tensor(observed).float()
    law = exact.law(diffusion.reverse_model)
    truth = law * likelihood_of(observed, exact.states(4), p)
    truth /= truth.sum()
    evidence = diffusion.process.evidence_of(observed, p).repeat(10, 1)
    distance = []
    for particles in (3, 1500):
        runs = run_particles(diffusion, evidence, particles, seed=2)
        law_of_runs = torch.zeros(16, dtype=torch.float64)
        numbers, weights = exact.index(runs.x_0).flatten(), runs.log_weight.exp().flatten()
        law_of_runs.index_add_(0, numbers, weights / len(evidence))
        distance.append((law_of_runs - truth).abs().sum().item() / 2)
    assert distance[1] < 0.02
    assert distance[1] < distance[0] or distance[0] < 0.02


def test_the_look_ahead_is_not_needed_for_exactness_but_for_resampling(monkeypatch):
    """Whatever the look-ahead, the estimate is unbiased: here with one that is nonsense."""
    diffusion = build(3, 6)
    law = exact.law(diffusion.reverse_model)
    monkeypatch.setattr(conditioning, "heed", lambda *_: -0.7)
    evidence = diffusion.process.evidence_of(torch.tensor([1.0, 0.0, -1.0])).repeat(3000, 1)
    ratio = run_particles(diffusion, evidence, 5, seed=1).log_evidence.exp() / law[4:6].sum()
    assert abs(ratio.mean() - 1) < Z_LIMIT * ratio.std() / len(ratio) ** 0.5


def test_known_bits_are_kept(sampler):
    diffusion, observed = build(5, 12), torch.tensor([1.0, -1, 0, -1, 1])
    runs = run_particles(diffusion, diffusion.process.evidence_of(observed)[None], 200, seed=0)
    known = observed >= 0
    assert (runs.x_0[0][:, known] == observed[known]).all()
    assert runs.log_weight.exp().sum().item() == pytest.approx(1)


def test_a_certain_network_that_contradicts_gives_a_small_probability(sampler):
    """Log-odds of 30 against the known bit: e^-30, and nothing infinite or undefined."""
    model = exact.TableModel(torch.full((21, 4, 2), 30.0))
    diffusion = Diffusion(BernoulliDiffusionProcess(20), model)
    evidence = diffusion.process.evidence_of(torch.tensor([[0.0, -1.0]]))
    runs = run_particles(diffusion, evidence, 500, seed=0)
    assert runs.log_evidence.item() == pytest.approx(-30, abs=1.5)
    assert (runs.x_0[0] == torch.tensor([0.0, 1.0])).all()


@pytest.mark.parametrize("t", [1, 2, 9, 20])
@pytest.mark.parametrize("evidence", [CERTAIN, -CERTAIN, 2.0, -0.5, 0.0])
def test_a_weighted_proposal_is_the_model_s(t, evidence):
    """Weighted, it is accepted with probability f / b_t and rejected with 1 - f / b_t, on a grid of u."""
    if t == 1 and abs(evidence) == CERTAIN:
        return  # the last step does not go where a known bit is wrong; the weights then add up to less
    process, n = BernoulliDiffusionProcess(20), 20_000
    u, one = (torch.arange(n) + 0.5) / n, torch.ones(n)
    at, before = torch.tensor([t]), torch.tensor([t - 1])
    for bit in (0.0, 1.0):
        arguments = one * bit, one * 0.7, one * evidence, torch.full((n,), t)
        flip, log_weight = process.guided_flip(*arguments, u)
        f = process.flip_probability(torch.tensor([[bit]]), torch.tensor([[0.7]]), at, before)
        expected = (f / process.max_flip_probability()[t]).item()
        weight = log_weight.exp()
        assert (weight * flip).mean().item() == pytest.approx(expected, abs=2e-3)
        assert (weight * ~flip).mean().item() == pytest.approx(1 - expected, abs=2e-3)
        if evidence == 0:
            torch.testing.assert_close(weight, one)


@pytest.mark.parametrize(
    ("known", "r", "doubted"),
    [
        ([4, 0, -0.7], 4, False),
        ([CERTAIN, 0, -CERTAIN], 4, False),
        ([CERTAIN] * 3, 4, True),
        ([CERTAIN] * 3, 0, False),
    ],
)
def test_guided_step_has_the_model_s_odds_as_weights(known, r, doubted):
    """log p / g of a step, from the flip probabilities themselves.

    If all is known, it counts before the last step as if it had come through the noise of the step.
    """
    process, generator = BernoulliDiffusionProcess(10), torch.Generator().manual_seed(0)
    x = torch.randint(2, (500, 3), generator=generator).float()
    logits = torch.randn(500, 3, generator=generator)
    evidence = torch.tensor(known).expand(500, 3)
    alpha = exact.alphas(10)
    most = math.log((alpha[r] + alpha[7]) / (alpha[r] - alpha[7])) if doubted else CERTAIN
    t, r = torch.full((500,), 7), torch.full((500,), r)
    u = torch.rand(500, 3, generator=generator)
    x_r, log_weight = process.guided_step(x, logits, evidence, t, r, u)
    f = process.flip_probability(x, logits, t, r).double()
    g = process.flip_probability(x, logits + evidence.clamp(-most, most), t, r).double()
    moved = x_r != x
    expected = torch.where(moved, f / g, (1 - f) / (1 - g)).log().sum(dim=1)
    torch.testing.assert_close(log_weight.double(), expected, rtol=0, atol=2e-5)


# --- Runs and samples


def test_a_run_is_a_function_of_its_seed_and_number(sampler):
    diffusion = build(4, 10)
    evidence = diffusion.process.evidence_of(torch.tensor([1.0, -1, -1, 0])).repeat(6, 1)
    whole = run_particles(diffusion, evidence, 30, seed=4)
    part = run_particles(diffusion, evidence[2:4], 30, seed=4, numbers=torch.tensor([2, 3]))
    assert part.x_0.equal(whole.x_0[2:4])
    torch.testing.assert_close(part.log_evidence, whole.log_evidence[2:4])
    other = run_particles(diffusion, evidence, 30, seed=5)
    assert not other.x_0.equal(whole.x_0)


def draw(diffusion, evidence, N, **options):
    return list(conditional_samples(diffusion, evidence, N, seed=3, **options))


def test_samples_do_not_depend_on_the_batch():
    diffusion = build(4, 10)
    patterns = torch.tensor([[1.0, -1, -1, 0], [-1, -1, 1, -1], [-1, -1, -1, -1]])
    evidence = diffusion.process.evidence_of(patterns)
    whole = draw(diffusion, evidence, 20, particles=16)
    assert [one.samples.shape for one in whole] == [(20, 4)] * 3
    for batch_size in (1, 50, 10_000):
        for one, other in zip(
            whole, draw(diffusion, evidence, 20, particles=16, batch_size=batch_size), strict=True
        ):
            assert one.samples.equal(other.samples)
    whole = draw(diffusion, evidence, 20, particles=16, independent=True)
    for one, other in zip(
        whole, draw(diffusion, evidence, 7, particles=16, independent=True), strict=True
    ):
        assert one.samples[:7].equal(other.samples)


@pytest.mark.parametrize("independent", [False, True])
def test_samples_have_the_conditional_law(independent):
    diffusion, observed = build(4, 8), torch.tensor([1.0, -1, -1, 0])
    law = exact.law(diffusion.reverse_model)
    truth = law * likelihood_of(observed, exact.states(4), 0.0)
    evidence = diffusion.process.evidence_of(observed)[None]
    [one] = draw(diffusion, evidence, 2000, particles=64, independent=independent)
    counts = torch.bincount(exact.index(one.samples), minlength=16) / 2000
    assert (counts - truth / truth.sum()).abs().sum() / 2 < 0.04
    expected = (truth[:, None] * exact.states(4)).sum(dim=0) / truth.sum()
    torch.testing.assert_close(one.mean.double(), expected, rtol=0, atol=0.03)
    assert -one.log_evidence == pytest.approx(-truth.sum().log().item(), abs=0.1)
    if independent:
        assert one.ancestors == 2000
    else:
        assert 250 < one.ancestors <= 2000  # from 250 runs


@pytest.mark.parametrize(("observed", "p"), [([1, -1, 0, -1], 0.0), ([0, 1, 1, -1], 0.1)])
def test_runs_count_by_their_evidence_without_which_few_particles_are_biased(observed, p):
    """Two particles in each of 6,000 runs, against the exact conditional from all 16 states."""
    diffusion, observed, R = build(4, 8, scale=1.5), torch.tensor(observed).float(), 6000
    truth = exact.law(diffusion.reverse_model) * likelihood_of(observed, exact.states(4), p)
    truth = (truth[:, None] * exact.states(4)).sum(dim=0) / truth.sum()  # P(x_i = 1 | observed)
    evidence = diffusion.process.evidence_of(observed, p)
    runs = run_particles(diffusion, evidence.repeat(R, 1), 2, seed=3)
    of_run = (runs.log_weight.exp()[:, :, None] * runs.x_0).sum(dim=1).double()  # (R, L)
    equal = (of_run.mean(dim=0) - truth).abs() / (of_run.std(dim=0) / R**0.5).clamp(min=1e-6)
    assert equal.max() > 2 * Z_LIMIT
    share = runs.log_evidence.double().softmax(dim=0)[:, None]
    error = (share * (of_run - truth)).square().sum(dim=0).sqrt() + 1e-6
    [one] = draw(diffusion, evidence[None], R, particles=2)
    torch.testing.assert_close(one.mean.double(), (share * of_run).sum(dim=0), rtol=0, atol=1e-6)
    assert ((one.mean - truth).abs() < Z_LIMIT * error).all()
    of_samples = one.samples.double().mean(dim=0)
    error = error.hypot((truth * (1 - truth) / R).sqrt())  # of the drawing too
    assert ((of_samples - truth).abs() < Z_LIMIT * error).all()


def test_the_logarithm_of_a_mean_of_few_runs_has_an_error_that_covers():
    """300 lines of four runs, 400 times. One run in 500 finds six times as much as the others."""
    generator, shape = torch.Generator().manual_seed(0), (400 * 300, 4)
    usual = (0.15 * torch.randn(shape, generator=generator).double() - 0.15**2 / 2).exp()
    rare = torch.rand(shape, generator=generator) < 0.002
    mean, error = _log_mean((0.99 * usual + 5 * rare).log())  # of numbers with the mean 1
    bias = mean.view(400, 300).mean(dim=1)
    z = bias / (error.view(400, 300).square().sum(dim=1).sqrt() / 300)
    assert abs(z.mean()) < 0.45  # the jackknife alone: -0.58
    assert 0.62 < (abs(z) < 1).double().mean() < 0.74
    assert (abs(z) < 2).double().mean() > 0.91


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 7, 40])
def test_the_logarithm_of_a_mean_of_equal_numbers_is_theirs(runs):
    mean, error = _log_mean(torch.full((5, runs), -700.0).double())
    torch.testing.assert_close(mean, torch.full((5,), -700.0).double())
    assert error.isnan().all() if runs == 1 else (error < 1e-9).all()


def test_the_mean_of_runs_of_which_one_found_nothing_is_that_of_all():
    log_p = torch.tensor([[0.0, 0.0, 0.0, -math.inf], [1.0, 1.0, 1.0, 1.0]]).double()
    mean, error = _log_mean(log_p)
    torch.testing.assert_close(mean, torch.tensor([math.log(3 / 4), 1.0]).double())
    assert 0.2 < error[0] < 0.5


def test_a_run_without_evidence_does_not_count():
    """A run all of whose particles the model rules out has weights that are undefined."""
    L, runs = 2, 3
    x_0 = torch.ones(runs, 4, L)
    x_0[1] = 0
    weight = torch.full((runs, 4), 0.25).double().log()
    weight[1] = math.nan
    evidence = torch.tensor([0.0, -math.inf, math.log(3)]).double()
    size = torch.tensor([4.0, math.nan, 4.0]).double()
    known = conditioning.Runs(x_0, weight, evidence, size, torch.arange(4).repeat(runs, 1))
    one = conditioning._draw(torch.arange(runs), known, 8, 0, False)
    assert one.mean.tolist() == [1, 1]
    assert one.samples.eq(1).all()
    assert one.log_evidence == pytest.approx(math.log(4 / 3))
    assert one.effective_sample_size == pytest.approx(4 * (4**2 / (1 + 3**2)) / runs)
    none = conditioning._draw(
        torch.arange(runs), known._replace(log_evidence=evidence - math.inf), 8, 0, False
    )
    assert none.mean.tolist() == pytest.approx([2 / 3, 2 / 3])
    assert none.effective_sample_size == pytest.approx(1 / (1 / 4 + 1 + 1 / 4) * runs)


def test_systematic_resampling_takes_each_as_often_as_its_weight_says():
    weight = torch.rand(5, 40, generator=torch.Generator().manual_seed(0)).double()
    weight /= weight.sum(dim=1, keepdim=True)
    chosen = systematic(weight, torch.rand(5, 1, generator=torch.Generator().manual_seed(1)), 300)
    counts = torch.stack([torch.bincount(row, minlength=40) for row in chosen])
    assert ((counts - 300 * weight).abs() < 1 + 1e-9).all()
    alone = torch.zeros(1, 8).double()
    alone[0, 5] = 1
    assert (systematic(alone, torch.tensor([[0.999]])) == 5).all()


def test_checks_are_times_of_the_walk():
    for L, T, K in [(4, 8, None), (2, 300, None), (4, 300, 7), (4, 100, 60)]:
        walk = Walk(build(2, T), L, K)
        checks = walk.check_times()
        assert checks[0] == T
        assert checks[-1] == 0
        assert set(checks) <= set(walk.times)


def test_runs_on_a_grid_have_the_grid_s_law():
    from bernoulli_diffusion.sampling import grid_times

    diffusion = build(3, 20)
    truth = exact.law(diffusion.reverse_model, grid_times(20, 4))
    evidence = diffusion.process.evidence_of(exact.states(3).float()).repeat(800, 1)
    runs = run_particles(diffusion, evidence, 4, seed=1, steps=4)
    ratio = runs.log_evidence.exp().view(800, 8) / truth
    error = ratio.std(dim=0) / 800**0.5
    assert ((ratio.mean(dim=0) - 1).abs() < Z_LIMIT * error).all()


# --- Likelihood


def test_log2_likelihoods():
    diffusion = build(4, 8)
    truth = exact.law(diffusion.reverse_model).log2()
    strings = BitStrings.from_bits(exact.states(4).numpy())
    parts = list(log2_likelihoods(diffusion, strings, 64, 20, seed=0, batch_size=4000))
    assert len(parts) > 1
    log2_p, error, spread, size = (torch.cat(v) for v in zip(*parts, strict=True))
    assert ((log2_p - truth).abs() < 5 * error).all()
    assert (error < 0.2).all()
    assert (spread > error).all()
    assert ((size >= 1) & (size <= 64)).all()
    [one] = log2_likelihoods(diffusion, strings, 8, 1, seed=0)
    assert one.standard_error.isnan().all()


# --- Denoising


def test_replacement_keeps_what_is_known_and_is_a_function_of_seed_and_row():
    diffusion, observed = build(5, 12), torch.tensor([1.0, -1, 0, -1, 1])
    evidence = diffusion.process.evidence_of(observed).repeat(50, 1)
    x_0 = replaced(diffusion, evidence, Noise(3, torch.arange(50), 5), repeats=3)
    known = observed >= 0
    assert (x_0[:, known] == observed[known]).all()
    assert len(x_0.unique(dim=0)) == 4  # the others are free
    part = replaced(diffusion, evidence[20:30], Noise(3, torch.arange(20, 30), 5), repeats=3)
    assert part.equal(x_0[20:30])


@pytest.mark.parametrize("repeats", [1, 4])
def test_replacement_is_exact_where_bits_tell_nothing_of_each_other(repeats):
    """Independent bits with a perfect network: whatever is given, undone steps change no law."""
    ones = torch.tensor([0.2, 0.5, 0.9])

    class Independent(torch.nn.Module):
        def forward(self, x_t, t):
            return ones.logit().expand(len(x_t), 3)

    N, diffusion = 20_000, Diffusion(BernoulliDiffusionProcess(10), Independent())
    evidence = diffusion.process.evidence_of(torch.tensor([-1.0, 1, -1])).repeat(N, 1)
    x_0 = replaced(diffusion, evidence, Noise(4, torch.arange(N), 3), repeats)
    for bit in (0, 2):
        p = ones[bit].item()
        assert abs(x_0[:, bit].mean().item() - p) < Z_LIMIT * (p * (1 - p) / N) ** 0.5
    both = (x_0[:, 0] * x_0[:, 2]).mean().item()
    assert abs(both - 0.18) < Z_LIMIT * (0.18 * 0.82 / N) ** 0.5


def test_how_far_the_look_ahead_is_heeded():
    """All of it at the end, or if nothing is known; the less of it the more is known and the later t."""
    process = BernoulliDiffusionProcess(50)
    share = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)
    power = torch.cat([conditioning.heed(process, t, 784, share) for t in (1, 25, 50)], dim=1)
    assert (power[0] == 1).all()
    assert (power.diff(dim=0) < 0).all()
    assert (power[1:].diff(dim=1) < 0).all()
    assert power[2, 2].item() == pytest.approx(1 / (1 + 784 / conditioning.COMMON))
    assert conditioning.heed(process, 50, 1, share).min() > 0.85  # a bit has nothing in common


@pytest.mark.parametrize("p", [0.05, 0.25, 0.4, 0.5])
def test_denoised_has_the_law_of_the_chain_started_at_the_string(sampler, p):
    """At times of the schedule: all steps from t down, multiplied out."""
    L, T, N = 3, 20, 20_000
    diffusion, t = build(L, T), round(2 * p * 20)
    number = 5
    law = torch.zeros(8, dtype=torch.float64)
    law[number] = 1
    for s in range(t, 0, -1):
        law = law @ exact.reverse_kernel(diffusion.reverse_model, s, s - 1)
    y = exact.states(L)[number].float().expand(N, -1)
    x_0 = denoised(diffusion, y, p, Noise(1, torch.arange(N), L))
    assert abs(exact.chi_square_z(exact.index(x_0), law)) < Z_LIMIT


def test_nothing_is_restored_without_noise():
    y = exact.states(3).float()
    assert denoised(build(3, 20), y, 0.0, Noise(0, torch.arange(8), 3)).equal(y)
    assert denoised_mean(build(3, 20), y, 0.0).equal(y)


@pytest.mark.parametrize("p", [0.1, 0.137])
def test_a_perfect_network_restores_by_bayes_rule(p):
    """p = 0.137 lies between two times. 4 strings of 8 bits, 1,000 steps."""
    data = torch.tensor([[0, 0, 1, 1] * 2, [1, 0, 0, 1] * 2, [1, 1, 1, 1] * 2, [0, 1, 0, 1] * 2])
    diffusion = Diffusion(BernoulliDiffusionProcess(1000), exact.IdealModel(data, 1000))
    y = torch.tensor([0.0, 0, 1, 1, 1, 0, 1, 1])
    truth = likelihood_of(y, data, p)
    truth = truth / truth.sum()
    N = 2000
    x_0 = denoised(diffusion, y.expand(N, -1), p, Noise(2, torch.arange(N), 8))
    share = (x_0[:, None] == data).all(dim=2).float().mean(dim=0)
    assert (share - truth).abs().sum() / 2 < 0.04
    mean = denoised_mean(diffusion, y[None], p)[0]
    torch.testing.assert_close(mean, (truth[:, None] * data).sum(dim=0), rtol=0, atol=2e-3)


def test_time_of_a_channel():
    process = BernoulliDiffusionProcess(20)
    assert [process.time_of_channel(p) for p in (0, 1e-6, 0.025, 0.026, 0.3, 0.5)] == [
        0,
        1,
        1,
        2,
        12,
        20,
    ]


def test_leave_one_out_is_the_odds_at_the_last_step():
    data = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])  # even parity
    diffusion = Diffusion(BernoulliDiffusionProcess(1000), exact.IdealModel(data, 1000))
    p = leave_one_out(diffusion, exact.states(3).float())
    even = exact.states(3).sum(dim=1) % 2 == 0
    assert (p[even] > 0.99).all()
    assert (p[~even] < 0.01).all()


def test_evidence():
    process = BernoulliDiffusionProcess(5)
    known = torch.tensor([1.0, 0.0, -1.0])
    assert process.evidence_of(known).tolist() == [
        pytest.approx(CERTAIN),
        pytest.approx(-CERTAIN),
        0,
    ]
    odds = math.log(0.8 / 0.2)
    assert process.evidence_of(known, 0.2).tolist() == pytest.approx([odds, -odds, 0])
    assert process.evidence_of(known, 0.5).tolist() == [0, 0, 0]
