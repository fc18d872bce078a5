"""The samplers against the exact law of their chain, multiplied out over all states and steps."""

import itertools
import math

import exact
import pytest
import torch

from bernoulli_diffusion import sampling
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.noise import Noise
from bernoulli_diffusion.sampling import (
    SAMPLERS,
    ProposalTimes,
    all_times,
    ancestral,
    balanced,
    default_sampler,
    draw_together,
    grid_times,
    is_thinning_faster,
    orders,
    sample,
    samplers_for,
    thinned,
    trajectory,
    walk,
)

SIZES = [(3, 4), (6, 30)]  # (L, T)
Z_LIMIT = 4.5  # two-sided 7e-6; seeds are fixed, so a failure is a change of the code, not bad luck
N = 100_000  # samples: laws that are 2% apart in total variation are told apart with z > 6 (tested)


def build(L: int, T: int, seed: int = 0) -> Diffusion:
    return Diffusion(BernoulliDiffusionProcess(T), exact.random_model(L, T, seed))


def noise(L: int, count: int = N, seed: int = 1) -> Noise:
    return Noise(seed, torch.arange(count), L)


def last(steps) -> torch.Tensor:
    """x_0 of a sampler."""
    *_, (t, x_0) = steps
    assert t == 0
    return x_0


def joint_law(model: exact.TableModel, t: int) -> torch.Tensor:
    """(2^L, 2^L) exact law of (x_t, x_0)."""
    p = exact.laws(model)[t].diag()
    for s in range(t, 0, -1):
        p = p @ exact.reverse_kernel(model, s, s - 1)
    return p


# --- Times


def test_grid_times_fall_to_zero_in_as_many_steps_as_asked():
    for T in range(1, 61):
        for K in range(1, T + 6):
            times = grid_times(T, K)
            assert times[0] == T
            assert times[-1] == 0
            assert all(t > r for t, r in itertools.pairwise(times))
            assert len(times) == min(K, T) + 1
        assert grid_times(T, T) == all_times(T) == list(range(T, -1, -1))


@pytest.mark.parametrize(("T", "K"), [(1000, 1), (1000, 20), (1000, 50), (999, 100), (10**6, 200)])
def test_grid_times_are_dense_near_0(T, K):
    """round(T (k/K)^3); the smallest would coincide and are the lowest free times instead."""
    times = grid_times(T, K)[::-1]
    assert len(times) == K + 1
    cubes = [round(T * k**3 / K**3) for k in range(K + 1)]
    apart = [k for k in range(1, K + 1) if T * (3 * k**2 - 3 * k + 1) / K**3 > 2]
    assert {cubes[k] for k in apart} <= set(times)
    moved = set(times) - set(cubes)
    assert set(range(max(moved, default=0) + 1)) <= set(times)


# --- The law


@pytest.mark.parametrize(("L", "T"), [*SIZES, (1, 1), (3, 1), (1, 9)])
@pytest.mark.parametrize("sampler", [ancestral, thinned])
def test_samples_have_the_exact_law(sampler, L, T):
    diffusion = build(L, T)
    numbers = exact.index(last(sampler(diffusion, noise(L))))
    assert numbers.shape == (N,)
    law = exact.law(diffusion.reverse_model)
    assert abs(exact.chi_square_z(numbers, law)) < Z_LIMIT
    if L > 1:  # the yardstick can tell: a law that is 2% away, and that of another network
        tilt = 1 + 0.04 * (-1.0) ** exact.states(L)[:, -1]
        assert 0.015 < (law * tilt / (law * tilt).sum() - law).abs().sum() / 2 < 0.025
        assert exact.chi_square_z(numbers, law * tilt / (law * tilt).sum()) > 6
        assert exact.chi_square_z(numbers, exact.law(build(L, T, seed=1).reverse_model)) > 50


