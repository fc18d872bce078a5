"""What is measured of samples of bits, and what bits cost without a model.

Shares of samples found in the data; how often single bits and pairs of bits are 1, in samples and in
data, beside the noise floor: how far two drawings of one distribution, as many strings each, lie apart
by chance; and baselines in bits a string.
"""

from typing import NamedTuple

import numpy as np

from ..config import Config
from ..estimate import evenly_spaced
from ..results.record import Measure
from ..weights import represented
from .data import BitStrings
from .membership import Membership, count_distinct

PAIR_STRINGS = 4096  # on either side, whose pairs are compared
PAIR_BITS = 2000  # of a string: a product of matrices of this size takes a fraction of a second
COUNTED_BYTES = 1 << 24  # of packed strings; more would take long to count the distinct ones among
MAX_BITS = 64  # whose pairs are counted; 2,016 pairs are as many as a picture can show
MAX_STRINGS = 1 << 16
EXCESS_STRINGS = 4096  # on either side, of an independent_excess
LEAST_STRINGS = {"train": 10, "val": 30}  # of which it means something


class Measures:
    """How samples compare with the data: shares found in train, in val and in neither, and pairs of bits.

    A new measure is a line in `described` and a number in `of`.
    """

    def __init__(
        self, train: BitStrings, val: BitStrings | None, config: Config, shown: BitStrings
    ):
        self.train, self.length, self.has_val = train, train.length, bool(val)
        self.num_examples = config.training.num_examples
        self.train_members = Membership(train)
        in_train = self.train_members.contains(val).sum() if val else 0
        self.val_members = Membership(val) if val else None
        train, shown = represented(train), represented(shown)
        val = val and represented(val)
        self.shown = shown
        self.pairs = PairFrequencies(shown, config.training.num_val_samples)
        self.facts = {"val_lines_in_train": int(in_train)}
        excess = val and independent_excess(train, val)
        if excess is not None:
            self.facts["val_excess"] = excess
        self.baselines = {
            "uniform": uniform_bits(val or train),
            "independent_train": independent_bits(train, train),
            "independent_val": independent_bits(train, val) if val else None,
        }

    def described(self) -> list[Measure]:
        share = {"unit": "share"}
        floor = self.pairs.floor
        measures = [
            Measure("share_train", "in train.txt", "train", better="higher", **share),
            Measure("share_val", "in val.txt", "val", better="higher", **share),
            Measure("share_other", "in neither", "neither", better="lower", **share),
            Measure("distinct", "distinct", **share),
        ]
        if self.length > 1:
            name, label = "pair_difference", "difference of pair frequencies"
            measures.append(Measure(name, label, "pairs", "", "lower", digits=4, floor=floor))
        return measures

    def of(self, samples: BitStrings) -> dict[str, float]:
        in_train = self.train_members.contains(samples)
        in_val = self.val_members.contains(samples) if self.val_members else np.zeros_like(in_train)
        in_val &= ~in_train
        return {
            "share_train": float(in_train.mean()),
            "share_val": float(in_val.mean()),
            "share_other": float((~in_train & ~in_val).mean()),
            "distinct": count_distinct(samples) / len(samples),
            "pair_difference": self.pairs.difference(samples),
        }

    def statistics(self, samples: BitStrings) -> dict:
        """How often single bits and pairs are 1."""
        return count_ones(samples, self.shown)

    def data_examples(self) -> list[str]:
        """As many strings of the data as samples are shown, from all over them."""
        rows = evenly_spaced(len(self.shown), self.num_examples)
        return self.examples(self.shown.part(rows), len(rows))

    @staticmethod
    def examples(samples: BitStrings, count: int) -> list[str]:
        """The first samples, as results.json keeps them."""
        return ["".join(map(str, row)) for row in samples.bits(slice(count)).tolist()]

    def is_example(self, example) -> bool:
        return type(example) is str and len(example) == self.length and set(example) <= {"0", "1"}

    def data_in_short(self) -> str:
        """What there is to say of train.txt beside its size."""
        if self.train.nbytes > COUNTED_BYTES:
            return ""
        return f" ({count_distinct(self.train):,} distinct)"


class PairFrequencies:
    """How often two bits are 1 together: in the data, and how far samples are from it on average.

    The mean over all pairs of bits of |frequency in samples - frequency in data|, from at most
    PAIR_STRINGS strings on either side and PAIR_BITS bits. floor: what two drawings of the data's own
    law, as many strings each, would show: the mean of |normal| with variance p (1 - p) (1/n + 1/m).
    """

    def __init__(self, data: BitStrings, samples: int):
        self.frequencies = self._of(data)  # (pairs,)
        n, m = min(samples, PAIR_STRINGS), min(len(data), PAIR_STRINGS)
        p = (self.frequencies * m + 0.5) / (m + 1)  # a pair that was never seen may still come
        self.floor = 0.0
        if len(p):
            deviation = np.sqrt(p * (1 - p) * (1 / n + 1 / m))
            self.floor = float(np.sqrt(2 / np.pi) * deviation.mean())

    @staticmethod
    def _of(strings: BitStrings) -> np.ndarray:
        """(pairs,) float32, among evenly spaced strings and bits of those given."""
        rows = evenly_spaced(len(strings), PAIR_STRINGS)
        x = some_bits(strings.packed[rows], evenly_spaced(strings.length, PAIR_BITS))
        x = x.astype(np.float32)
        return (x.T @ x / np.float32(len(x)))[np.triu(np.ones((x.shape[1],) * 2, bool), 1)]

    def difference(self, samples: BitStrings) -> float:
        found = self._of(samples)
        return float(np.abs(found - self.frequencies).mean()) if len(found) else 0.0


