"""Files of many forms -> a Table: columns of text, with gaps.

The Python library reads text, NumPy arrays, JSON and ARFF; pandas, where it is installed, reads the
rest (Parquet, Excel, Stata). A value is kept as it is spelled, so that it comes back so; what type a
column has is found elsewhere (columns.py).
"""

import codecs
import gzip
import io
import re
import shlex
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ..system.errors import UserError, cannot_open, printable
from . import forms, text
from .frames import import_pandas, read_frame
from .table import MISSING, Strings, Table

MOST_BYTES = 1 << 30  # of a file, unpacked; what becomes of it takes several times the memory
PIECE, PIECE_ROWS = 1 << 16, 1 << 10  # bytes, and rows of Parquet, unpacked at a time
PART_ROWS = 100_000  # of a table that is too large: what to take instead
JSON = re.compile(r"\[\s*([\[{\]\"\d-]|null|true|false|NaN)|\{\s*[\"}]")  # [id] is a name
PANDAS_READERS = {
    ".parquet": "read_parquet",
    ".feather": "read_feather",
    ".xlsx": "read_excel",
    ".xls": "read_excel",
    ".dta": "read_stata",
    ".sav": "read_spss",
}


class TooLarge(UserError):
    """A file is more than fits into memory. command: what writes its lines, or else cure: what helps."""

    def __init__(self, name: str, command: str = "cat", cure: str = ""):
        cure = cure or (
            f"take a random part: {command} {shlex.quote(name)} | shuf -n {PART_ROWS} > part.csv"
        )
        super().__init__(
            f"{name}: more than {MOST_BYTES >> 20:,} MiB of data{'' if command == 'cat' else ' inside'},"
            f" which may not fit into memory; {cure}"
        )


def read(path: Path, header: bool | None = None, missing: Sequence[str] = ()) -> Table | Strings:
    """Read a file. header: whether the first line has names; None to find out.

    missing: further words that stand for a missing value. Raises UserError.
    """
    found = _read(path, header, missing)
    return found.without(missing) if missing and isinstance(found, Table) else found


def _read(path: Path, header: bool | None, missing: Sequence[str]) -> Table | Strings:
    name = printable(path)
    try:
        if Path(path).is_file() and Path(path).stat().st_size > MOST_BYTES:
            raise TooLarge(name)
        data = Path(path).read_bytes()
    except OSError as error:
        raise cannot_open(name, error) from None
    data, inner = _unpacked(data, Path(path), name)
    if not data.strip():
        raise UserError(f"{name}: the file is empty; expected a table, one record a line")
    if data.startswith(b"\x93NUMPY"):
        return forms.of_npy(data, name)
    if data.startswith(b"PK\3\4"):
        return forms.of_npz(data, name)
    if data.startswith(b"PAR1") and b"\0" in data:
        _refuse_large_parquet(data, name)
        frame = _with_whole_numbers(_by_pandas("read_parquet", data, name), data)
        named = {*frame.index.names} - {None, *frame.columns}  # columns to whoever wrote them
        frame = frame.reset_index([n for n in frame.index.names if n in named]) if named else frame
        return read_frame(frame, "Parquet", name)
    if reader := PANDAS_READERS.get(inner.suffix.lower()):
        return read_frame(_by_pandas(reader, data, name), f"pandas.{reader}", name)
    if forms.BITMAP.match(data):
        return forms.of_bitmap(data, name)
    return _of_text(*_decoded(data, name), name, header, MISSING | set(missing))


def read_like(form: dict, path: Path) -> Table | Strings:
    """Read a file as the one was read whose form (table.Table) is known. Raises UserError."""
    return read(path, form.get("header"), form.get("missing", ()))


def _unpacked(data: bytes, inner: Path, name: str) -> tuple[bytes, Path]:
    """What is inside gz, bz2, xz or a zip with one file."""
    try:
        if data.startswith(b"\x1f\x8b"):
            return _bounded(gzip.open(io.BytesIO(data)), name, "zcat"), inner.with_suffix("")
        if re.match(rb"BZh[1-9]1AY&SY", data):
            import bz2

            return _bounded(bz2.open(io.BytesIO(data)), name, "bzcat"), inner.with_suffix("")
        if data.startswith(b"\xfd7zXZ"):
            import lzma

            return _bounded(lzma.open(io.BytesIO(data)), name, "xzcat"), inner.with_suffix("")
        if data.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(e.file_size for e in archive.infolist()) > MOST_BYTES:
                    raise TooLarge(name, "unzip -p")
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
                return _bounded(archive.open(files[0]), name, "unzip -p"), Path(files[0])
    except UserError:
        raise
    except Exception as error:  # each form has its own
        raise UserError(f"{name}: cannot be unpacked: {printable(error)}") from None
    return data, inner


def _bounded(stream, name: str, command: str) -> bytes:
    """All that a stream of unpacked data gives, unless it is too much. command: what unpacks it."""
    data = bytearray()
    with stream:
        while piece := stream.read(PIECE):
            data += piece
            if len(data) > MOST_BYTES:
                raise TooLarge(name, command)
    return bytes(data)


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


def _of_text(content: str, encoding: str, name: str, header: bool | None, missing: set[str]):
    """A table from text of whatever form."""
    start = content.lstrip()[:200]
    if forms.PLAIN_BITMAP.match(start):
        return forms.of_plain_bitmap(content, name)
    if JSON.match(start):
        return forms.of_json(content, name)
    if re.match(r"(%.*\s+)*@relation", start, re.IGNORECASE):
        return forms.of_arff(content, name, missing)
    return text.read_lines(content, name, header, missing, encoding)


def _refuse_large_parquet(data: bytes, name: str) -> None:
    """Raises TooLarge if what is inside is too much: a column of one value takes a few bytes there.

    What the file says of its own size is not enough, for repeated text counts once. So it is unpacked
    piece by piece and counted first.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        return  # pandas says so
    program = (
        f"import pyarrow.parquet as p; f = p.ParquetFile({name!r});"
        f" next(f.iter_batches({PART_ROWS})).to_pandas().to_csv('part.csv', index=False)"
    )
    cure = f"take the first {PART_ROWS:,} rows: python -c {shlex.quote(program)}"
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        size = file.metadata.num_rows * file.metadata.num_columns  # at least a byte a value
        if size <= MOST_BYTES:
            size = 0
            for piece in file.iter_batches(PIECE_ROWS, use_threads=False):
                size += piece.nbytes
                if size > MOST_BYTES:
                    break
    except Exception:  # damaged in one of many ways, which pandas will tell
        return
    if size > MOST_BYTES:
        raise TooLarge(name, "pyarrow", cure)


def _with_whole_numbers(frame, data: bytes):
    """A frame of Parquet whose whole numbers are such: with gaps pandas reads them as floating-point."""
    from pyarrow import parquet, types

    for field in parquet.read_schema(io.BytesIO(data)):
        there = types.is_integer(field.type) and field.name in frame.columns
        if there and frame[field.name].dtype.kind == "f":
            with_gaps = str(field.type).replace("i", "I").replace("u", "U")  # Int64, UInt8
            frame[field.name] = frame[field.name].astype(with_gaps)
    return frame


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
