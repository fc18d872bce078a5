"""What a column is, and how its values become bits: Column, and how its type is found.

A column that becomes bits has codes 0 .. k - 1, and each code stands for one text, or for several (a
bin of numbers, the rarest levels together), of which one is drawn on the way back. A missing value
is one more code where it is a value of its own.
"""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from datetime import datetime, time

import numpy as np

from ..system.errors import UserError
from .table import BOOLEANS, Values, is_number

ONE_HOT = ("category",)
THERMOMETER = ("yes/no", "ordered", "whole number", "number", "date")
ASIDE = ("constant", "row number", "determined", "left out")  # no bits
TYPES = (*THERMOMETER, *ONE_HOT, *ASIDE)
SYNONYMS = {
    "yesno": "yes/no",
    "bool": "yes/no",
    "boolean": "yes/no",
    "binary": "yes/no",
    "categorical": "category",
    "ordinal": "ordered",
    "integer": "whole number",
    "int": "whole number",
    "whole": "whole number",
    "float": "number",
    "numeric": "number",
    "numerical": "number",
    "time": "date",
    "datetime": "date",
    "id": "left out",
    "text": "left out",
    "drop": "left out",
    "leave out": "left out",
}
LEVELS = 64  # different numbers that are each kept
BINS = 40  # of more
CATEGORIES = 100  # levels of a category that are each kept; the rarest others share one code
POOL = 500  # different numbers that a bin keeps, evenly spread
FEW_ROWS = 30  # with fewer, that all values differ says nothing
GAPS = ("a value", "unknown")
DATES = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S%z",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%d-%m-%Y",
    "%d-%b-%Y",
    "%d %B %Y",
    "%B %d, %Y",
    "%Y-%m",
    "%H:%M:%S",
    "%H:%M",
)


@dataclass
class Column:
    """One column of a table: what it is, and what each of its codes stands for.

    texts[c] are the texts of code c and counts[c] how often each of them stands in the training
    rows. numbers[c] is the least number of code c, for columns of numbers and dates.
    """

    name: str
    type: str
    reason: str = ""
    texts: list[list[str]] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    spelling: str = ""  # of numbers: "." or ","; of dates: a form of strptime
    gaps: str = ""  # "a value", "unknown", or "" if there are none
    missing_text: str = ""
    dtype: str = ""
    sources: list[str] = field(default_factory=list)  # of a determined column
    rule: str = ""  # "lookup", "a * b", "a + b", "a - b"
    lookup: list[list[str | None]] = field(default_factory=list)  # pairs: source's text, text
    start: int = 0  # of row numbers
    bins: int = 0  # of numbers that are not each kept: how many were asked for

    @property
    def has_bits(self) -> bool:
        return self.type not in ASIDE

    @property
    def is_one_hot(self) -> bool:
        return self.type in ONE_HOT

    @property
    def has_missing_code(self) -> bool:
        return self.gaps == "a value" and self.has_bits

    @property
    def num_codes(self) -> int:
        """Codes with the one for a missing value."""
        return len(self.texts) + self.has_missing_code

    @property
    def width(self) -> int:
        """Bits."""
        if not self.has_bits:
            return 0
        k = len(self.texts)
        return (k if self.is_one_hot else k - 1) + self.has_missing_code

    def patterns(self) -> np.ndarray:
        """(num_codes, width) uint8: the bits of each code.

        One-hot, or a thermometer: bit i says whether the code is above i. A missing value has a bit
        of its own, the last, and all others 0.
        """
        k = len(self.texts)
        table = np.zeros((self.num_codes, self.width), np.uint8)
        ladder = np.eye(k, dtype=np.uint8) if self.is_one_hot else np.tri(k, k - 1, -1, np.uint8)
        table[:k, : ladder.shape[1]] = ladder
        if self.has_missing_code:
            table[k, -1] = 1
        return table

    def is_binned(self) -> bool:
        """Whether a code stands for more than one number."""
        return bool(self.numbers) and any(len(t) > 1 for t in self.texts)

    def number(self, text: str) -> float | None:
        """The text as this column's number or date, or None if it is none."""
        if self.type == "date":
            return _timestamp(text, self.spelling)
        return _number(text, self.spelling or ".")

    def code_of(self, text: str) -> int | None:
        """The code of a text, or None for one that was never seen."""
        if self._code_of_text is None:
            self._code_of_text = {t: c for c, texts in enumerate(self.texts) for t in texts}
        code = self._code_of_text.get(text)
        if code is None and self.numbers and (x := self.number(text)) is not None:
            if self.is_binned():
                code = max(0, int(np.searchsorted(self.numbers, x, "right")) - 1)
            elif x in self.numbers:  # spelled otherwise
                code = self.numbers.index(x)
        if code is None:  # " yes" for "yes"
            code = self._code_of_text.get(text.strip())
        return code

    def __post_init__(self):
        self._code_of_text: dict[str, int] | None = None

    def state(self) -> dict:
        """As plain Python, for a checkpoint or a file."""
        return dataclasses.asdict(self)


