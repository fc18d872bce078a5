"""Columns that others determine: age and its square, a total, a level that goes with another.

Such a column needs no bits: it is computed, and then fits without exception.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from string import ascii_lowercase

import numpy as np

from .columns import Column
from .spelling import number_of
from .table import Table, Values, is_number

LEAST_SURPRISE = math.log(1e9)  # how improbable by chance a rule must be that is believed
MOST_COLUMNS = 80  # of numbers; among more, formulas are not tried
MOST_KEYS = 5_000  # different values of a column that determines another
MOST_PLACES = 9  # after the decimal point; beyond, numbers are compared and written as they are
FIRST_LOOK = 50  # rows in which most formulas fail already

# In turn: of a sum and its summands the sum is computed, for a difference may be what no summand is
TRIED = ("a", "a * b", "sum", "a + b", "a - b", "sum with minus")


def find_determined(columns: dict[str, Column], values: dict[str, Values], keep: set[str]) -> None:
    """Turn the columns that others determine into ones of type "determined", in place.

    keep: names that stay what they are. A column that is needed to compute another keeps its bits.
    """
    names = [n for n, c in columns.items() if c.has_bits]
    size = {n: len(np.unique(values[n].codes)) for n in names}  # different values, a gap among them
    needed: set[str] = set()
    for number, name in enumerate(names):
        if name in keep or name in needed:
            continue
        for place, source in enumerate(names):
            if source == name or not columns[source].has_bits or size[source] < size[name]:
                continue
            if place > number and size[source] == size[name]:
                continue  # of two that say each other the first one keeps its bits
            if (lookup := _lookup(values[source], values[name])) is not None:
                _determine(columns[name], [source], "lookup", lookup)
                needed.add(source)
                break
    numbers = {
        n: x
        for n in names
        if columns[n].has_bits and (x := _numbers(columns[n], values[n])) is not None
    }
    if len(numbers) > MOST_COLUMNS:
        return
    # a subtotal comes before the total, which is then said by the summands
    rising = sorted(numbers, key=lambda n: np.abs(numbers[n][~np.isnan(numbers[n])]).mean())
    for rule, name in itertools.product(TRIED, rising):
        column = columns[name]
        if not column.has_bits or name in keep or name in needed or len(values[name].texts) < 3:
            continue
        if not _can_be_written(column, values[name]):
            continue
        others = [n for n in numbers if n != name and columns[n].has_bits]
        if rule == "a":  # of two that are the same the first one keeps its bits
            others = [n for n in others if names.index(n) < names.index(name)]
        sources = {n: numbers[n] for n in others}
        tolerance = _tolerance(values[name].texts)
        for found, chosen in _candidates(numbers[name], sources, rule, tolerance):
            terms = [numbers[n] for n in chosen]
            if _holds(found, terms, numbers[name], tolerance, len(numbers)):
                _determine(column, chosen, found, [])
                needed.update(chosen)
                break


def _determine(column: Column, sources: list[str], rule: str, lookup: list) -> None:
    column.type, column.sources, column.rule, column.lookup = "determined", sources, rule, lookup
    if rule == "lookup":
        column.reason = f"{sources[0]} says what it is in every row; looked up"
    else:
        said = [t if t in "+-*" else sources[ascii_lowercase.index(t)] for t in rule.split()]
        column.reason = f"{' '.join(said)} in every row; computed"


def _lookup(source: Values, target: Values) -> list | None:
    """[source's text or None, target's text or None] pairs, if each text of one has one of the other.

    None if that could be chance: the rows of a source's value agree by chance with probability
    sum_v p_v^m, where m of them share it and p_v is how frequent v is in the target.
    """
    k = len(source.texts) + 1
    if k > MOST_KEYS or k > len(source.codes) / 2:
        return None
    a, b = source.codes + 1, target.codes + 1  # 0: missing
    first = np.full(k, -1)
    first[a[::-1]] = b[::-1]
    if not (first[a] == b).all():
        return None
    size = np.bincount(a, minlength=k)
    frequency = np.bincount(b) / len(b)
    surprise = 0.0
    for m, how_often in zip(*np.unique(size[size > 1], return_counts=True), strict=True):
        with np.errstate(under="ignore"):
            surprise -= how_often * math.log(max((frequency**m).sum(), 1e-300))
    # what depends on one source value alone is seen in one place only
    if surprise < LEAST_SURPRISE or (size > 0).sum() < 2:
        return None
    texts, keys = [None, *target.texts], [None, *source.texts]
    return [[keys[i], texts[first[i]]] for i in np.flatnonzero(size)]


def _numbers(column: Column, values: Values) -> np.ndarray | None:
    """(N,) float with NaN where missing, of a column of plain numbers, also with decimal commas."""
    if column.spelling not in ("", ".", ","):
        return None
    texts = values.texts
    if column.spelling == ",":
        texts = [t.replace(",", ".") for t in texts]
    if not all(map(is_number, texts)):
        return None
    return np.array([*map(float, texts), math.nan])[values.codes]


def _tolerance(texts: list[str]) -> float:
    """How far a column's numbers may be from what their texts' decimals say: 0.1 + 0.2 is not 0.3."""
    places = _places(texts)
    return 0.0 if places > MOST_PLACES else 10.0**-places / 1000


def _candidates(
    y: np.ndarray, sources: dict[str, np.ndarray], rule: str, tolerance: float
) -> Iterator[tuple[str, list[str]]]:
    """(rule, names of its terms) of the formulas of a kind that give y in the rows of a first look."""
    known = np.flatnonzero(~np.isnan(y))
    # a gap in a term is a gap in y
    names = [n for n, x in sources.items() if not np.isnan(x[known]).any()]
    if not names or not len(known):
        return
    if rule.startswith("sum"):
        rows = known[:: max(1, len(known) // (FIRST_LOOK + 4 * len(names)))]
        terms = np.stack([sources[n][rows] for n in names], axis=1)
        yield from _sums(y[rows], terms, names, with_minus="minus" in rule)
        return
    few = known[:: max(1, len(known) // FIRST_LOOK)]
    x = np.stack([sources[n][few] for n in names])  # (columns, rows)
    pair = [x[:, None], x[None]]
    with np.errstate(over="ignore", invalid="ignore"):
        z = _value(rule, pair) if rule != "a" else pair[0]  # (columns, columns or 1, rows)
        fits = (np.abs(z - y[few]) <= tolerance).all(axis=2)
    for i, j in np.argwhere(fits):
        if rule == "a":
            yield rule, [names[i]]
        elif i <= j or rule == "a - b":
            yield rule, [names[i], names[j]]


def _sums(
    y: np.ndarray, terms: np.ndarray, names: list[str], with_minus: bool
) -> Iterator[tuple[str, list[str]]]:
    """The sum of columns that y is, if there is one: least squares whose weights are 0, 1 or -1.

    y: (n,); terms: (n, columns).
    """
    size = np.abs(terms).max(axis=0)
    used = np.flatnonzero(size > 0)
    if len(y) < 2 * len(used) or not np.isfinite(size).all():
        return
    scaled = terms[:, used] / size[used]
    # what earlier columns say already would leave the weights open
    new = np.abs(np.diagonal(np.linalg.qr(scaled, mode="r"))) > 1e-9 * len(y) ** 0.5
    used, scaled = used[new], scaled[:, new]
    weights = np.linalg.lstsq(scaled, y, rcond=None)[0] / size[used]
    signs = np.rint(weights)
    plus, minus = (used[signs == s] for s in (1, -1))
    is_sum = np.abs(weights - signs).max(initial=0) < 1e-6 and np.abs(signs).max(initial=0) == 1
    is_sum = is_sum and len(plus) > 0 and (with_minus or not len(minus))
    if is_sum and len(plus) + len(minus) <= len(ascii_lowercase):
        marks = ["", *[" + "] * (len(plus) - 1), *[" - "] * len(minus)]
        rule = "".join(m + a for m, a in zip(marks, ascii_lowercase, strict=False))
        yield rule, [names[i] for i in (*plus, *minus)]


def _value(rule: str, terms: list[np.ndarray]) -> np.ndarray:
    """What "a * b", or a sum such as "a + b - c", is for these terms."""
    marks = rule.split()[1::2]
    value = terms[0]
    for mark, term in zip(marks, terms[1:], strict=True):
        value = value * term if mark == "*" else value + term if mark == "+" else value - term
    return value


def interval(rule: str, spans: list[tuple[float, float]]) -> tuple[float, float]:
    """The least and the most that a formula can be, of terms that lie in these spans."""
    if "*" in rule:
        corners = [x * y for x, y in itertools.product(*spans)]
        return min(corners), max(corners)
    signs = ["+", *rule.split()[1::2]]
    ends = [(a, b) if s == "+" else (-b, -a) for s, (a, b) in zip(signs, spans, strict=True)]
    low, high = zip(*ends, strict=True)
    return sum(low), sum(high)


def _holds(
    rule: str, terms: list[np.ndarray], y: np.ndarray, tolerance: float, num_columns: int
) -> bool:
    """Whether a formula gives all of y, its gaps too, and is not one of so many that chance made it.

    By chance n rows agree with probability (sum_v p_v^2)^n, where p_v is how frequent v is in y.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        z = _value(rule, terms)
    gaps = np.isnan(y)
    if not (np.isnan(z) == gaps).all() or not (np.abs(z - y)[~gaps] <= tolerance).all():
        return False
    frequency = np.unique(y[~gaps], return_counts=True)[1] / (~gaps).sum()
    surprise = -(~gaps).sum() * math.log((frequency**2).sum())
    return surprise > LEAST_SURPRISE + len(terms) * math.log(2 * num_columns)


