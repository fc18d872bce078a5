"""The forward process against its definition: Bayes' rule, the design's formulas, long decimals."""

import itertools
import math
from decimal import Decimal, localcontext

import exact
import pytest
import torch

from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess, signs

SIZES = [(3, 4), (6, 30)]  # (L, T)
CHAINS = [1, 2, 4, 30, 1000]  # T
# A few float32 roundings, relative: the package computes in float32 what the tests do in float64.
ROUNDING = 2e-6


def all_pairs(T: int) -> list[tuple[int, int]]:
    """(r, t): all with r < t, or 200 of them that include the ends and neighbours."""
    pairs = [(r, t) for t in range(1, T + 1) for r in range(t)]
    if len(pairs) <= 500:
        return pairs
    ends = [(0, 1), (0, T), (T - 1, T), (0, T - 1), (1, 2), (T - 2, T - 1)]
    generator = torch.Generator().manual_seed(T)
    chosen = torch.randint(len(pairs), (194,), generator=generator)
    return ends + [pairs[k] for k in chosen]


def column(number: int, like: torch.Tensor) -> torch.Tensor:
    return torch.full((len(like),), number, dtype=torch.int64)


def random_bits(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)).float()


def test_signs():
    assert signs(torch.tensor([0.0, 1.0])).tolist() == [-1, 1]


# --- The schedule and q(x_t | x_0)


