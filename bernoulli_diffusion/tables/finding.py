"""How the type of a column is found, and which codes its values get."""

import json
import math
import re
import shlex

import numpy as np

from ..system.errors import UserError
from .columns import SYNONYMS, Column
from .spelling import form_of_dates, has_unit, number_of, spelling_of_numbers, timestamp
from .table import BOOLEANS, Values, plural

LEVELS = 64  # different numbers that are each kept
BINS = 40  # of more
CATEGORIES = 100  # levels of a category that are each kept; the rarest others share one code
POOL = 500  # different numbers that a bin keeps, evenly spread
NUMBERS = r"u?int|float|double|halffloat|decimal|timedelta|duration|period"  # types of pandas
NO_DATE = re.compile(r"\s*0+[-/.]0+[-/.]0+\b")  # 0000-00-00
FEW_ROWS = 30  # with fewer, that all values differ says nothing


def as_numbers(values: Values, is_asked: bool = False) -> tuple[list[float], str] | None:
    """The texts as numbers, and how they are spelled; None if they are none.

    Text that begins with zeros, such as 01234, names something (a postal code), and text in a column of
    pandas' text is text, unless numbers are asked for.
    """
    texts, dtype = values.texts, values.dtype.lower()
    if is_asked:
        dtype = ""
    elif not dtype and any(re.match(r"\s*[+-]?0\d", t) and ":" not in t for t in texts):
        return None
    spelling = spelling_of_numbers(texts)
    is_text = re.match(r"str|object|large_string", dtype)  # in which 5 is a text, and $5 a number
    if spelling is None or (is_text and spelling == "."):
        return None
    if dtype and not is_text and not re.match(NUMBERS, dtype):
        return None
    return [number_of(t, spelling) for t in texts], spelling