def _can_be_written(column: Column, values: Values) -> bool:
    """Whether a computed number can be spelled as the column spells its own."""
    like = _texts(column)
    return all(spelled(_number(t), like) == t for t in values.texts)


def _texts(column: Column) -> list[str]:
    return [t for texts in column.texts for t in texts]


def _number(text: str) -> float:
    """NaN if it is none."""
    number = number_of(text, "," if "," in text else ".")
    return math.nan if number is None else number


def _places(texts: list[str]) -> int:
    """Most digits after the decimal point or comma; beyond MOST_PLACES with exponents."""
    if any("e" in t.lower() for t in texts):
        return MOST_PLACES + 1
    return max((len(t.strip().replace(",", ".").partition(".")[2]) for t in texts), default=0)


def spelled(number: float, like: list[str]) -> str:
    """A number as text, with as many decimals as the others have, and their decimal comma."""
    places = _places(like)
    number += 0.0  # no -0.0
    if places > MOST_PLACES:
        return repr(float(number))
    if places == 0:
        return str(int(number)) if number == int(number) else repr(number)
    fixed = f"{number:.{places}f}"
    mark = "," if any("," in t for t in like) else "."
    if any(len(t.strip().partition(mark)[2]) != places for t in like):  # 12.5 beside 12.25
        fixed = fixed.rstrip("0")
        if fixed.endswith("."):
            fixed = fixed + "0" if any(t.endswith(mark + "0") for t in like) else fixed[:-1]
    return fixed.replace(".", mark)


