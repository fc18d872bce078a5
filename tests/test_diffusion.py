"""The bound against enumeration: every string, every x_t, every chain; and its one-t estimate."""

import itertools
import math
from collections import Counter

import exact
import pytest
import torch

from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.datasets import heartbeat
from bernoulli_diffusion.diffusion import Diffusion, stratified

SIZES = [(3, 4), (6, 30)]  # (L, T)
Z_LIMIT = 4.5  # two-sided 7e-6; seeds are fixed, so a failure is a change of the code, not bad luck


def build(model: exact.TableModel) -> Diffusion:
    return Diffusion(BernoulliDiffusionProcess(model.T), model)


def zero_model(L: int, T: int) -> exact.TableModel:
    return exact.TableModel(torch.zeros(T + 1, 2**L, L))


def middle_of(t: torch.Tensor, T: int) -> torch.Tensor:
    """A u that the process turns into t."""
    return ((t - 0.5) / T).sqrt()


def every_draw(L: int, T: int) -> tuple[torch.Tensor, ...]:
    """All (x_0, t, x_t), as the uniform numbers that lead there, and their probabilities.

    Returns x_0 (N, L), t (N,), u_x (N, L), q(x_t | x_0) (N,); x_0 changes slowest.
    """
    x = exact.states(L)
    x_0, t, x_t = (
        v.flatten(0, 2)
        for v in (
            x[:, None, None, :].expand(-1, T, 2**L, -1),
            torch.arange(1, T + 1)[None, :, None].expand(2**L, -1, 2**L),
            x[None, None, :, :].expand(2**L, T, -1, -1),
        )
    )
    keep = ((1 + exact.alphas(T)) / 2)[t][:, None]
    stays = x_0 == x_t
    u_x = torch.where(stays, keep / 2, (1 + keep) / 2)  # the middle of the numbers that do it
    q = torch.where(stays, keep, 1 - keep).prod(dim=1)
    return x_0.float(), t, u_x.float(), q


# --- The bound, exactly


def test_bound_is_the_divergence_of_whole_chains():
    """Sum over t of the step divergences = E_q log q(x_1..x_T | x_0) / p(x_0..x_T), all 8^4 chains.

    So there is neither a prior term nor a reconstruction term to add.
    """
    L, T = 3, 4
    model = exact.random_model(L, T, seed=10)
    p = [exact.reverse_kernel(model, t, t - 1) for t in range(1, T + 1)]  # [x_t, x_t-1]
    q = [exact.forward_kernel(L, T, t - 1, t) for t in range(1, T + 1)]  # [x_t-1, x_t]
    joint_p = torch.einsum("ba,cb,dc,ed->abcde", *p) * 0.5**L
    joint_q = torch.einsum("ab,bc,cd,de->abcde", *q)
    assert joint_p.sum().item() == pytest.approx(1)
    torch.testing.assert_close(joint_p.sum(dim=(1, 2, 3, 4)), exact.law(model))
    nats = joint_q * (joint_q / joint_p).log()
    chains = nats.sum(dim=(1, 2, 3, 4)) / math.log(2)
    torch.testing.assert_close(chains, exact.bound(model), rtol=1e-10, atol=0)
    got = bound_by_enumeration(build(model), L)
    torch.testing.assert_close(got, chains, rtol=1e-6, atol=1e-6)


def bound_by_enumeration(diffusion: Diffusion, L: int) -> torch.Tensor:
    """(2^L,) the bound of every string: the package's terms, weighted by q(x_t | x_0)."""
    x_0, t, u_x, q = every_draw(L, diffusion.T)
    with torch.no_grad():
        terms = diffusion.bound_term(x_0, t, u_x).double()
    return (q * terms).view(2**L, -1).sum(dim=1)


@pytest.mark.parametrize(("L", "T"), SIZES)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_bound_terms_and_bound_are_exact(L, T, seed):
    model = exact.random_model(L, T, seed)
    x_0, t, u_x, q = every_draw(L, T)
    with torch.no_grad():
        terms = build(model).bound_term(x_0, t, u_x).double()
    by_time = (q * terms).view(2**L, T, 2**L).sum(dim=2).T  # (T, x_0)
    torch.testing.assert_close(by_time, exact.bound_terms(model), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("L", "T"), [*SIZES, (1, 1), (4, 1), (2, 7)])
