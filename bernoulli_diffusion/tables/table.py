"""A table in memory: columns of text with gaps, or bits without names; and what a text stands for."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..system.errors import UserError
from ..weights import checked

MISSING = {"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "null", "NULL", "?", "."}
BOOLEANS = {"True", "False", "true", "false", "TRUE", "FALSE"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
BIT = re.compile(r"[+-]?[01](\.0*)?([eE][+-]?0+)?")  # 01 is something else


class Values(NamedTuple):
    """A column: its different texts in the order of their first row, and the number of each row's.

    dtype: the pandas or NumPy type that the texts are to be given back in; "" for text.
    """

    texts: list[str]
    codes: np.ndarray  # (N,) int64, -1 where a value is missing
    dtype: str = ""
    missing_text: str = ""

    @classmethod
    def of(cls, rows: Iterable[str | None], dtype: str = "", missing_text: str = "") -> "Values":
        """A column of these texts, None where a value is missing."""
        rows = list(rows)
        texts = [t for t in dict.fromkeys(rows) if t is not None]
        number = {t: i for i, t in enumerate(texts)} | {None: -1}
        return cls(texts, np.array([number[t] for t in rows], np.int64), dtype, missing_text)

    def text(self, row: int) -> str | None:
        code = self.codes[row]
        return None if code < 0 else self.texts[code]

    def codes_among(self, texts: Iterable[str]) -> np.ndarray:
        """(N,) codes by the numbers of other texts, which hold all of these."""
        place = {t: i for i, t in enumerate(texts)}
        return np.array([*(place[t] for t in self.texts), -1], np.int64)[self.codes]


def weights_of(values: Values, place: str) -> np.ndarray | None:
    """(N,) sample weights from a column; None if all are equal. place: of the column, for errors."""
    texts = [*(t.replace(",", ".") for t in values.texts), None]
    return checked([texts[c] for c in values.codes], lambda row: f"{place} of row {row + 1}")


def _without(values: Values, is_gap) -> Values:
    """The column in which texts of which is_gap is true are missing."""
    gaps = [is_gap(t) for t in values.texts]
    if not any(gaps):
        return values
    texts = [t for t, gap in zip(values.texts, gaps, strict=True) if not gap]
    number = np.cumsum(np.logical_not(gaps)) - 1
    number = np.append(np.where(gaps, -1, number), -1)
    word = values.texts[gaps.index(True)]
    return values._replace(
        texts=texts, codes=number[values.codes], missing_text=values.missing_text or word
    )


def joined(parts: Sequence[Values]) -> Values:
    """Columns one below the other, of the first one's type."""
    texts = list(dict.fromkeys(t for part in parts for t in part.texts))
    codes = np.concatenate([part.codes_among(texts) for part in parts])
    return parts[0]._replace(texts=texts, codes=codes)


@dataclass(frozen=True)
class Table:
    """Columns by name; all of one length. form: how the file was written, to write its like."""

    columns: dict[str, Values]
    understood: str  # in words, for the person
    form: dict  # separator, header: of text; kind: "text", "array" or "frame"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).codes) if self.columns else 0

    def without(self, missing: Iterable[str]) -> "Table":
        """The table in which these words, and numbers equal to them, are gaps."""
        words = set(missing)
        numbers = {float(w) for w in words if is_number(w)}

        def is_gap(text: str) -> bool:
            return text.strip() in words or (is_number(text) and float(text) in numbers)

        return replace(self, columns={n: _without(v, is_gap) for n, v in self.columns.items()})

    def part(self, rows: np.ndarray) -> "Table":
        """Those of the rows."""
        columns = {n: v._replace(codes=v.codes[rows]) for n, v in self.columns.items()}
        return replace(self, columns=columns)


@dataclass(frozen=True)
class Strings:
    """A file of nothing but bits without names: (N, L) int8 of 0, 1 and -1 for unknown."""

    bits: np.ndarray
    understood: str
    weights: np.ndarray | None = None  # (N,) how often each counts

    def __len__(self) -> int:
        return len(self.bits)


# ------------------------------------------------------------------------------- cells


def is_number(text: str) -> bool:
    """Whether a text is a plain decimal number."""
    return NUMBER.fullmatch(text.strip()) is not None


def plural(count: int, thing: str) -> str:
    """1 column, 2 columns."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def checked_names(names: list[str], place: str) -> list[str]:
    """Names of columns without blanks. Raises UserError, which begins with place, for one twice."""
    seen: dict[str, int] = {}
    for number, name in enumerate((n.strip() for n in names), 1):
        if name in seen:
            are_called = f"are both called {name!r}" if name else "have no name"
            raise UserError(
                f"{place}: columns {seen[name]} and {number} {are_called};"
                " give each a name of its own"
            )
        seen[name] = number
    return list(seen)


def columns_of(
    names: list[str], rows: Iterable[Iterable[str]], missing: set[str]
) -> dict[str, Values]:
    """The columns of rows of cells, by name; missing: what stands for a missing value."""
    columns = (values_of(column, missing) for column in zip(*rows, strict=True))
    return dict(zip(names, columns, strict=True))


def numbered_names(count: int) -> list[str]:
    """Names for columns that have none."""
    return [f"column_{i}" for i in range(1, count + 1)]


def values_of(cells: Iterable[str], missing: set[str]) -> Values:
    """A column of these cells; missing: what stands for a missing value."""
    cells = list(cells)
    different = dict.fromkeys(cells)
    texts = [c for c in different if c.strip() not in missing]
    gaps = [c for c in different if c.strip() in missing]
    number = {c: i for i, c in enumerate(texts)} | dict.fromkeys(gaps, -1)
    codes = np.fromiter(map(number.__getitem__, cells), np.int64, len(cells))
    gap = max(gaps, key=cells.count, default="") if len(gaps) > 1 else "".join(gaps)
    return Values(texts, codes, "", gap)


def as_bits(columns: Iterable[Values]) -> np.ndarray | None:
    """(N, L) int8 if every value is 0 or 1 (or False or True; or, throughout, -1 or 1)."""
    columns = list(columns)
    words = {t for column in columns for t in column.texts}
    value = {}
    for word in words:
        if word in BOOLEANS:
            value[word] = float(word.lower() == "true")
        elif BIT.fullmatch(word.strip()):
            value[word] = float(word)
        else:
            return None
    found = set(value.values())
    low = -1.0 if -1.0 in found else 0.0
    if not found or not found <= {low, 1.0}:
        return None
    bits = np.full((len(columns[0].codes), len(columns)), -1, np.int8)
    for i, column in enumerate(columns):
        ones = np.array([value[t] == 1.0 for t in column.texts] + [False])
        bits[:, i] = np.where(column.codes < 0, -1, ones[column.codes])
    return bits
