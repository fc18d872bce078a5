"""Questions by name: 'smoker=yes, age>=40' -> which codes and texts of each column are meant."""

import difflib
import re
from typing import NamedTuple

import numpy as np

from ..system.errors import UserError, printable
from .columns import Column
from .encoding import Encoding
from .rules import interval
from .table import MISSING, Values, is_number

ANDS = re.compile(
    r"(?:\s(and|or|&&?)\s|(;)).*[=<>]", re.IGNORECASE
)  # what joins conditions elsewhere
HOW = (
    "NAME=VALUE, NAME!=VALUE, NAME=ONE|OTHER, or of numbers NAME>=VALUE, >, <=, <; NAME= for a gap;"
    " names and values with a comma stand in double quotes"
)
QUOTED = r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*')"""
VALUE = rf"\s*(?:{QUOTED}|[^,|]*?)\s*(?=[,|]|$)"
CONDITION = re.compile(
    rf"\s*({QUOTED}|[^,]*?)\s*(!=|>=|<=|==|=|>|<)({VALUE}(?:\|{VALUE})*)(?:,|$)", re.DOTALL
)


class Condition(NamedTuple):
    """What is asked of one column."""

    name: str
    operator: str  # = != >= > <= <
    values: list[str]  # several are alternatives; "" is a gap

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{'|'.join(self.values)}"


class Question(NamedTuple):
    """allowed: (G, K) bool, the codes that fit, K as in valid.Groups; share: (G, K) how many of a
    code's texts fit; conditions: all of them, for what is computed from other columns."""

    allowed: np.ndarray
    share: np.ndarray
    conditions: list[Condition]

    def is_all_in_bits(self, encoding: Encoding) -> bool:
        """Whether pattern says all that is asked."""
        pattern = self.pattern(encoding)
        for allowed, share, column, place in zip(
            self.allowed, self.share, encoding.coded, encoding.slices, strict=True
        ):
            own, k = pattern[place], column.num_codes
            fits = ((column.patterns() == own) | (own < 0)).all(axis=1)
            if (fits != allowed[:k]).any() or not np.isin(share[:k], [0, 1]).all():
                return False
        return not any(_is_formula(encoding.column(c.name)) for c in self.conditions)

    def pattern(self, encoding: Encoding) -> np.ndarray:
        """(L,) int8: the bits that all allowed codes have in common, -1 elsewhere.

        Of an interval of numbers these say all there is to say.
        """
        pattern = np.full(encoding.length, -1, np.int8)
        for allowed, column, place in zip(
            self.allowed, encoding.coded, encoding.slices, strict=True
        ):
            fits = allowed[: column.num_codes]
            if fits.all():
                continue
            bits = column.patterns()[fits]
            pattern[place] = np.where((bits == bits[0]).all(axis=0), bits[0], -1)
        return pattern


def parse(text: str) -> list[Condition]:
    """'a=1, b>=2' -> Conditions. Names and values with a comma, or values with a bar, stand in quotes,
    and quotes within these are doubled. Raises UserError.
    """
    conditions, place = [], 0
    while place < len(text):
        if text[place] in ", ":
            place += 1
            continue
        match = CONDITION.match(text, place)
        name = _unquoted(match[1]) if match else ""
        if not name:
            part = text[place:].partition(",")[0].strip()
            raise UserError(f"--given: {printable(part)!r} is no condition; expected {HOW}")
        if not re.match(rf"\s*{QUOTED}", match[3]) and (found := ANDS.search(match[3])):
            raise UserError(
                f"--given: {printable(match[0].strip())!r}: conditions are joined with commas, not with"
                f" {found[1] or found[2]!r}; expected {HOW}"
            )
        values = [_unquoted(v) for v in re.findall(rf"(?:^|\|)({VALUE})", match[3])]
        conditions.append(Condition(name, match[2].replace("==", "="), values))
        place = match.end()
    return conditions


def _unquoted(text: str) -> str:
    text = text.strip()
    is_quoted = re.fullmatch(QUOTED, text, re.DOTALL)
    return text[1:-1].replace(text[0] * 2, text[0]) if is_quoted else text


