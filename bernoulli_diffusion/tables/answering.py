"""What generate.py writes of a model of a table: records in its own columns, order and types."""

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..system.command_line import tell
from ..system.errors import UserError, printable
from . import asking, generating, reading, writing
from .encoding import Encoding
from .rules import compute, solved
from .table import Strings, Table, Values, joined

PARTICLES = 256  # of a run
FILL_PARTICLES = 64  # for each row with gaps
FEW = 16  # an effective sample size below this makes for few different answers


def encoding_of(
    checkpoint: dict, path: Path, given: str | None = None, fill: Path | None = None
) -> Encoding | None:
    """The Encoding of a checkpoint whose questions, if any, are about columns; None for bits.

    Raises UserError for a mistake in a question, before anything is built.
    """
    by_name = fill or (given and not set(given) <= set("01?"))
    if not checkpoint["columns"]:
        if fill:
            raise UserError(f"{printable(path)}: was not trained on a table; --fill needs columns")
        return None
    try:
        encoding = Encoding.of_state(checkpoint["columns"])
        if encoding.length != checkpoint["sequence_length"]:
            raise ValueError("columns of another length")
    except ValueError as error:
        raise UserError(f"{printable(path)}: not a sound checkpoint: {error}") from None
    if given is not None and not given.strip():
        raise UserError(f"--given: is empty; expected {asking.HOW}")
    if given is not None and by_name:
        asking.question(encoding, asking.parse(given))
    return encoding if by_name or given is None else None


def records(
    encoding: Encoding,
    diffusion,
    N: int,
    output: Path | None,
    given: str | None,
    fill: Path | None,
    seed: int,
    steps: int | None,
    batch_size: int | None,
    device,
    *,
    mean: bool,
    particles: int | None,
) -> Iterator[bytes]:
    """Records as the table's own file was written, or as the ending of output says."""
    at_once = batch_size or 4096
    form = None
    if fill:
        grid = steps or generating.BIT_STEPS
        particles = particles or FILL_PARTICLES
        columns, form = filled(encoding, diffusion, fill, N, seed, particles, grid, at_once, mean)
        pieces = iter([columns])
    elif given is not None:
        particles = particles or PARTICLES
        pieces = iter([conditional(encoding, diffusion, given, N, seed, particles, steps, at_once)])
    else:
        grid = steps or generating.STEPS
        pieces = samples(encoding, diffusion, N, seed, grid, batch_size or 1024, device)
    return written(pieces, encoding, output, form)


def samples(
    encoding: Encoding, diffusion, N: int, seed: int, steps: int | None, batch_size: int, device
) -> Iterator[dict[str, Values]]:
    """N records, piece by piece."""
    done = 0
    for records in generating.sample_records(
        encoding, diffusion, range(N), seed, steps, batch_size, device
    ):
        yield encoding.texts(records.codes, records.u, done)
        done += len(records.codes)


def conditional(
    encoding: Encoding, diffusion, text: str, N: int, seed: int, particles: int, steps, batch_size
) -> dict[str, Values]:
    """N records that fulfil 'a=1, b>=2'; tells how probable that is and how good the draws are."""
    question = asking.question(encoding, asking.parse(text))
    what = "what is asked for has"
    if not question.is_all_in_bits(encoding):
        what = "of what is asked for, the part that bits can say has"
    found = generating.answer(encoding, diffusion, question, N, seed, particles, steps, batch_size)
    tell(
        f"{what} -log2 p = {0.0 - found.log_evidence / math.log(2):,.2f} under the model;"
        f" effective sample size {found.effective_sample_size:,.0f} of {particles:,} particles;"
        f" {found.ancestors:,} ancestors of {N:,} records"
    )
    if found.effective_sample_size < FEW:
        more = max(16 * particles, 4096)
        tell(f"warning: the records are not to be relied on; try --particles {more}")
    return found.columns


