"""Files of other forms that hold nothing but samples, read as if they were plain text files of them.

Commas, spaces, names in the first line, True and False, .npy, .gz ...: what reading.py understands.
"""

import shlex
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..bits.data import to_text
from ..system.errors import UserError, printable
from ..weights import beside, checked
from . import reading
from .table import Strings, Table, Values, as_bits, is_number

PREPARE = "python -m bernoulli_diffusion.prepare"
MOST_BYTES = 1 << 30  # of a file of another form, which is read as a whole


def read(path: Path, of_kind: Callable, separator: str) -> tuple:
    """What of_kind reads from a path, and what was understood in words if the form is another one.

    With the weights of a file beside it, if there is one; they count before those within the file.
    separator: what stands between the values of a sample in the kind's own files. Raises UserError: that
    of of_kind, and how to prepare a table if the file is one.
    """
    samples, understood = _read(path, of_kind, separator)
    given = beside(path, len(samples))
    samples.weights = samples.weights if given is None else given
    return samples, understood


def _read(path: Path, of_kind: Callable, separator: str) -> tuple:
    try:
        return of_kind(path), ""
    except UserError as error:
        problem = str(error)
    found = _understood(path)
    if found is None:
        raise UserError(problem)
    text = _as_text(found, separator)
    if text is None:
        if isinstance(found, Table) and len(found.columns) > 1:
            table = shlex.quote(printable(path))
            problem += f"; if this is a table, make a run folder of it: {PREPARE} {table} RUN_DIR"
        raise UserError(problem)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "samples.txt"
        plain.write_bytes(text)
        try:
            samples = of_kind(plain)
            if isinstance(found, Strings) and found.weights is not None:
                samples.weights = checked(found.weights, lambda row: f"{printable(path)}:{row + 1}")
            return samples, found.understood + _left_out(found)
        except UserError as error:
            raise UserError(str(error).replace(printable(plain), printable(path))) from None


def _understood(path: Path) -> Table | Strings | None:
    """What a file holds, if its form is known."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        return reading.read(path)
    except reading.TooLarge:
        raise
    except (OSError, UserError):
        return None


def _as_text(found: Table | Strings, separator: str) -> bytes | None:
    """The samples as their kind writes them; None if they are of no such kind."""
    if isinstance(found, Table):
        columns = _without_index(found.columns)
        bits = as_bits(columns)
        if separator and bits is None:
            return _numbers(columns, separator)
    else:
        bits = found.bits
    if bits is None:
        return None
    if separator:
        return None if (bits < 0).any() else _lines(bits.tolist(), separator)
    return to_text(np.where(bits < 0, ord("?") - ord("0"), bits).astype(np.uint8))


def _left_out(found: Table | Strings) -> str:
    is_all = isinstance(found, Strings) or len(_without_index(found.columns)) == len(found.columns)
    return "" if is_all else "; the first column numbers the rows and is left out"


def _without_index(columns: dict[str, Values]) -> list[Values]:
    """The columns but for a first one that numbers the rows, as pandas and R write it."""
    (name, first), *rest = columns.items()
    numbers = [str(i) for i in range(len(first.texts) + 1)]
    is_index = name in ("", "Unnamed: 0", "index") and first.texts in (numbers[:-1], numbers[1:])
    return [v for _, v in rest] if is_index and rest else list(columns.values())


def _numbers(columns: Iterable[Values], separator: str) -> bytes | None:
    columns = list(columns)
    if any((c.codes < 0).any() or not all(map(is_number, c.texts)) for c in columns):
        return None
    texts = [np.array(c.texts, object)[c.codes] for c in columns]
    return _lines(zip(*texts, strict=True), separator)


def _lines(rows: Iterable, separator: str) -> bytes:
    return "".join(separator.join(map(str, row)) + "\n" for row in rows).encode()