@pytest.mark.parametrize(("L", "T", "K"), [(3, 4, 1), (3, 4, 2), (3, 4, 3), (6, 30, 4), (6, 30, 9)])
def test_grid_samples_have_the_law_of_the_shorter_chain(L, T, K):
    diffusion, times = build(L, T), grid_times(T, K)
    law = exact.law(diffusion.reverse_model, times)
    x_0 = last(ancestral(diffusion, noise(L), times))
    assert abs(exact.chi_square_z(exact.index(x_0), law)) < Z_LIMIT
    if K < T / 2:  # it is another law than that of all steps
        every_step = exact.law(diffusion.reverse_model)
        assert exact.chi_square_z(exact.index(x_0), every_step) > 2 * Z_LIMIT


def together_law(f: torch.Tensor) -> torch.Tensor:
    """(S, 2^L) laws of the coins of draw_together for probabilities f (S, L), over all orders and u.

    For an order, the points u, u + 1, ... mark the same pieces for every u between two neighbouring
    fractional parts of the pieces' ends.
    """
    S, L = f.shape
    order = torch.tensor(list(itertools.permutations(range(L))))  # (P, L)
    ends = f[:, order].cumsum(dim=2)  # (S, P, L)
    bounds = torch.tensor([0.0, 1.0]).double().expand(S, len(order), 2)
    cuts = torch.cat([bounds, ends % 1], dim=2).sort(dim=2).values  # (S, P, L + 2)
    u = ((cuts[..., 1:] + cuts[..., :-1]) / 2)[..., None]  # (S, P, L + 1, 1)
    ends, lengths = ends[:, :, None], f[:, order][:, :, None]
    marked = (ends - u).ceil() - (
        ends - lengths - u
    ).ceil()  # (S, P, L + 1, L) points in [start, end)
    number = (marked * 2.0 ** (L - 1 - order)[:, None]).sum(dim=3).long()
    law = torch.zeros(S, 2**L, dtype=torch.float64)
    weight = cuts.diff(dim=2) / len(order)
    return law.scatter_add_(1, number.flatten(1), weight.flatten(1))


def balanced_law(model: exact.TableModel, times: list[int]) -> torch.Tensor:
    """The exact p(x_0) of balanced, (2^L,)."""
    x, numbers = exact.states(model.L), torch.arange(2**model.L)
    p = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    for t, r in itertools.pairwise(times):
        f = exact.flip_probability(x, model.logits[t].detach(), model.T, t, r)
        moved = numbers[:, None] ^ numbers  # (x_t, x_r), which bits flip
        p = p @ together_law(f).gather(1, moved)
    return p


@pytest.mark.parametrize(("L", "T", "K"), [(3, 4, 1), (3, 4, 3), (4, 30, 3), (4, 30, 8), (1, 9, 4)])
def test_balanced_samples_have_their_exact_law(L, T, K):
    diffusion, times = build(L, T), grid_times(T, K)
    law = balanced_law(diffusion.reverse_model, times)
    visited = list(balanced(diffusion, noise(L), times))
    assert [t for t, _ in visited] == times
    x_0 = last(visited)
    assert abs(exact.chi_square_z(exact.index(x_0), law)) < Z_LIMIT
    assert last(walk(diffusion, noise(L), steps=K)).equal(x_0)
    independent = exact.law(diffusion.reverse_model, times)
    if L == 1:  # with no other bit there is nothing to balance
        torch.testing.assert_close(law, independent)
    elif K == 3:
        assert exact.chi_square_z(exact.index(x_0), independent) > 2 * Z_LIMIT


def test_coins_drawn_together():
    """Each falls with its own probability; their number is the mean, rounded down or up."""
    generator = torch.Generator().manual_seed(0)
    f = torch.tensor([0.0, 1e-3, 0.02, 0.3, 0.5, 0.97, 1.0], dtype=torch.float64)
    for scale in (1.0, 0.25):
        p = (scale * f).expand(N, -1)
        u = torch.rand(N, 8, generator=generator)
        coins = draw_together(p, u[:, :7], u[:, 7:])
        counts = coins.sum(1)
        assert counts.min() == math.floor(p[0].sum())
        assert counts.max() == math.ceil(p[0].sum())
        spread = (p[0] * (1 - p[0]) / N).sqrt()
        assert ((coins.double().mean(0) - p[0]).abs() <= Z_LIMIT * spread).all()
    pairs = draw_together(torch.full((N, 2), 0.5), u[:, :2], u[:, 2:3])
    assert (pairs.sum(1) == 1).all()
    assert draw_together(torch.zeros(5, 3), u[:5, :3], u[:5, 3:4]).sum() == 0
    assert draw_together(torch.ones(5, 3), u[:5, :3], u[:5, 3:4]).all()


