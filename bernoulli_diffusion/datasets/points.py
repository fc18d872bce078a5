"""Data sets of points: in the plane as bits in Gray code, and real numbers in few dimensions."""

import math
from typing import Annotated, Literal

import numpy as np

from ..system.errors import UserError
from . import densities
from .forms import (
    MAX_NUMBERS,
    Numbers,
    NumTrain,
    NumVal,
    Seed,
    Split,
    check_range,
    check_size,
    generator,
    in_order,
)


def planar(
    name: Annotated[Literal[tuple(densities.DENSITIES)], "the density"],
    num_train: Annotated[int, "strings in train.txt"] = 200_000,
    num_val: Annotated[int, "strings in val.txt"] = 5_000,
    seed: Seed = 0,
) -> Split:
    """Points of a density in the plane: 32 bits, two coordinates of 16 bits in Gray code.

    A test set is the val.txt of another seed. bernoulli_diffusion.datasets.densities turns strings
    into points.
    """
    rng, count = _numbers_generator(num_train, num_val, 1, seed)
    points = densities.DENSITIES[name][0](count, rng)
    return in_order(densities.to_strings(points, name), num_train)


def gaussian_mixture(
    num_train: NumTrain = 10_000, num_val: NumVal = 2_000, seed: Seed = 0
) -> Numbers:
    """1-D: with probability 0.7 at +1/2, else at -1/2, with standard deviation 0.2."""
    rng, count = _numbers_generator(num_train, num_val, 1, seed)
    x = np.where(rng.random(count) < 0.7, 0.5, -0.5) + 0.2 * rng.standard_normal(count)
    return in_order(x[:, None], num_train)


def ramp(
    dimensions: Annotated[int, "numbers in a sample, independent of each other"] = 1,
    num_train: NumTrain = 10_000,
    num_val: NumVal = 2_000,
    seed: Seed = 0,
) -> Numbers:
    """The minimum of two uniform numbers: density 2 (1 - x) on [0, 1], in any number of dimensions."""
    rng, count = _numbers_generator(num_train, num_val, dimensions, seed)
    return in_order(rng.random((count, dimensions, 2)).min(axis=2), num_train)


def spiral(num_train: NumTrain = 10_000, num_val: NumVal = 2_000, seed: Seed = 0) -> Numbers:
    """2-D: radius 0.65 u + 0.25 + 0.15 v at the angle 3 pi u, with u and v uniform."""
    rng, count = _numbers_generator(num_train, num_val, 2, seed)
    u, v = rng.random((2, count))
    return in_order(_polar(0.65 * u + 0.25 + 0.15 * v, 3 * np.pi * u), num_train)


def swiss_roll(num_train: NumTrain = 10_000, num_val: NumVal = 2_000, seed: Seed = 0) -> Numbers:
    """2-D: the angle t, from 1.5 pi to 4.5 pi, is the radius too; noise 0.1; all divided by 10."""
    rng, count = _numbers_generator(num_train, num_val, 2, seed)
    t = 1.5 * np.pi * (1 + 2 * rng.random(count))
    return in_order((_polar(t, t) + 0.1 * rng.standard_normal((count, 2))) / 10, num_train)


def n_gaussians(
    clusters: Annotated[int, "how many, evenly spaced on the unit circle"] = 8,
    deviation: Annotated[float, "standard deviation of each cluster"] = 0.2,
    num_train: NumTrain = 10_000,
    num_val: NumVal = 2_000,
    seed: Seed = 0,
) -> Numbers:
    """2-D: round Gaussian clusters on the unit circle."""
    check_range("clusters", clusters, 1)
    if not 0 < deviation < math.inf:
        raise UserError(f"deviation is {deviation}, expected more than 0")
    rng, count = _numbers_generator(num_train, num_val, 2, seed)
    centres = _polar(np.ones(count), 2 * np.pi * rng.integers(clusters, size=count) / clusters)
    return in_order(centres + deviation * rng.standard_normal((count, 2)), num_train)


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(N, 2) points in the plane."""
    return radius[:, None] * densities.on_circle(angle)


def _numbers_generator(num_train: int, num_val: int, dimensions: int, seed: int):
    """The random generator and the number of samples, for checked arguments."""
    check_range("num-train", num_train, 1)
    check_range("num-val", num_val, 0)
    check_range("dimensions", dimensions, 1, MAX_NUMBERS)
    check_size(num_train + num_val, 32 * dimensions)
    return generator(seed), num_train + num_val
