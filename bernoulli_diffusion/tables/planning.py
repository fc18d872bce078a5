"""From a table to its Encoding: every column's type is found, or taken from what was asked for."""

import difflib
from dataclasses import replace

import numpy as np

from ..system.errors import UserError, printable
from .description import Wish
from .encoding import Encoding
from .finding import find
from .rules import find_determined
from .table import Table
from .table import joined as joined_values

RESOLUTION = 1000  # of counts of rows by weight, which are whole numbers: of a row of usual weight


def plan(table: Table, train: np.ndarray, wishes: dict[str, Wish] | None = None) -> Encoding:
    """The Encoding of a table.

    train: (N,), how much each row counts for frequencies and bins, 0 or False if it is held out; levels
    come from all rows.
    Raises UserError if a wish names no column, or cannot be fulfilled, or nothing is left.
    """
    wishes = wishes or {}
    for name in wishes:
        if name not in table.columns:
            close = difflib.get_close_matches(name, table.columns, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {_names(table)}"
            raise UserError(f"there is no column {printable(name)!r}; {hint}")
    columns, keep = {}, set()
    for number, (name, values) in enumerate(table.columns.items()):
        wish = wishes.get(name, Wish())
        is_asked = wish.type not in (None, "determined", "constant", "row number")
        columns[name] = find(
            name,
            values,
            train,
            wanted=wish.type if is_asked else None,
            levels=wish.levels,
            bins=wish.bins,
            gaps=wish.gaps,
            is_first=number == 0,
        )
        if is_asked:
            keep.add(name)
    find_determined(columns, table.columns, keep)
    encoding = Encoding(list(columns.values()), table.form)
    if all(c.type == "constant" for c in encoding.columns):
        raise UserError("all rows are the same, so there is nothing to learn; more rows are needed")
    if encoding.length == 0:
        raise UserError(
            "no column is left to learn from; keep one with --as NAME=category or NAME=number: "
            + "; ".join(f"{c.name}: {c.reason}" for c in columns.values())[:400]
        )
    return encoding


def as_counts(weights: np.ndarray | None, N: int) -> np.ndarray:
    """(N,), how much each training row counts: frequencies by weight are kept as whole numbers."""
    return np.ones(N) if weights is None else weights * (RESOLUTION / weights.mean())


def _names(table: Table) -> str:
    return ", ".join(map(printable, table.columns))[:300]


def joined(tables: list[Table]) -> Table:
    """The rows of several tables with the same columns, one below the other. Raises UserError."""
    first = tables[0]
    for name in first.columns:
        if any(name not in table.columns for table in tables):
            raise UserError(
                f"the held-out rows have no column {printable(name)!r}, which the others have"
            )
    columns = {n: joined_values([table.columns[n] for table in tables]) for n in first.columns}
    return replace(first, columns=columns)
