"""pandas DataFrames -> Tables and back, each column with its own type. Needs pandas."""

import ast
import json
from datetime import date, datetime, time
from decimal import Decimal

import numpy as np

from ..system.errors import UserError, printable
from .table import Table, Values, plural

CURE = "take this column out, or turn its values into text or numbers"
# what pandas keeps as objects, by the name of the type: to text and back
OBJECTS = {
    "date": (date, date.isoformat, date.fromisoformat),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "decimal": (Decimal, str, Decimal),
}


def import_pandas(what: str):
    """pandas. Raises UserError with what needs it and how to get it."""
    try:
        import pandas
    except ImportError:
        raise UserError(
            f"{what} needs pandas: pip install 'bernoulli-diffusion[tables]', or save it as CSV"
        ) from None
    return pandas


def read_frame(frame, what: str = "a DataFrame", file: str = "") -> Table:
    """The columns of a DataFrame as text, each with the name of its type. Its index is left out.

    what, file: whence it is, in words, and for errors. Raises UserError.
    """
    place = file or what
    if getattr(frame.columns, "nlevels", 1) > 1:
        raise UserError(f"{place}: its column names have levels; flatten them first")
    names = [str(n) for n in frame.columns]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{place}: two columns are called {name!r}; give each a name of its own"
            )
    if not len(frame) or not names:
        raise UserError(f"{place}: {len(frame):,} rows, {len(names)} columns; there must be some")
    columns = {
        n: read_series(frame.iloc[:, i], f"{place}: {printable(n)}") for i, n in enumerate(names)
    }
    form = {"kind": "frame", "separator": ",", "header": True}
    if any(type(n) is not str for n in frame.columns):
        form["names"] = [_literal(n) for n in frame.columns]
        for label, text in zip(frame.columns, form["names"], strict=True):
            if not _is_literal(text, label):
                kind = type(label).__name__
                raise UserError(f"{place}: the name {label} is a {kind}; make the names text")
    rows, width = plural(len(frame), "row"), plural(len(names), "column")
    return Table(columns, f"{what}, {rows}, {width}", form)


def read_series(series, place: str) -> Values:
    """The values of a Series. Raises UserError for what is no plain value (lists, intervals)."""
    pandas = import_pandas(place)
    if isinstance(series.dtype, pandas.SparseDtype):
        series = series.astype(series.dtype.subtype)
    try:
        codes, different = pandas.factorize(series)
    except TypeError:
        raise UserError(f"{place}: holds lists or the like; {CURE}") from None
    dtype = series.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        inner, texts = _texts(dtype.categories, place)
        of = {"category": texts, "of": inner, "ordered": bool(dtype.ordered)}
        place_of = {v: i for i, v in enumerate(dtype.categories)}
        texts = [texts[place_of[v]] for v in list(different)]
        return Values(texts, codes.astype(np.int64), json.dumps(of))
    if dtype == np.float16:  # of which pandas has no index
        different = np.asarray(different, np.float16)
    name, texts = _texts(pandas.Series(different, dtype=dtype), place)
    return Values(texts, codes.astype(np.int64), name)


def _texts(values, place: str) -> tuple[str, list[str]]:
    """The name of a type that can be made from text again, and the different values as text."""
    pandas = import_pandas(place)
    dtype, values = values.dtype, list(values)
    kind = getattr(dtype, "kind", "O")
    if kind in "Mm":
        return str(dtype), [v.isoformat() for v in values]
    if isinstance(dtype, pandas.PeriodDtype):
        return str(dtype), [str(v) for v in values]
    if kind in "biuf":
        return str(dtype), [str(v.item() if hasattr(v, "item") else v) for v in values]
    if kind == "c":
        return str(dtype), [str(complex(v)) for v in values]
    if all(type(v) is str for v in values):
        return str(dtype), values
    for name, (kind, to_text, _) in OBJECTS.items():
        if all(type(v) is kind for v in values):
            return name, [to_text(v) for v in values]
    texts = [_literal(v) for v in values]
    if all(map(_is_literal, texts, values)):
        return "literal", texts
    odd = next((v for v in values if type(v) is not str), values[0])
    raise UserError(f"{place}: holds {type(odd).__name__} values; {CURE}")


def _literal(value) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


def _is_literal(text: str, value) -> bool:
    """Whether a text is Python's own for a value."""
    try:
        return ast.literal_eval(text) == value
    except (ValueError, SyntaxError):
        return False


def to_series(texts: list[str], codes: np.ndarray, dtype: str):
    """A Series of the type that dtype names: texts[codes], missing where a code is -1."""
    pandas = import_pandas("a DataFrame")
    if dtype.startswith("{"):
        of = json.loads(dtype)
        everything = np.arange(len(of["category"]))
        categories = to_series(of["category"], everything, of["of"])
        place = {t: i for i, t in enumerate(of["category"])}
        number = np.array([place[t] for t in texts] + [-1], np.int64)
        made = pandas.Categorical.from_codes(
            number[codes], categories=pandas.Index(categories), ordered=of["ordered"]
        )
        return pandas.Series(made)
    if dtype in OBJECTS:
        values = [OBJECTS[dtype][2](t) for t in texts]
    elif dtype == "literal":
        values = [ast.literal_eval(t) for t in texts]
    elif dtype.startswith("datetime64") or "timestamp" in dtype:
        values = [pandas.Timestamp(t) for t in texts]
    elif dtype.startswith("timedelta64") or "duration" in dtype:
        values = [pandas.Timedelta(t) for t in texts]
    elif dtype.startswith("period"):
        values = [pandas.Period(t, freq=dtype[7:-1]) for t in texts]
    elif dtype.lower().startswith("bool"):
        values = [t == "True" for t in texts]
    elif dtype.lower().startswith(("int", "uint")):
        values = [int(t) for t in texts]
    elif dtype.lower().startswith(("float", "double")):
        values = [float(t) for t in texts]
    elif dtype.startswith("complex"):
        values = [complex(t) for t in texts]
    else:
        values = texts
    gaps = codes < 0
    as_dtype = "object" if dtype in ("", "literal", *OBJECTS) else dtype
    different = pandas.Series(values, dtype=as_dtype)
    if not len(values):
        return pandas.Series([None] * len(codes), dtype=as_dtype)
    made = different.iloc[np.where(gaps, 0, codes)].reset_index(drop=True)
    if gaps.any():
        if isinstance(made.dtype, np.dtype) and made.dtype.kind in "iub":
            made = made.astype("object")  # a gap where there was none: no such type has room for it
        made[gaps] = None
    return made


def to_frame(columns: dict[str, tuple[list[str], np.ndarray, str]], names: list[str] | None):
    """A DataFrame of columns by name, each (texts, codes, dtype). names: literals of its labels."""
    pandas = import_pandas("a DataFrame")
    made = [to_series(*column) for column in columns.values()]
    frame = pandas.concat(made, axis=1) if made else pandas.DataFrame()
    frame.columns = [ast.literal_eval(n) for n in names] if names else list(columns)
    return frame