@pytest.mark.parametrize("T", CHAINS)
def test_alpha_is_the_product_of_the_steps(T):
    alpha = BernoulliDiffusionProcess(T).alpha
    assert alpha.dtype == torch.float64
    assert alpha.tolist() == [1 - t / T for t in range(T + 1)]
    torch.testing.assert_close(alpha, exact.alphas(T), rtol=1e-11, atol=1e-15)
    beta = 1 - alpha[1:] / alpha[:-1]
    expected = torch.tensor(exact.betas(T)[1:], dtype=torch.float64)
    torch.testing.assert_close(beta, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("T", CHAINS)
def test_evidence_is_the_log_odds_of_one_bit(T):
    process = BernoulliDiffusionProcess(T)
    for t in range(1, T + 1):
        q = exact.bit_kernel(T, 0, t) if T <= 30 else None
        alpha = 1 - t / T
        expected = math.log((1 + alpha) / (1 - alpha))
        if q is not None:
            assert math.log(q[1, 1] / q[0, 1]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert process.evidence[t].item() == pytest.approx(expected, rel=ROUNDING)
    assert process.evidence[T] == 0
    assert 50 < process.evidence[0] < math.inf


@pytest.mark.parametrize("T", CHAINS)
def test_single_steps_compose_to_q_x_t_given_x_0(T):
    """The share of u that keeps a bit, read off a grid of u, is the product of the single steps."""
    process, grid = BernoulliDiffusionProcess(T), 2000
    u = ((torch.arange(grid) + 0.5) / grid)[:, None]
    for t in sorted({*range(min(T, 30) + 1), T // 2, T - 1, T}):
        q = exact.bit_kernel(T, 0, t)
        for bit in (0, 1):
            x_t = process.sample_x_t(torch.full((grid, 1), float(bit)), column(t, u), u)
            assert x_t.mean().item() == pytest.approx(q[bit, 1].item(), abs=0.51 / grid)


def test_x_t_changes_where_u_passes_the_keep_probability():
    T = 30
    process = BernoulliDiffusionProcess(T)
    x_0 = random_bits(T + 1, 5, seed=0)
    t = torch.arange(T + 1)
    keep = ((1 + exact.alphas(T)) / 2)[:, None].expand(-1, 5)
    assert process.sample_x_t(x_0, t, (keep - 1e-6).float()).equal(x_0)
    assert process.sample_x_t(x_0, t, (keep + 1e-6).float()).equal(1 - x_0)


def test_prior_is_a_fair_coin():
    u = torch.tensor([[0.01, 0.4999999], [0.5000001, 0.99]])
    assert BernoulliDiffusionProcess(4).sample_prior(u).tolist() == [[1, 1], [0, 0]]


# --- The posterior q(x_r | x_t, x_0): what a network says that is certain of x_0


def posterior_flip_probability(process, x_t, x_0, t: int, r: int) -> torch.Tensor:
    """q(x_r != x_t | x_t, x_0) per bit, (B, L)."""
    return process.flip_probability(x_t, 200 * signs(x_0), column(t, x_t), column(r, x_t))


@pytest.mark.parametrize("T", CHAINS)
def test_posterior_is_bayes_rule(T):
    process = BernoulliDiffusionProcess(T)
    x_0, x_t = exact.states(2).float().unbind(dim=1)  # the four pairs
    for r, t in all_pairs(T) if T <= 30 else [(0, 1), (1, 2), (0, 40), (37, 41), (998, 1000)]:
        q = exact.bit_posterior(T, r, t)  # [x_0, x_t, x_r]
        expected = q[x_0.long(), x_t.long(), 1 - x_t.long()][:, None]
        got = posterior_flip_probability(process, x_t[:, None], x_0[:, None], t, r)
        torch.testing.assert_close(got.double(), expected, rtol=ROUNDING, atol=1e-12)


@pytest.mark.parametrize(("L", "T"), SIZES)
def test_posterior_of_strings_is_the_product_over_bits(L, T):
    """Bayes' rule for whole strings, all of them: the bits do not depend on one another."""
    process, x = BernoulliDiffusionProcess(T), exact.states(L)
    pairs = all_pairs(T) if L == 3 else [(0, 1), (0, 30), (3, 4), (3, 20), (29, 30)]
    x_0, x_t = x.repeat_interleave(2**L, 0).float(), x.repeat(2**L, 1).float()
    for r, t in pairs:
        flip = posterior_flip_probability(process, x_t, x_0, t, r)
        moved = x_t[:, None, :].double() != x  # (x_0 x_t, x_r, L)
        flip = flip.double()[:, None, :]
        got = torch.where(moved, flip, 1 - flip).prod(dim=2)
        expected = exact.posterior(L, T, r, t).flatten(0, 1)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


# --- The network's step p(x_r | x_t)


@pytest.mark.parametrize(("L", "T"), SIZES)
def test_flip_probability_is_f_of_c(L, T):
    process, model, x = (
        BernoulliDiffusionProcess(T),
        exact.random_model(L, T, seed=1),
        exact.states(L),
    )
    for r, t in all_pairs(T):
        logits = model.logits[t].detach()
        got = process.flip_probability(x.float(), logits, column(t, x), column(r, x))
        expected = exact.flip_probability(x, logits, T, t, r)
        torch.testing.assert_close(got.double(), expected, rtol=ROUNDING, atol=0)


def test_rows_have_their_own_times():
    L, T = 6, 30
    process, model, x = (
        BernoulliDiffusionProcess(T),
        exact.random_model(L, T, seed=2),
        exact.states(L),
    )
    generator = torch.Generator().manual_seed(3)
    t = torch.randint(1, T + 1, (2**L,), generator=generator)
    r = (torch.rand(2**L, generator=generator) * t).long()
    logits = model(x.float(), t).detach()
    got = process.flip_probability(x.float(), logits, t, r)
    expected = exact.flip_probability(x, logits, T, t[:, None], r[:, None])
    torch.testing.assert_close(got.double(), expected, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize(("L", "T"), SIZES)
def test_flip_probability_is_the_posterior_averaged_over_x_0(L, T):
    """p(x_r | x_t) = sum over x_0,i of the denoising posterior times q(x_r | x_t, x_0)."""
    process, model, x = (
        BernoulliDiffusionProcess(T),
        exact.random_model(L, T, seed=4),
        exact.states(L),
    )
    for r, t in all_pairs(T):
        logits = model.logits[t].detach()
        times = column(t, x), column(r, x)
        one = process.denoise(x.float(), logits, times[0]).double()
        q = exact.bit_posterior(T, r, t)
        flip_if = [q[x_0][x.long(), 1 - x.long()] for x_0 in (0, 1)]
        expected = (1 - one) * flip_if[0] + one * flip_if[1]
        got = process.flip_probability(x.float(), logits, *times)
        # 1 - one loses digits where the network and the bit agree: hence the absolute part
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=2e-7)


def long_flip(T: int, t: int, r: int, c: Decimal) -> Decimal:
    """f(c) = (beta/2) (1 - alpha_r c) / (1 + alpha_t c), with the context's digits."""
    alpha_t, alpha_r = 1 - Decimal(t) / T, 1 - Decimal(r) / T
    return (1 - alpha_t / alpha_r) / 2 * (1 - alpha_r * c) / (1 + alpha_t * c)


def long_tanh(logit: float) -> Decimal:
    """tanh(logit / 2) with the context's digits."""
    e = Decimal(logit).exp()
    return (e - 1) / (e + 1)


@pytest.mark.parametrize("T", [1, 4, 30, 1000])
def test_small_flip_probabilities_keep_their_digits(T):
    """Log-odds up to +-80 against 120 digits: down to 1e-35, to float32's relative precision."""
    process = BernoulliDiffusionProcess(T)
    margins = [-80.0, -17.5, -9.0, 0.5, 9.0, 17.5, 40.0, 80.0]
    for r, t in {(0, 1), (0, T), (T - 1, T), (T // 2, T // 2 + 1), (0, T // 2 + 1)}:
        for bit in (0, 1):
            logits = (2 * bit - 1) * torch.tensor([margins])
            times = torch.tensor([t]), torch.tensor([r])
            got = process.flip_probability(torch.full_like(logits, bit), logits, *times)
            with localcontext() as context:
                context.prec = 120
                expected = [float(long_flip(T, t, r, long_tanh(margin))) for margin in margins]
            expected = torch.tensor([expected], dtype=torch.float64)
            torch.testing.assert_close(got.double(), expected, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("T", [4, 30, 1000])
@pytest.mark.parametrize("data", [["000", "011", "111"], ["10100", "01011", "00110", "11111"]])
def test_ideal_network_gives_the_true_denoising_posterior(data, T):
    """Log-odds told by the other bits, plus what the bit says itself: Bayes' rule over the data."""
    data = torch.tensor([[int(c) for c in row] for row in data]).double()  # (N, L)
    L = data.shape[1]
    process, x = BernoulliDiffusionProcess(T), exact.states(L)
    for t in sorted({1, 2, T // 2, T - 1, T}):
        keep = (1 + exact.alphas(T)[t]) / 2
        likelihood = torch.where(x[:, None] == data, keep, 1 - keep).prod(dim=2)  # (x_t, N)
        which = likelihood / likelihood.sum(dim=1, keepdim=True)
        logits = exact.IdealModel(data, T)(x.float(), column(t, x))
        got = process.denoise(x.float(), logits, column(t, x)).double()
        torch.testing.assert_close(got, which @ data, rtol=1e-5, atol=1e-6)
        r = t // 2
        q = exact.bit_posterior(T, r, t) if T <= 30 else None
        if q is None:
            continue
        flip = q[data.long()[None], x.long()[:, None], 1 - x.long()[:, None]]  # (x_t, N, L)
        expected = (which[:, :, None] * flip).sum(dim=1)
        got = process.flip_probability(x.float(), logits, column(t, x), column(r, x)).double()
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


def test_reverse_step_flips_below_the_flip_probability():
    L, T = 6, 30
    process, model, x = (
        BernoulliDiffusionProcess(T),
        exact.random_model(L, T, seed=5),
        exact.states(L),
    )
    x_t = x.float()
    for r, t in [(0, 1), (0, 30), (29, 30), (7, 12)]:
        logits = model.logits[t].detach()
        f = exact.flip_probability(x, logits, T, t, r)
        times = column(t, x), column(r, x)
        below = process.reverse_step(x_t, logits, *times, (f * (1 - 1e-5)).float())
        above = process.reverse_step(x_t, logits, *times, (f * (1 + 1e-5)).float())
        assert below.equal(1 - x_t)
        assert above.equal(x_t)


@pytest.mark.parametrize("T", CHAINS)
def test_max_flip_probability_bounds_every_network_and_is_attained(T):
    process = BernoulliDiffusionProcess(T)
    b = process.max_flip_probability()
    assert b.shape == (T + 1,)
    assert b[0] == 0
    assert b[1] == 1
    assert ((b >= 0) & (b <= 1)).all()
    t = torch.arange(1, T + 1)
    logits = torch.cat([torch.linspace(-50, 50, 41), torch.tensor([-1e3, 1e3])]).expand(T, -1)
    for bit in (0.0, 1.0):
        f = process.flip_probability(torch.full_like(logits, bit), logits, t, t - 1).double()
        assert (f <= b[1:, None] * (1 + ROUNDING)).all()
        torch.testing.assert_close(f.amax(dim=1), b[1:], rtol=ROUNDING, atol=0)
        # and by a network that is certain of the opposite, not by any other
        attained = 0 if bit == 1 else len(logits[0]) - 3
        torch.testing.assert_close(f[:, attained], b[1:], rtol=ROUNDING, atol=0)
        assert (f[1:-1, 20] < 0.999 * b[2:-1]).all()


# --- The step's divergence, one term of the bound


def long_divergence(T: int, t: int, r: int, x_0: int, x_t: int, logit: float) -> float:
    """KL( Bern(f(c_0)) || Bern(f(c)) ) of one bit, in bits, with 120 digits: nothing can cancel."""
    with localcontext() as context:
        context.prec = 120
        s_0, s_t = 2 * x_0 - 1, 2 * x_t - 1
        q = long_flip(T, t, r, Decimal(s_t * s_0))
        p = long_flip(T, t, r, s_t * long_tanh(logit))
        nats = sum(a * (a / b).ln() for a, b in ((q, p), (1 - q, 1 - p)) if a != 0)
        return float(nats / Decimal(2).ln())


def divergence(process: BernoulliDiffusionProcess, cases: list[tuple]) -> torch.Tensor:
    """step_divergence for one-bit cases (t, r, x_0, x_t, logit)."""
    t, r, x_0, x_t, logits = zip(*cases, strict=True)
    bits = (torch.tensor(v, dtype=torch.float32)[:, None] for v in (x_0, x_t, logits))
    return process.step_divergence(*bits, torch.tensor(t), torch.tensor(r))


@pytest.mark.parametrize("T", [4, 30, 1000])
def test_step_divergence_to_many_digits(T):
    """Any r < t, log-odds from -40 to 40, network right or wrong: to a few float32 roundings.

    The terms are differences of softplus(+-logit +-lambda): a rounding is that of |logit| + lambda.
    """
    process = BernoulliDiffusionProcess(T)
    times = all_pairs(T) if T == 4 else all_pairs(T)[:: max(1, len(all_pairs(T)) // 20)]
    times += [(0, 1), (0, T), (T - 1, T)]
    logits = (-40.0, -15.5, -3.0, -0.25, 0.0, 1.0, 6.0, 40.0)
    cases = [
        (t, r, *pair, logit)
        for r, t in times
        for pair in itertools.product((0, 1), repeat=2)
        for logit in logits
    ]
    got = divergence(process, cases).double()
    expected = torch.tensor([long_divergence(T, *case) for case in cases], dtype=torch.float64)
    size = torch.tensor([abs(case[4]) + process.evidence[case[0]].item() + 1 for case in cases])
    error = (got - expected).abs()
    assert (error <= 4 * 2.0**-23 * size).all(), (error / size).max() * 2**23


def test_step_divergence_at_the_last_step_is_the_cost_of_naming_the_bit():
    """t = 1, r = 0: all of -log2 P(x_0 | x_1), right or wrong, to a rounding of a probability."""
    T = 30
    process = BernoulliDiffusionProcess(T)
    cases = [
        (1, 0, x_0, x_t, (2 * x_0 - 1) * margin)
        for x_0, x_t in itertools.product((0, 1), repeat=2)
        for margin in (-90.0, -40.0, -10.0, 0.0, 5.0)
    ]
    got = divergence(process, cases).double()
    expected = torch.tensor([long_divergence(T, *case) for case in cases], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=ROUNDING, atol=2**-23)
    assert expected.max() > 120


@pytest.mark.parametrize(("L", "T"), SIZES)
def test_step_divergence_sums_the_divergences_of_the_bits(L, T):
    process, model, x = (
        BernoulliDiffusionProcess(T),
        exact.random_model(L, T, seed=6),
        exact.states(L),
    )
    x_0, x_t = x.repeat_interleave(2**L, 0), x.repeat(2**L, 1)
    for r, t in all_pairs(T) if L == 3 else all_pairs(T)[::7]:
        logits = model.logits[t].detach().repeat(2**L, 1)
        p = exact.flip_probability(x_t, logits, T, t, r)
        q = exact.bit_posterior(T, r, t)[x_0.long(), x_t.long(), 1 - x_t.long()]
        ratio = torch.xlogy(q, q / p) + torch.xlogy(1 - q, (1 - q) / (1 - p))
        got = process.step_divergence(
            x_0.float(), x_t.float(), logits, column(t, x_t), column(r, x_t)
        )
        assert got.shape == (4**L,)
        torch.testing.assert_close(
            got.double(), ratio.sum(dim=1) / math.log(2), rtol=1e-5, atol=1e-6 * L
        )


@pytest.mark.parametrize("T", [4, 30, 1000])
def test_step_divergence_has_the_right_gradient(T):
    """d/dl of KL is (f - f_0) f' / (f (1 - f)): finite and right for log-odds from -40 to 40."""
    process = BernoulliDiffusionProcess(T)
    pairs = [(0, 1), (0, T), (T - 1, T), (T // 2 - 1, T // 2), (0, T // 2)]
    for (r, t), (x_0, x_t) in itertools.product(pairs, itertools.product((0.0, 1.0), repeat=2)):
        logits = torch.linspace(-40, 40, 81)[:, None].requires_grad_()
        bits = torch.full_like(logits, x_0), torch.full_like(logits, x_t)
        times = column(t, logits), column(r, logits)
        value = process.step_divergence(*bits, logits, *times)
        (got,) = torch.autograd.grad(value.sum(), logits)
        assert value.isfinite().all()
        # in float64, 1 - c and 1 + c from two sigmoids, 1 - f = (1 - beta/2)(1 + alpha_r c) / ...
        l64 = logits.detach().double().requires_grad_()
        s_t, s_0 = 2 * x_t - 1, 2 * x_0 - 1
        alpha_t, alpha_r = exact.alphas(T)[t], exact.alphas(T)[r]
        beta = 1 - alpha_t / alpha_r
        minus, plus = 2 * torch.sigmoid(-s_t * l64), 2 * torch.sigmoid(s_t * l64)
        below = (1 - alpha_t) + alpha_t * plus
        f = beta / 2 * ((1 - alpha_r) + alpha_r * minus) / below
        stay = (1 - beta / 2) * ((1 - alpha_r) + alpha_r * plus) / below
        q = beta / 2 * (1 - alpha_r * s_t * s_0) / (1 + alpha_t * s_t * s_0)
        expected_value = -(q * f.log()).sum()
        if 1 - q > 1e-12:
            expected_value = expected_value - ((1 - q) * stay.log()).sum()
        (expected,) = torch.autograd.grad(expected_value / math.log(2), l64)
        assert got.isfinite().all()
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=5e-7)


def test_step_divergence_is_zero_for_a_network_that_knows():
    T = 30
    process = BernoulliDiffusionProcess(T)
    cases = [
        (t, r, x_0, x_t, (2 * x_0 - 1) * 40.0)
        for r, t in all_pairs(T)
        for x_0, x_t in itertools.product((0, 1), repeat=2)
    ]
    assert divergence(process, cases).abs().max() < 1e-14


@pytest.mark.parametrize("T", [1, 4, 100, 1000, 10000])
def test_zero_log_odds_cost_one_bit_a_bit(T):
    """Summed over all t and x_t. The tolerance is a rounding a step, of random sign."""
    process = BernoulliDiffusionProcess(T)
    t = torch.arange(1, T + 1)
    keep = (1 + exact.alphas(T)[1:]) / 2
    total = 0.0
    for agree, weight in ((1.0, keep), (0.0, 1 - keep)):
        x_0, x_t = torch.ones(T, 1), torch.full((T, 1), agree)
        term = process.step_divergence(x_0, x_t, torch.zeros(T, 1), t, t - 1)
        total += (weight * term.double()).sum().item()
    assert total == pytest.approx(1, abs=2e-7 * math.sqrt(T))


def test_step_divergence_of_a_network_that_has_diverged():
    """A network that is wrong by 20,000 nats pays all of them, and is told where down is."""
    logits = torch.tensor([[-2e4]], requires_grad=True)
    one, r, t = torch.ones(1, 1), torch.tensor([0]), torch.tensor([1])
    value = BernoulliDiffusionProcess(100).step_divergence(one, one, logits, t, r)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.item() == pytest.approx(2e4 / math.log(2), rel=1e-3)
    assert gradient.item() == pytest.approx(-1 / math.log(2), rel=1e-3)


@pytest.mark.parametrize(("r", "t"), [(0, 1), (3, 4), (2, 9), (7, 10)])
def test_forward_steps_compose(r, t):
    """q(x_t | x_r) after q(x_r | x_0) is q(x_t | x_0)."""
    process = BernoulliDiffusionProcess(10)
    u = (torch.arange(4000)[None] + 0.5) / 4000
    x_r = torch.zeros_like(u)
    flips = process.forward_step(x_r, torch.tensor([r]), torch.tensor([t]), u).mean().item()
    right_r, right_t = ((1 + process.alpha[k].item()) / 2 for k in (r, t))
    assert right_r * (1 - flips) + (1 - right_r) * flips == pytest.approx(right_t, abs=3e-4)


def test_known_share_is_how_far_evidence_settles_the_bits():
    process = BernoulliDiffusionProcess(10)
    evidence = process.evidence_of(torch.tensor([[1, 0, -1, -1], [1, 1, 1, 1], [-1, -1, -1, -1]]))
    assert process.known_share(evidence).tolist() == [0.5, 1.0, 0.0]
    noisy = process.evidence_of(torch.tensor([[1, 0]]), 0.25)
    assert process.known_share(noisy).item() == pytest.approx(0.25)  # (1 - 2 p)^2
