"""Records -> CSV, Parquet or a NumPy array, in the table's own columns, order and types."""

import csv
import io
import re
from pathlib import Path

import numpy as np

from ..system.errors import UserError, printable
from . import frames
from .encoding import Encoding
from .finding import as_numbers
from .table import Values

FORMS = {".csv": "text", ".tsv": "text", ".txt": "text", ".parquet": "parquet", ".npy": "array"}
OTHERS = {  # what a name may promise that is never written
    ".xlsx", ".xls", ".ods", ".gz", ".zip", ".bz2", ".xz", ".npz", ".json",
    ".feather", ".pkl", ".png", ".gif",
}  # fmt: skip


def form_of(path: Path | None) -> str:
    """text, parquet or array, by the name of the file; text for standard output.

    Raises UserError if the name promises what is not written here.
    """
    if path is None:
        return "text"
    if path.suffix.lower() in OTHERS:
        raise UserError(f"{path}: expected a name that ends in .csv, .tsv, .parquet or .npy")
    return FORMS.get(path.suffix.lower(), "text")


def to_text(columns: dict[str, Values], form: dict, with_names: bool, separator: str = "") -> bytes:
    """Records as separated values, as the table's own file was written.

    with_names: put the names first, if the table has any.
    """
    stream = io.StringIO()
    separator = separator or form.get("separator", ",")
    writer = csv.writer(stream, delimiter=separator, lineterminator="\n")
    if with_names and form.get("header", True):
        # a line that begins so is no comment, and its mark no byte-order mark
        is_odd = next(iter(columns), "").startswith(("#", "\ufeff"))
        style = csv.QUOTE_ALL if is_odd else csv.QUOTE_MINIMAL
        csv.writer(stream, delimiter=separator, lineterminator="\n", quoting=style).writerow(
            columns
        )
    cells = [
        np.array([*values.texts, values.missing_text], object)[values.codes]
        for values in columns.values()
    ]
    writer.writerows(zip(*cells, strict=True))
    return stream.getvalue().encode("utf-8", "surrogateescape")


def to_frame(columns: dict[str, Values], encoding: Encoding):
    """A DataFrame. Needs pandas."""
    names = encoding.form.get("names")
    if names and len(names) != len(columns):  # some were left out
        place = {c.name: n for c, n in zip(encoding.columns, names, strict=True)}
        names = [place[n] for n in columns]
    return frames.to_frame({n: (v.texts, v.codes, v.dtype) for n, v in columns.items()}, names)


def to_parquet(columns: dict[str, Values], encoding: Encoding, stream) -> None:
    """Needs pandas with pyarrow."""
    category = {c.name for c in encoding.columns if c.type in ("category", "ordered")}
    typed = {n: v if v.dtype or n in category else _with_number_type(v) for n, v in columns.items()}
    frame = to_frame(typed, encoding)
    frame.columns = [str(n) for n in frame.columns]
    try:
        frame.to_parquet(stream, index=False)
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install pyarrow; or write a .csv") from None
    except (ValueError, NotImplementedError, OverflowError, TypeError) as error:
        raise UserError(
            f"Parquet has no room for this: {printable(error)[:200]}; write a .csv"
        ) from None


def _with_number_type(values: Values) -> Values:
    """The column as Int64 or Float64 if texts of a file are numbers, with decimal commas too."""
    found = as_numbers(values)
    if not found or found[1] not in (".", ","):
        return values
    texts = [t.strip().replace("−", "-").replace(",", ".") for t in values.texts]
    if not all(re.fullmatch(r"[+-]?\d+", t) for t in texts):
        return values._replace(texts=texts, dtype="Float64")
    fits = all(abs(int(t)) < 2**63 for t in texts)
    return values._replace(texts=texts, dtype="Int64") if fits else values


def to_array(columns: dict[str, Values], encoding: Encoding) -> np.ndarray:
    """(N, columns) of the array's own type. Raises UserError if a column is not of numbers."""
    dtype = np.dtype(encoding.form.get("dtype", "float64"))
    made = []
    for name, values in columns.items():
        try:
            texts = _with_number_type(values).texts
            numbers = [float(t == "True") if dtype.kind == "b" else float(t) for t in texts]
        except ValueError:
            if dtype.kind in "US":
                made.append(np.array([*values.texts, ""])[values.codes])
                continue
            raise UserError(f"{name}: not a column of numbers; write a .csv or .parquet") from None
        if (values.codes < 0).any() and dtype.kind in "biu":
            dtype = np.dtype("float64")
        made.append(np.array([*numbers, np.nan])[values.codes])
    return np.stack(made, axis=1).astype(dtype)