# ------------------------------------------------------------------------------- single bits and pairs


def count_ones(samples: BitStrings, data: BitStrings) -> dict:
    """How often bits, and pairs of bits, are 1 among samples and among data: plain whole numbers.

    Of strings longer than MAX_BITS the pairs are those of MAX_BITS evenly spaced bits.
    """
    L = samples.length
    chosen = evenly_spaced(L, MAX_BITS)
    first, second = np.triu_indices(len(chosen), 1)
    counts = {"bits_of_pairs": chosen.tolist()}
    for name, strings in (("samples", samples), ("data", data)):
        strings = strings.part(range(min(len(strings), MAX_STRINGS)))
        x = some_bits(strings.packed, chosen)  # (N, bits)
        both = x.T.astype(np.float32) @ x.astype(np.float32)
        counts[name] = {
            "strings": len(strings),
            "ones": strings.ones.tolist(),  # (L,)
            "both": both[first, second].astype(int).tolist(),  # pairs in the order of triu_indices
        }
    return counts


def some_bits(packed: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(N, len(chosen)) uint8: the bits of these numbers, of packed strings."""
    return packed[:, chosen >> 3] >> (7 - (chosen & 7)) & 1


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

    def shares(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        strings = counts[name]["strings"]
        ones = np.array(counts[name]["ones"], float)[chosen] / strings
        return ones[first], ones[second], np.array(counts[name]["both"], float) / strings

    samples, data = shares("samples"), shares("data")
    n, m = (counts[name]["strings"] for name in ("samples", "data"))
    a, b, ab = ((n * s + m * d) / (n + m) for s, d in zip(samples, data, strict=True))  # pooled
    cells = (
        (ab, (1 - a) * (1 - b)),
        (a - ab, (1 - a) * -b),
        (b - ab, -a * (1 - b)),
        (1 - a - b + ab, a * b),
    )
    variance = sum(share * product**2 for share, product in cells) - (ab - a * b) ** 2
    noise = np.sqrt(np.maximum(variance, 0) * (1 / n + 1 / m))
    return _compared(*(ab - a * b for a, b, ab in (data, samples)), noise)


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


# ------------------------------------------------------------------------------- baselines


def baseline_bits(train: BitStrings, strings: BitStrings, frequencies_of: str) -> dict:
    """Bits a string without a model, by the frequencies of train."""
    return {
        "uniform_bits": uniform_bits(strings),
        "independent_bits": independent_bits(train, strings),
        "independent_bits_frequencies_of": frequencies_of,
    }


def uniform_bits(strings: BitStrings) -> float:
    """Bits a string as fair coin flips: how many of its bits are known, in the mean."""
    return float(strings.known.sum()) / len(strings)


def independent_bits(train: BitStrings, strings: BitStrings) -> float:
    """Mean -log2 of strings under independent bits with the frequencies of train (plus one each).

    Of both, known bits are counted alone.
    """
    ones = (train.ones + 1) / (train.known + 2)  # (L,)
    share, zeros = strings.ones / len(strings), (strings.known - strings.ones) / len(strings)
    return float(-(share * np.log2(ones) + zeros * np.log2(1 - ones)).sum())


def independent_excess(train: BitStrings, val: BitStrings) -> float | None:
    """How much dearer val's lines are than a training line that was left out, in standard errors.

    Under independent bits with the frequencies of train, or of train without that line. Lines of one
    kind differ by chance: by 3 or less. None if there are too few lines to say.
    """
    if len(train) < LEAST_STRINGS["train"] or len(val) < LEAST_STRINGS["val"]:
        return None

    def costs(strings: BitStrings, left_out: int) -> np.ndarray:
        zeros = train.known - train.ones
        with np.errstate(divide="ignore"):  # a value that no training line has is never asked for
            one, zero = (
                -np.log2((count + 1 - left_out) / (train.known + 2 - left_out))
                for count in (train.ones, zeros)
            )
        part = strings.part(
            np.linspace(0, len(strings) - 1, min(len(strings), EXCESS_STRINGS), dtype=int)
        )
        cost = np.where(part.bits(), one, zero)
        if part.unknown is not None:
            cost[BitStrings(part.unknown, part.length).bits() == 1] = 0
        return cost.sum(axis=1)

    of_train, of_val = costs(train, 1), costs(val, 0)
    error = np.hypot(of_train.std() / len(of_train) ** 0.5, of_val.std() / len(of_val) ** 0.5)
    return float((of_val.mean() - of_train.mean()) / max(error, 1e-9))