def column_of(state: object) -> Column:
    """A Column from its state. Raises ValueError if it is not sound: it comes from a file."""
    if not isinstance(state, dict):
        raise ValueError("a column is not a mapping")
    unknown = set(state) - {f.name for f in dataclasses.fields(Column)}
    if unknown:
        raise ValueError(f"a column has the unknown entry {sorted(map(str, unknown))[0]!r}")
    try:
        column = Column(**state)
        sound = (
            isinstance(column.name, str)
            and column.type in TYPES
            and column.gaps in ("", *GAPS)
            and all(isinstance(t, str) for texts in column.texts for t in texts)
            and [len(t) for t in column.texts] == [len(c) for c in column.counts]
            and all(len(t) and sum(c) > 0 for t, c in zip(column.texts, column.counts, strict=True))
            and all(isinstance(c, int) and c >= 0 for cs in column.counts for c in cs)
            and len(column.numbers) in (0, len(column.texts))
            and all(isinstance(x, float) for x in column.numbers)
            and all(len(pair) == 2 for pair in column.lookup)
            and all(isinstance(x, str | None) for pair in column.lookup for x in pair)
            and all(isinstance(s, str) for s in column.sources)
            and all(isinstance(s, str) for s in (column.reason, column.missing_text, column.dtype))
            and isinstance(column.start, int)
            and isinstance(column.bins, int)
            and (len(column.texts) > 0 or not column.has_bits)
        )
    except TypeError:
        sound = False
    if not sound:
        raise ValueError("a column is not sound")
    return column


# ------------------------------------------------------------------------------- finding types


def _number(text: str, spelling: str) -> float | None:
    text = text.strip()
    if spelling == ",":
        if "." in text:
            return None
        text = text.replace(",", ".")
    if is_number(text) or text in ("inf", "-inf"):
        return float(text)
    return None


def _timestamp(text: str, form: str) -> float | None:
    """Seconds since 1970 (of a time of day: since midnight)."""
    try:
        moment = (
            datetime.fromisoformat(text) if form == "iso" else datetime.strptime(text.strip(), form)
        )
    except ValueError:
        return None
    if "%Y" not in form and form != "iso":
        moment = datetime.combine(
            datetime(1970, 1, 1), time(moment.hour, moment.minute, moment.second)
        )
    zone = moment.utcoffset()
    moment = moment.replace(tzinfo=None)
    seconds = (moment - datetime(1970, 1, 1)).total_seconds()
    return seconds - (zone.total_seconds() if zone else 0)


def _as_numbers(values: Values) -> tuple[list[float], str] | None:
    """The texts as numbers, and how they are spelled; None if they are none.

    Text that begins with zeros, such as 01234, names something (a postal code).
    """
    texts = values.texts
    if not values.dtype and any(re.match(r"\s*[+-]?0\d", t) for t in texts):
        return None
    if values.dtype and not re.match(r"(u?int|float|double|complex)", values.dtype.lower()):
        return None
    for spelling in (".", ","):
        numbers = [_number(t, spelling) for t in texts]
        if None not in numbers and numbers:
            return numbers, spelling
    return None


def _as_dates(values: Values) -> tuple[list[float], str] | None:
    texts = values.texts
    if not texts or (values.dtype and not re.match(r"(datetime|str|object)", values.dtype)):
        return None
    for form in ("iso",) if values.dtype.startswith("datetime") else DATES:
        if _timestamp(texts[0], form) is None:
            continue
        dates = [_timestamp(t, form) for t in texts]
        if None not in dates:
            return dates, form
    return None


