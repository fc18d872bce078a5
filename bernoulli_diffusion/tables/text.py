"""Tables as text: separated values in many spellings, or lines of bits."""

import csv
import itertools
import re
from collections.abc import Iterable

import numpy as np

from ..system.errors import UserError
from .table import (
    BOOLEANS,
    Strings,
    Table,
    as_bits,
    checked_names,
    columns_of,
    is_number,
    numbered_names,
    plural,
)

MAX_VALUES = 60_000_000  # of a table, all columns together: some gigabytes while it is read
SAMPLE = 200  # lines from which a text's form is told
DATE = re.compile(r"\W*\d+[-/.:]\d+[-/.:]\d+")  # how one begins
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
    above = lines[first - 1].lstrip("# ") if first else ""
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
    rows = _rows(lines, separator, name, first)
    in_comment = None
    if header is None:
        header = _has_header(rows[: 10 * SAMPLE], missing)
        in_comment = None if header else _names_in_comment(above, separator, len(rows[0]))
    empty = _cut_empty_end(rows, header)
    names = rows.pop(0) if header else in_comment or numbered_names(len(rows[0]))
    if not rows:
        raise UserError(f"{name}: names of columns, but no records")
    is_of_r = header and len(rows[0]) == len(names) + 1 and _all_differ(row[0] for row in rows)
    names = ["", *names] if is_of_r else names  # R leaves out the name of the row names
    width = len(names)
    for number, row in enumerate(rows, int(header)):
        if len(row) != width:
            line = first + 1 + _line_of(lines, separator, number)
            raise _uneven(
                rows, row, width, separator, header, f"{name}:{line}", f"{name}:{first + 1}"
            )
    header = header or bool(in_comment)
    columns = columns_of(checked_names(names, name), rows, missing)
    how = f" separated by {SEPARATORS.get(separator, repr(separator))}" if width > 1 else ""
    with_names = "names in the first line" if header else "no names"
    with_names = "names in a comment" if in_comment else with_names
    if with_names == "no names" and any(map(str.isalpha, itertools.chain(*rows[0]))):
        with_names += " (if the first line has them: --header yes)"
    left_out = f", {plural(empty, 'empty column')} at the end left out" if empty else ""
    understood = (
        f"{plural(len(rows), 'row')}, {plural(width, 'column')}{how}, {with_names}{left_out}{also}"
    )
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
    """The one that cuts every line into equally many values, the more the better; spaces last."""
    widths = {s: width for s in SEPARATORS if (width := _even_width(lines, s)) > 1}
    if any(_are_decimal(lines, s) for s in widths if s != ","):
        widths.pop(",", None)
    if len(widths) > 1:
        widths.pop(" ", None)  # within the values
    if widths:
        return max(widths, key=widths.__getitem__)
    # some lines are wrong: by the one that cuts most others evenly, these can be told
    for separator in SEPARATORS:
        counts = [len(row) for row in _sample(lines, separator)]
        width = max(set(counts), key=counts.count, default=1)
        is_usual = width > 1 and counts.count(width) >= 0.9 * len(counts)
        if is_usual and (separator != " " or counts[0] == width):
            return separator
    return ","


def _even_width(lines: list[str], separator: str) -> int:
    """Into how many values a separator cuts each line; 0 if into more and less."""
    rows = _sample(lines, separator)
    counts = [len(row) for row in rows]
    width = max(counts, default=0)
    if set(counts) == {width}:
        return width
    # R's tables have one name less than values, for the names of rows are all different
    is_of_r = counts[:1] == [width - 1] and set(counts[1:]) == {width}
    is_time = width == 2 and separator == " " and all(DATE.match(row[0]) for row in rows[1:])
    return width if is_of_r and not is_time and _all_differ(row[0] for row in rows[1:]) else 0


def _are_decimal(lines: list[str], separator: str) -> bool:
    """Whether all commas are those of decimal numbers, if another separator cuts."""
    cells = [cell for row in _sample(lines, separator) for cell in row if "," in cell]
    return bool(cells) and all(re.fullmatch(r"\s*[+-]?\d*,\d+\s*", cell) for cell in cells)


def _sample(lines: list[str], separator: str) -> list[list[str]]:
    try:
        return [row for row in _parse(lines, separator) if row]
    except csv.Error:  # a very long value
        return []


def _all_differ(cells: Iterable[str]) -> bool:
    cells = list(cells)
    return len(set(cells)) == len(cells)


def _parse(lines: Iterable[str], separator: str, strict: bool = False):
    if separator == " ":
        lines = (" ".join(line.split()) for line in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=strict)