def test_orders_are_those_of_a_stable_argsort():
    u = torch.rand(50, 300, generator=torch.Generator().manual_seed(0))
    u[:, 100:200] = u[:, :100]  # ties
    assert orders(u).equal(u.argsort(dim=1, stable=True))
    assert orders(u.T).equal(u.T.argsort(dim=1, stable=True))


def test_small_probabilities_at_the_end_of_a_long_row_are_kept():
    """400 bits with 1/2, then 400 with 1e-6: summed in float32 these would vanish or pile up."""
    f = torch.tensor([0.5] * 400 + [1e-6] * 400, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    rows = 10_000
    u = torch.arange(1, 802).expand(rows, -1) / 802  # in this order
    point = torch.rand(rows, 1, generator=generator)
    total = draw_together(f.expand(rows, -1), u[:, :800], point)[:, 400:].sum().item()
    mean = rows * 400e-6  # 4
    assert 0 < total < mean + Z_LIMIT * mean**0.5


@pytest.mark.parametrize("K", [5, 10])
@pytest.mark.parametrize(
    ("data", "gain"),
    [
        pytest.param([0b0000, 0b0101, 0b1010, 0b1111], 3, id="two pairs of equal bits"),
        pytest.param([0b0000, 0b0011, 0b0101, 0b0110, 0b1111], 2, id="arbitrary"),
    ],
)
def test_balanced_steps_mend_what_independent_ones_leave_wrong(data, gain, K):
    """A perfect network on a grid: total variation from the data, with and without balancing."""
    x, T = exact.states(4), 200
    ideal = exact.IdealModel(x[data], T)
    times = grid_times(T, K)
    table = torch.zeros(T + 1, 16, 4)
    for t in times[:-1]:
        table[t] = ideal(x, torch.full((16,), t))
    model = exact.TableModel(table)
    truth = torch.zeros(16, dtype=torch.float64)
    truth[data] = 1 / len(data)
    independent = (exact.law(model, times) - truth).abs().sum() / 2
    balanced_distance = (balanced_law(model, times) - truth).abs().sum() / 2
    assert balanced_distance < independent / gain


def test_balanced_steps_leave_fair_bits_fair():
    fair = exact.TableModel(torch.zeros(61, 16, 4))
    expected = torch.full((16,), 1 / 16, dtype=torch.float64)
    torch.testing.assert_close(balanced_law(fair, grid_times(60, 5)), expected)


@pytest.mark.parametrize(("L", "T"), SIZES)
def test_ancestral_visits_every_time_with_its_exact_law(L, T):
    diffusion = build(L, T)
    laws = exact.laws(diffusion.reverse_model)
    visited = []
    for t, x in ancestral(diffusion, noise(L)):
        visited.append(t)
        assert x.dtype == torch.float32
        assert abs(exact.chi_square_z(exact.index(x), laws[t])) < Z_LIMIT
    assert visited == list(range(T, -1, -1))


@pytest.mark.parametrize(
    ("L", "T", "shown"),
    [
        (3, 4, (4, 3, 2, 1, 0)),
        (3, 4, (2, 0)),
        (6, 30, (30, 29, 17, 16, 5, 2, 1, 0)),
        (3, 1, (1, 0)),
    ],
)
def test_thinned_states_on_the_way_have_the_exact_law(L, T, shown):
    diffusion = build(L, T)
    laws = exact.laws(diffusion.reverse_model)
    results = list(thinned(diffusion, noise(L), shown))
    assert [t for t, _ in results] == list(shown)
    for t, x in results:
        assert abs(exact.chi_square_z(exact.index(x), laws[t])) < Z_LIMIT


@pytest.mark.parametrize("t", [4, 3, 2, 1])
def test_thinned_states_on_the_way_belong_to_their_sample(t):
    """The joint law of (x_t, x_0), 64 pairs."""
    diffusion = build(3, 4)
    x_t, x_0 = (x for _, x in thinned(diffusion, noise(3), (t, 0)))
    pairs = exact.index(x_t) * 8 + exact.index(x_0)
    assert abs(exact.chi_square_z(pairs, joint_law(diffusion.reverse_model, t))) < Z_LIMIT


def test_shown_times_do_not_change_the_samples():
    diffusion = build(6, 30)
    plain = last(thinned(diffusion, noise(6, 500)))
    for shown in [(30, 0), (12, 3, 0), tuple(range(30, -1, -1))]:
        assert last(thinned(diffusion, noise(6, 500), shown)).equal(plain)


def test_bits_that_no_one_speaks_about_are_fair_and_independent():
    L, T = 4, 10
    model = exact.TableModel(torch.zeros(T + 1, 2**L, L))
    diffusion = Diffusion(BernoulliDiffusionProcess(T), model)
    fair = torch.full((2**L,), 0.5**L, dtype=torch.float64)
    for sampler in (ancestral, thinned):
        numbers = exact.index(last(sampler(diffusion, noise(L))))
        assert abs(exact.chi_square_z(numbers, fair)) < Z_LIMIT


@pytest.mark.parametrize("sampler", [ancestral, thinned])
def test_certain_networks_are_obeyed(sampler):
    """Log-odds of +-60 everywhere: one string, whatever the noise."""
    meant = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    model = exact.TableModel((120 * meant - 60).expand(51, 32, 5))
    x_0 = last(sampler(Diffusion(BernoulliDiffusionProcess(50), model), noise(5, 10_000)))
    assert x_0.equal(meant.expand(10_000, -1))


# --- Thinning


@pytest.mark.parametrize("T", [1, 2, 4, 30])
def test_next_proposal_has_the_law_of_independent_coins(T):
    """P(next = s | now at t) = b_s prod_{s < s' <= t} (1 - b_s'), read off a grid of u."""
    b = BernoulliDiffusionProcess(T).max_flip_probability()
    proposals, grid = ProposalTimes(b), 20_000
    u = ((torch.arange(grid) + 0.5) / grid)[:, None]
    for t in {1, 2, T // 2 + 1, T} & set(range(1, T + 1)):
        got = proposals.next(torch.full((grid, 1), t), u)
        share = torch.bincount(got.flatten(), minlength=T + 1).double() / grid
        expected, none_yet = torch.zeros(T + 1, dtype=torch.float64), 1.0
        for s in range(t, 0, -1):
            expected[s] = none_yet * b[s]
            none_yet *= 1 - b[s]
        assert none_yet == 0  # at s = 1 every bit proposes
        torch.testing.assert_close(share, expected, rtol=0, atol=1.01 / grid)


def test_next_proposal_at_the_ends_of_the_unit_interval():
    proposals = ProposalTimes(BernoulliDiffusionProcess(1000).max_flip_probability())
    u = torch.tensor([[2**-24, 1 - 2**-24]])
    for t in (1, 2, 500, 1000):
        nearest = proposals.next(torch.full((1, 2), t), u)
        assert nearest[0, 1] == t
        assert 1 <= nearest[0, 0] <= max(1, t // 100)


@pytest.mark.parametrize(("L", "T"), [(3, 4), (6, 30), (2, 300)])
def test_expected_network_calls_are_those_that_are_made(L, T):
    """Counted over 20,000 samples, whose proposals are independent coins with probability b_t."""
    diffusion, count = build(L, T), 20_000
    expected = ProposalTimes(diffusion.process.max_flip_probability()).expected_network_calls(L)
    last(thinned(diffusion, noise(L, count)))
    b = diffusion.process.max_flip_probability()[1:]
    none = (1 - b) ** L
    assert expected == pytest.approx((1 - none).sum().item(), rel=1e-5)
    spread = (none * (1 - none)).sum().sqrt().item() / count**0.5
    assert abs(diffusion.reverse_model.rows_seen / count - expected) < Z_LIMIT * spread


def test_thinning_is_chosen_where_it_saves_calls():
    assert is_thinning_faster(build(2, 300), 2)
    assert not is_thinning_faster(build(3, 4), 3)
    small = noise(2, 300)
    assert last(walk(build(2, 300), small)).equal(last(thinned(build(2, 300), small)))
    small = noise(3, 300)
    assert last(walk(build(3, 4), small)).equal(last(ancestral(build(3, 4), small)))


def test_samplers_by_name():
    bits, one, steps = build(3, 300), noise(3, 50), 20
    assert samplers_for(bits) == ["ancestral", "thinned", "balanced"]
    assert samplers_for(bits, steps) == ["ancestral", "balanced"]
    for name in samplers_for(bits):
        times = (0,) if SAMPLERS[name].is_exact else all_times(300)
        expected = last(SAMPLERS[name].walk(bits, one, times))
        assert last(walk(bits, one, sampler=name)).equal(expected)
    expected = last(ancestral(bits, one, grid_times(300, steps)))
    assert last(walk(bits, one, steps, sampler="ancestral")).equal(expected)
    assert default_sampler(bits, 3) == "thinned"
    assert default_sampler(bits, 3, steps) == "balanced"


# --- What a sample depends on

WAYS = [  # L, T, steps: ancestral over all times, thinned, a grid
    pytest.param(3, 4, None, id="ancestral"),
    pytest.param(2, 60, None, id="thinned"),
    pytest.param(6, 30, 7, id="grid"),
]


def strings(L: int, T: int, steps: int | None, rows: range, batch_size: int = 1024, seed: int = 3):
    batches = list(sample(build(L, T), L, rows, seed, steps, batch_size))
    assert all(x.shape == (batch_size, L) for x in batches[:-1])
    return torch.cat(batches)


def test_ways_are_what_they_are_called():
    assert not is_thinning_faster(build(3, 4), 3)
    assert is_thinning_faster(build(2, 60), 2)


@pytest.mark.parametrize(("L", "T", "steps"), WAYS)
def test_samples_do_not_depend_on_the_batch(L, T, steps):
    whole = strings(L, T, steps, range(40))
    assert whole.shape == (40, L)
    for batch_size in (1, 7, 16, 40, 5000):
        assert strings(L, T, steps, range(40), batch_size).equal(whole)


@pytest.mark.parametrize(("L", "T", "steps"), WAYS)
def test_samples_do_not_depend_on_how_many_are_asked_for(L, T, steps):
    whole = strings(L, T, steps, range(200))
    assert strings(L, T, steps, range(50)).equal(whole[:50])
    assert strings(L, T, steps, range(37, 112), batch_size=10).equal(whole[37:112])


@pytest.mark.parametrize(("L", "T", "steps"), WAYS)
def test_samples_depend_on_the_seed(L, T, steps):
    a, b = (strings(L, T, steps, range(500), seed=seed) for seed in (3, 4))
    assert strings(L, T, steps, range(500), seed=3).equal(a)
    assert not a.equal(b)


def test_no_samples():
    assert list(sample(build(3, 4), 3, range(0), seed=0)) == []


def test_as_many_steps_as_times_or_more_are_all_steps():
    for L, T in [(3, 4), (2, 60)]:  # by ancestral sampling, and by thinning
        whole = strings(L, T, None, range(100))
        assert strings(L, T, T, range(100)).equal(whole)
        assert strings(L, T, T + 95, range(100)).equal(whole)
        assert not strings(L, T, 2, range(100)).equal(whole)


@pytest.mark.parametrize(("steps", "T"), [(None, 4), (3, 4), (None, 200)])
def test_sampling_polls_at_every_step(steps, T):
    """A signal must not wait for a long batch; T = 200 is sampled by thinning."""
    polls = []

    def poll():
        polls.append(1)
        if len(polls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(sample(build(3, T), 3, range(50), 0, steps=steps, batch_size=20, poll=poll))


def test_sampling_leaves_torch_s_random_state_alone():
    before = torch.random.get_rng_state()
    strings(2, 60, None, range(10))
    strings(6, 30, 7, range(10))
    assert torch.random.get_rng_state().equal(before)


def test_grids_share_their_noise():
    """A grid's step to r uses the numbers of r, whatever the grid."""
    seen = {}

    class Recorder(Noise):
        def uniform(self, step):
            u = super().uniform(step)
            seen.setdefault(int(step), []).append(u)
            return u

    T = 30
    for K in (5, 12, 30):
        last(ancestral(build(6, T), Recorder(0, torch.arange(4), 6), grid_times(T, K)))
    assert len(seen[0]) == len(seen[T]) == 3
    assert len(seen) == T + 1
    assert len({tuple(u.flatten().tolist()) for us in seen.values() for u in us}) == T + 1


# --- Trajectories


@pytest.mark.parametrize(
    ("L", "T", "steps"), [(3, 4, None), (2, 60, None), (6, 30, 7), (6, 30, 30)]
)
@pytest.mark.parametrize("frames", [1, 3, 60])
def test_trajectory_ends_in_the_sample(L, T, steps, frames):
    diffusion = build(L, T)
    times, states = trajectory(diffusion, noise(L, 40), steps, frames)
    assert times[0] == T
    assert times[-1] == 0
    assert all(t > r for t, r in itertools.pairwise(times))
    assert states.shape == (len(times), 40, L)
    assert states.dtype == "uint8"
    assert states.max() == 1
    x_0 = last(walk(diffusion, noise(L, 40), steps))
    assert (states[-1] == x_0.numpy()).all()
    prior = diffusion.process.sample_prior(noise(L, 40).uniform(0))
    assert (states[0] == prior.numpy()).all()
    if steps is None:
        assert len(times) == min(frames, T) + 1


@pytest.mark.parametrize("T", [4, 60])
def test_trajectory_states_have_their_exact_laws(T):
    """T = 4 goes by ancestral sampling, T = 60 by thinning."""
    diffusion = build(2, T)
    assert is_thinning_faster(diffusion, 2) == (T == 60)
    laws = exact.laws(diffusion.reverse_model)
    times, states = trajectory(diffusion, noise(2, 50_000), frames=4)
    for t, x in zip(times, states, strict=True):
        assert abs(exact.chi_square_z(exact.index(torch.from_numpy(x)), laws[t])) < Z_LIMIT


def test_samplers_do_not_record_gradients():
    diffusion = build(3, 4)
    for sampler in (ancestral, thinned):
        assert not last(sampler(diffusion, noise(3, 5))).requires_grad


def test_samplers_are_generators():
    """Nothing is computed before it is asked for."""
    diffusion = build(3, 4)
    steps = ancestral(diffusion, noise(3, 5))
    next(steps)
    assert diffusion.reverse_model.rows_seen == 0
    next(steps)
    assert diffusion.reverse_model.rows_seen == 5
    assert sampling.walk(diffusion, noise(3, 5)) is not None
    assert diffusion.reverse_model.rows_seen == 5


@pytest.mark.parametrize(("L", "steps"), [(4, 3), (4, 8), (200, None)])
def test_network_calls_are_those_that_are_made(L, steps):
    """So that a progress bar ends where the work does."""
    diffusion, polled = build(3, 8), []
    diffusion.reverse_model.forward = lambda x_t, t: torch.zeros_like(x_t)
    for _ in sampling.walk(
        diffusion, Noise(0, torch.arange(2), L), steps, poll=lambda: polled.append(1)
    ):
        pass
    calls = sampling.network_calls(diffusion, L, steps)
    if sampling.is_thinning_faster(diffusion, L) and steps in (None, 8):
        assert calls is None
    else:
        assert len(polled) - 1 == calls  # polled at x_T too