def find(
    name: str,
    values: Values,
    train: np.ndarray,
    *,
    wanted: str | None = None,
    levels: list[str] | None = None,
    bins: int | None = None,
    gaps: str | None = None,
    is_first: bool = False,
) -> Column:
    """What a column is. train: (N,) bool, the rows from which bins and frequencies are taken.

    wanted: a type that was asked for; levels: the order of an ordered column; bins: of numbers;
    gaps: what a missing value is. Raises UserError if the column is not what was asked for.
    """
    column = Column(name, "left out", missing_text=values.missing_text, dtype=values.dtype)
    N, k = len(values.codes), len(values.texts)
    num_gaps = int((values.codes < 0).sum())
    if num_gaps:
        column.gaps = gaps or "a value"
    wanted = SYNONYMS.get(wanted, wanted) if wanted else None
    if wanted == "left out":
        column.reason = "left out because it was asked for"
        return column
    if k == 0 or (k == 1 and not num_gaps):
        column.type = "constant"
        column.texts, column.counts = [values.texts[:1]] if k else [], [[N]] if k else []
        column.reason = f"always {values.texts[0]!r}" if k else "always missing"
        return column
    numbers = _as_numbers(values)
    is_whole = numbers is not None and all(math.isfinite(x) and x == int(x) for x in numbers[0])
    dates = _as_dates(values) if numbers is None else None
    present = N - num_gaps
    guessed, why = _guess(values, numbers, is_whole, dates, present, is_first)
    wanted = wanted or guessed
    column.reason = why if wanted == guessed else f"{k:,} different values; asked for"
    if wanted in ("whole number", "number") and numbers is None:
        odd = next(t for t in values.texts if _number(t, ".") is None)
        raise UserError(f"{name}: asked for as a {wanted}, but it holds {odd!r}")
    if wanted == "date" and dates is None:
        raise UserError(f"{name}: asked for as a date, but no form of dates fits all its values")
    if wanted == "yes/no" and k != 2:
        raise UserError(f"{name}: asked for as yes/no, but it has {k:,} different values")
    column.type = wanted
    if wanted == "row number":
        column.start = int(numbers[0][0])
        return column
    if wanted == "left out":
        return column
    if not column.has_bits:
        raise UserError(f"{name}: {wanted} is found, not asked for")
    counts = np.bincount(values.codes[train & (values.codes >= 0)], minlength=k)
    if wanted in ("whole number", "number", "date"):
        x, column.spelling = numbers if wanted != "date" else dates
        _keep_numbers(column, values.texts, np.array(x), counts, bins)
    else:
        _keep_levels(column, values, counts, levels, numbers)
    if num_gaps:
        column.reason += f"; {num_gaps:,} of {N:,} rows have none"
    return column


def _guess(values: Values, numbers, is_whole: bool, dates, present: int, is_first: bool):
    """A type, and why. (A name says nothing: a column called id may hold ten levels.)"""
    k, texts = len(values.texts), values.texts
    all_differ = k == present and present >= FEW_ROWS
    category = values.dtype.startswith("{")
    if category and '"ordered": true' in values.dtype:
        return "ordered", f"an ordered category of {k} levels"
    if k == 2:
        return "yes/no", f"two values, {_listed(_sorted_levels(values, numbers))}"
    if category and k <= CATEGORIES:
        return "category", f"a category of {k} levels"
    if numbers is not None and not category:
        x = numbers[0]
        low, high = min(zip(x, texts, strict=True))[1], max(zip(x, texts, strict=True))[1]
        if is_whole and all_differ:
            steps = np.diff(x)
            if is_first and (steps == 1).all():
                return "row number", f"counts the rows from {texts[0]}; written anew"
            digits = {len(t.lstrip("+-")) for t in texts}
            if (steps > 0).all() or (len(digits) == 1 and min(digits) >= 5):
                return "left out", _cure("an id: a different whole number in every row")
        if is_whole:
            return "whole number", f"{k:,} different whole numbers, {low} to {high}"
        return "number", f"{k:,} different numbers, {low} to {high}"
    if dates is not None:
        when = sorted(zip(dates[0], texts, strict=True))
        return "date", f"{k:,} different dates or times, {when[0][1]} to {when[-1][1]}"
    if present >= FEW_ROWS and k > LEVELS and k > present / 2:
        words = sum(len(t.split()) for t in texts) / k
        if words >= 3:
            return "left out", _cure(f"free text: {k:,} different ones in {present:,} rows")
        return "left out", _cure(f"an id or a name: {k:,} different ones in {present:,} rows")
    return "category", f"{k:,} levels"


def _cure(what: str) -> str:
    return f"{what}; it could tell who stands in the table"


def _listed(texts: list[str]) -> str:
    return " and ".join(repr(t) for t in texts)


