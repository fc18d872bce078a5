"""The Gaussian process against closed forms: for data that are one Gaussian everything is known."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from bernoulli_diffusion.conditioning import conditional_samples, run_particles
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.noise import Noise
from bernoulli_diffusion.numbers.process import GaussianDiffusionProcess, normal, schedule_betas
from bernoulli_diffusion.sampling import sample, trajectory

SCHEDULES = {"harmonic": {}, "linear": {"beta_min": 1e-4, "beta_max": 0.2}, "cosine": {}}
C = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
Z = 4.5  # standard errors that a mean may be off


def process(T=50, schedule="harmonic", D=2, variance="beta", mean=0.0, deviation=1.0, **options):
    scale = [torch.full((D,), float(value)) for value in (mean, deviation)]
    options = SCHEDULES[schedule] | options
    return GaussianDiffusionProcess(
        T, "cpu", *scale, schedule=schedule, variance=variance, **options
    )


class Oracle(nn.Module):
    """E[eps | x_t] if x_0 ~ N(0, covariance); with learned variances, those of the variance beta."""

    def __init__(self, covariance, process):
        super().__init__()
        self.covariance, self.process = covariance, process

    def forward(self, x_t, t):
        alpha = self.process.alpha[t][:, None, None]
        sigma = alpha * self.covariance + (1 - alpha) * torch.eye(len(self.covariance))
        score = torch.linalg.solve(sigma, x_t.double()[:, :, None])[:, :, 0]
        eps = (self.process.lost[t].sqrt()[:, None] * score).float()
        return nn.functional.pad(eps, (0, self.process.output_width(eps.shape[1]) - eps.shape[1]))


def oracle(covariance=C, **options):
    p = process(D=len(covariance), **options)
    return Diffusion(p, Oracle(covariance, p))


def entropy(covariance):
    D = len(covariance)
    return (D * math.log2(2 * math.pi * math.e) + torch.linalg.det(covariance).log2().item()) / 2


def draw(n, covariance=C, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, len(covariance), generator=generator, dtype=torch.float64)
    return (z @ torch.linalg.cholesky(covariance).T).float()


@torch.inference_mode()
def bound(diffusion, x_0, repeats=1, seed=0):
    """The mean bound and its standard error."""
    x_0 = x_0.repeat(repeats, 1)
    generator = torch.Generator().manual_seed(seed)
    n = len(x_0)
    u_t = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    order = torch.randperm(n, generator=generator)
    values = diffusion.one_t_estimate(
        x_0[order], u_t, torch.rand(x_0.shape, generator=generator)
    ).double()
    return values.mean().item(), math.sqrt(values.diff().square().mean().item() / (2 * n))


# ------------------------------------------------------------------------------- forwards


def test_harmonic_schedule():
    beta = schedule_betas("harmonic", 10, 1e-4, 0.02)
    assert beta[:-1].tolist() == pytest.approx([1 / (10 - t + 1) for t in range(1, 10)])
    assert beta[-1] == 0.5  # a noise prediction must still say something about x_0
    assert schedule_betas("harmonic", 10, 0.2, 0.3)[0] == 0.2
    alpha = process(1000).alpha
    assert torch.allclose(alpha[:-1], 1 - torch.arange(1000).double() / 1000, atol=1e-12)


def test_linear_and_cosine_schedules():
    beta = schedule_betas("linear", 5, 0.1, 0.3)
    assert beta.tolist() == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3])
    beta = schedule_betas("cosine", 100, 0, 0)

    def alpha(t):
        return math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2

    wanted = [min(0.5, 1 - alpha(t) / alpha(t - 1)) for t in range(1, 101)]
    assert beta.tolist() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_alpha_is_the_product_of_the_steps(schedule):
    p = process(200, schedule)
    beta = schedule_betas(schedule, 200, p_min(schedule), 0.2)
    assert torch.allclose(p.alpha[1:], (1 - beta).cumprod(0))
    assert torch.allclose(p.alpha + p.lost, torch.ones(201, dtype=torch.float64))
    assert p.alpha[0] == 1


def p_min(schedule):
    return SCHEDULES[schedule].get("beta_min", 1e-4)


def test_normal_is_the_inverse_of_the_distribution_function():
    u = torch.linspace(0.001, 0.999, 501)
    wanted = torch.tensor([NormalDist().inv_cdf(v) for v in u.double().tolist()])
    assert torch.allclose(normal(u), wanted.float(), atol=2e-4)
    assert normal(torch.tensor([0.0, 1.0])).isfinite().all()


def test_x_t_is_signal_and_noise():
    p, x_0, u = process(20), draw(3), torch.tensor([[0.5, 0.9]] * 3)
    t = torch.tensor([0, 7, 20])
    x_t = p.sample_x_t(x_0, t, u)
    wanted = p.alpha[t].sqrt()[:, None] * x_0 + p.lost[t].sqrt()[:, None] * normal(u)
    assert torch.allclose(x_t, wanted.float())
    assert torch.equal(x_t[0], x_0[0])
    assert torch.allclose(p.noise_in(x_0, x_t, t)[1:], normal(u)[1:], atol=1e-5)


# ------------------------------------------------------------------------------- one step


@pytest.mark.parametrize(("t", "r"), [(9, 8), (9, 3), (20, 1), (2, 1)])
def test_posterior_is_bayes_rule_for_gaussians(t, r):
    """Condition the joint Gaussian of (x_r, x_t) given x_0 on x_t."""
    p = process(20)
    alpha_r, alpha_t = p.alpha[r].item(), p.alpha[t].item()
    x_0, x_t = 0.7, -0.4
    keep = alpha_t / alpha_r
    variance_r, variance_t = 1 - alpha_r, 1 - alpha_t
    covariance = math.sqrt(keep) * variance_r
    gain = covariance / variance_t
    mean = math.sqrt(alpha_r) * x_0 + gain * (x_t - math.sqrt(alpha_t) * x_0)
    _, posterior, weight = p._step(torch.tensor([t]), torch.tensor([r]))
    assert posterior.item() == pytest.approx(variance_r - gain * covariance, rel=1e-9)
    assert weight.item() == pytest.approx(math.sqrt(alpha_r) - gain * math.sqrt(alpha_t), rel=1e-9)
    # the network that knows x_0 takes the posterior's mean
    eps = p.noise_in(torch.tensor([[x_0]]), torch.tensor([[x_t]]), torch.tensor([t]))
    got = p.reverse_mean(torch.tensor([[x_t]]), eps, torch.tensor([t]), torch.tensor([r]))
    assert got.item() == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("variance", ["beta", "posterior", "learned"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_step_divergence_is_that_of_two_gaussians(schedule, variance):
    torch.manual_seed(0)
    p, n = process(30, schedule, D=3, variance=variance), 200
    x_0, x_t = torch.randn(n, 3), torch.randn(n, 3)
    output = torch.randn(n, p.output_width(3))
    t = torch.randint(2, 31, (n,))
    r = (torch.rand(n) * (t - 1)).long() + 1
    beta, posterior, _ = p._step(t, r)
    eps_0 = p.noise_in(x_0, x_t, t)
    mean_q = p.reverse_mean(x_t, eps_0, t, r).double()
    mean_p = p.reverse_mean(x_t, output, t, r).double()
    width = {"beta": beta, "posterior": posterior}.get(variance)
    if width is None:
        width = posterior * (beta / posterior) ** (2 * output[:, 3:].double().sigmoid())
    wanted = kl_divergence(Normal(mean_q, posterior.sqrt()), Normal(mean_p, width.sqrt()))
    got = p.step_divergence(x_0, x_t, output, t, r).double()
    assert torch.allclose(got, wanted.sum(dim=1) / math.log(2), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("variance", ["beta", "posterior", "learned"])
def test_the_last_step_costs_the_density(variance):
    torch.manual_seed(0)
    p, n = process(30, D=2, variance=variance), 50
    x_0, t, r = torch.randn(n, 2), torch.ones(n).long(), torch.zeros(n).long()
    x_t = x_0 + 0.2 * torch.randn(n, 2)
    output = torch.randn(n, p.output_width(2))
    width = (p.log_reverse_variance(x_t, output, t, r) / 2).exp()
    density = Normal(p.reverse_mean(x_t, output, t, r), width.expand(n, 2)).log_prob(x_0)
    got = p.step_divergence(x_0, x_t, output, t, r)
    assert torch.allclose(got, -density.sum(dim=1) / math.log(2), rtol=1e-4, atol=1e-4)
    beta = 1 - p.alpha[1].item()
    assert ((beta / 2 < width**2) & (width**2 < 2 * beta) | (variance != "learned")).all()


def test_learned_variance_begins_at_beta():
    p = process(30, D=2, variance="learned")
    t = torch.arange(1, 31)
    zero, x_t = torch.zeros(30, 4), torch.zeros(30, 2)
    beta, _, _ = p._step(t, t - 1)
    got = p.log_reverse_variance(x_t, zero, t, t - 1).exp()
    assert torch.allclose(got, beta.float().expand(30, 2), rtol=1e-5)


# ------------------------------------------------------------------------------- the bound


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 300])
def test_times_have_the_probability_that_they_are_weighted_with(schedule, T):
    p, n = process(T, schedule), 200_000
    t, probability = p.times((torch.arange(n) + 0.5) / n)
    share = torch.bincount(t, minlength=T + 1)[1:] / n
    assert (share - p._probability).abs().max() < 2 / n
    assert torch.equal(probability, p._probability[t - 1].float())
    assert p._probability.sum().item() == pytest.approx(1)
    assert p.times(torch.tensor([0.0, 1.0]))[0].tolist() == [1, T]


def test_prior_term_is_the_divergence_at_T():
    p, x_0 = process(100, "linear", beta_min=1e-5, beta_max=5e-3), draw(10)
    alpha = p.alpha[-1]
    assert alpha > 0.7  # these toy settings leave most of the signal, and pay for it here
    q = Normal(alpha.sqrt() * x_0.double(), (1 - alpha).sqrt())
    wanted = kl_divergence(q, Normal(torch.zeros(()).double(), 1.0)).sum(dim=1) / math.log(2)
    assert torch.allclose(p.fixed_terms(x_0).double(), wanted, rtol=1e-5)


def test_control_is_put_back_as_its_mean():
    p, x_0, n = process(25, "cosine", D=2), torch.tensor([[0.3, -1.2]]), 10_000
    torch.manual_seed(0)
    total, variance = 0.0, 0.0
    for t in range(1, 26):
        at_t = torch.full((n,), t)
        x_t = p.sample_x_t(x_0.expand(n, 2), at_t, torch.rand(n, 2))
        values = p.control(x_0.expand(n, 2), x_t, at_t).double()
        centred = p.control_variate(x_0.expand(n, 2), x_t, None, at_t).double()
        assert abs(centred.mean()) < Z * centred.std() / n**0.5
        total, variance = total + values.mean().item(), variance + values.var().item() / n
    assert abs(p.control_total(x_0).item() - total) < Z * variance**0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_oracle_reaches_the_entropy_up_to_the_steps(schedule):
    """The gap shrinks with T, and the bound is never below the entropy."""
    x_0, gaps = draw(40_000), []
    cost = -torch.distributions.MultivariateNormal(torch.zeros(2).double(), C).log_prob(
        x_0.double()
    )
    cost = cost.mean().item() / math.log(2)  # of these very samples; its mean is the entropy
    assert abs(cost - entropy(C)) < 0.03
    for T in (20, 400):
        bits, error = bound(oracle(T=T, schedule=schedule), x_0, repeats=4)
        gaps.append(bits - cost)
        assert gaps[-1] > -Z * error
    assert error < 0.012
    assert gaps[1] < 0.02 + Z * error
    assert gaps[0] > 0.03


def test_standard_normal_data_cost_nothing_extra():
    """With the variance beta their reverse step is exact, for any T; the control is all the noise."""
    x_0 = torch.tensor([[0.7, -1.9]])
    bits, error = bound(oracle(torch.eye(2).double(), T=10), x_0.expand(2000, 2))
    assert error < 0.01  # what is left are the times
    wanted = -Normal(0.0, 1.0).log_prob(x_0).sum().item() / math.log(2)
    assert bits == pytest.approx(wanted, abs=0.01)


def test_bound_is_in_the_datas_own_units():
    x_0 = draw(500)
    plain, _ = bound(oracle(T=20), x_0)
    scaled, _ = bound(oracle(T=20, mean=7, deviation=8), x_0)
    assert scaled - plain == pytest.approx(2 * 3, abs=1e-4)


def test_simple_loss_is_the_squared_error_of_the_noise():
    p = process(20, loss="simple")
    torch.manual_seed(0)
    losses = [Diffusion(p, lambda x, t: torch.zeros_like(x)).loss(draw(500)) for _ in range(20)]
    assert torch.stack(losses).mean().item() == pytest.approx(2, abs=0.05)
    perfect = Oracle(torch.zeros(2, 2).double(), p)  # data at one point: the noise can be seen
    assert Diffusion(p, perfect).loss(torch.zeros(100, 2)).item() == pytest.approx(0, abs=1e-8)


# ------------------------------------------------------------------------------- samplers


@torch.inference_mode()
def drawn(diffusion, n=20_000, **options):
    D = len(diffusion.reverse_model.covariance)
    return torch.cat(list(sample(diffusion, D, range(n), 3, batch_size=n, **options)))


def assert_covariance(x, covariance, slack=0.0):
    n = len(x)
    x = x.double()
    mean_error = (covariance.diag() / n).sqrt()
    assert (x.mean(dim=0).abs() < Z * mean_error + slack).all()
    spread = torch.outer(covariance.diag(), covariance.diag()) + covariance.square()
    difference = (x.T @ x / n - covariance).abs()
    assert (difference < Z * (spread / n).sqrt() + slack).all(), difference


@pytest.mark.parametrize("schedule", ["harmonic", "linear", "cosine"])
def test_schedules_reach_the_same_law(schedule):
    assert_covariance(drawn(oracle(T=100, schedule=schedule), 10_000), C, slack=0.02)


def test_grid_and_deterministic_samplers_reach_it_too():
    assert_covariance(drawn(oracle(T=200), 5000, steps=100), C, slack=0.03)
    options = {"sampler": "deterministic"}
    assert_covariance(drawn(oracle(T=200, schedule="cosine"), 5000, **options), C, slack=0.05)
    once, again = (drawn(oracle(T=50), 10, steps=10, **options) for _ in range(2))
    assert torch.equal(once, again)


def test_ancestral_covariance_is_the_chains_own():
    """With few steps the sampled law is that of the linear chain, computed here step by step."""
    p = process(5)
    diffusion = Diffusion(p, Oracle(C, p))
    law = torch.eye(2, dtype=torch.float64)
    for t in range(5, 0, -1):
        beta = 1 - p.alpha[t] / p.alpha[t - 1]
        sigma = p.alpha[t] * C + p.lost[t] * torch.eye(2)
        step = (torch.eye(2) - beta * torch.linalg.inv(sigma)) / (1 - beta).sqrt()
        law = step @ law @ step.T + beta * torch.eye(2)
    assert (law - C).abs().max() > 0.05
    assert_covariance(drawn(diffusion, 50_000), law)


def test_samples_do_not_depend_on_the_batch():
    diffusion = oracle(T=20)
    whole = torch.cat(list(sample(diffusion, 2, range(10), 5)))
    parts = torch.cat(list(sample(diffusion, 2, range(10), 5, batch_size=3)))
    assert torch.allclose(whole, parts, atol=1e-6)


def test_trajectory_is_in_the_datas_units():
    times, states = trajectory(
        oracle(T=20, mean=10, deviation=0.01), Noise(0, torch.arange(6), 2), frames=5
    )
    assert states.shape == (6, 6, 2)
    assert times[0] == 20
    assert abs(states - 10).max() < 0.1


# ------------------------------------------------------------------------------- conditionals


@pytest.mark.parametrize("variance", ["beta", "learned"])
def test_given_numbers_are_answered_by_the_conditional_gaussian(variance):
    """x_1 = 0.9 given, in units of mean 5 and deviation 2: x_2 ~ N(0.72, 0.36), in these units."""
    diffusion = oracle(T=50, variance=variance, mean=5, deviation=2)
    patterns = torch.tensor([[5 + 2 * 0.9, math.nan], [math.nan, math.nan]])
    evidence = diffusion.process.evidence_of(patterns)
    known, unknown = conditional_samples(diffusion, evidence, 600, 1, particles=64)
    x = torch.from_numpy(diffusion.process.to_data(known.samples))
    assert torch.allclose(x[:, 0], torch.tensor(6.8).double(), atol=1e-4)
    y = (x[:, 1] - 5) / 2
    assert y.mean().item() == pytest.approx(0.72, abs=0.12)
    assert y.var().item() == pytest.approx(0.36, abs=0.1)
    wanted = Normal(5.0, 2.0).log_prob(torch.tensor(6.8)).item()
    assert known.log_evidence == pytest.approx(wanted, abs=0.05)
    assert unknown.log_evidence == pytest.approx(0, abs=1e-9)


def test_runs_count_by_their_evidence():
    """Two particles in each of 6,000 runs of few steps: the model's own law is Gaussian, and known."""
    T, R, given = 6, 6000, 1.5
    diffusion = oracle(T=T)
    model = C.new_zeros(2, 2) + torch.eye(2)  # its covariance, carried down from t = T
    for step in range(T, 0, -1):
        t, x = torch.full((2,), step), torch.eye(2)
        output = diffusion.reverse_model(x, t)
        gain = diffusion.process.reverse_mean(x, output, t, t - 1).double().T
        added = diffusion.process.log_reverse_variance(x, output, t, t - 1).exp().double()
        model = gain @ model @ gain.T + added.flatten()[0] * torch.eye(2)
    truth = (model[0, 1] / model[0, 0] * given).item()
    evidence = diffusion.process.evidence_of(torch.tensor([[given, math.nan]]))
    runs = run_particles(diffusion, evidence.repeat(R, 1, 1), 2, 3)
    of_run = (runs.log_weight.exp() * runs.x_0[:, :, 1]).sum(dim=1).double()
    assert abs(of_run.mean() - truth) > 2 * Z * of_run.std() / R**0.5
    share = runs.log_evidence.double().softmax(dim=0)
    error = (share * (of_run - truth)).square().sum().sqrt()
    [one] = conditional_samples(diffusion, evidence, R, 3, particles=2)
    assert abs(one.mean[1] - truth) < Z * error
    assert abs(one.samples[:, 1].double().mean() - truth) < Z * (error + 1 / R)