def _as_dates(values: Values) -> tuple[list[float], str] | None:
    texts, dtype = values.texts, values.dtype
    if dtype and not re.match(
        r"datetime|timestamp|date|time|period|str|object|large_string", dtype
    ):
        return None
    form = form_of_dates(texts, is_iso=dtype.startswith(("datetime", "timestamp")))
    return form and ([timestamp(t, form) for t in texts], form)


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
    """What a column is. train: (N,), how much each row counts for bins and frequencies: 0 or False if
    it is held out.

    wanted: a type that was asked for; levels: the order of an ordered column; bins: of numbers;
    gaps: what a missing value is. Raises UserError if the column is not what was asked for.
    """
    column = Column(name, "left out", missing_text=values.missing_text, dtype=values.dtype)
    N, k = len(values.codes), len(values.texts)
    num_gaps = int((values.codes < 0).sum())
    if num_gaps:
        column.gaps = gaps or "a value"
    wanted = SYNONYMS.get(wanted, wanted) if wanted else None
    if wanted == "weight":
        column.type, column.reason = wanted, "says how much each row counts"
        return column
    if wanted != "left out" and (k == 0 or (k == 1 and not num_gaps)):
        column.type = "constant"
        column.texts, column.counts = [values.texts[:1]] if k else [], [[N]] if k else []
        column.reason = f"always {values.texts[0]!r}" if k else "always missing"
        return column
    numbers = as_numbers(values, is_asked=wanted in ("whole number", "number"))
    is_whole = numbers is not None and all(math.isfinite(x) and x == int(x) for x in numbers[0])
    dates = _as_dates(values) if numbers is None else None
    present = N - num_gaps
    guessed, why = _guess(values, numbers, is_whole, dates, present, is_first)
    wanted = wanted or guessed
    if wanted != guessed:
        why = f"{plural(k, 'different value')}; asked for"
    if wanted == "left out" != guessed:
        why = "as asked for"
    column.reason = why
    if wanted in ("whole number", "number") and numbers is None:
        odd = next(t for t in values.texts if number_of(t, ".") is None)
        raise UserError(
            f"{name}: asked for as a {wanted}, but it holds {odd!r}; if that stands for a missing"
            f" value: --missing {shlex.quote(odd.strip())}"
        )
    if wanted == "date" and dates is None:
        raise UserError(f"{name}: asked for as a date, but no form of dates fits all its values")
    if wanted == "yes/no" and k != 2:
        raise UserError(f"{name}: asked for as yes/no, but it has {plural(k, 'different value')}")
    column.type = wanted
    if wanted == "row number":
        column.start = int(numbers[0][0])
        return column
    if wanted == "left out":
        return column
    if not column.has_bits:
        raise UserError(f"{name}: {wanted} is found, not asked for")
    there = values.codes >= 0
    counts = np.bincount(values.codes[there], train[there], minlength=k)
    counts = np.rint(counts).astype(np.int64)
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
        return "ordered", f"an ordered category of {plural(k, 'level')}"
    if k == 2:
        return "yes/no", f"two values, {' and '.join(map(repr, _sorted_levels(values, numbers)))}"
    if category and k <= CATEGORIES:
        return "category", f"a category of {plural(k, 'level')}"
    if numbers is not None and not category:
        x = numbers[0]
        low, high = min(zip(x, texts, strict=True))[1], max(zip(x, texts, strict=True))[1]
        if is_whole and all_differ and not has_unit(numbers[1]):
            steps = np.diff(x)
            if is_first and (steps == 1).all() and numbers[1] == ".":
                return "row number", f"counts the rows from {texts[0]}; written anew"
            digits = {sum(map(str.isdigit, t)) for t in texts}
            if (steps > 0).all() or (len(digits) == 1 and min(digits) >= 5):
                return "left out", _cure("an id: a different whole number in every row")
        if numbers[1] == "duration":
            return "number", f"{plural(k, 'different duration')}, {low} to {high}"
        if is_whole:
            return "whole number", f"{plural(k, 'different whole number')}, {low} to {high}"
        return "number", f"{plural(k, 'different number')}, {low} to {high}"
    if dates is not None:
        when = sorted(zip(dates[0], texts, strict=True))
        return "date", f"{k:,} different dates or times, {when[0][1]} to {when[-1][1]}"
    hint = "" if category or values.dtype else _hint(texts)
    if present >= FEW_ROWS and k > LEVELS and k > present / 2:
        words = sum(len(t.split()) for t in texts) / k
        what = "free text" if words >= 3 else "an id or a name"
        return "left out", _cure(f"{what}: {k:,} different ones in {present:,} rows") + hint
    return "category", plural(k, "level") + hint


def _hint(texts: list[str]) -> str:
    """What to do about the few texts that keep a column from being one of numbers or dates."""
    odd = [t for t in texts if not any(c.isdigit() for c in t) or NO_DATE.match(t)]
    if not 0 < len(odd) <= 3 or len(texts) < 3 * len(odd):
        return ""
    others = Values([t for t in texts if t not in odd], np.zeros(0, np.int64))
    what = "numbers" if as_numbers(others) else "dates" if _as_dates(others) else ""
    options = " ".join(f"--missing {shlex.quote(t.strip())}" for t in odd)
    words = " and ".join(map(repr, odd))
    return f"; all others are {what}: if {words} stands for a gap, add {options}" if what else ""


def _cure(what: str) -> str:
    return f"{what}; it could tell who stands in the table (--as NAME=TYPE keeps it)"


def _sorted_levels(values: Values, numbers) -> list[str]:
    """Levels in their own order: of numbers, of the type, false before true, of the alphabet."""
    if numbers is not None:
        return [t for _, t in sorted(zip(numbers[0], values.texts, strict=True))]
    if values.dtype.startswith("{"):
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
        # what stands in training rows is drawn, and nothing else
        kept = [(t, n) for t, n in zip(pool, number, strict=True) if n] or [(t, 1) for t in pool]
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
    most_light = max(1, most - 2 * int(heavy.sum()))
    # rows that are held out may have numbers above all others, which count for nothing
    number = np.minimum(np.floor(middle * most_light), most_light - 1).astype(int)
    begins = np.r_[True, (np.diff(number) > 0) | heavy[1:] | heavy[:-1]]
    return x[begins]
