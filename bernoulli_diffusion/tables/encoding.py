"""Encoding: a table's records <-> strings of bits, by its columns."""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np

from ..system.errors import UserError, cannot_open, printable
from .columns import Column, column_of
from .rules import compute
from .table import Table, Values

FORMAT_VERSION = 1
FILE = "encoding.json"  # in a run folder, made by prepare with columns.yaml, which is for people


class Encoding:
    """The columns of a table, in its order, and where each has its bits.

    form: how the file was written (table.Table). length: L, bits of a record.
    """

    def __init__(self, columns: list[Column], form: dict | None = None):
        self.columns, self.form = columns, form or {"separator": ",", "header": True}
        self.coded = [c for c in columns if c.has_bits]
        ends = list(itertools.accumulate((c.width for c in self.coded), initial=0))
        self.slices = [slice(a, b) for a, b in itertools.pairwise(ends)]
        self.length = ends[-1]

    def layout(self) -> list[str]:
        """What the bits of each column are, in the words of networks/columns.py: "thermometer 4 gap"."""
        kinds = ("one-hot" if c.is_one_hot else "thermometer" for c in self.coded)
        sizes = (c.width - c.has_missing_code for c in self.coded)
        gaps = (" gap" if c.has_missing_code else "" for c in self.coded)
        return [f"{kind} {n}{gap}" for kind, n, gap in zip(kinds, sizes, gaps, strict=True)]

    def column(self, name: str) -> Column:
        """The column of that name. Raises UserError with the names that there are."""
        for column in self.columns:
            if column.name == name:
                return column
        names = ", ".join(c.name for c in self.columns)
        raise UserError(f"there is no column {name!r}; there are {names[:300]}")

    # --- as plain Python, for checkpoints

    def state(self) -> dict:
        return {
            "format_version": FORMAT_VERSION,
            "form": dict(self.form),
            "columns": [c.state() for c in self.columns],
        }

    @classmethod
    def of_state(cls, state: object) -> "Encoding":
        """Raises ValueError if the state is not sound."""
        if not isinstance(state, dict) or state.get("format_version") != FORMAT_VERSION:
            raise ValueError("columns of another version of this program")
        form, columns = state.get("form"), state.get("columns")
        if not isinstance(form, dict) or not isinstance(columns, list) or not columns:
            raise ValueError("columns are not sound")
        made = cls([column_of(c) for c in columns], form)
        names = {c.name for c in made.coded}
        for column in made.columns:
            if column.type == "determined" and not set(column.sources) <= names:
                raise ValueError(f"the column {column.name!r} is determined by one without bits")
        if len({c.name for c in made.columns}) < len(made.columns):
            raise ValueError("two columns of one name")
        return made

    def to_json(self, description: bytes = b"", command: str = "") -> bytes:
        """The text of encoding.json. description: of columns.yaml; command: what makes both."""
        whole = {
            "about": "columns.yaml for the program, made by prepare: edit that one",
            "description_sha256": hashlib.sha256(description).hexdigest(),
            "command": command,
            **self.state(),
        }
        return (json.dumps(whole, ensure_ascii=False) + "\n").encode()

    # --- records -> bits

    def codes(self, table: Table, unseen: dict[str, str] | None = None) -> np.ndarray:
        """(N, number of coded columns) int64: each value's code, -1 where it is unknown.

        A column that the table lacks is unknown. Values that were never seen are unknown too, and
        are put into unseen, {column: one of them}; with None they are an error (UserError).
        """
        codes = np.full((len(table), len(self.coded)), -1, np.int64)
        for j, column in enumerate(self.coded):
            if (values := table.columns.get(column.name)) is None:
                continue
            of_text = [column.code_of(t) for t in values.texts]
            if None in of_text:
                odd = values.texts[of_text.index(None)]
                if unseen is None:
                    row = int(np.argmax(values.codes == of_text.index(None))) + 1
                    raise UserError(
                        f"record {row:,}: {printable(column.name)} was never {printable(odd)!r} in"
                        " training"
                    )
                unseen[column.name] = odd
            gap = len(column.texts) if column.has_missing_code else -1
            number = np.array([-1 if c is None else c for c in of_text] + [gap], np.int64)
            codes[:, j] = number[values.codes]
        return codes

    def bits(self, codes: np.ndarray) -> np.ndarray:
        """Codes (N, G), -1 unknown -> (N, L) int8 of 0, 1, and -1 for an unknown bit."""
        bits = np.empty((len(codes), self.length), np.int8)
        for j, (column, place) in enumerate(zip(self.coded, self.slices, strict=True)):
            patterns = column.patterns().astype(np.int8)
            patterns = np.concatenate([patterns, np.full((1, column.width), -1, np.int8)])
            bits[:, place] = patterns[codes[:, j]]
        return bits

    def encode(self, table: Table, unseen: dict[str, str] | None = None) -> np.ndarray:
        """(N, L) int8 of 0, 1, and -1 for unknown."""
        return self.bits(self.codes(table, unseen))

    # --- bits -> records

    def codes_of_bits(self, bits: np.ndarray) -> np.ndarray:
        """(N, L) of 0 and 1 -> (N, G) codes, -1 where the bits of a column are no code's."""
        codes = np.empty((len(bits), len(self.coded)), np.int64)
        for j, (column, place) in enumerate(zip(self.coded, self.slices, strict=True)):
            part = bits[:, place].astype(np.int64)
            k = len(column.texts)
            ladder = part[:, : part.shape[1] - column.has_missing_code]
            total = ladder.sum(axis=1)
            if column.is_one_hot:
                code = np.where(total == 1, ladder.argmax(axis=1) if ladder.shape[1] else 0, -1)
            else:
                rising = (np.diff(ladder, axis=1) <= 0).all(axis=1)
                code = np.where(rising, total, -1)
            if column.has_missing_code:
                gap = part[:, -1] == 1
                code = np.where(gap, np.where(total == 0, k, -1), code)
            codes[:, j] = code
        return codes

    def texts(self, codes: np.ndarray, u: np.ndarray, first: int = 0) -> dict[str, Values]:
        """The columns of records, in the table's order; those left out are not there.

        codes: (N, G), all valid; u: (N, G) uniform on [0, 1), which of a code's texts is drawn;
        first: the number of the first record, from which rows are counted.
        """
        N = len(codes)
        drawn = {c.name: _draw(c, codes[:, j], u[:, j]) for j, c in enumerate(self.coded)}
        made = {}
        for column in self.columns:
            if column.has_bits:
                made[column.name] = drawn[column.name]
            elif column.type == "constant":
                texts = [t for ts in column.texts for t in ts]
                codes_ = np.full(N, 0 if texts else -1, np.int64)
                made[column.name] = Values(texts, codes_, column.dtype, column.missing_text)
            elif column.type == "row number":
                texts = [str(column.start + first + i) for i in range(N)]
                made[column.name] = Values(texts, np.arange(N), column.dtype, "")
            elif column.type == "determined":
                made[column.name] = _computed(column, [drawn[s] for s in column.sources])
        return made