def filled(
    encoding: Encoding,
    diffusion,
    path: Path,
    N: int,
    seed: int,
    particles: int,
    steps: int | None,
    batch_size: int,
    with_mean: bool,
) -> tuple[dict[str, Values], dict]:
    """The table in a file, each row N times, with its gaps drawn; and the form of the file.

    with_mean: each row once, with the most probable value in each gap, and behind all columns the
    probabilities of these values. Raises UserError if the file does not fit the model.
    """
    table = reading.read_like(encoding.form, path)
    if isinstance(table, Strings):
        raise UserError(f"{printable(path)}: has no names of columns in its first line")
    known = {c.name for c in encoding.columns}
    if not known & set(table.columns):
        names = ", ".join(c.name for c in encoding.columns)
        raise UserError(
            f"{printable(path)}: has none of the model's columns, {printable(names)[:300]}"
        )
    table = solved(encoding.columns, table)
    if with_mean:
        N = 1
    try:
        rows = generating.fill(encoding, diffusion, table, N, seed, particles, steps, batch_size)
        found = list(tqdm(rows, total=len(table), unit="row", disable=None, leave=False))
    except UserError as error:
        raise UserError(f"{printable(path)}: {error}") from None
    poor = sum(row.effective_sample_size < FEW for row in found)
    if poor:
        tell(
            f"warning: {poor:,} of {len(found):,} rows hold what is all but impossible under the model,"
            f" or need more --particles than {particles:,}"
        )
    if with_mean:
        codes = np.stack([row.best for row in found])
        u = np.full(codes.shape, 0.5)
    else:
        codes, u = (np.concatenate([getattr(row, k) for row in found]) for k in ("codes", "u"))
    return put_in(encoding, table, codes, u, N, found if with_mean else None), table.form


def put_in(
    encoding: Encoding, table: Table, codes: np.ndarray, u: np.ndarray, N: int, found=None
) -> dict[str, Values]:
    """The table's columns, each row N times, with what was drawn in their gaps.

    What was there stays as it was. found: Filled rows, whose probabilities go into columns of their own.
    """
    drawn = encoding.texts(codes, u)
    made: dict[str, Values] = {}
    for name, values in table.columns.items():
        given = values._replace(codes=np.repeat(values.codes, N))
        new = drawn.get(name)
        if new is None:  # an id, or a column that the model does not know
            made[name] = given
            continue
        texts = list(dict.fromkeys([*given.texts, *new.texts]))
        both = np.where(given.codes < 0, new.codes_among(texts), given.codes_among(texts))
        made[name] = given._replace(texts=texts, codes=both)
    for column in encoding.columns:  # a computed column follows what its sources are now
        if column.type == "determined" and column.name in table.columns:
            if not set(column.sources) <= set(made):
                continue
            values = made[column.name]
            gaps = np.flatnonzero(np.repeat(table.columns[column.name].codes, N) < 0)
            new = compute(column, [[made[s].text(r) for r in gaps] for s in column.sources])
            new = Values.of(new)
            texts = list(dict.fromkeys([*values.texts, *new.texts]))
            codes = values.codes_among(texts)
            codes[gaps] = new.codes_among(texts)
            made[column.name] = values._replace(texts=texts, codes=codes)
    if found is not None:
        for g, column in enumerate(encoding.coded):
            if column.name in table.columns and (table.columns[column.name].codes < 0).any():
                gap = table.columns[column.name].codes < 0
                p = [f"{row.probability[g]:.4g}" for row in found]
                made[f"P({column.name})"] = Values(p, np.where(gap, np.arange(len(p)), -1))
    return made


def written(
    pieces: Iterator[dict[str, Values]], encoding: Encoding, output: Path | None, form=None
):
    """Records as the bytes of the file, by its name: CSV piece by piece, Parquet or .npy as a whole."""
    form = form or encoding.form
    kind = writing.form_of(output)
    separator = "\t" if output is not None and output.suffix.lower() == ".tsv" else ""
    if kind == "text":
        for number, columns in enumerate(pieces):
            yield writing.to_text(columns, form, number == 0, separator)
        return
    pieces = list(pieces)
    columns = {n: joined([piece[n] for piece in pieces]) for n in pieces[0]}
    stream = io.BytesIO()
    if kind == "parquet":
        writing.to_parquet(columns, encoding, stream)
    else:
        np.save(stream, writing.to_array(columns, encoding))
    yield stream.getvalue()
