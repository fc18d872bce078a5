"""Random numbers that are a pure function of (seed, row, step, bit).

A sample then does not depend on the batch it was drawn in, on how many were asked for or on the
device, and two models given the same seed see the same noise from the first step to the last.
The generator is SplitMix64 (Steele, Lea & Flood 2014): a counter and a 64-bit mixing function.
"""

import math

import numpy as np
import torch
from torch import Tensor

from .weights import InProportion


def _signed(z: int) -> int:
    """z mod 2^64 as the int64 that has the same bits, because torch has no 64-bit unsigned sums."""
    return (z + 2**63) % 2**64 - 2**63


GOLDEN = _signed(0x9E3779B97F4A7C15)
MIX_1 = _signed(0xBF58476D1CE4E5B9)
MIX_2 = _signed(0x94D049BB133111EB)

OFFSET = 24  # stream of random numbers: where a pass over weighted rows begins
ROUNDS = 8  # of Permutation; with fewer, orders of a few dozen strings are visibly uneven


def _shift_right(z: Tensor | int, bits: int) -> Tensor | int:
    return (z >> bits) & (2 ** (64 - bits) - 1)  # >> on int64 copies the sign bit


def mix(z: Tensor | int) -> Tensor | int:
    """SplitMix64's output function, modulo 2^64, on int64 tensors or on an int."""
    z = (z ^ _shift_right(z, 30)) * MIX_1
    z = (z ^ _shift_right(z, 27)) * MIX_2
    return z ^ _shift_right(z, 31)


def derive_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, such as (seed, epoch)."""
    z = 0
    for part in parts:
        z = mix(z + GOLDEN + part)
    return z & (2**63 - 1)


def _to_uniform(z: Tensor) -> Tensor:
    # the top 23 bits, in the middle of their cell
    return ((z >> 41) + (2**22 + 0.5)) * 2.0**-23


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's random state on a device. torch.manual_seed does so on all there might be: 0.3 ms."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def rand_like(x: Tensor) -> Tensor:
    """torch.rand_like(x) for float32, seeded by torch's random state, at a third of the time on a CPU.

    torch's generator for the CPU (Mersenne twister) makes one number at a time on one core; for
    a batch of long strings that costs as much as a layer of the network. Never 0 or 1.
    """
    if x.device.type != "cpu":
        return torch.rand_like(x)
    seed = torch.randint(2**63 - 1, ()).item()
    pairs = np.random.SFC64(seed).random_raw(-(-x.numel() // 2))  # 64 random bits each
    bits = torch.from_numpy(pairs.view(np.int32))[: x.numel()].view(x.shape)
    bits.bitwise_and_(0x7FFFFF).bitwise_or_(0x3F800000)  # a float32 in [1, 2) with 23 random bits
    return bits.view(torch.float32).sub_(1 - 2.0**-24)  # in the middle of their cell


class Noise:
    """Uniform random numbers for given rows: noise.uniform(step) is (B, L), the same for a row always.

    rows: (B,) int64, the samples' numbers; length: L.
    """

    def __init__(self, seed: int, rows: Tensor, length: int):
        self.seed, self.rows, self.length = seed, rows, length
        # where each row's sequence of numbers begins
        first = mix(rows * GOLDEN + derive_seed(seed))
        bit = torch.arange(length, device=rows.device)
        self._counter = first[:, None] + bit * GOLDEN  # (B, L)
        self._stride = _signed(length * GOLDEN)  # each step takes the next L numbers of the row

    def uniform(self, step: int | Tensor) -> Tensor:
        """(B, L) float32 uniform on (0, 1), never 0 or 1: the numbers of all bits at a step."""
        return _to_uniform(mix(self._counter + self._steps_on(step)))

    def uniform_at(self, step: int | Tensor, row: Tensor, bit: Tensor) -> Tensor:
        """uniform(step)[row, bit] without computing the rest. row, bit: (n,) indices."""
        return _to_uniform(mix(self._counter[row, bit] + self._steps_on(step)))

    def _steps_on(self, step: int | Tensor) -> int | Tensor:
        """step * stride modulo 2^64. step: a number, or a tensor () of int64, whose products wrap."""
        return _signed(step * self._stride) if isinstance(step, int) else step * self._stride

    def select(self, keep: Tensor) -> "Noise":
        """The noise of a subset of the rows. keep: (B,) bool or indices."""
        return Noise(self.seed, self.rows[keep], self.length)


class Permutation:
    """A random permutation of 0..n-1 that is computed where it is asked for, and not stored.

    A Feistel network on the numbers x + a y, with x < a, y < b and a b just above n; its round
    functions are tables of random numbers, about sqrt(n) of them each. The few results that are not
    below n are permuted again until they are (Black & Rogaway 2002, "Ciphers with Arbitrary Finite
    Domains").
    """

    def __init__(self, n: int, generator: torch.Generator):
        self.n = n
        self.a = math.isqrt(n - 1) + 1
        self.b = -(-n // self.a)
        size = ROUNDS // 2, self.b, self.a
        # numpy, because its operations begin in half of the time that torch's take
        self.add_to_x = torch.randint(self.a, size[:2], generator=generator).numpy()
        self.add_to_y = torch.randint(self.b, size[::2], generator=generator).numpy()

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """What stands at positions: (m,) int64 both."""
        y, x = np.divmod(positions, self.a)
        for add_to_x, add_to_y in zip(self.add_to_x, self.add_to_y, strict=True):
            x = (x + add_to_x[y]) % self.a
            y = (y + add_to_y[x]) % self.b
        numbers = x + self.a * y
        outside = numbers >= self.n
        if outside.any():
            numbers[outside] = self(numbers[outside])
        return numbers


class Passes:
    """Which rows each training batch takes: one permutation of n rows after another.

    Every batch is full: the last one of a pass takes its missing rows from the next pass. Batch number k
    is a pure function of (seed, k).

    shard: (rank, world), for one of several processes: of each batch, the rows rank, rank + world,
    rank + 2 world ... alone. All shards together are the batch.

    weights: (n,) of the rows, or None: a pass is then as many draws in proportion to them.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
        weights: np.ndarray | None = None,
    ):
        self.n, self.batch_size, self.seed, self.shard = n, batch_size, seed, shard
        self.weighted = None if weights is None else InProportion(weights)
        self._number, self._permutation = None, None  # of the pass that was asked for last

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.n // self.batch_size)

    def rows(self, k: int) -> np.ndarray:
        """The rows of this shard of batch k: (B,) int64."""
        n, (rank, world) = self.n, self.shard
        first, end = k * self.batch_size, (k + 1) * self.batch_size
        positions = np.arange(first + rank, end, world)
        parts = []
        for number in range(first // n, (end - 1) // n + 1):
            here = positions[positions // n == number] - number * n
            rows = self._pass(number)(here)
            if self.weighted:
                rows = self.weighted.rows(rows, self._offset(number))
            parts.append(rows)
        return np.concatenate(parts)

    def _pass(self, number: int) -> Permutation:
        if number != self._number:
            self._permutation = Permutation(self.n, self.generator(number))
            self._number = number
        return self._permutation

    def _offset(self, number: int) -> float:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, OFFSET, number))
        return torch.rand((), generator=generator, dtype=torch.float64).item()

    def generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, number))