def compute(column: Column, sources: list[list[str | None]]) -> list[str | None]:
    """The texts of a determined column from those of its sources, row by row."""
    if column.rule == "lookup":
        table = dict(column.lookup)
        return [table.get(t) for t in sources[0]]
    terms = [np.array([math.nan if t is None else _number(t) for t in s]) for s in sources]
    like = _texts(column)
    return [
        None if math.isnan(z) else spelled(z, like) for z in _value(column.rule, terms).tolist()
    ]


def solved(columns: list[Column], table: Table) -> Table:
    """The table in which a gap is computed where its total, and all that goes with it, is known."""
    found = dict(table.columns)
    for column in columns:
        names = column.sources
        is_formula = column.type == "determined" and column.rule != "lookup"
        if (
            not is_formula
            or not {column.name, *names} <= set(found)
            or len(set(names)) < len(names)
        ):
            continue
        for place, name in enumerate(names):
            others = [found[n] for n in (column.name, *names[:place], *names[place + 1 :])]
            rows = found[name].codes < 0
            for values in others:
                rows = rows & (values.codes >= 0)
            source = next(c for c in columns if c.name == name)
            texts = _texts(source)
            numbers = [_number(t) for t in texts]
            known: dict[int, str] = {}
            for row in np.flatnonzero(rows):
                y, *terms = (_number(values.text(row)) for values in others)
                x = _missing_term(column.rule, place, y, terms)
                # a total that does not fit says nothing
                if min(numbers) <= x <= max(numbers):
                    known[row] = spelled(x, texts)
            found[name] = _with_texts(found[name], known)
    return replace(table, columns=found)


def _missing_term(rule: str, place: int, y: float, terms: list[float]) -> float:
    """The term at this place of a formula for y, given all others."""
    if "*" in rule:
        return y / terms[0] if terms[0] else math.nan
    signs = [1, *(1 if mark == "+" else -1 for mark in rule.split()[1::2])]
    sign = signs.pop(place)
    return sign * (y - sum(s * x for s, x in zip(signs, terms, strict=True)))


def _with_texts(values: Values, new: dict[int, str]) -> Values:
    """A column with texts in some of its rows."""
    if not new:
        return values
    texts = list(dict.fromkeys([*values.texts, *new.values()]))
    codes = values.codes.copy()
    codes[list(new)] = [texts.index(t) for t in new.values()]
    return values._replace(texts=texts, codes=codes)
