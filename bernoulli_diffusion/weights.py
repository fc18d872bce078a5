"""Sample weights: a sample of weight 2 counts as two of weight 1. They need not be whole numbers.

Training draws samples in proportion, as often as if the file held copies of them. A mean over samples
of which each is looked at once weighs them instead (estimate.weighed).
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .system.errors import UserError, printable
from .system.files import read_text

FILES = {"train": "weights.txt", "val": "val_weights.txt", "test": "test_weights.txt"}
LARGEST = 1e100  # whose squares can be summed
MIXING, MEASURING = 0, 1  # seeds: of rows' order; where samples stand for others, without training


def beside(file: Path, count: int) -> np.ndarray | None:
    """The weights of a file of count samples, one number a line; None if there are none.

    Those of train.txt stand in weights.txt beside it, those of val.txt in val_weights.txt. Raises
    UserError with file, line and cure.
    """
    name = FILES.get(file.name.partition(".")[0])
    if name is None or not (path := file.with_name(name)).is_file():
        return None
    lines = read_text(path).rstrip().split("\n")
    if len(lines) != count:
        raise UserError(
            f"{printable(path)}: {len(lines):,} weights, but {file.name} has {count:,} samples; write"
            " one number a line, or remove the file"
        )
    return checked(lines, lambda row: f"{printable(path)}:{row + 1}")


def checked(texts: Iterable, place) -> np.ndarray | None:
    """(N,) float64 of texts or numbers; None if all are equal, for then they say nothing.

    place: says where the weight of a row stands, for errors. Raises UserError for what is no weight.
    """
    texts = list(texts)
    weights = np.fromiter(map(_number, texts), np.float64, len(texts))
    wrong = np.flatnonzero(~((weights >= 0) & (weights <= LARGEST)))
    if len(wrong):
        text = texts[wrong[0]]
        found = "nothing" if text is None or not str(text).strip() else repr(printable(text))
        raise UserError(
            f"{place(wrong[0])}: a weight is a number that is not negative, found {found};"
            " 0 leaves the sample out"
        )
    if not weights.sum() > 0:
        raise UserError(
            f"{place(0)}: all weights are zero, so nothing is left; give some sample a weight above 0"
        )
    return None if (weights == weights[0]).all() else weights


def _number(text) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def effective_size(weights: np.ndarray) -> float:
    """How many samples of one weight tell as much about a mean: (sum w)^2 / sum w^2 (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def in_words(weights: np.ndarray) -> str:
    """What a person should know of them."""
    least = weights[weights > 0].min() / weights.max()
    out = int((weights == 0).sum())
    left_out = f", {out:,} of them 0" if out else ""
    return (
        f"{len(weights):,} sample weights{left_out}; the largest is {1 / least:,.3g} times the least;"
        f" they count as some {effective_size(weights):,.0f} samples of one weight"
    )


class InProportion:
    """Rows drawn in proportion to their weights, a pass of as many as there are rows at a time.

    Draw j of a pass, in whatever order, is the row at the share (j + u) / N of all weight, with one
    uniform u for the pass: systematic sampling (Madow & Madow 1944). So in every pass a row comes N w
    times on average, w its share of the weight, and never a whole time more or less; if all weights
    were equal, once. There rows are sorted by weight, at random among equals: so those of one weight
    are together as many as they should be too, and a file that repeats itself does no harm.
    """

    def __init__(self, weights: np.ndarray):
        mixed = np.random.default_rng(MIXING).permutation(len(weights))
        self.order = mixed[weights[mixed].argsort(kind="stable")]
        self.ends = weights[self.order].cumsum()

    def rows(self, draws: np.ndarray, u: np.ndarray | float) -> np.ndarray:
        """draws: int64 in 0..N-1; u: of their passes, of the same shape or one for all."""
        share = (draws + u) * (self.ends[-1] / len(self.ends))
        places = np.searchsorted(self.ends, share, "right")
        return self.order[np.minimum(places, len(self.order) - 1)]


def represented(samples):
    """As many samples without weights, drawn in proportion, always the same; samples if they have none.

    For what looks at samples as a whole: what a network's prepare finds in them, measures, pictures.
    """
    if samples.weights is None:
        return samples
    u = np.random.default_rng(MEASURING).random()
    rows = InProportion(samples.weights).rows(np.arange(len(samples)), u)
    part = samples.part(np.sort(rows))
    part.weights = None
    return part