def question(encoding: Encoding, conditions: list[Condition]) -> Question:
    """What conditions mean for the codes. Raises UserError for what no row can fulfil."""
    K = max(c.num_codes for c in encoding.coded)
    allowed = np.zeros((len(encoding.coded), K), bool)
    for g, column in enumerate(encoding.coded):
        allowed[g, : column.num_codes] = True
    share = allowed.astype(float)
    for condition in conditions:
        column = _column(encoding, condition)
        if column.has_bits or (column.type == "determined" and column.rule == "lookup"):
            coded, which_fit = _about(encoding, column, condition)
            g = encoding.coded.index(coded)
            for c, (texts, counts) in enumerate(zip(coded.texts, coded.counts, strict=True)):
                share[g, c] *= (which_fit(texts) * np.array(counts)).sum() / sum(counts)
            if coded.has_missing_code:
                share[g, len(coded.texts)] *= which_fit([None])[0]
            allowed[g] &= share[g] > 0
        elif column.type == "constant":
            if not fits(column, [t for ts in column.texts for t in ts] or [None], condition).any():
                raise UserError(
                    f"--given: {printable(condition)}: {printable(column.name)} is {column.reason}"
                )
        elif column.type == "row number":
            raise UserError(
                f"--given: the column {printable(column.name)!r} counts the rows, so nothing can be"
                " asked of it"
            )
        elif column.type != "determined":
            raise UserError(
                f"--given: the column {printable(column.name)!r} was left out of the model"
            )
    for g, column in enumerate(encoding.coded):
        if not allowed[g].any():
            told = ", ".join(str(c) for c in conditions if c.name == column.name)
            raise UserError(f"--given: no value of {printable(column.name)} fits {printable(told)}")
    for condition in conditions:
        column = encoding.column(condition.name)
        if _is_formula(column):
            _check_formula(encoding, column, condition, allowed)
    return Question(allowed, share, conditions)


def _is_formula(column: Column) -> bool:
    return column.type == "determined" and column.rule != "lookup"


def _check_formula(
    encoding: Encoding, column: Column, condition: Condition, allowed: np.ndarray
) -> None:
    """Raises UserError if no values of its terms that are allowed give what is asked."""
    wanted = [_number(column, v) for v in condition.values]
    is_order = condition.operator not in ("=", "!=")
    if (is_order and len(wanted) > 1) or (None in wanted and (is_order or any(condition.values))):
        example = column.texts[0][0]
        raise UserError(f"--given: {printable(condition)}: expected one number, such as {example}")
    if None in wanted or condition.operator == "!=":
        return
    spans = []
    for name in column.sources:
        source = encoding.column(name)
        codes = allowed[encoding.coded.index(source)]
        texts = [t for c, ts in enumerate(source.texts) if codes[c] for t in ts]
        numbers = [x for t in texts if (x := _number(source, t)) is not None]
        spans.append((min(numbers, default=np.nan), max(numbers, default=np.nan)))
    low, high = interval(column.rule, spans)
    compare = {">": np.less, ">=": np.less_equal, "<": np.greater, "<=": np.greater_equal}
    far = {">": high, ">=": high, "<": low, "<=": low}.get(condition.operator)
    if far is None:
        is_possible = any(low <= x <= high for x in wanted)
    else:
        is_possible = compare[condition.operator](wanted[0], far)
    if not is_possible:
        raise UserError(
            f"--given: no value of {printable(column.name)} fits {printable(condition)};"
            f" it goes from {low:g} to {high:g} ({printable(column.reason)})"
        )


def _number(column: Column, text: str) -> float | None:
    """The text as the column's number; 2.5 is one also where the column has decimal commas."""
    x = column.number(text)
    return float(text) if x is None and column.spelling == "," and is_number(text) else x


def _column(encoding: Encoding, condition: Condition) -> Column:
    names = [c.name for c in encoding.columns]
    if condition.name in names:
        return encoding.columns[names.index(condition.name)]
    close = difflib.get_close_matches(condition.name, names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)[:300]}"
    raise UserError(f"--given: there is no column {printable(condition.name)!r}; {hint}")