@pytest.mark.parametrize("scale", [0.3, 1.5, 5.0])
def test_bound_is_never_below_the_exact_cost(L, T, scale):
    """-log2 p(x_0) <= bound for every string; and the bound says something, it is no constant."""
    model = exact.random_model(L, T, seed=14, scale=scale)
    cost = -exact.law(model).log2()
    got = bound_by_enumeration(build(model), L)
    assert (got >= cost - 1e-5).all()
    assert got.std() > 0.01
    assert (0.5**got).sum() <= 1 + 1e-5  # a code of these lengths exists


def test_bound_is_the_exact_cost_of_independent_bits_in_a_single_step():
    """T = 1 and log-odds that do not depend on x_1: there is no chain to lose anything over."""
    logits = torch.tensor([0.7, -2.0, 0.1])
    diffusion = build(exact.TableModel(logits.expand(2, 8, 3)))
    one = torch.sigmoid(logits.double())
    p = torch.where(exact.states(3) == 1, one, 1 - one).prod(dim=1)
    torch.testing.assert_close(exact.law(diffusion.reverse_model), p)
    torch.testing.assert_close(bound_by_enumeration(diffusion, 3), -p.log2(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("L", "T"), [*SIZES, (5, 1), (2, 100)])
def test_zero_log_odds_are_the_uniform_model(L, T):
    """Exactly L bits for every string and any T, and p(x_0) is uniform."""
    got = bound_by_enumeration(build(zero_model(L, T)), L)
    torch.testing.assert_close(got, torch.full_like(got, L), rtol=1e-6, atol=0)
    torch.testing.assert_close(exact.law(zero_model(L, T)), torch.full_like(got, 0.5**L))


def test_more_certain_networks_pay_for_being_wrong():
    """log-odds scaled up: the string that the network means gets cheaper, its opposite dearer."""
    L, T = 3, 4
    logits = torch.tensor([1.0, -1.0, 1.0]).expand(T + 1, 2**L, L)
    bounds = [bound_by_enumeration(build(exact.TableModel(k * logits)), L) for k in (0, 1, 3)]
    meant, opposite = 0b101, 0b010
    assert bounds[0][meant] > bounds[1][meant] > bounds[2][meant]
    assert bounds[0][opposite] < bounds[1][opposite] < bounds[2][opposite]


# --- Times


@pytest.mark.parametrize("T", [1, 2, 4, 30, 1000, 100_000])
def test_times_have_the_probability_that_they_are_weighted_with(T):
    """P(t) is the length of the interval of u that gives t, and the intervals fill [0, 1)."""
    t = torch.arange(1, T + 1)
    end = (t.double() / T).sqrt()
    length = end.diff(prepend=torch.zeros(1, dtype=torch.float64))
    got, probability = BernoulliDiffusionProcess(T).times(middle_of(t.double(), T))
    assert got.equal(t)
    torch.testing.assert_close(probability, length, rtol=1e-9, atol=0)
    assert probability.sum().item() == pytest.approx(1, abs=1e-12)
    # the ends of the intervals, in float64
    step = 1e-4 * length
    assert BernoulliDiffusionProcess(T).times(end - step)[0].equal(t)
    assert BernoulliDiffusionProcess(T).times((end + step)[:-1])[0].equal(t[1:])
    # and in float32, as it is used
    got, probability = BernoulliDiffusionProcess(T).times(middle_of(t, T))
    assert probability.dtype == torch.float32
    if T <= 1000:
        assert got.equal(t)
        torch.testing.assert_close(probability.double(), length, rtol=1e-6, atol=0)


@pytest.mark.parametrize("T", [1, 4, 1000])
def test_times_at_the_ends_of_the_unit_interval(T):
    u = torch.tensor([0.0, 1e-30, 1 - 2**-24, 1.0])  # float32 rounds strata up to 1 now and then
    t, probability = BernoulliDiffusionProcess(T).times(u)
    assert t.tolist() == [1, 1, T, T]
    assert t.dtype == torch.int64
    assert probability[0].item() == pytest.approx(1 / math.sqrt(T))


def test_times_keep_their_shape():
    t, probability = BernoulliDiffusionProcess(10).times(torch.rand(3, 5))
    assert t.shape == probability.shape == (3, 5)


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_stratified_has_one_number_in_each_stratum(count):
    torch.manual_seed(0)
    u = stratified(count)
    assert u.shape == (count,)
    middle = (torch.arange(count) + 0.5) / count
    from_middle = (u.sort().values - middle).abs() * count
    assert from_middle.max() < 0.501  # float32 may round a number to the end of its stratum
    assert count == 1 or from_middle.max() > 0.2
    if count == 1000:  # in random order: z of the correlation of neighbours
        z = torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1] * math.sqrt(count)
        assert abs(z) < Z_LIMIT


# --- The one-t estimate


