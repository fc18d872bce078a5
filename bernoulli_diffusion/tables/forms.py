"""Other forms of tables: pictures of bits, NumPy arrays, JSON, ARFF. Each becomes a Table or Strings."""

import csv
import io
import json
import re
import zipfile

import numpy as np

from ..system.errors import UserError, printable
from .table import (
    MISSING,
    Strings,
    Table,
    Values,
    as_bits,
    checked_names,
    columns_of,
    numbered_names,
)

PLAIN_BITMAP = re.compile(r"P1\s+(#.*\s+)*\d+\s+(#.*\s+)*\d+\s")  # P1 alone may be a name
BITMAP = re.compile(rb"P4\s+(?:#.*\n)*(\d+)\s+(\d+)\s")
NAMED = {"kind": "text", "separator": ",", "header": True}  # how such a table is written


def of_plain_bitmap(text: str, name: str) -> Strings:
    words = re.sub(r"#.*", "", text).split()
    try:
        width, height = int(words[1]), int(words[2])
        digits = np.array(list("".join(words[3:])), np.int8)
        bits = digits.reshape(height, width)
    except (IndexError, ValueError):
        raise UserError(f"{name}: not a sound PBM picture") from None
    return Strings(bits, f"a PBM picture, {height:,} rows of {width} bits")


def of_bitmap(data: bytes, name: str) -> Strings:
    match = BITMAP.match(data)
    width, height = int(match[1]), int(match[2])
    packed = np.frombuffer(data, np.uint8, offset=match.end())
    if packed.size < height * -(-width // 8):
        raise UserError(f"{name}: a PBM picture that was cut short")
    packed = packed[: height * -(-width // 8)].reshape(height, -1)
    bits = np.unpackbits(packed, axis=1, count=width).astype(np.int8)
    return Strings(bits, f"a PBM picture, {height:,} rows of {width} bits")


def of_npy(data: bytes, name: str) -> Table | Strings:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise UserError(f"{name}: {printable(error)}") from None
    return _of_array(array, "a NumPy array", name)


def of_npz(data: bytes, name: str) -> Table | Strings:
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
        return Table(columns, f"{what}, {len(array):,} records", dict(NAMED))
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
    columns = dict(zip(numbered_names(array.shape[1]), map(of_array_column, array.T), strict=True))
    form = {"kind": "array", "separator": ",", "header": False, "dtype": str(array.dtype)}
    return Table(columns, understood, form)


def of_array_column(column: np.ndarray) -> Values:
    """Values of a NumPy array (N,) of bools, numbers or text. NaN is missing."""
    if column.dtype.kind == "S":
        column = np.char.decode(column, "utf-8", "replace")
    different, first, codes = np.unique(column, return_index=True, return_inverse=True)
    order = np.argsort(first)  # of their first rows
    different, codes = different[order], np.argsort(order)[codes.reshape(-1)]
    texts = [str(v) for v in different.tolist()]
    gaps = np.array([v != v or (isinstance(v, str) and v in MISSING) for v in different.tolist()])
    place = np.where(gaps, -1, (~gaps).cumsum() - 1)
    texts = [t for t, gap in zip(texts, gaps, strict=True) if not gap]
    return Values(texts, place[codes].astype(np.int64), str(column.dtype), "nan")


def of_json(text: str, name: str) -> Table | Strings:
    try:
        try:
            records = json.loads(text)
            what = "JSON"
        except json.JSONDecodeError:
            records = [json.loads(line) for line in text.split("\n") if line.strip()]
            what = "JSON lines"
    except json.JSONDecodeError as error:
        raise UserError(f"{name}:{error.lineno}: not sound JSON: {error.msg}") from None
    if isinstance(records, dict) and {"columns", "data"} <= set(records):  # pandas' "split"
        records = [dict(zip(records["columns"], row, strict=False)) for row in records["data"]]
    if isinstance(records, dict) and all(isinstance(c, dict) for c in records.values()):
        index = dict.fromkeys(key for column in records.values() for key in column)
        records = {n: [column.get(key) for key in index] for n, column in records.items()}
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
    cells = (["" if v is None or v != v else str(v) for v in record] for record in records)
    columns = columns_of(names or numbered_names(len(records[0])), cells, {""})
    understood = f"{what}, {len(records):,} records of {len(columns)} values"
    if names is None and (bits := as_bits(columns.values())) is not None:
        return Strings(bits, f"{understood}: bits")
    return Table(columns, understood, NAMED | {"header": names is not None})


def of_arff(text: str, name: str, missing: set[str]) -> Table:
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
    if not rows:
        raise UserError(f"{name}: no records")
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise UserError(
                f"{name}: record {number} has {len(row)} values for {len(names)} attributes"
            )
    columns = columns_of(checked_names(names, name), rows, missing)
    understood = f"ARFF, {len(rows):,} records of {len(names)} attributes"
    return Table(columns, understood, dict(NAMED))
