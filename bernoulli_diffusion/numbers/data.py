"""Text files <-> real numbers: one sample a line, numbers between spaces, tabs or commas.

The counterpart of bits/data.py, with the same names for the same things.
"""

import codecs
import hashlib
import itertools
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..noise import Noise, derive_seed
from ..system.errors import UserError, cannot_open, printable

MAX_NUMBERS = 10_000  # in a line
LINES_AT_A_TIME = 4096
NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
DIGITS_APART = re.compile(rb"[0-9],[0-9]"), re.compile(rb"[0-9][ \t]+[-+.0-9]")
GZIP = b"\x1f\x8b"
DEQUANTIZING = 1  # stream of random numbers
LARGEST = 1e30  # of a number: its square must not overflow
FARTHEST = 1e6  # deviations from the mean; beyond, float32 has no digits left for the data


class RealVectors:
    """N samples of D numbers, and how they are standardised: values is (N, D) float64.

    mean, deviation: (D,), those of the training data. width: of the uniform noise that is added to
    each number wherever a network sees it or a density is taken; whole numbers have none without it.
    aside: columns of the file that are not among the D, because one number stands in all their lines.
    weights: (N,) float64, how much each sample counts; None if all count the same.
    """

    def __init__(
        self,
        values: np.ndarray,
        mean: np.ndarray | None = None,
        deviation: np.ndarray | None = None,
        width: float = 0.0,
        aside: "Aside | None" = None,
        weights: np.ndarray | None = None,
    ):
        self.values, self.width, self.aside, self.weights = values, width, aside, weights
        self.mean = values.mean(axis=0) + width / 2 if mean is None else mean
        if deviation is None:
            deviation = np.sqrt(values.var(axis=0) + width**2 / 12)
        self.deviation = deviation

    def __len__(self) -> int:
        return len(self.values)

    @property
    def length(self) -> int:
        return self.values.shape[1]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def sha256(self) -> str:
        """A hash of the numbers in their order, however they were written."""
        digest = hashlib.sha256(f"{self.length}\n".encode())
        digest.update(np.ascontiguousarray(self.values).data)
        if self.aside:
            digest.update(self.aside.columns.tobytes() + self.aside.values.tobytes())
        if self.weights is not None:
            digest.update(self.weights.tobytes())
        return digest.hexdigest()

    def part(self, rows) -> "RealVectors":
        """Those of the samples. rows: a range, or indices."""
        if isinstance(rows, range):
            rows = slice(rows.start, rows.stop)
        scale = self.mean, self.deviation, self.width, self.aside
        weights = None if self.weights is None else self.weights[rows]
        return RealVectors(self.values[rows], *scale, weights)

    def dequantized(self, rows=slice(None), draw: int | Tensor = 0) -> np.ndarray:
        """(n, D) float64 in the data's units, with the uniform noise number `draw` of each row.

        draw: the same for all rows, or (n, 1) int64.
        """
        values = self.values[rows]
        if not self.width:
            return values
        numbers = torch.arange(len(self))[rows]
        noise = Noise(derive_seed(DEQUANTIZING), numbers, self.length).uniform(draw)
        return values + self.width * noise.double().numpy()

    def tensor(self, rows, device: torch.device | str = "cpu", draw: int | Tensor = 0) -> Tensor:
        """(n, D) float32, standardised and dequantized: what the process and the network take."""
        scaled = (self.dequantized(rows, draw) - self.mean) / self.deviation
        return torch.from_numpy(scaled.astype(np.float32)).to(device)


class Aside(NamedTuple):
    """Columns that hold one number throughout, which a density cannot say anything about.

    columns: (k,) int64, rising, places in a line of the file; values: (k,) float64.
    """

    columns: np.ndarray
    values: np.ndarray

    def taken_off(self, lines: np.ndarray) -> np.ndarray:
        """(..., D + k) -> (..., D)."""
        return np.delete(lines, self.columns, axis=-1)

    def put_back(self, values: np.ndarray) -> np.ndarray:
        """(..., D) -> (..., D + k), as in the file."""
        varying = np.delete(np.arange(values.shape[-1] + len(self.columns)), self.columns)
        lines = np.empty((*values.shape[:-1], values.shape[-1] + len(self.columns)))
        lines[..., varying], lines[..., self.columns] = values, self.values
        return lines

    def first_other(self, lines: np.ndarray) -> tuple[int, int] | None:
        """Row and number in it of the first that is known and another one, in lines (n, D + k)."""
        found = lines[:, self.columns]
        row, k = np.nonzero((found != self.values) & ~np.isnan(found))
        return (int(row[0]), int(k[0])) if len(row) else None


