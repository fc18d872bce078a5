"""Means over lines with honest errors, differences by pairs, and how both are written. In bits.

Neither torch nor a checkpoint is needed: whoever reads results.json can compare runs with this.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCKS = 64  # of lines, whose means are kept: enough for an error known to a tenth of itself
SURE = 1.96  # standard errors; of two equal models one is called better in 5% of cases


class Estimate(NamedTuple):
    """The mean of something over lines, and two errors of it.

    standard_error: as an estimate for the law that the lines come from (the lines are a sample of it,
    and what is random in each line's own value counts as well). A single line cannot show how lines
    differ; of one it is the Monte Carlo error.
    monte_carlo_error: as an estimate for these very lines; None if that cannot be told, because each
    line was drawn once.
    blocks: the means of up to BLOCKS blocks of lines, line number j in block j mod BLOCKS. Two
    estimates from the same lines and the same random numbers can be subtracted block by block.
    """

    bits: float
    standard_error: float
    monte_carlo_error: float | None = None
    lines: int = 0
    blocks: tuple[float, ...] = ()


class Difference(NamedTuple):
    """a - b, its standard error as an estimate for the law, and how many blocks say so."""

    bits: float
    standard_error: float
    blocks: int

    @property
    def is_lower(self) -> bool:
        """Whether a is lower than b beyond doubt: wrong for equal ones in 2.5% of cases."""
        return self.bits < -times_error(self.blocks) * self.standard_error

    @property
    def is_higher(self) -> bool:
        return self.bits > times_error(self.blocks) * self.standard_error


def of_lines(
    values: np.ndarray, variances: np.ndarray | None = None, weights: np.ndarray | None = None
) -> Estimate:
    """The Estimate from each line's own value, (n,), and its Monte Carlo variance, (n,), if known.

    weights: (n,), how much each line counts; None: all the same.
    """
    n = len(values)
    if weights is not None:
        values = weighed(values, weights)
        variances = None if variances is None else variances * (weights / weights.mean()) ** 2
    count = min(n, BLOCKS)
    sums = np.bincount(np.arange(n) % count, weights=values, minlength=count)
    blocks = sums / _sizes(n, count)
    bits, error = _mean(blocks, n)
    exact = None if variances is None else math.sqrt(float(variances.sum())) / n
    if error is None:
        error = math.nan if exact is None else exact
    return Estimate(bits, error, exact, n, tuple(blocks.tolist()))


def weighed(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values whose plain mean is the mean of values by weights, and whose spread gives its error.

    values: (n, ...); weights: (n,). m + w (v - m) with weights of mean 1: the error of a ratio, to first
    order (Cochran 1977, 6.3).
    """
    share = (weights / weights.mean()).reshape(-1, *[1] * (values.ndim - 1))
    mean = (share * values).mean()
    return mean + share * (values - mean)


def difference(
    a: Sequence[float], b: Sequence[float], lines: int, other_lines: int | None = None
) -> Difference | None:
    """a - b by pairs of blocks; lines: over how many lines the blocks are.

    None if they are not pairs (of other lines: other_lines), or too few for an error.
    """
    if len(a) != len(b) or len(a) < 2 or lines != (other_lines or lines):
        return None
    bits, error = _mean(np.asarray(a) - np.asarray(b), lines)
    return Difference(bits, error, len(a))


def _sizes(lines: int, count: int) -> np.ndarray:
    """(count,) how many lines are in each block."""
    return lines // count + (np.arange(count) < lines % count)


def _mean(blocks: np.ndarray, lines: int) -> tuple[float, float | None]:
    """The mean over all lines, and its standard error from the spread of the blocks."""
    count = len(blocks)
    weight = _sizes(lines, count) / lines
    bits = float(weight @ blocks)
    if count < 2:
        return bits, None
    variance = float((weight**2) @ (blocks - bits) ** 2) * count / (count - 1)
    return bits, math.sqrt(variance)


def times_error(blocks: int) -> float:
    """How many standard errors a difference may be by chance, in 95% of cases: Student's t.

    From the normal quantile by Cornish and Fisher's expansion; good to 1% from 5 blocks on.
    """
    df, z = max(1, blocks - 1), SURE
    terms = (
        (z**3 + z) / (4 * df),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3),
    )
    return z + sum(terms)


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Indices of all of count things, or of `most` evenly spaced ones, first and last included."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


# ---------------------------------------------------------------------------------------- as text


def decimals(error: float | None) -> int:
    """Digits behind the point that an error leaves any meaning: two digits of the error itself."""
    if error is None or not math.isfinite(error) or error <= 0:
        return 3
    return min(6, max(0, 1 - math.floor(math.log10(error))))


def text(bits: float, error: float | None) -> str:
    """13.70 ± 0.15, with as many digits as the error allows; ± ? if there is none."""
    digits = decimals(error)
    if error is None or not math.isfinite(error):
        return f"{bits:,.{digits}f} ± ?"
    return f"{bits:,.{digits}f} ± {error:,.{digits}f}"