@pytest.mark.parametrize(("L", "T"), SIZES)
def test_one_t_estimate_averages_to_the_bound(L, T):
    """Over every t and x_t, with the exact probability of each: no sampling in this test."""
    model = exact.random_model(L, T, seed=16)
    x_0, t, u_x, q = every_draw(L, T)
    with torch.no_grad():
        estimate = build(model).one_t_estimate(x_0, middle_of(t, T), u_x).double()
    length = (t.double() / T).sqrt() - ((t.double() - 1) / T).sqrt()
    got = (length * q * estimate).view(2**L, -1).sum(dim=1)
    torch.testing.assert_close(got, exact.bound(model), rtol=2e-6, atol=0)


@pytest.mark.parametrize(("L", "T"), SIZES)
def test_one_t_estimate_is_unbiased(L, T):
    """With 100,000 real draws, for three strings."""
    model, n = exact.random_model(L, T, seed=17), 100_000
    generator = torch.Generator().manual_seed(18)
    for number in (0, 3, 2**L - 1):
        x_0 = exact.states(L)[number].float().expand(n, -1)
        u_t, u_x = torch.rand(n, generator=generator), torch.rand(n, L, generator=generator)
        with torch.no_grad():
            values = build(model).one_t_estimate(x_0, u_t, u_x).double()
        z = (values.mean() - exact.bound(model)[number]) / (values.std() / math.sqrt(n))
        assert abs(z) < Z_LIMIT


@pytest.mark.parametrize("num_sample_steps", [1, 4])
def test_loss_is_the_mean_bound(num_sample_steps):
    """300 losses of a batch of all 64 strings: their mean within the z-limit of the exact one."""
    L, T = 6, 30
    diffusion = build(exact.random_model(L, T, seed=19))
    x_0, repeats = exact.states(L).float(), 300
    torch.manual_seed(20)
    with torch.no_grad():
        losses = torch.stack([diffusion.loss(x_0, num_sample_steps) for _ in range(repeats)])
    error = losses.double().mean() - exact.bound(diffusion.reverse_model).mean()
    assert abs(error) < Z_LIMIT * losses.std() / math.sqrt(repeats)


def test_more_times_a_row_give_a_loss_with_less_noise():
    L, T = 6, 30
    diffusion = build(exact.random_model(L, T, seed=21))
    x_0 = exact.states(L).float()
    torch.manual_seed(22)
    with torch.no_grad():
        spread = [
            torch.stack([diffusion.loss(x_0, k) for _ in range(300)]).std().item() for k in (1, 4)
        ]
    # one half by counting; 300 losses know a spread to 4%, so 0.65 is seven of its standard errors
    assert 0.35 < spread[1] / spread[0] < 0.65


def test_times_of_a_loss_are_strata_of_one_draw():
    """Of 64 rows x 4 steps, each 256th of the unit interval gives one time."""
    T, seen = 30, []

    class Recorder(exact.TableModel):
        def forward(self, x_t, t):
            seen.append(t)
            return super().forward(x_t, t)

    model = Recorder(torch.zeros(T + 1, 8, 3))
    torch.manual_seed(23)
    build(model).loss(torch.zeros(64, 3), num_sample_steps=4)
    (t,) = seen
    assert t.shape == (256,)
    ends = torch.arange(257).double() / 256
    lowest, highest = ((T * e.square()).ceil().clamp(1, T) for e in (ends[:-1], ends[1:]))
    assert ((t.sort().values >= lowest) & (t.sort().values <= highest)).all()


def test_loss_has_the_gradient_of_the_bound():
    """Averaged over every draw, the gradient of the one-t estimate is that of the exact bound."""
    L, T = 3, 4
    model = exact.random_model(L, T, seed=24)
    x_0, t, u_x, q = every_draw(L, T)
    estimate = build(model).one_t_estimate(x_0, middle_of(t, T), u_x)
    length = (t.double() / T).sqrt() - ((t.double() - 1) / T).sqrt()
    (got,) = torch.autograd.grad((length * q * estimate).sum(), model.logits)
    step = 1e-3
    for place in [(1, 0, 0), (1, 7, 2), (2, 5, 1), (3, 2, 2), (4, 6, 0)]:
        up, down = (exact.TableModel(model.logits.detach().clone()) for _ in range(2))
        with torch.no_grad():
            up.logits[place] += step
            down.logits[place] -= step
            width = (up.logits[place] - down.logits[place]).double()
        expected = (exact.bound(up).sum() - exact.bound(down).sum()) / width
        assert got[place].item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)
    assert got[0].abs().max() == 0  # nothing is ever asked at t = 0


# --- The heartbeat data: what the best of networks can reach


