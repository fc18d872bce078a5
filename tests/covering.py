"""How often the truth lies within one and two reported errors, over many files and seeds.

The models are those of oracles.py, of which the truth is known for every line and for the law.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from oracles import BitsOracle, NumbersOracle

from bernoulli_diffusion.conditioning import log2_likelihoods
from bernoulli_diffusion.estimate import Estimate, difference, of_lines
from bernoulli_diffusion.likelihood import bound_of_each, estimate_bound, plan_bound

DRAWS, FINAL = 2048, 16  # training.num_bound_draws, and how many times as many at the end


class Cell(NamedTuple):
    """One measurement of one kind of file."""

    measurement: str
    kind: str
    heterogeneous: bool
    lines: int

    def __str__(self) -> str:
        strings = "heterogeneous" if self.heterogeneous else "homogeneous"
        return f"{self.measurement:11} {self.kind:8} {strings:14} {self.lines:7,}"


class Outcome(NamedTuple):
    """(estimate - truth) / error: for the lines themselves (NaN if untold), and for the law."""

    lines: float
    law: float


def subset(data, number: np.ndarray, most: int, rng) -> tuple:
    """The lines that a validation looks at, in random order."""
    rows = rng.permutation(len(data))[:most]
    return data.part(rows), number[rows]


def validation(oracle, data, number, seed: int, times: int = 1) -> tuple[Estimate, np.ndarray]:
    part, number = subset(data, number, times * DRAWS, np.random.default_rng(seed))
    return estimate_bound(oracle.diffusion, part, times * DRAWS, seed), oracle.bounds(number)


def final(oracle, data, number, seed: int) -> tuple[Estimate, np.ndarray]:
    return validation(oracle, data, number, seed, FINAL)


def evaluation(oracle, data, number, seed: int) -> tuple[Estimate, np.ndarray]:
    """As evaluate.py does it, with a precision that 300 lines need effort for."""
    effort = plan_bound(oracle.diffusion, data, 0.005, seed)
    bits, error = zip(*bound_of_each(oracle.diffusion, data, effort, seed), strict=True)
    return of_lines(np.concatenate(bits), np.concatenate(error) ** 2), oracle.bounds(number)


def particles(oracle, data, number, seed: int) -> tuple[Estimate, np.ndarray]:
    """As evaluate.py --particles does it."""
    parts = log2_likelihoods(oracle.diffusion, data, 32, 4, seed)
    log2_p, error = zip(*((p.log2_p, p.standard_error) for p in parts), strict=True)
    bits, error = -torch.cat(log2_p).numpy(), torch.cat(error).numpy()
    return of_lines(bits, error**2), oracle.costs(number)


MEASUREMENTS: dict[str, Callable] = {
    "validation": validation,
    "final": final,
    "evaluate": evaluation,
    "particles": particles,
}


def oracle_of(cell: Cell):
    if cell.kind == "bits":
        return BitsOracle()
    # the law of a linear model is Gaussian, and known
    return NumbersOracle(bend=0.0) if cell.measurement == "particles" else NumbersOracle()


def outcomes(cell: Cell, seeds: range) -> list[Outcome]:
    """A new file, and new draws, for each seed."""
    oracle, found = oracle_of(cell), []
    cost = cell.measurement == "particles"
    law = oracle.law_cost if cost else oracle.law_bound
    truth = law(cell.heterogeneous)
    for seed in seeds:
        data, number = oracle.file(cell.lines, cell.heterogeneous, np.random.default_rng(seed))
        estimate, of_each = MEASUREMENTS[cell.measurement](oracle, data, number, seed)
        exact = estimate.monte_carlo_error
        lines = np.nan if exact is None else (estimate.bits - of_each.mean()) / exact
        found.append(Outcome(lines, (estimate.bits - truth) / estimate.standard_error))
    return found


def covered(z: np.ndarray) -> tuple[float, float]:
    """In which share of cases the truth is within one, and within two errors."""
    return float((abs(z) < 1).mean()), float((abs(z) < 2).mean())


# ------------------------------------------------------------------------------- differences


def differences(kind: str, heterogeneous: bool, lines: int, seeds: range) -> Iterator[tuple]:
    """Of two equally good networks on the same file: by pairs, and as if they were independent.

    The second network is the mirror image of the first, and so is the law of the lines: on average
    both are equally good, and for each line one of them is better.
    """
    make = BitsOracle if kind == "bits" else NumbersOracle
    a, b = make(is_symmetric=True), make(is_symmetric=True, mirrored=True)
    for seed in seeds:
        data, number = a.file(lines, heterogeneous, np.random.default_rng(seed))
        (one, _), (other, _) = (validation(o, data, number, seed) for o in (a, b))
        apart = np.hypot(one.standard_error, other.standard_error)
        yield difference(one.blocks, other.blocks, one.lines), one.bits - other.bits, float(apart)