def test_small_differences_around_a_large_mean_are_kept():
    p = process(mean=1.7e9, deviation=1.0)
    known = torch.tensor([[1.7e9 + 1, math.nan], [1.7e9 - 0.5, 1.7e9]], dtype=torch.float64)
    value, variance = p.evidence_of(known).unbind(dim=-1)
    assert value.tolist() == [[1, 0], [-0.5, 0]]
    assert variance.tolist() == [[0, math.inf], [0, 0]]
    assert p.as_written(torch.tensor([[0.25, -1.123456789]])).tolist() == [
        pytest.approx([1.7e9 + 0.25, 1.7e9 - 1.12346], abs=1e-6, rel=0)
    ]


@pytest.mark.parametrize("noise", [1e-30, 1e30])
def test_noise_of_any_size_leaves_evidence_finite(noise):
    diffusion = oracle(T=10)
    evidence = diffusion.process.evidence_of(torch.tensor([[0.3, -0.2]]), noise)
    [one] = conditional_samples(diffusion, evidence, 4, 0, particles=8)
    assert math.isfinite(one.log_evidence)
    assert one.samples.isfinite().all()


def test_blurred_numbers_go_back_into_their_cells():
    p = process(mean=3.5, deviation=2.0, width=1.0)
    assert p.evidence_of(torch.tensor([3.0, 5.0]))[..., 0].tolist() == [0, 1]
    assert p.as_written(torch.tensor([[0.0, 0.2], [0.3, -1.76]])).tolist() == [[3, 3], [4, -1]]
    assert p.mean_as_written(torch.tensor([0.0, 0.2])).tolist() == pytest.approx([3, 3.4])


