"""Data sets of bits: patterns, numbers, images with a rule, spins, digits."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from tqdm import tqdm

from ..system.errors import UserError
from .forms import (
    Images,
    Seed,
    Split,
    ValShare,
    check_range,
    check_size,
    generator,
    random_split,
    share_split,
)
from .image_files import read_digits


def heartbeat(
    length: Annotated[int, "bits per string"] = 20,
    period: Annotated[int, "bits from one 1 to the next"] = 5,
    held_out: Annotated[Sequence[int], "phases that go to val.txt; the others train"] = (),
) -> Split:
    """A 1 every `period` bits, one string per phase; the phase is the position of the first 1."""
    check_range("length", length, 1)
    check_range("period", period, 1, length)
    check_size(period, length)
    for phase in held_out:
        check_range("held-out phase", phase, 0, period - 1)
    phases = np.arange(period)
    strings = np.arange(length) % period == phases[:, None]  # (period, L)
    in_val = np.isin(phases, held_out)
    if in_val.all():
        raise UserError(f"all {period} phases are held out, so none is left to train on")
    return strings[~in_val].astype(np.uint8), strings[in_val].astype(np.uint8)


def repeating_patterns(
    length: Annotated[int, "bits per string, not necessarily a multiple of the period"] = 20,
    period: Annotated[int, "bits per pattern"] = 10,
    num_train: Annotated[int | None, "strings in train.txt (default: 95% of all, 972)"] = None,
    num_val: Annotated[int | None, "strings in val.txt (default: 5%; for period 10, 50)"] = None,
    seed: Seed = 0,
) -> Split:
    """Each of the 2^period patterns of `period` bits, repeated to fill the length, shuffled.

    The default for period 10 is 972 and 50 strings, which leaves 2 of the 1,024 out.
    """
    check_range("length", length, 1)
    check_range("period", period, 1, min(length, 62))
    check_size(2**period, length)
    total = 2**period
    check_range("num-train", num_train, 1, total)
    check_range("num-val", num_val, 0, total - (num_train or 1))
    if num_val is None:
        share = 50 if period == 10 else total - 19 * total // 20
        num_val = min(share, total - (num_train or 1))
    if num_train is None:
        num_train = min(19 * total // 20, total - num_val)
    patterns = _binary(np.arange(total), period)  # (2^period, period)
    strings = patterns[:, np.arange(length) % period]  # (2^period, L)
    return random_split(strings, num_train, num_val, seed)


def multiples(
    bits: Annotated[int, "bits per number"] = 20,
    divisor: Annotated[int, "what every number is a multiple of"] = 5,
    val_share: ValShare = 0.05,
    seed: Seed = 0,
) -> Split:
    """The positive multiples of `divisor` as binary numbers, most significant bit first."""
    check_range("bits", bits, 1, 62)  # numbers and their end fit into an int64
    check_range("divisor", divisor, 1, 2**bits - 1)
    check_size((2**bits - 1) // divisor, bits)
    # From the divisor, not from 0: with the defaults 209,715 strings, split 199,230 + 10,485.
    strings = _binary(np.arange(divisor, 2**bits, divisor), bits)  # (N, bits)
    return share_split(strings, val_share, seed)


def bars_and_stripes(
    size: Annotated[int, "height and width of the image"] = 4,
    val_share: ValShare = 0.2,
    seed: Seed = 0,
) -> Images:
    """The 2^(size+1) - 2 images whose rows are all constant or whose columns are all constant."""
    check_range("size", size, 1, 62)
    check_size(2 ** (size + 1) - 2, size * size)
    patterns = _binary(np.arange(2**size), size)  # (2^n, n)
    constant_rows = np.repeat(patterns, size, axis=1)  # (2^n, n * n)
    # The first and the last pattern, all 0 and all 1, give images that the rows have given already.
    constant_columns = np.tile(patterns[1:-1], (1, size))  # (2^n - 2, n * n)
    return share_split(np.concatenate([constant_rows, constant_columns]), val_share, seed)


def ising(
    size: Annotated[int, "height and width of the lattice"] = 8,
    temperature: Annotated[float, "in units of J / k_B; the critical one is 2.269"] = 2.27,
    num_train: Annotated[int, "strings in train.txt"] = 10_000,
    num_val: Annotated[int, "strings in val.txt"] = 1_000,
    seed: Seed = 0,
) -> Images:
    """Independent samples of the 2-D Ising model on a periodic square lattice; 1 is spin up.

    p(s) ~ exp(-E(s) / temperature), E(s) = -sum_i s_i (s_right(i) + s_down(i)), s in {-1,+1}: every
    site has one bond to its right and one to its lower neighbour. On the 2 x 2 lattice these meet
    the same neighbour from both sides, so there each pair has two bonds.
    """
    check_range("size", size, 2)
    if not temperature > 0:  # written so that nan is refused too
        raise UserError(f"temperature is {temperature}, expected more than 0")
    check_range("num-train", num_train, 1)
    check_range("num-val", num_val, 0)
    check_size(num_train + num_val, size * size)
    rng = generator(seed)
    # One Markov chain per sample makes the samples independent. All start with every spin up: one
    # sweep is then exact in both limits (T -> 0: one cluster, flipped by a fair coin; T -> inf: no
    # bonds, fair spins). In between, Swendsen-Wang has no barrier to cross and is slowest at the
    # critical temperature, where we measured relaxation times of 2.8, 3.4, 4.0 and 4.8 sweeps at
    # size 8, 16, 32 and 64. We take at least 12 of them: a bias of exp(-12), far below the noise.
    num_sweeps = 10 * size.bit_length()
    num_chains = max(1, 2**16 // size**2)  # at a time: arrays that stay in the processor's cache
    spins = np.ones((num_train + num_val, size, size), dtype=np.uint8)
    starts = range(0, len(spins), num_chains)
    for start in tqdm(starts, "ising", leave=False, delay=1, disable=None):
        block = spins[start : start + num_chains]
        for _ in range(num_sweeps):
            block[:] = _swendsen_wang(block, temperature, rng)
    strings = spins.reshape(len(spins), size * size)
    return strings[:num_train], strings[num_train:]


def digits(
    threshold: Annotated[int, "darkness, 1 to 16, from which on a pixel is 1"] = 8,
    num_val: Annotated[int, "strings in val.txt, at most"] = 297,
    seed: Seed = 0,
) -> Images:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels, in black and white.

    Digits that are equal in black and white stay on the same side of the split, so that no
    validation string is also a training string; val.txt may be a few strings shorter for it.
    """
    check_range("threshold", threshold, 1, 16)
    strings = (read_digits("digits") >= threshold).astype(np.uint8)  # (1797, 64)
    check_range("num-val", num_val, 0, len(strings) - 1)
    distinct, index = np.unique(strings, axis=0, return_inverse=True)
    rank = generator(seed).permutation(len(distinct))[index.ravel()]  # equal strings, equal rank
    in_val = rank < np.sort(rank)[num_val]
    return strings[~in_val], strings[in_val]