class Heartbeat:
    """Length 20, period 5, all five phases, and the exact sum over x_t by symmetry.

    An x_t matters only through how many of each phase's four places are 1: 5^5 combinations, and
    the four phases that are not x_0's may be exchanged: 350 strings x_t stand for all 2^20, each
    with its multiplicity.
    """

    data = torch.from_numpy(heartbeat(length=20, period=5)[0]).double()  # (5, 20)

    def __init__(self):
        self.x_0 = next(row for row in self.data if row[0] == 1).float()
        x_t, multiplicity = [], []
        for own in range(5):
            for others in itertools.combinations_with_replacement(range(5), 4):
                ones = (own, *others)
                x_t.append([float(i // 5 < ones[i % 5]) for i in range(20)])
                orders = math.factorial(4)
                for repeats in Counter(others).values():
                    orders //= math.factorial(repeats)
                multiplicity.append(orders * math.prod(math.comb(4, n) for n in ones))
        self.x_t = torch.tensor(x_t)  # (350, 20)
        self.multiplicity = torch.tensor(multiplicity, dtype=torch.float64)
        self.changed = (self.x_t != self.x_0).sum(dim=1)

    def moments(
        self, process: BernoulliDiffusionProcess, model
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(T,) each: mean and mean square over q(x_t | x_0) of the bound's terms t = 1..T."""
        T, results = process.T, []
        for first in range(1, T + 1, 10):
            times = torch.arange(first, min(first + 10, T + 1))
            keep = ((1 + exact.alphas(T)[times]) / 2)[:, None]
            q = self.multiplicity * keep ** (20 - self.changed) * (1 - keep) ** self.changed
            assert (q.sum(dim=1) - 1).abs().max() < 1e-9
            x_t, t = self.x_t.repeat(len(times), 1), times.repeat_interleave(len(self.x_t))
            terms = process.step_divergence(
                self.x_0.expand_as(x_t), x_t, model(x_t, t), t, t - 1
            ).double()
            terms = terms.view(len(times), -1)
            results.append(((q * terms).sum(dim=1), (q * terms.square()).sum(dim=1)))
        mean, square = zip(*results, strict=True)
        return torch.cat(mean), torch.cat(square)


@pytest.mark.parametrize(
    ("T", "floor"), [(10, 2.871), (20, 2.581), (50, 2.422), (100, 2.372), (1000, 2.327)]
)
def test_ideal_network_reaches_the_floor_on_heartbeat_data(T, floor):
    """The floors of design section 3, as sums over all t and all x_t; entropy log2(5) = 2.3219."""
    model = exact.IdealModel(Heartbeat.data, T)
    mean, _ = Heartbeat().moments(BernoulliDiffusionProcess(T), model)
    assert mean.sum().item() == pytest.approx(floor, abs=6e-4)
    assert mean.sum() > math.log2(5)


def test_every_phase_costs_the_floor_by_sampling_too():
    """T = 10, 100,000 stratified draws over the five phases: the symmetry is really there."""
    T, n = 10, 100_000
    diffusion = Diffusion(BernoulliDiffusionProcess(T), exact.IdealModel(Heartbeat.data, T))
    mean, _ = Heartbeat().moments(diffusion.process, diffusion.reverse_model)
    torch.manual_seed(25)
    for phase in Heartbeat.data.float():
        x_0 = phase.expand(n // 5, -1)
        values = diffusion.one_t_estimate(x_0, stratified(n // 5), torch.rand(n // 5, 20)).double()
        standard_error = values.std().item() / math.sqrt(n // 5)  # stratified: a little less
        assert standard_error < 0.06
        assert abs(values.mean() - mean.sum()) < Z_LIMIT * standard_error


@pytest.mark.parametrize("limit", [0, 5])
def test_one_t_estimate_varies_less_than_with_uniform_times(limit):
    """By a factor of four at T = 1000, for networks whose certainty has a limit, as trained ones'.

    Exact moments, no sampling. The perfect network, which has none, would do better (by 1.37) with
    uniform times: its terms do not grow towards t = 0.
    """
    T = 1000
    process, ideal = BernoulliDiffusionProcess(T), exact.IdealModel(Heartbeat.data, T)
    mean, square = Heartbeat().moments(process, lambda x_t, t: ideal(x_t, t).clamp(-limit, limit))
    t = torch.arange(1, T + 1)
    _, probability = BernoulliDiffusionProcess(T).times(middle_of(t, T))
    ours = (square / probability).sum() - mean.sum() ** 2
    uniform = (square * T).sum() - mean.sum() ** 2
    assert ours < uniform / 4