def _about(encoding: Encoding, column: Column, condition: Condition):
    """The column with codes that a condition is about, and what says which of its texts fit.

    Of a column that is looked up: those values of its source that bring about what is asked.
    """
    if column.has_bits:
        _check_values(column, condition)
        return column, lambda texts: fits(column, texts, condition)
    levels = sorted({b for _, b in column.lookup if b is not None})
    _check_levels(column, levels, condition)
    meant = {a for a, b in column.lookup if fits(column, [b], condition)[0]}
    return encoding.column(column.sources[0]), lambda texts: np.array([t in meant for t in texts])


def fits(column: Column, texts: list[str | None], condition: Condition) -> np.ndarray:
    """(len(texts),) bool: which of a column's texts (None: missing) fulfil a condition."""
    operator, values = condition.operator, condition.values
    if operator in ("=", "!="):
        wanted = {v for v in values if v}
        numbers = {x for v in wanted if column.numbers and (x := _number(column, v)) is not None}

        def is_one(text: str | None) -> bool:
            if text is None:
                return "" in values
            return text in wanted or bool(numbers and column.number(text) in numbers)

        found = np.array([is_one(t) for t in texts])
        return found if operator == "=" else ~found
    limit = _place_of(column, values[0])
    at = np.array([np.nan if t is None else _place_of(column, t) for t in texts], float)
    with np.errstate(invalid="ignore"):
        return {">=": at >= limit, ">": at > limit, "<=": at <= limit, "<": at < limit}[operator]


def _place_of(column: Column, text: str) -> float:
    """Where a text stands in the column's order."""
    if column.type == "ordered":
        code = column.code_of(text)
        return float("nan") if code is None else code
    x = _number(column, text)
    return float("nan") if x is None else x


def _check_values(column: Column, condition: Condition) -> None:
    levels = [t for ts in column.texts for t in ts]
    if condition.operator in ("=", "!="):
        _check_levels(column, levels, condition)
        if "" in condition.values and not column.has_missing_code:
            raise UserError(
                f"--given: {printable(condition)}: {printable(column.name)} has no gaps"
            )
        return
    if column.type not in ("whole number", "number", "date", "ordered") and not (
        column.type == "yes/no" and all(column.number(t) is not None for t in levels)
    ):
        raise UserError(
            f"--given: {printable(condition)}: {printable(column.name)} is a {column.type}, which has"
            " no order; use = or !="
        )
    if np.isnan(_place_of(column, condition.values[0])) or len(condition.values) > 1:
        what = column.type if column.type in ("date", "number") else "number"
        what = "level" if column.type == "ordered" else what
        raise UserError(
            f"--given: {printable(condition)}: expected one {what}, such as {printable(levels[0])}"
        )


def _check_levels(column: Column, levels: list[str], condition: Condition) -> None:
    for value in condition.values:
        known = value in levels or not value
        x = _number(column, value) if column.numbers else None
        if not known and x is not None:
            known = any(column.number(t) == x for t in levels)
        if not known:
            close = difflib.get_close_matches(value, levels, 1, 0.5)
            some = ", ".join(levels[:12]) + (", ..." if len(levels) > 12 else "")
            hint = f"did you mean {close[0]!r}?" if close else f"there are {some}"
            if x is not None:
                hint = f"the nearest is {min(levels, key=lambda t: abs(column.number(t) - x))!r}"
            elif column.numbers:
                hint = f"there are values from {levels[0]} to {levels[-1]}"
            if value in MISSING and column.has_missing_code:
                hint = f"{column.name}= asks for a gap"
            raise UserError(
                f"--given: {printable(column.name)} was never {printable(value)!r} in training;"
                f" {printable(hint)}"
            )


def all_fit(encoding: Encoding, columns: dict[str, Values], conditions: list[Condition]):
    """(N,) bool: which records fulfil all conditions."""
    ok = np.ones(len(next(iter(columns.values())).codes), bool)
    for condition in conditions:
        values = columns[condition.name]
        column = encoding.column(condition.name)
        ok &= np.append(fits(column, values.texts, condition), fits(column, [None], condition))[
            values.codes
        ]
    return ok
