"""Columns that others determine: age and its square, a product, a level that goes with another.

Such a column needs no bits: it is computed, and then fits without exception.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

from .columns import Column
from .table import Values, is_number

LEAST_SURPRISE = math.log(1e9)  # how improbable by chance a rule must be that is believed
MOST_COLUMNS = 80  # among more, pairs are not tried
MOST_KEYS = 5_000  # different values of a column that determines another

OPERATIONS: dict[str, Callable] = {"a * b": np.multiply, "a + b": np.add, "a - b": np.subtract}
# In turn: of a sum and its summands the sum is computed, for a difference may be what no summand is
TRIED: tuple[tuple[str, ...], ...] = (("a * b", "a + b"), ("a - b",))


def find_determined(columns: dict[str, Column], values: dict[str, Values], keep: set[str]) -> None:
    """Turn the columns that others determine into ones of type "determined", in place.

    keep: names that stay what they are. A column that is needed to compute another keeps its bits.
    """
    names = [n for n, c in columns.items() if c.has_bits]
    needed: set[str] = set()
    for name in names:
        if name in keep or name in needed:
            continue
        for source in names:
            if source == name or not columns[source].has_bits:
                continue
            if names.index(source) > names.index(name) and _same_number(values, source, name):
                continue  # of two that say each other the first one keeps its bits
            if (lookup := _lookup(values[source], values[name])) is not None:
                _determine(columns[name], [source], "lookup", lookup)
                needed.add(source)
                break
    names = [n for n in names if columns[n].has_bits]
    numbers = {n: x for n in names if (x := _numbers(columns[n], values[n])) is not None}
    if len(numbers) > MOST_COLUMNS:
        return
    for rules, name in itertools.product(TRIED, numbers):
        if (
            not columns[name].has_bits
            or name in keep
            or name in needed
            or len(values[name].texts) < 3
        ):
            continue
        sources = [n for n in numbers if columns[n].has_bits and n != name]
        found = _formula(name, numbers, sources, rules)
        if found and _can_be_written(columns[name], values[name]):
            rule, sources = found
            _determine(columns[name], sources, rule, [])
            needed.update(sources)


def _same_number(values: dict[str, Values], one: str, other: str) -> bool:
    """Whether two columns have equally many different values, gaps among them."""
    k = [len(np.unique(values[n].codes)) for n in (one, other)]
    return k[0] == k[1]


def _determine(column: Column, sources: list[str], rule: str, lookup: list) -> None:
    column.type, column.sources, column.rule, column.lookup = "determined", sources, rule, lookup
    if rule == "lookup":
        column.reason = f"{sources[0]} says what it is in every row; looked up"
    else:
        a, b = sources
        column.reason = f"{rule.replace('a', '<').replace('b', b).replace('<', a)} in every row"
        column.reason += "; computed"


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
    """(N,) float with NaN where missing, of a column of plain numbers."""
    texts = values.texts
    if not all(is_number(t) for t in texts) or column.spelling not in ("", "."):
        return None
    return np.array([*map(float, texts), math.nan])[values.codes]


def _formula(name: str, numbers: dict[str, np.ndarray], sources: list[str], rules: tuple[str, ...]):
    """(rule, [a, b]) with which all of a column's numbers, and its gaps, are computed; or None."""
    y = numbers[name]
    known = np.flatnonzero(~np.isnan(y))
    few = known[:: max(1, len(known) // 50)]  # most pairs fail here already
    gaps = np.isnan(y)
    for a, b in itertools.combinations_with_replacement(sources, 2):
        for rule in rules:
            operation = OPERATIONS[rule]
            for one, two in ((a, b), (b, a)) if rule == "a - b" and a != b else ((a, b),):
                p, q = numbers[one], numbers[two]
                with np.errstate(over="ignore", invalid="ignore"):
                    fits = (operation(p[few], q[few]) == y[few]).all()
                if not fits:
                    continue
                with np.errstate(over="ignore", invalid="ignore"):
                    z = operation(p, q)
                if (np.isnan(z) == gaps).all() and (z[known] == y[known]).all():
                    return rule, [one, two]
    return None


def _can_be_written(column: Column, values: Values) -> bool:
    """Whether a computed number can be spelled as the column spells its own."""
    return all(spelled(float(t), values.texts) == t for t in values.texts)


def spelled(number: float, like: list[str]) -> str:
    """A number as text, with a point only if the others have one."""
    if any("." in t for t in like[:1]):
        return repr(float(number))
    return str(int(number)) if number == int(number) else repr(number)


def compute(column: Column, sources: list[list[str | None]]) -> list[str | None]:
    """The texts of a determined column from those of its sources, row by row."""
    if column.rule == "lookup":
        table = dict(column.lookup)
        return [table.get(t) for t in sources[0]]
    operation = OPERATIONS[column.rule]
    p, q = (np.array([math.nan if t is None else float(t) for t in s]) for s in sources)
    like = column.texts[0]
    return [None if math.isnan(z) else spelled(z, like) for z in operation(p, q).tolist()]
