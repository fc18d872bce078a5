"""Tables as text: separated values in many spellings, or lines of bits."""

import csv
import itertools
import re
from collections.abc import Iterable

import numpy as np

from ..system.errors import UserError, printable
from .table import (
    BOOLEANS,
    Strings,
    Table,
    as_bits,
    checked_names,
    columns_of,
    is_number,
    numbered_names,
)

MAX_VALUES = 60_000_000  # of a table, all columns together: some gigabytes while it is read
SAMPLE = 200  # lines from which a text's form is told
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars", " ": "spaces"}


def read_lines(
    text: str, name: str, header: bool | None, missing: set[str], encoding: str
) -> Table | Strings:
    """A table from separated values, or strings of bits. name: of the file.

    header: whether the first line has names; None to find out. Raises UserError.
    """
    also = f", {encoding}" if encoding else ""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    separator = None
    if match := re.fullmatch(r"sep=(.)", lines[0].strip(' "')):  # written by Excel
        separator, lines = match[1], lines[1:]
    first = next((i for i, line in enumerate(lines) if line and not line.startswith("#")), None)
    if first is None:
        raise UserError(f"{name}: nothing but comments and empty lines")
    lines = lines[first:]
    while lines and not lines[-1].strip():
        lines.pop()
    if strings := _of_strings(lines, name, also):
        return strings
    weights = _weights(lines)
    if weights is not None:
        lines = [line.split("|", 1)[1] for line in lines]
    if separator is None:
        separator = _separator(lines[:SAMPLE])
    rows = _rows(lines, separator, name)
    if header is None:
        header = _has_header(rows[: 10 * SAMPLE], missing)
    names = rows.pop(0) if header else numbered_names(len(rows[0]))
    if not rows:
        raise UserError(f"{name}: names of columns, but no records")
    width = len(names)
    if len(rows[0]) == width + 1 and header:  # R leaves out the name of the row names
        names, width = ["", *names], width + 1
    for number, row in enumerate(rows, first + 1 + header):
        if len(row) != width:
            raise UserError(
                f"{name}:{number}: {len(row)} values, but {width} columns; quote values that hold"
                f" the separator {separator!r}"
            )
    columns = columns_of(checked_names(names, name), rows, missing)
    kept_apart = f"separated by {SEPARATORS.get(separator, repr(separator))}"
    how = kept_apart if width > 1 else "one column"
    with_names = "names in the first line" if header else "no names"
    understood = f"{len(rows):,} rows, {width} columns {how}, {with_names}{also}"
    if not header and (bits := as_bits(columns.values())) is not None:
        return Strings(bits, f"{understood}: bits", weights)
    form = {"kind": "text", "separator": separator if separator != " " else ",", "header": header}
    return Table(columns, understood, form)


def _of_strings(lines: list[str], name: str, also: str) -> Strings | None:
    """Lines of 0, 1 and ? without separators, if they are that."""
    width = len(lines[0].strip())
    if width < 2 or not all(set(line.strip()) <= {"0", "1", "?"} for line in lines):
        return None
    for number, line in enumerate(lines, 1):
        if len(line.strip()) != width:
            raise UserError(
                f"{name}:{number}: {len(line.strip())} characters, but the lines above have {width}"
            )
    codes = np.frombuffer("".join(line.strip() for line in lines).encode(), np.uint8)
    bits = np.where(codes == ord("?"), -1, codes.astype(np.int8) - ord("0")).astype(np.int8)
    bits = bits.reshape(len(lines), width)
    return Strings(bits, f"{len(lines):,} strings of {width} bits{also}")


def _weights(lines: list[str]) -> np.ndarray | None:
    """(N,) from lines that begin with a number and a bar, as in DEBD's .wdata."""
    found = [re.match(r"\s*(\d+(?:\.\d+)?)\|(?!.*\|)", line) for line in lines]
    return np.array([float(m[1]) for m in found]) if all(found) else None


def _separator(lines: list[str]) -> str:
    """The one that cuts every line into equally many values, the more the better."""
    best, most = ",", 1
    for separator in SEPARATORS:
        counts = [len(row) for row in _parse(lines, separator) if row]
        width = max(counts, default=0)
        are_even = set(counts) == {width}
        # R's tables have one name less than values
        is_of_r = set(counts) == {width - 1, width} and counts[0] < width
        if width > most and (are_even or is_of_r):
            best, most = separator, width
    return best


def _parse(lines: list[str], separator: str) -> Iterable[list[str]]:
    if separator == " ":
        lines = (" ".join(line.split()) for line in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def _rows(lines: list[str], separator: str, name: str) -> list[list[str]]:
    values = len(lines) * max(1, lines[len(lines) // 2].count(separator) + 1)
    if values > MAX_VALUES:
        raise UserError(
            f"{name}: {len(lines):,} records with some {values:,} values, more than the"
            f" {MAX_VALUES:,} that fit into memory; take a random part, for instance with"
            f" shuf -n {len(lines) * MAX_VALUES // values // 2}"
        )
    try:
        # lines keep their ends here, for a quoted value may have some
        lines = lines if separator == " " else [line + "\n" for line in lines]
        return [row for row in _parse(lines, separator) if row]
    except csv.Error as error:
        raise UserError(f"{name}: {printable(error)}") from None


def _has_header(rows: list[list[str]], missing: set[str]) -> bool:
    """Whether the first row has names: no numbers, all different, and unlike what stands below."""
    first, below = rows[0], rows[1:]
    names = [cell for cell in first if cell.strip()]
    if len(set(names)) < len(names) or any(is_number(c) or c in BOOLEANS for c in names):
        # two columns of one name are an error to be told later, if the rest is numbers
        texts = [c for c in names if not is_number(c) and c not in BOOLEANS]
        return (
            len(texts) == len(names)
            and all(is_number(c) or c in missing for row in below[:SAMPLE] for c in row)
            and bool(below)
        )
    if not below or not names:
        return bool(names)
    columns = list(itertools.zip_longest(*below, fillvalue=""))
    shift = len(columns) - len(first)
    if shift == 1:
        return True
    return not any(
        cell in missing or cell in set(column)
        for cell, column in zip(first, columns, strict=False)
        if cell
    )