def place_in_file(number: int, aside: Aside | None) -> int:
    """Where in a line of the file one of the D numbers stands, from 0; columns aside come between."""
    for column in aside.columns.tolist() if aside else ():
        number += column <= number
    return number


# ---------------------------------------------------------------------------------------- reading


def read_real_vectors(
    path: Path, width: float = 0.0, like: RealVectors | None = None, *, keep_aside: bool = True
):
    """Read a text file with one sample a line, D numbers between spaces, tabs or commas.

    Accepted besides: \\r\\n line ends, a missing last newline, empty lines at the end, a UTF-8
    byte-order mark. like: samples whose mean, deviation and width are taken over; else they are found
    here. A column in which all numbers are equal has no density, and no scale: it is kept aside.
    Raises UserError with file, line and cure for anything else, and for such a column if all are such,
    or without keep_aside.
    """
    lines = _lines(path, "one sample a line, numbers between spaces")
    if all(way.search(lines[0]) for way in DIGITS_APART):
        raise UserError(
            f"{printable(path)}:1: both commas and spaces between digits; write decimal points, not"
            " commas, and one or the other between numbers"
        )
    blocks, length = [], None
    for first in range(0, len(lines), LINES_AT_A_TIME):
        block = lines[first : first + LINES_AT_A_TIME]
        values = _parse_block(block, length)
        if values is None:
            _find_mistake(block, length, path, first + 1)
        blocks.append(values)
        length = values.shape[1]
    values = np.concatenate(blocks)
    if like is not None:
        if like.aside and values.shape[1] == like.length + len(like.aside.columns):
            _refuse_others(values, like.aside, path)
            values = like.aside.taken_off(values)
        if values.shape[1] == like.length:
            _refuse_far(values, like, path)
        return RealVectors(values, like.mean, like.deviation, like.width, like.aside)
    constant = np.flatnonzero(values.min(axis=0) == values.max(axis=0))
    aside = None
    if 0 < len(constant) < values.shape[1] and keep_aside and not width:
        aside = Aside(constant, values[0, constant])
        values = aside.taken_off(values)
    vectors = RealVectors(values, width=width, aside=aside)
    if len(constant) and not width and not aside:
        more = f" (and {len(constant) - 1:,} more such columns)" if len(constant) > 1 else ""
        raise UserError(
            f"{printable(path)}: column {constant[0] + 1} is {values[0, constant[0]]:g} in every"
            f" line{more}: it has no density; remove it, or blur whole numbers by data.dequantize: 1"
        )
    narrow = np.flatnonzero(vectors.deviation < 1e-12 * np.abs(vectors.mean))
    if len(narrow):
        cure = "subtract that from it"
        if np.abs(values[:, narrow[0]]).max() < 1 / LARGEST:
            cure = "multiply it by a large number"
        raise UserError(
            f"{printable(path)}: column {place_in_file(narrow[0], aside) + 1} hardly varies around"
            f" {vectors.mean[narrow[0]]:g}; {cure}"
        )
    return vectors


def _refuse_others(values: np.ndarray, aside: Aside, path: Path) -> None:
    """Raise UserError for the first line that has another number in a column that is kept aside."""
    if other := aside.first_other(values):
        row, k = other
        column = aside.columns[k]
        raise UserError(
            f"{printable(path)}:{row + 1}:{column + 1}: {values[row, column]:g}, but this column is"
            f" {aside.values[k]:g} in every line of train.txt, from which nothing else can be learnt;"
            " leave out the line"
        )


def _refuse_far(values: np.ndarray, like: RealVectors, path: Path) -> None:
    """Raise UserError for the first number that the data like give float32 no digits for."""
    far = np.argwhere(np.abs(values - like.mean) > FARTHEST * like.deviation)
    if len(far):
        row, column = far[0]
        place = place_in_file(column, like.aside)
        raise UserError(
            f"{printable(path)}:{row + 1}:{place + 1}: {values[row, column]:g} is more than a million"
            f" deviations from the training data's mean, {like.mean[column]:g}; if it stands for a"
            " missing value, leave out the line"
        )


