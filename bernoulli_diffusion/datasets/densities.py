"""Seven densities in the plane, as strings of 32 bits: two coordinates of 16 bits each, in Gray code.

Papers on discrete energy-based models report test log-likelihoods on them (Dai et al. 2020, arXiv
2011.05363). Neighbouring numbers of a Gray code differ in one bit, but bits far apart in the string
decide together where a point lies.
"""

from collections.abc import Callable

import numpy as np

BITS = 16  # per coordinate
SCALE = 2 ** (BITS - 1)


def two_spirals(n: int, rng: np.random.Generator) -> np.ndarray:
    angle = 3 * np.pi * np.sqrt(rng.random(n))
    arm = np.stack([-np.cos(angle), np.sin(angle)], axis=1) * angle[:, None]
    arm = (arm + 0.5 * rng.random((n, 2))) / 3
    return arm * rng.choice([-1, 1], (n, 1)) + 0.1 * rng.standard_normal((n, 2))


def eight_gaussians(n: int, rng: np.random.Generator) -> np.ndarray:
    centre = 4 * on_circle(np.pi / 4 * rng.integers(8, size=n))
    return (centre + 0.5 * rng.standard_normal((n, 2))) / 1.414


def circles(n: int, rng: np.random.Generator) -> np.ndarray:
    ring = on_circle(2 * np.pi * rng.random(n)) * rng.choice([1, 0.5], (n, 1))
    return 3 * (ring + 0.08 * rng.standard_normal((n, 2)))


def moons(n: int, rng: np.random.Generator) -> np.ndarray:
    arc, is_second = on_circle(np.pi * rng.random(n)), rng.integers(2, size=(n, 1))
    arc = np.where(is_second, (1, 0.5) - arc, arc)
    return 2 * (arc + 0.1 * rng.standard_normal((n, 2))) + (-1, -0.2)


def pinwheel(n: int, rng: np.random.Generator) -> np.ndarray:
    x, y = 1 + 0.3 * rng.standard_normal((n, 1)), 0.1 * rng.standard_normal((n, 1))
    angle = 2 * np.pi / 5 * rng.integers(5, size=n) + 0.25 * np.exp(x[:, 0])
    return 2 * (x * on_circle(-angle) + y * on_circle(np.pi / 2 - angle))


def swissroll(n: int, rng: np.random.Generator) -> np.ndarray:
    angle = 1.5 * np.pi * (1 + 2 * rng.random(n))
    return (angle[:, None] * on_circle(angle) + rng.standard_normal((n, 2))) / 5


def checkerboard(n: int, rng: np.random.Generator) -> np.ndarray:
    x = 4 * rng.random(n) - 2
    y = rng.random(n) - 2 * rng.integers(2, size=n) + np.floor(x) % 2
    return 2 * np.stack([x, y], axis=1)


def on_circle(angle: np.ndarray) -> np.ndarray:
    """(n, 2) points of the unit circle."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


# Each density, and the coordinate at which the grid ends: 2 more than the largest in a draw of 5,000.
# The figures are those of the papers' code, so that log-likelihoods can be compared.
DENSITIES: dict[str, tuple[Callable, float]] = {
    "2spirals": (two_spirals, 5.480986),
    "8gaussians": (eight_gaussians, 6.003210),
    "circles": (circles, 5.699008),
    "moons": (moons, 5.530915),
    "pinwheel": (pinwheel, 6.042496),
    "swissroll": (swissroll, 5.190663),
    "checkerboard": (checkerboard, 5.999416),
}


def to_strings(points: np.ndarray, name: str) -> np.ndarray:
    """Points (n, 2) on the grid of a density, as uint8 (n, 32): both coordinates in Gray code."""
    _, end = DENSITIES[name]
    numbers = np.floor(points * (SCALE / end)).astype(np.int64) + SCALE
    numbers = np.clip(numbers, 0, 2 * SCALE - 1)
    shifts = np.arange(BITS - 1, -1, -1)
    bits = ((numbers ^ numbers >> 1)[:, :, None] >> shifts) & 1
    return bits.reshape(len(points), 2 * BITS).astype(np.uint8)


def to_points(strings: np.ndarray, name: str) -> np.ndarray:
    """The middles of the cells of the grid, (n, 2), that strings (n, 32) stand for."""
    _, end = DENSITIES[name]
    gray = strings.reshape(len(strings), 2, BITS).astype(np.int64)
    bits = np.bitwise_xor.accumulate(gray, axis=2)
    numbers = bits @ (1 << np.arange(BITS - 1, -1, -1))
    return (numbers - SCALE + 0.5) * (end / SCALE)
