"""Single bits and pairs of bits: how often they are 1 in samples, and how often in data.

What a model should get right before all else. Beside each difference stands the noise floor: how far
two drawings of the same distribution, as many strings each, lie apart by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # data.py imports torch, which nobody who only reads counts needs
    from ..bits.data import BitStrings

MAX_BITS = 64  # whose pairs are counted; 2,016 pairs are as many as a picture can show
MAX_STRINGS = 1 << 16


def count_ones(samples: BitStrings, data: BitStrings) -> dict:
    """How often bits, and pairs of bits, are 1 among samples and among data: plain whole numbers.

    Of strings longer than MAX_BITS the pairs are those of MAX_BITS evenly spaced bits.
    """
    L = samples.length
    chosen = np.linspace(0, L - 1, min(L, MAX_BITS)).round().astype(int)
    first, second = np.triu_indices(len(chosen), 1)
    counts = {"bits_of_pairs": chosen.tolist()}
    for name, strings in (("samples", samples), ("data", data)):
        strings = strings.part(range(min(len(strings), MAX_STRINGS)))
        x = strings.packed[:, chosen >> 3] >> (7 - (chosen & 7)) & 1  # (N, bits)
        both = x.T.astype(np.float32) @ x.astype(np.float32)
        counts[name] = {
            "strings": len(strings),
            "ones": strings.ones.tolist(),  # (L,)
            "both": both[first, second].astype(int).tolist(),  # pairs in the order of triu_indices
        }
    return counts


class Comparison(NamedTuple):
    """One statistic in data and in samples; all arrays have the same shape.

    z is the difference in units of its noise, 0 where both agree and there is no noise.
    """

    data: np.ndarray
    samples: np.ndarray
    noise: np.ndarray  # standard deviation of the difference if the distributions are the same
    z: np.ndarray

    def rms(self) -> tuple[float, float]:
        """Root mean squares: of the difference, and of its noise."""
        difference = self.samples - self.data
        return float(np.sqrt(np.mean(difference**2))), float(np.sqrt(np.mean(self.noise**2)))


def _compared(data, samples, noise) -> Comparison:
    difference = samples - data
    z = np.divide(difference, noise, out=np.zeros_like(difference), where=noise > 0)
    return Comparison(data, samples, noise, z)


def compare_bits(counts: dict) -> Comparison:
    """(L,) the share of ones at each bit."""
    n, m = (counts[name]["strings"] for name in ("samples", "data"))
    k_samples, k_data = (np.array(counts[name]["ones"], float) for name in ("samples", "data"))
    pooled = (k_samples + k_data) / (n + m)
    noise = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return _compared(k_data / m, k_samples / n, noise)


def compare_pairs(counts: dict) -> Comparison:
    """(pairs,) the covariance of each pair of bits, from -1/4 to 1/4.

    The noise is that of the mean of the centred product (x - a)(y - b).
    """
    chosen = np.array(counts["bits_of_pairs"], int)
    first, second = np.triu_indices(len(chosen), 1)

    def shares(ones, both, strings):
        ones = np.array(ones, float)[chosen] / strings
        return ones[first], ones[second], np.array(both, float) / strings

    n, m = (counts[name]["strings"] for name in ("samples", "data"))
    a, b, ab = (  # pooled
        (n * s + m * d) / (n + m)
        for s, d in zip(
            *(
                shares(counts[k]["ones"], counts[k]["both"], counts[k]["strings"])
                for k in ("samples", "data")
            ),
            strict=True,
        )
    )
    cells = (
        (ab, (1 - a) * (1 - b)),
        (a - ab, (1 - a) * -b),
        (b - ab, -a * (1 - b)),
        (1 - a - b + ab, a * b),
    )
    variance = sum(share * product**2 for share, product in cells) - (ab - a * b) ** 2
    noise = np.sqrt(np.maximum(variance, 0) * (1 / n + 1 / m))
    covariances = {}
    for name in ("data", "samples"):
        a, b, ab = shares(counts[name]["ones"], counts[name]["both"], counts[name]["strings"])
        covariances[name] = ab - a * b
    return _compared(covariances["data"], covariances["samples"], noise)


def correlations(counts: dict, name: str) -> np.ndarray:
    """(bits, bits) the correlation of each pair among the strings called name; 0 of constant bits."""
    chosen = np.array(counts["bits_of_pairs"], int)
    strings = counts[name]["strings"]
    p = np.array(counts[name]["ones"], float)[chosen] / strings
    matrix = square(np.array(counts[name]["both"], float) / strings, len(chosen))
    matrix[np.diag_indices(len(chosen))] = p
    covariance = matrix - np.outer(p, p)
    scale = np.sqrt(np.outer(p * (1 - p), p * (1 - p)))
    return np.divide(covariance, scale, out=np.zeros_like(matrix), where=scale > 0)


def square(values: np.ndarray, size: int) -> np.ndarray:
    """A symmetric (size, size) matrix from what stands above its diagonal, which is 0."""
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size, 1)] = values
    return matrix + matrix.T