def _lines(path: Path, expected: str) -> list[bytes]:
    """The lines of a text file, without empty ones at its end."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise cannot_open(printable(path), error) from None
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{printable(path)}:1: UTF-16 text; save the file as plain text (UTF-8)")
    if text.startswith(GZIP):
        raise UserError(f"{printable(path)}:1: a compressed file; unpack it first (gunzip)")
    lines = text.removeprefix(codecs.BOM_UTF8).split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{printable(path)}: the file is empty; expected {expected}")
    return lines


def _words(line: bytes) -> list[bytes]:
    """Numbers are kept apart by spaces, tabs or a comma; two commas have nothing between them."""
    line = line.strip(b" \t\r")
    return line.split() if b"," not in line else re.split(rb"[ \t]*,[ \t]*|[ \t]+", line)


def _parse_block(lines: list[bytes], length: int | None) -> np.ndarray | None:
    """(n, D) float64 of lines of as many numbers (length, if that is known); None if not so."""
    words = [_words(line) for line in lines]
    length = length or len(words[0])
    if not 0 < length <= MAX_NUMBERS or any(len(row) != length for row in words):
        return None
    flat = list(itertools.chain.from_iterable(words))
    if not all(map(NUMBER.fullmatch, flat)):
        return None
    values = np.array(list(map(float, flat))).reshape(len(lines), length)
    return values if np.abs(values).max() <= LARGEST else None


def _find_mistake(lines: list[bytes], length: int | None, path: Path, first: int) -> None:
    """Raise UserError for the first thing that is wrong with the lines."""
    for number, line in enumerate(lines, first):
        place, words = f"{printable(path)}:{number}", _words(line)
        if words in ([], [b""]):
            raise UserError(f"{place}: an empty line among the samples; remove it")
        if words[-1] == b"" and words[:-1]:
            raise UserError(f"{place}: a comma at the end of the line; remove it")
        for column, word in enumerate(words, 1):
            _parse_number(word, f"{place}:{column}")
        if len(words) > MAX_NUMBERS:
            raise UserError(f"{place}: more than {MAX_NUMBERS:,} numbers in one line")
        length = length or len(words)
        if len(words) != length:
            raise UserError(
                f"{place}: {len(words):,} numbers, but the lines above have {length:,}; all samples"
                " need as many"
            )
    raise AssertionError("irregular lines without a mistake")


def _parse_number(word: bytes, place: str, expected: str = "a number") -> float:
    """The number that word is. Errors begin with place, which counts numbers, not characters."""
    text = printable(word[:20].decode("utf-8", "replace"))
    if not NUMBER.fullmatch(word):
        what = f"found '{text}'" if word else "found nothing between two commas"
        raise UserError(f"{place}: expected {expected}, {what}{_cure(text, place, expected)}")
    if abs(float(word)) > LARGEST:
        raise UserError(
            f"{place}: {text} is too large, the most is {LARGEST:g}; write the numbers in larger units"
        )
    return float(word)


def _cure(text: str, place: str, expected: str) -> str:
    """What to do about text that is no number, as the end of an error."""
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity", "na", "null"):
        if "?" in expected:
            return "; write ? for what is not known"
        return "; leave out lines with missing or infinite values"
    if ";" in text:
        return "; put spaces, tabs or commas between numbers"
    if re.search(r":1:\d+$", place) and any(letter.isalpha() for letter in text):
        return "; if this line is a header, remove it"
    return ""


def read_patterns(path: Path, length: int) -> np.ndarray:
    """Read a text file of samples of numbers and ? (unknown), one a line, each of `length`.

    Returns (N, length) float64, NaN where unknown. Raises UserError with file, line and cure.
    """
    places = (f"{printable(path)}:{number}" for number in itertools.count(1))
    lines = _lines(path, "one pattern a line")
    return np.stack([parse_pattern(x, length, p) for x, p in zip(lines, places, strict=False)])


def parse_pattern(text: bytes, length: int, place: str) -> np.ndarray:
    """Numbers and ? between spaces, tabs or commas -> (length,) float64. Errors begin with place."""
    words = _words(text)
    values = [
        math.nan if word == b"?" else _parse_number(word, f"{place}:{k}", "a number or ?")
        for k, word in enumerate(words, 1)
    ]
    if len(values) != length:
        raise UserError(
            f"{place}: {len(values):,} numbers and ?, but the model's samples have {length:,}"
        )
    return np.array(values)


def rounded(values: np.ndarray, deviation: np.ndarray, digits: int = 6) -> np.ndarray:
    """values to so many digits of their deviation, (N, D) and (D,): all that a model can know."""
    unit = 10.0 ** (np.floor(np.log10(deviation)) - digits + 1)
    return np.round(values / unit) * unit + 0.0  # no -0


def to_text(values: np.ndarray) -> bytes:
    """(N, D) -> N lines of numbers between spaces, with as many digits as they have."""
    rows = (" ".join([f"{v:.15g}" for v in row]) for row in values.tolist())
    return "".join(f"{row}\n" for row in rows).encode()
