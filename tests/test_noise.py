"""The random numbers: SplitMix64 in plain Python, and what uniform and independent must mean."""

import itertools
import math

import exact
import pytest
import torch

from bernoulli_diffusion import noise as noise_module
from bernoulli_diffusion.noise import GOLDEN, Noise, derive_seed, mix, rand_like, seed_torch

Z_LIMIT = 4.5  # two-sided 7e-6; seeds are fixed, so a failure is a change of the code, not bad luck
MASK = 2**64 - 1
EXTREME_SEEDS = [0, 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1]


def splitmix64(z: int) -> int:
    """The published output function (Steele, Lea & Flood 2014), on Python's unbounded integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def signed(z: int) -> int:
    z &= MASK
    return z - 2**64 if z >= 2**63 else z


def draw(seed: int = 0, rows=range(1000), length: int = 20, step=0) -> torch.Tensor:
    return Noise(seed, torch.tensor(list(rows)), length).uniform(step)


def correlation_z(a: torch.Tensor, b: torch.Tensor) -> float:
    pair = torch.stack([a.flatten(), b.flatten()]).double()
    return torch.corrcoef(pair)[0, 1].item() * math.sqrt(pair.shape[1])


# --- The generator


def test_mix_gives_the_known_sequence():
    """The widely published first outputs for the seed 1234567."""
    known = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    counter = torch.tensor([signed(1234567 + k * 0x9E3779B97F4A7C15) for k in range(1, 6)])
    assert [z & MASK for z in mix(counter).tolist()] == known


def test_mix_is_arithmetic_modulo_2_to_the_64():
    numbers = [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, *(7**k & MASK for k in range(200))]
    got = mix(torch.tensor([signed(z) for z in numbers]))
    assert [z & MASK for z in got.tolist()] == [splitmix64(z) for z in numbers]


def test_derived_seeds_are_distinct_and_nonnegative():
    parts = [
        *itertools.product(range(100), range(100)),
        *((s,) for s in range(100)),
        *((s, 0, 0) for s in range(100)),
        *itertools.product(EXTREME_SEEDS[2:], range(5)),
    ]
    seeds = [derive_seed(*p) for p in parts]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert [derive_seed(*p) for p in parts[::50]] == seeds[::50]


def test_derived_seed_is_splitmix64_of_its_parts():
    for parts in [(0,), (2**63 - 1,), (5, 7), (2**63 - 1, 2**63 - 1, 3)]:
        z = 0
        for part in parts:
            z = splitmix64((z + 0x9E3779B97F4A7C15 + part) & MASK)
        assert derive_seed(*parts) == z % 2**63


# --- Uniform on (0, 1)


def test_uniform_is_the_middle_of_one_of_2_to_the_23_cells():
    u = draw(rows=range(5000))
    assert u.shape == (5000, 20)
    assert u.dtype == torch.float32
    odd = u.double() * 2**24
    assert (odd == odd.round()).all()
    assert (odd % 2 == 1).all()
    assert u.min() > 0
    assert u.max() < 1


@pytest.mark.parametrize(("extreme", "expected"), [(-(2**63), 2**-24), (2**63 - 1, 1 - 2**-24)])
def test_uniform_is_never_0_or_1(monkeypatch, extreme, expected):
    noise = Noise(0, torch.arange(3), 4)
    monkeypatch.setattr(noise_module, "mix", lambda z: torch.full_like(z, extreme))
    assert (noise.uniform(1) == expected).all()


@pytest.mark.parametrize("seed", EXTREME_SEEDS)
def test_uniform_is_uniform(seed):
    """Mean, variance and 1,000 equal bins of a million numbers; and each of the top bits."""
    u = draw(seed, rows=range(50_000)).double().flatten()
    n = len(u)
    assert abs(u.mean() - 0.5) < Z_LIMIT * math.sqrt(1 / 12 / n)
    assert abs((u - 0.5).square().mean() - 1 / 12) < Z_LIMIT * math.sqrt(1 / 180 / n)
    bins = torch.full((1000,), 1e-3, dtype=torch.float64)
    assert abs(exact.chi_square_z((u * 1000).long(), bins)) < Z_LIMIT
    cells = (u * 2**23).long()
    for bit in range(23):
        ones = ((cells >> bit) & 1).double().mean()
        assert abs(ones - 0.5) < Z_LIMIT * 0.5 / math.sqrt(n)


def seeded_rand_like(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    seed_torch(seed, torch.device("cpu"))
    return rand_like(torch.zeros(shape))


def test_rand_like_is_uniform_inside_of_0_and_1():
    """The same cells as Noise's; odd and even positions, made from halves of one number, too."""
    u = seeded_rand_like(1, (501, 2001)).double().flatten()
    odd = u * 2**24
    assert (odd == odd.round()).all()
    assert (odd % 2 == 1).all()
    n = len(u)
    assert abs(u.mean() - 0.5) < Z_LIMIT * math.sqrt(1 / 12 / n)
    assert abs((u - 0.5).square().mean() - 1 / 12) < Z_LIMIT * math.sqrt(1 / 180 / n)
    bins = torch.full((1000,), 1e-3, dtype=torch.float64)
    assert abs(exact.chi_square_z((u * 1000).long(), bins)) < Z_LIMIT
    assert abs(correlation_z(u[: n - 1 : 2], u[1::2])) < Z_LIMIT
    assert abs(correlation_z(u[:-2], u[2:])) < Z_LIMIT