def _sorted_levels(values: Values, numbers) -> list[str]:
    """Levels in their own order: of numbers, of the type, false before true, of the alphabet."""
    if numbers is not None:
        return [t for _, t in sorted(zip(numbers[0], values.texts, strict=True))]
    if values.dtype.startswith("{"):
        import json

        order = {t: i for i, t in enumerate(json.loads(values.dtype)["category"])}
        return sorted(values.texts, key=order.__getitem__)
    no = {"no", "n", "false", "f", "absent", "negative", "-"}
    if len(values.texts) == 2 and not set(values.texts) <= BOOLEANS:
        return sorted(values.texts, key=lambda t: (t.strip().lower() not in no, t))
    return sorted(values.texts)


def _keep_levels(column: Column, values: Values, counts: np.ndarray, levels, numbers) -> None:
    """Each level a code; of a category's very many levels the rarest share one."""
    texts = _sorted_levels(values, numbers)
    if levels:
        if (unlisted := [t for t in texts if t not in levels]) and column.type == "ordered":
            raise UserError(
                f"{column.name}: the level {unlisted[0]!r} stands in the table, but not in its"
                " order of levels in columns.yaml; put it there"
            )
        texts = [t for t in levels if t in texts] + unlisted
    count = dict(zip(values.texts, counts.tolist(), strict=True))
    if column.type == "category" and len(texts) > CATEGORIES:
        common = sorted(texts, key=count.__getitem__, reverse=True)[: CATEGORIES - 1]
        rare = [t for t in texts if t not in set(common)]
        column.texts = [[t] for t in texts if t in set(common)] + [rare]
        column.reason += f"; the {len(rare):,} rarest share a bit and are drawn as they occur"
    else:
        column.texts = [[t] for t in texts]
    # a level that no training row has may still come
    column.counts = [[max(1, count[t]) for t in ts] for ts in column.texts]


def _keep_numbers(
    column: Column, texts: list[str], x: np.ndarray, counts: np.ndarray, bins: int | None
) -> None:
    """Each number a code, or bins with equally many training rows; a number's spellings together."""
    order = np.argsort(x, kind="stable")
    different = np.unique(x)
    if len(different) <= (bins or LEVELS):
        edges = different
    else:
        column.bins = bins or BINS
        edges = _bin_edges(x[order], counts[order], column.bins)
        column.reason += f"; in {len(edges)} bins"
    code = np.maximum(np.searchsorted(edges, x[order], "right") - 1, 0)
    pools: list[list[str]] = [[] for _ in edges]
    numbers: list[list[int]] = [[] for _ in edges]
    for c, i in zip(code.tolist(), order.tolist(), strict=True):
        pools[c].append(texts[i])
        numbers[c].append(int(counts[i]))
    for c, (pool, number) in enumerate(zip(pools, numbers, strict=True)):
        if sum(number):  # what stands in training rows is drawn, and nothing else
            kept = [(t, n) for t, n in zip(pool, number, strict=True) if n]
        else:
            kept = [(t, 1) for t in pool]
        if len(kept) > POOL:
            kept = [kept[i] for i in np.linspace(0, len(kept) - 1, POOL).astype(int)]
        pools[c], numbers[c] = [t for t, _ in kept], [n for _, n in kept]
    column.texts, column.counts = pools, numbers
    column.numbers = [float(e) for e in edges]


def _bin_edges(x: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    """The least number of each of at most `most` bins. x: (k,) rising; counts: (k,).

    A number that fills a bin by itself has it to itself; the others go into bins of about equally
    many rows.
    """
    x, place = np.unique(x, return_inverse=True)
    counts = np.bincount(place, weights=counts)
    if not counts.sum():
        counts = np.ones(len(x))
    heavy = np.zeros(len(x), bool)
    while True:
        room = max(1, most - int(heavy.sum()))
        now = heavy | (counts >= 2 * counts[~heavy].sum() / room)
        if (now == heavy).all() or now.sum() >= most - 1:
            break
        heavy = now
    share = np.where(heavy, 0, counts)
    # a light number belongs to the bin in which the middle of its rows falls
    middle = (share.cumsum() - share / 2) / max(share.sum(), 1)
    # heavy ones cut the line: with room for one more bin after each of them
    number = np.floor(middle * max(1, most - 2 * int(heavy.sum()))).astype(int)
    begins = np.r_[True, (np.diff(number) > 0) | heavy[1:] | heavy[:-1]]
    return x[begins]