def _swendsen_wang(spins: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """One Swendsen-Wang sweep of independent periodic lattices; spins and result (B, n, n), 0 or 1.

    Bonds between equal spins become active with probability 1 - exp(-2 / temperature); each cluster
    of sites joined by active bonds gets one fair spin. (Phys. Rev. Lett. 58, 86, 1987.)
    """
    p_active = -math.expm1(-2 / temperature)
    sites = np.arange(spins.size, dtype=np.int32).reshape(spins.shape)
    from_sites, to_sites = [], []
    for axis in (1, 2):  # down, right
        equal = spins == np.roll(spins, -1, axis)
        active = equal & (rng.random(spins.shape) < p_active)
        from_sites.append(sites[active])
        to_sites.append(np.roll(sites, -1, axis)[active])
    root = _components(spins.size, np.concatenate(from_sites), np.concatenate(to_sites))
    fair = rng.integers(0, 2, spins.size, dtype=np.uint8)
    return fair[root].reshape(spins.shape)


def _components(num_nodes: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Connected components of the graph with edges a[k] - b[k]: each node's root, (num_nodes,).

    Two nodes have the same root exactly when they are connected. Each round hooks every root that
    has a smaller neighbour onto one of them; a handful of rounds is enough (Shiloach and Vishkin).
    """
    root = np.arange(num_nodes, dtype=a.dtype)
    while a.size:
        root[np.maximum(a, b)] = np.minimum(a, b)  # a and b are roots; of several edges, one wins
        while not np.array_equal(root, higher := root[root]):
            root = higher
        a, b = root[a], root[b]
        apart = a != b
        a, b = a[apart], b[apart]
    return root


def _binary(numbers: np.ndarray, width: int) -> np.ndarray:
    """The binary digits of int64 numbers (N,), most significant first: uint8 (N, width)."""
    octets = numbers.astype(">i8").view(np.uint8).reshape(-1, 8)  # (N, 8), big-endian
    return np.unpackbits(octets, axis=1)[:, 64 - width :]