def test_rand_like_is_a_function_of_torchs_random_state():
    assert seeded_rand_like(1, (3, 5)).equal(seeded_rand_like(1, (3, 5)))
    assert not seeded_rand_like(1, (3, 5)).equal(seeded_rand_like(2, (3, 5)))
    seed_torch(7, torch.device("cpu"))
    drawn = torch.rand(5)
    torch.manual_seed(7)
    assert torch.rand(5).equal(drawn)


@pytest.mark.parametrize("by", ["row", "step", "bit", "seed"])
@pytest.mark.parametrize("distance", [1, 2, 20])
def test_neighbours_are_not_correlated(by, distance):
    """Neighbouring rows, steps, bits and seeds: 100,000 pairs, values and coarse joint cells."""
    n, L = 5000, 40
    if by == "row":
        a, b = draw(rows=range(n)), draw(rows=range(distance, n + distance))
    elif by == "step":
        a, b = draw(rows=range(n), step=3), draw(rows=range(n), step=3 + distance)
    elif by == "bit":
        u = draw(rows=range(n), length=L + distance)
        a, b = u[:, :L], u[:, distance:]
    else:
        a, b = draw(seed=5, rows=range(n)), draw(seed=5 + distance, rows=range(n))
    assert abs(correlation_z(a, b)) < Z_LIMIT
    assert abs(correlation_z((a - 0.5).abs(), (b - 0.5).abs())) < Z_LIMIT
    cells = (a * 10).long() * 10 + (b * 10).long()
    fair = torch.full((100,), 0.01, dtype=torch.float64)
    if by == "bit":  # overlapping pairs are not independent: take every other block
        cells = cells[:, [i for i in range(L) if (i // distance) % 2 == 0]]
    assert abs(exact.chi_square_z(cells, fair)) < Z_LIMIT


def test_numbers_do_not_repeat():
    """200,000 numbers over rows, steps and bits fall on as many of 2^23 cells as by chance."""
    u = torch.stack([draw(rows=range(1000), length=20, step=step) for step in range(10)])
    n, cells = u.numel(), 2**23
    distinct = len(u.unique())
    expected = cells * (1 - (1 - 1 / cells) ** n)
    assert abs(distinct - expected) < Z_LIMIT * math.sqrt(n**2 / (2 * cells))


# --- A pure function of (seed, row, step, bit)


def test_uniform_against_plain_integers():
    """A row begins at a place of its own and takes L numbers a step, modulo 2^64 throughout."""
    rows = [0, 1, 12345, 2**40, 2**62 + 17]
    steps = [0, 1, 999, 2**33, 2**62 + 3]
    golden = 0x9E3779B97F4A7C15
    assert golden == GOLDEN & MASK
    for seed, L in itertools.product(EXTREME_SEEDS, (1, 3, 64)):
        noise = Noise(seed, torch.tensor(rows), L)
        for step in steps:
            u = noise.uniform(step)
            for i, row in enumerate(rows):
                first = splitmix64((row * golden + derive_seed(seed)) & MASK)
                for bit in (0, L - 1):
                    z = splitmix64((first + (bit + step * L) * golden) & MASK)
                    cell = ((z + 2**63) & MASK) >> 41  # the top 23 bits of z as a signed number
                    assert u[i, bit].item() == (cell + 0.5) / 2**23


def test_a_step_may_be_a_tensor():
    """For a GPU, which is not asked for its value; products wrap in it as they do in numbers."""
    noise = Noise(2**63 - 1, torch.arange(6), 1001)
    row, bit = torch.tensor([0, 3]), torch.tensor([1000, 2])
    for step in (0, 1, 999_999, 2**33, 2**62 + 3):
        assert noise.uniform(torch.tensor(step)).equal(noise.uniform(step))
        at = noise.uniform_at(torch.tensor(step), row, bit)
        assert at.equal(noise.uniform_at(step, row, bit))


@pytest.mark.parametrize("seed", EXTREME_SEEDS)
def test_uniform_is_a_pure_function_of_its_row(seed):
    noise = Noise(seed, torch.arange(30), 7)
    backwards = Noise(seed, torch.arange(29, -1, -1), 7)
    for step in (5, 0, 5, 3):  # in any order, and again
        u = noise.uniform(step)
        assert u.equal(Noise(seed, torch.arange(30), 7).uniform(step))
        assert u.equal(backwards.uniform(step).flip(0))
        assert u[12:19].equal(Noise(seed, torch.arange(12, 19), 7).uniform(step))


@pytest.mark.parametrize("keep", [[True, False, True, True, False], [3, 0], [False] * 5])
def test_select_is_the_noise_of_those_rows(keep):
    keep = torch.tensor(keep)
    noise = Noise(4, torch.tensor([7, 3, 10**12, 0, 9]), 6)
    part = noise.select(keep)
    assert part.rows.equal(noise.rows[keep])
    assert part.length == 6
    assert part.uniform(2).equal(noise.uniform(2)[keep])


def test_uniform_at_is_a_part_of_uniform():
    noise = Noise(2**63 - 1, torch.arange(6), 5)
    row, bit = torch.tensor([0, 3, 3, 5]), torch.tensor([4, 0, 2, 4])
    for step in (0, 1, 1000, 2**40):
        assert noise.uniform_at(step, row, bit).equal(noise.uniform(step)[row, bit])