def test_noisy_numbers_are_answered_by_the_posterior():
    diffusion, s = oracle(T=50, mean=-1, deviation=3), 1.5
    y = torch.tensor([[2.0, -2.5], [math.nan, 4.0]])
    evidence = diffusion.process.evidence_of(y, s)
    covariance = 9 * C
    for row, one in zip(y, conditional_samples(diffusion, evidence, 600, 2, 64), strict=True):
        seen = ~row.isnan()
        noisy = covariance[seen][:, seen] + s**2 * torch.eye(int(seen.sum()))
        gain = torch.linalg.solve(noisy, covariance[seen]).T
        mean = -1 + gain @ (row[seen].double() + 1)
        wanted = covariance - gain @ covariance[seen]
        x = torch.from_numpy(diffusion.process.to_data(one.samples))
        assert torch.allclose(x.mean(dim=0), mean, atol=0.35)
        assert torch.allclose(torch.cov(x.T), wanted, atol=0.7)
        law = torch.distributions.MultivariateNormal(torch.zeros(len(noisy)).double(), noisy)
        assert one.log_evidence == pytest.approx(
            law.log_prob(row[seen].double() + 1).item(), abs=0.05
        )


@pytest.mark.parametrize("variance", ["beta", "posterior", "learned"])
def test_likelihood_by_particles_is_unbiased(variance):
    """With one number and few steps the model's law is a Gaussian that can be computed."""
    one = torch.tensor([[0.5]]).double()
    diffusion, x_0 = oracle(one, T=4, variance=variance), torch.tensor([[0.4], [-1.1]])
    p, law = diffusion.process, 1.0
    for t in range(4, 0, -1):
        at_t, at_r = torch.tensor([t]), torch.tensor([t - 1])
        x = torch.ones(1, 1)
        output = diffusion.reverse_model(x, at_t)
        factor = p.reverse_mean(x, output, at_t, at_r).item()
        law = factor**2 * law + p.log_reverse_variance(x, output, at_t, at_r).exp().item()
    wanted = Normal(0.0, law**0.5).log_prob(x_0).squeeze(1)
    evidence = p.evidence_of_x_0(x_0).repeat_interleave(400, dim=0)
    estimates = run_particles(diffusion, evidence, 8, 0).log_evidence.view(2, 400).exp()
    error = estimates.std(dim=1) / 20
    assert ((estimates.mean(dim=1) - wanted.exp()).abs() < Z * error).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_forward_steps_compose(schedule):
    """q(x_t | x_r) after q(x_r | x_0) is q(x_t | x_0): signal and variance."""
    p = process(T=30, schedule=schedule, D=1)
    for r, t in ((0, 1), (4, 5), (10, 30)):
        times = torch.tensor([r]), torch.tensor([t])
        one, zero = torch.ones(1, 1), torch.zeros(1, 1)
        middle, above = (torch.full((1, 1), u) for u in (0.5, NormalDist().cdf(1.0)))
        signal = p.forward_step(one, *times, middle).item()
        noise = p.forward_step(zero, *times, above).item()
        assert signal * p.alpha[r].sqrt().item() == pytest.approx(
            p.alpha[t].sqrt().item(), rel=1e-4
        )
        variance = signal**2 * p.lost[r].item() + noise**2
        assert variance == pytest.approx(p.lost[t].item(), rel=1e-3)


def test_known_share_is_how_far_evidence_settles_the_numbers():
    p = process(D=4)
    known = torch.tensor([[1.0, math.nan, math.nan, 0.0]])
    assert p.known_share(p.evidence_of(known)).tolist() == [0.5]
    assert p.known_share(p.evidence_of(known, 1.0)).item() == pytest.approx(0.25)
