"""From a table to a run folder: its rows as strings of bits, split, and what was decided beside them."""

import math
import shlex
from pathlib import Path

import numpy as np

from .. import weights
from ..system.command_line import tell
from ..system.errors import RunError, UserError, printable
from ..system.files import write_atomically
from . import description, reading
from .finding import LEVELS
from .planning import as_counts, joined, plan
from .table import Strings, Table, plural, weights_of

PARTS = ("train", "val", "test")
MADE = (*(f"{part}.txt" for part in PARTS), *(weights.FILES[part] for part in PARTS))


def prepare(
    file: Path,
    run_dir: Path,
    *,
    val: float | Path = 0.1,
    test: float | Path = 0.0,
    seed: int = 0,
    types: dict[str, str] | None = None,
    header: bool | None = None,
    missing: list[str] | None = None,
    command: str = "",
) -> None:
    """Write train.txt, val.txt, test.txt, columns.yaml and encoding.json into run_dir.

    val, test: the share of the rows to hold out, or a file of them; command: what makes all this again.
    Nothing is written unless everything could be. Raises UserError for what the user can mend.
    """
    yaml, encoding_json = run_dir / "columns.yaml", run_dir / "encoding.json"
    if (run_dir / "train.txt").exists() and not encoding_json.exists():
        raise UserError(
            f"{printable(run_dir / 'train.txt')}: was not made from a table; name another RUN_DIR, or"
            " remove it"
        )
    sources = [file, *(p for p in (val, test) if isinstance(p, Path))]
    tables = [reading.read(source, header, missing or ()) for source in sources]
    are_strings = [isinstance(t, Strings) for t in tables]
    if any(are_strings) and not all(are_strings):
        raise UserError(f"{printable(file)} and the held-out files have different forms")
    parts = split([len(t) for t in tables], val, test, seed)
    for source, table in zip(sources, tables, strict=True):
        tell(f"{printable(source)}: {table.understood}")
    written: dict[str, bytes] = {}
    if all(are_strings):
        if types:
            raise UserError(
                f"{printable(file)}: holds bits without names of columns; --as and --drop need names"
            )
        if len({t.bits.shape[1] for t in tables}) > 1:
            raise UserError("the files have strings of different lengths")
        bits = np.concatenate([t.bits for t in tables])
        counts = _weights_of_strings(tables, sources)
    else:
        table = joined(tables)
        if missing:
            table.form["missing"] = list(missing)
        wishes = _wishes(yaml, types or {})
        counts = _weights_of_rows(table, wishes, file)
        encoding = _encoding(table, parts["train"], wishes, counts, file)
        bits = encoding.encode(table)
        for column in encoding.columns:
            tell(f"  {printable(column.name)}: {column.type}, {printable(column.reason)}")
        size = f"{plural(len(table), 'row')}, {plural(len(table.columns), 'column')} -> "
        size += plural(encoding.length, "bit")
        tell(size)
        what = f"{file.name}: {table.understood}"
        written["columns.yaml"] = description.write(encoding, what, size, command, LEVELS)
        written["encoding.json"] = encoding.to_json(written["columns.yaml"], command)
    written |= {f"{name}.txt": to_lines(bits[rows]) for name, rows in parts.items() if len(rows)}
    if counts is not None:
        tell(weights.in_words(counts))
        for name, rows in parts.items():
            if len(rows):
                written[weights.FILES[name]] = "".join(f"{w:.17g}\n" for w in counts[rows]).encode()
                weights.checked(counts[rows], lambda _row, name=name: f"the rows of {name}.txt")
    _write(run_dir, written)
    lines = ", ".join(f"{name}.txt {len(rows):,}" for name, rows in parts.items() if len(rows))
    tell(f"wrote {lines} lines of {plural(bits.shape[1], 'bit')}")
    if "columns.yaml" in written:
        tell(f"decided {yaml}; edit it and run the same command again to decide otherwise")
    tell(f"next    python train.py {shlex.quote(str(run_dir))}")


def _weights_of_strings(tables: list[Strings], sources: list[Path]) -> np.ndarray | None:
    """(N,) of all files' strings; None if none has any, or all are equal."""
    if all(table.weights is None for table in tables):
        return None
    given = [np.ones(len(t)) if t.weights is None else t.weights for t in tables]
    return weights.checked(
        np.concatenate(given), lambda row: f"{printable(sources[0])}: string {row + 1}"
    )


def _wishes(yaml: Path, types: dict[str, str]) -> dict[str, description.Wish]:
    """What columns.yaml and --as, --drop and --weights ask for."""
    wishes = description.read(yaml) if yaml.exists() else {}
    for name, type_ in types.items():
        wishes[name] = wishes.get(name, description.Wish())._replace(type=type_)
        if type_ == "weight":  # another one than before
            for other in wishes.keys() - {name}:
                if wishes[other].type == "weight":
                    wishes[other] = wishes[other]._replace(type=None)
    return wishes


def _weights_of_rows(table: Table, wishes: dict, file: Path) -> np.ndarray | None:
    """(N,) from the column that is asked for as the weight; None without, or if all are equal."""
    names = [n for n, wish in wishes.items() if wish.type == "weight" and n in table.columns]
    if not names:
        return None  # a name that is not there is told when the table is planned
    if len(names) > 1:
        raise UserError(
            f"{printable(file)}: {' and '.join(map(printable, names))} are both weights; a row has one"
        )
    return weights_of(table.columns[names[0]], f"{printable(file)}: {printable(names[0])}")


def _encoding(table: Table, rows: np.ndarray, wishes: dict, counts, file: Path):
    """The Encoding of a table by its training rows, which have these weights or none, as is wished."""
    train = np.zeros(len(table))
    train[rows] = as_counts(None if counts is None else counts[rows], len(rows))
    try:
        return plan(table, train, wishes)
    except UserError as error:
        raise UserError(f"{printable(file)}: {error}") from None


def _write(run_dir: Path, written: dict[str, bytes]) -> None:
    """The files into run_dir, in their order."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        for name in MADE:  # of an earlier time, with other columns
            if name not in written and (run_dir / "encoding.json").exists():
                (run_dir / name).unlink(missing_ok=True)
        for name, data in written.items():
            write_atomically(run_dir / name, data)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{printable(run_dir)}: this is a file, expected a folder") from None
    except OSError as error:
        raise RunError(f"{printable(run_dir)}: {error.strerror or error}") from None


def split(sizes: list[int], val: float | Path, test: float | Path, seed: int) -> dict:
    """{"train", "val", "test"}: numbers of the rows of each, in their order.

    sizes: rows of the file, and of those that val and test name. Raises UserError.
    """
    N, held_out = sizes[0], sizes[1:]
    order = np.random.default_rng(seed).permutation(N)
    parts, first, taken = {}, N, 0
    for name, source in (("val", val), ("test", test)):
        if isinstance(source, Path):
            rows = held_out.pop(0)
            parts[name] = np.arange(first, first + rows)
            first += rows
        else:
            rows = math.floor(source * N + 0.5)
            parts[name] = np.sort(order[taken : taken + rows])
            taken += rows
    if taken >= N:
        raise UserError(f"of {N:,} rows none is left to train on; lower --val and --test")
    return {"train": np.sort(order[taken:]), **parts}


def to_lines(bits) -> bytes:
    """(N, L) int8 of 0, 1 and -1 -> lines of 0, 1 and ?."""
    lines = np.full((bits.shape[0], bits.shape[1] + 1), ord("\n"), np.uint8)
    lines[:, :-1] = np.where(bits < 0, ord("?"), bits + ord("0"))
    return lines.tobytes()