def read_columns(run_dir: Path, length: int) -> dict:
    """The state of the Encoding in a run folder, whose strings have the length; {} if it has none.

    Raises UserError if it does not fit train.txt, or columns.yaml was edited since.
    """
    path = run_dir / FILE
    if not path.exists():
        return {}
    try:
        whole = json.loads(path.read_bytes())
        keys = ("format_version", "form", "columns")
        encoding = Encoding.of_state({key: whole[key] for key in keys})
        made_from, command = whole["description_sha256"], str(whole["command"])
    except OSError as error:
        raise cannot_open(printable(path), error) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{printable(path)}: not sound ({printable(error)}); run prepare again"
        ) from None
    if encoding.length != length:
        raise UserError(
            f"{printable(run_dir / 'train.txt')}: strings of {length} bits, but {FILE} describes"
            f" {encoding.length}; run prepare again, or remove {FILE}: {printable(command)}"
        )
    yaml = run_dir / "columns.yaml"
    if yaml.exists() and hashlib.sha256(yaml.read_bytes()).hexdigest() != made_from:
        raise UserError(
            f"{printable(yaml)}: was edited after train.txt was made; make it again:"
            f" {printable(command)}"
        )
    return encoding.state()


def _draw(column: Column, code: np.ndarray, u: np.ndarray) -> Values:
    """For each row one of its code's texts, as often as they stand in the training rows."""
    pools = [np.array(c, float) / sum(c) for c in column.counts]
    texts = [t for ts in column.texts for t in ts]
    # the pools end to end, each of length 1
    ends = np.concatenate([i + p.cumsum() for i, p in enumerate(pools)])
    sizes = np.array([len(p) for p in pools])
    last = sizes.cumsum() - 1
    gap = code >= len(pools)
    code = np.where(gap, 0, code)
    place = np.minimum(np.searchsorted(ends, code + u, "right"), last[code])
    return Values(texts, np.where(gap, -1, place), column.dtype, column.missing_text)


def _computed(column: Column, sources: list[Values]) -> Values:
    """A determined column. Computed once for each combination of its sources' values."""
    key = np.zeros(len(sources[0].codes), np.int64)
    for source in sources:
        key = key * (len(source.texts) + 1) + source.codes + 1
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    texts = compute(column, [[s.text(row) for row in first] for s in sources])
    different = Values.of(texts, column.dtype, column.missing_text)
    return different._replace(codes=different.codes[number])
