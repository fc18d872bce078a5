"""Files of many forms -> a Table: columns of text, with gaps.

The Python library reads text, NumPy arrays, JSON and ARFF; pandas, where it is installed, reads the
rest (Parquet, Excel, Stata). A value is kept as it is spelled, so that it comes back so; what type a
column has is found elsewhere (columns.py).
"""

import codecs
import csv
import gzip
import io
import itertools
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..system.errors import UserError, cannot_open, printable

MISSING = {"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "null", "NULL", "?", "."}
MAX_VALUES = 60_000_000  # of a table, all columns together: some gigabytes while it is read
SAMPLE = 200  # lines from which a text's form is told
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars", " ": "spaces"}
PANDAS_READERS = {
    ".parquet": "read_parquet",
    ".feather": "read_feather",
    ".xlsx": "read_excel",
    ".xls": "read_excel",
    ".dta": "read_stata",
    ".sav": "read_spss",
}


class Values(NamedTuple):
    """A column: its different texts in the order of their first row, and the number of each row's.

    dtype: the pandas or NumPy type that the texts are to be given back in; "" for text.
    """

    texts: list[str]
    codes: np.ndarray  # (N,) int64, -1 where a value is missing
    dtype: str = ""
    missing_text: str = ""

    def text(self, row: int) -> str | None:
        code = self.codes[row]
        return None if code < 0 else self.texts[code]


@dataclass(frozen=True)
class Table:
    """Columns by name; all of one length. form: how the file was written, to write its like."""

    columns: dict[str, Values]
    understood: str  # in words, for the person
    form: dict  # separator, header: of text; kind: "text", "array" or "frame"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).codes) if self.columns else 0

    def part(self, rows: np.ndarray) -> "Table":
        """Those of the rows."""
        columns = {n: v._replace(codes=v.codes[rows]) for n, v in self.columns.items()}
        return replace(self, columns=columns)


class Strings(NamedTuple):
    """A file of nothing but bits without names: (N, L) int8 of 0, 1 and -1 for unknown."""

    bits: np.ndarray
    understood: str
    weights: np.ndarray | None = None  # (N,) how often each counts


def read(path: Path, header: bool | None = None, missing: Sequence[str] = ()) -> Table | Strings:
    """Read a file. header: whether the first line has names; None to find out.

    missing: further words that stand for a missing value. Raises UserError.
    """
    name = printable(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise cannot_open(name, error) from None
    words = MISSING | set(missing)
    inner = Path(path)
    data, inner = _unpacked(data, inner, name)
    if not data.strip():
        raise UserError(f"{name}: the file is empty; expected a table, one record a line")
    if data.startswith(b"\x93NUMPY"):
        return _of_array(_load_array(data, name), "a NumPy array", name)
    if data.startswith(b"PK"):
        return _of_npz(data, name)
    if data.startswith(b"PAR1"):
        return _of_frame(_by_pandas("read_parquet", data, name), "Parquet")
    if inner.suffix.lower() in PANDAS_READERS:
        reader = PANDAS_READERS[inner.suffix.lower()]
        return _of_frame(_by_pandas(reader, data, name), f"pandas.{reader}")
    if data.startswith(b"P4"):
        return _of_bitmap(data, name)
    text, encoding = _decoded(data, name)
    return read_text(text, name, header, words, encoding)


def _unpacked(data: bytes, inner: Path, name: str) -> tuple[bytes, Path]:
    """What is inside gz, bz2, xz or a zip with one file."""
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data), inner.with_suffix("")
        if data.startswith(b"BZh"):
            import bz2

            return bz2.decompress(data), inner.with_suffix("")
        if data.startswith(b"\xfd7zXZ"):
            import lzma

            return lzma.decompress(data), inner.with_suffix("")
        if data.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                files = [e for e in archive.namelist() if not e.endswith("/")]
                files = [e for e in files if not e.startswith("__MACOSX/")]
                if any(e.startswith("xl/") for e in files):
                    return data, inner.with_suffix(".xlsx")
                if all(e.endswith(".npy") for e in files):
                    return data, inner
                if len(files) != 1:
                    raise UserError(
                        f"{name}: holds {len(files)} files; unpack it and name the one you mean"
                    )
                return archive.read(files[0]), Path(files[0])
    except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{name}: cannot be unpacked: {printable(error)}") from None
    return data, inner


def _decoded(data: bytes, name: str) -> tuple[str, str]:
    """Text, and how it was encoded: "" for UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace"), "UTF-16"
    try:
        text = data.decode("utf-8-sig")
        encoding = ""
    except UnicodeDecodeError:
        text, encoding = data.decode("cp1252", "replace"), "Windows-1252"
    if "\0" in text:
        raise UserError(f"{name}: not a text file, nor another form that is known; save it as CSV")
    return text, encoding


# ------------------------------------------------------------------------------- text


def read_text(text: str, name: str, header: bool | None, missing: set[str], encoding: str):
    """A table from text: bit strings, separated values, JSON, ARFF or a plain PBM."""
    start = text.lstrip()[:200]
    also = f", {encoding}" if encoding else ""
    if start.startswith("P1") and start[2:3].isspace():
        return _of_plain_bitmap(text, name)
    if start.startswith(("[", "{")):
        return _of_json(text, name)
    if re.match(r"(%.*\s+)*@relation", start, re.IGNORECASE):
        return _of_arff(text, name, missing)
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
    names = rows.pop(0) if header else [f"column_{i}" for i in range(1, len(rows[0]) + 1)]
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
    columns = dict(
        zip(
            _checked_names(names, name),
            (_values(column, missing) for column in zip(*rows, strict=True)),
            strict=True,
        )
    )
    how = (
        f"separated by {SEPARATORS.get(separator, repr(separator))}" if width > 1 else "one column"
    )
    with_names = "names in the first line" if header else "no names"
    understood = f"{len(rows):,} rows, {width} columns {how}, {with_names}{also}"
    if not header and (bits := _as_bits(columns.values())) is not None:
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
        counts = {len(row) for row in _parse(lines, separator) if row}
        # R's tables have one name less than values
        if (
            counts
            and max(counts) > most
            and (
                len(counts) == 1
                or (
                    counts == {max(counts) - 1, max(counts)}
                    and len(next(_parse(lines, separator))) < max(counts)
                )
            )
        ):
            best, most = separator, max(counts)
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


def _checked_names(names: list[str], place: str) -> list[str]:
    names = [n.strip() for n in names]
    seen: dict[str, int] = {}
    for number, one in enumerate(names, 1):
        if one in seen:
            raise UserError(
                f"{place}: columns {seen[one]} and {number} are both called {one!r};"
                " give each a name of its own"
            )
        seen[one] = number
    return names


def _values(cells: Iterable[str], missing: set[str], dtype: str = "") -> Values:
    """Number the different texts of a column."""
    cells = list(cells)
    different = dict.fromkeys(cells)
    texts = [c for c in different if c.strip() not in missing]
    gaps = [c for c in different if c.strip() in missing]
    number = {c: i for i, c in enumerate(texts)} | dict.fromkeys(gaps, -1)
    codes = np.fromiter(map(number.__getitem__, cells), np.int64, len(cells))
    gap = max(gaps, key=cells.count, default="") if len(gaps) > 1 else "".join(gaps)
    return Values(texts, codes, dtype, gap)


BOOLEANS = {"True", "False", "true", "false", "TRUE", "FALSE"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def is_number(text: str) -> bool:
    """Whether a text is a plain decimal number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def _as_bits(columns: Iterable[Values]) -> np.ndarray | None:
    """(N, L) int8 if every value is 0 or 1 (or False or True; or, throughout, -1 or 1)."""
    columns = list(columns)
    words = {t for column in columns for t in column.texts}
    value = {}
    for word in words:
        if word in BOOLEANS:
            value[word] = float(word.lower() == "true")
        elif is_number(word):
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


# ------------------------------------------------------------------------------- other forms


def _of_plain_bitmap(text: str, name: str) -> Strings:
    words = re.sub(r"#.*", "", text).split()
    try:
        width, height = int(words[1]), int(words[2])
        digits = np.array(list("".join(words[3:])), np.int8)
        bits = digits.reshape(height, width)
    except (IndexError, ValueError):
        raise UserError(f"{name}: not a sound PBM picture") from None
    return Strings(bits, f"a PBM picture, {height:,} rows of {width} bits")


def _of_bitmap(data: bytes, name: str) -> Strings:
    match = re.match(rb"P4\s+(?:#.*\n)*(\d+)\s+(\d+)\s", data)
    if not match:
        raise UserError(f"{name}: not a sound PBM picture")
    width, height = int(match[1]), int(match[2])
    packed = np.frombuffer(data, np.uint8, offset=match.end())
    if packed.size < height * -(-width // 8):
        raise UserError(f"{name}: a PBM picture that was cut short")
    packed = packed[: height * -(-width // 8)].reshape(height, -1)
    bits = np.unpackbits(packed, axis=1, count=width).astype(np.int8)
    return Strings(bits, f"a PBM picture, {height:,} rows of {width} bits")


def _load_array(data: bytes, name: str) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise UserError(f"{name}: {printable(error)}") from None


def _of_npz(data: bytes, name: str) -> Table | Strings:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in arrays}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{name}: {printable(error)}") from None
    tables = [key for key, array in found.items() if array.ndim == 2]
    if len(tables) != 1:
        raise UserError(
            f"{name}: {len(tables)} of its arrays ({', '.join(found)}) are tables; save the one that"
            " you mean with numpy.save"
        )
    return _of_array(found[tables[0]], f"the NumPy array {tables[0]!r}", name)


def _of_array(array: np.ndarray, what: str, name: str) -> Table | Strings:
    if array.dtype.names:  # a structured array has names
        columns = {n: of_array_column(array[n]) for n in array.dtype.names}
        form = {"kind": "text", "separator": ",", "header": True}
        return Table(columns, f"{what}, {len(array):,} records", form)
    if array.ndim != 2:
        shape = " x ".join(map(str, array.shape))
        if array.ndim < 2:
            raise UserError(f"{name}: an array of shape {shape}; expected rows x columns")
        array = array.reshape(len(array), -1)
    if array.size == 0:
        raise UserError(f"{name}: the array is empty")
    understood = f"{what}, {array.shape[0]:,} rows, {array.shape[1]} columns of {array.dtype}"
    if array.dtype.kind in "biuf":
        found = np.unique(array)
        for low in (0, -1):
            if np.isin(found, [low, 1]).all():
                return Strings((array == 1).astype(np.int8), f"{understood}: bits")
    if array.dtype.kind not in "biufUS":
        raise UserError(f"{name}: an array of {array.dtype}; expected numbers or text")
    columns = {f"column_{i}": of_array_column(c) for i, c in enumerate(array.T, 1)}
    form = {"kind": "array", "separator": ",", "header": False, "dtype": str(array.dtype)}
    return Table(columns, understood, form)


def of_array_column(column: np.ndarray) -> Values:
    """Values of a NumPy array (N,) of bools, numbers or text. NaN is missing."""
    if column.dtype.kind == "S":
        column = np.char.decode(column, "utf-8", "replace")
    different, codes = np.unique(column, return_inverse=True)
    texts = [str(v) for v in different.tolist()]
    gaps = np.array([v != v or (isinstance(v, str) and v in MISSING) for v in different.tolist()])
    place = np.where(gaps, -1, (~gaps).cumsum() - 1)
    texts = [t for t, gap in zip(texts, gaps, strict=True) if not gap]
    return Values(texts, place[codes.reshape(-1)].astype(np.int64), str(column.dtype), "nan")


def _of_json(text: str, name: str) -> Table | Strings:
    try:
        try:
            records = json.loads(text)
            what = "JSON"
        except json.JSONDecodeError:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
            what = "JSON lines"
    except json.JSONDecodeError as error:
        raise UserError(f"{name}:{error.lineno}: not sound JSON: {error.msg}") from None
    if isinstance(records, dict) and all(isinstance(c, list) for c in records.values()):
        names = list(records)
        if len({len(c) for c in records.values()}) != 1:
            raise UserError(f"{name}: columns of different lengths")
        records = list(zip(*records.values(), strict=True))
    elif isinstance(records, list) and records and all(isinstance(r, dict) for r in records):
        names = list(dict.fromkeys(key for record in records for key in record))
        records = [[record.get(n) for n in names] for record in records]
    elif isinstance(records, list) and records and all(isinstance(r, list) for r in records):
        names = None
        if len({len(r) for r in records}) != 1:
            raise UserError(f"{name}: records of different lengths")
    else:
        raise UserError(f"{name}: expected a list of records")
    if not records:
        raise UserError(f"{name}: no records")
    for record in records:
        if any(isinstance(v, dict | list) for v in record):
            raise UserError(f"{name}: a value is a list or an object; expected numbers and text")
    columns = {
        n: _values(("" if v is None else str(v) for v in column), {""})
        for n, column in zip(
            names or [f"column_{i}" for i in range(1, len(records[0]) + 1)],
            zip(*records, strict=True),
            strict=True,
        )
    }
    understood = f"{what}, {len(records):,} records of {len(columns)} values"
    if names is None and (bits := _as_bits(columns.values())) is not None:
        return Strings(bits, f"{understood}: bits")
    return Table(
        columns, understood, {"kind": "text", "separator": ",", "header": names is not None}
    )


def _of_arff(text: str, name: str, missing: set[str]) -> Table:
    names, lines, inside = [], [], False
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("%"):
            continue
        if inside:
            lines.append(line)
        elif line.lower().startswith("@data"):
            inside = True
        elif match := re.match(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)", line, re.IGNORECASE):
            names.append(match[1].strip("'\""))
        elif not line.lower().startswith("@relation"):
            raise UserError(f"{name}:{number}: not understood in ARFF: {printable(line[:40])}")
    rows = list(csv.reader(lines, quotechar="'", skipinitialspace=True))
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(names)), None)
    if not rows or wrong is not None:
        raise UserError(
            f"{name}: "
            + (
                "no records"
                if not rows
                else f"record {wrong + 1} has {len(rows[wrong])} values for {len(names)} attributes"
            )
        )
    columns = dict(
        zip(
            _checked_names(names, name),
            (_values(c, missing) for c in zip(*rows, strict=True)),
            strict=True,
        )
    )
    form = {"kind": "text", "separator": ",", "header": True}
    return Table(columns, f"ARFF, {len(rows):,} records of {len(names)} attributes", form)


# ------------------------------------------------------------------------------- pandas


def _by_pandas(reader: str, data: bytes, name: str):
    pandas = import_pandas(f"{name}: this form")
    try:
        if reader == "read_spss":
            return pandas.read_spss(name)
        return getattr(pandas, reader)(io.BytesIO(data))
    except ImportError as error:
        raise UserError(f"{name}: {printable(str(error).splitlines()[0])}") from None
    except Exception as error:  # each of pandas' readers has its own
        raise UserError(f"{name}: {printable(error)[:200]}") from None


def _of_frame(frame, what: str) -> Table:
    from .frames import read_frame  # it needs pandas

    return read_frame(frame, what)


def import_pandas(what: str):
    """pandas. Raises UserError with what needs it and how to get it."""
    try:
        import pandas
    except ImportError:
        raise UserError(
            f"{what} needs pandas: pip install 'bernoulli-diffusion[tables]', or save it as CSV"
        ) from None
    return pandas