def _rows(lines: list[str], separator: str, name: str, first: int) -> list[list[str]]:
    """The values of each record. first: lines of the file above these."""
    values = len(lines) * max(1, lines[len(lines) // 2].count(separator) + 1)
    if values > MAX_VALUES:
        raise UserError(
            f"{name}: {len(lines):,} records with some {values:,} values, more than the"
            f" {MAX_VALUES:,} that fit into memory; take a random part, for instance with"
            f" shuf -n {len(lines) * MAX_VALUES // values // 2}"
        )
    # lines keep their ends here, for a quoted value may have some
    lines = lines if separator == " " else [line + "\n" for line in lines]
    reader, rows, begin = _parse(lines, separator), [], 0
    cure = "is a quote not closed? A value's own quotes are written twice"
    try:
        for row in reader:
            if row:
                rows.append(row)
            if reader.line_num < len(lines):
                begin = reader.line_num
    except csv.Error:
        raise UserError(
            f"{name}:{first + begin + 1}: a value of more than {csv.field_size_limit():,}"
            f" characters; {cure}"
        ) from None
    try:  # whether the last record ends by itself
        list(_parse(lines[begin:], separator, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise UserError(
                f"{name}:{first + begin + 1}: a value runs to the end of the file; {cure}"
            ) from None
    return rows


def _line_of(lines: list[str], separator: str, number: int) -> int:
    """The line, from 0, in which a record begins; number: of the record, from 0."""
    reader, begin = _parse([line + "\n" for line in lines], separator), 0
    for row in reader:
        if row:
            number -= 1
        if number < 0:
            break
        begin = reader.line_num
    return begin


def _uneven(rows, row, width: int, separator: str, header: bool, place: str, top: str) -> UserError:
    """What is told of a row with more or less values than there are columns."""
    counts = [len(other) for other in rows]
    usual = max(set(counts), key=counts.count)
    if header and usual != width and 2 * counts.count(usual) > len(counts):
        return UserError(
            f"{top}: {plural(width, 'name')}, but most lines below have {usual} values; name every"
            f" column, quote values that hold {separator!r}, remove what stands above the names"
        )
    return UserError(
        f"{place}: {plural(len(row), 'value')}, but {plural(width, 'column')}; quote values that"
        f" hold the separator {separator!r}"
    )


def _cut_empty_end(rows: list[list[str]], header: bool) -> int:
    """Take columns without names and values off the end, as Excel writes them; how many."""
    records = rows[header:]
    full = len(records[0]) if records else 0
    if any(len(row) != full for row in records):
        return 0
    cut = 0
    while cut < full - 1 and not any(row[full - 1 - cut].strip() for row in records):
        cut += 1
    while header and any(cell.strip() for cell in rows[0][full - cut :]):
        cut -= 1
    if cut:
        for row in rows:
            del row[full - cut :]
    return cut


# --------------------------------------------------------------------- are there names?


def _names_in_comment(line: str, separator: str, width: int) -> list[str] | None:
    """Those of a comment right above the records, as np.savetxt writes them, if there are as many."""
    names = next(_parse([line], separator), [])
    return names if len(names) == width and not any(map(is_number, names)) else None


def _has_header(rows: list[list[str]], missing: set[str]) -> bool:
    """Whether the first row has names: unlike what stands below, or numbers that count."""
    first, below = rows[0], rows[1:]
    names = [cell.strip() for cell in first if cell.strip()]
    if not below or not names:
        return bool(names) and not any(is_number(c) or c in BOOLEANS for c in names)
    columns = [
        [cell for cell in column if cell.strip() and cell.strip() not in missing]
        for column in itertools.zip_longest(*below, fillvalue="")
    ]
    if len(columns) == len(first) + 1 and not any(map(is_number, names)):
        return True
    in_favour = against = 0
    for name, column in zip(map(str.strip, first), columns, strict=False):
        if (
            all(map(_has_digit, column)) and column
        ):  # a name needs none: here the two are told apart
            in_favour += (
                bool(re.search(r"[^\W\d]", name)) and not _has_digit(name) and name not in missing
            )
            against += is_number(name)
    if in_favour and in_favour >= against:
        return True
    if _count(first, columns):
        return True
    if len(set(names)) < len(names) or set(names) & BOOLEANS or set(names) <= missing:
        return False
    if sum(map(is_number, names)) > len(names) / 4:
        return False
    return not any(
        name in column for name, column in zip(map(str.strip, first), columns, strict=False)
    )


def _has_digit(text: str) -> bool:
    return any(c.isdigit() for c in text)


def _count(first: list[str], columns: list[list[str]]) -> bool:
    """Whether names are 0, 1, 2 ... (of pandas) or 2019, 2020 ... (years): numbers that count."""
    found = [
        (cell, column) for cell, column in zip(first, columns, strict=False) if is_number(cell)
    ]
    numbers = [float(cell) for cell, _ in found]
    rises = all(b == a + 1 for a, b in itertools.pairwise(numbers))
    others = [(c, column) for c, column in zip(first, columns, strict=False) if not is_number(c)]
    if not rises or any(c.strip() in column for c, column in others if c.strip()):
        return False
    is_new = len(found) > 2 and not any(cell in column for cell, column in found)
    return is_new or (len(found) > 4 and numbers[0] == 0)
