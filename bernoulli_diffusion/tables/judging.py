"""How probable records are: a table's rows as strings for evaluate, and what is odd about each."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..bits.data import BitStrings
from ..diffusion import Diffusion
from ..noise import Noise, derive_seed
from ..system.command_line import tell
from ..system.errors import UserError, printable
from .columns import Column
from .encoding import Encoding
from .reading import read_like
from .table import Strings, Values, weights_of

DRAWS = 128  # times t of a record, from which its columns' bits are told
SURE = 1e4  # log-odds that leave a bit no cost
EXPLAINING = 31  # stream of random numbers derived from a seed


def read_records(encoding: Encoding, path: Path) -> BitStrings:
    """The rows of a table as the strings that the model is about.

    A gap where there was none in training is bits that are unknown, a number that was never seen there
    counts as the nearest one, which is told.
    Raises UserError for a column that is missing, and for a level that was never seen in training.
    """
    table = read_like(encoding.form, path)
    place, weights = printable(path), None
    if isinstance(table, Strings):
        bits, weights = table.bits, table.weights
    else:
        missing = [c.name for c in encoding.coded if c.name not in table.columns]
        if missing:
            raise UserError(f"{place}: there is no column {printable(missing[0])!r}")
        for column in encoding.coded:
            values = table.columns[column.name]
            for i, text in enumerate(values.texts):
                if column.code_of(text) is None:
                    row = int(np.argmax(values.codes == i)) + 1
                    raise UserError(
                        f"{place}: record {row}: {printable(column.name)} was never"
                        f" {printable(text)!r} in training, so the record has no probability; take it out"
                    )
            _tell_unseen(column, values, place)
        bits = encoding.encode(table)
        for column in encoding.columns:
            if column.type == "weight" and column.name in table.columns:
                said = f"{place}: {printable(column.name)}"
                weights = weights_of(table.columns[column.name], said)
    if bits.shape[1] != encoding.length:
        raise UserError(
            f"{place}: strings of {bits.shape[1]} bits, but the model's have {encoding.length}"
        )
    strings = BitStrings.from_bits(bits)
    strings.weights = weights
    return strings


def _tell_unseen(column: Column, values: Values, place: str) -> None:
    """How many rows have a number that was not in training, where each has a code of its own."""
    if not column.numbers or column.is_binned():
        return
    unseen = [i for i, t in enumerate(values.texts) if column.number(t) not in column.numbers]
    if unseen:
        rows = int(np.isin(values.codes, unseen).sum())
        tell(
            f"note: {place}: {printable(column.name)}: {rows:,} of {len(values.codes):,} rows hold a"
            f" value not seen in training, such as {printable(values.texts[unseen[0]])}; the nearest one"
            " counts"
        )


@torch.inference_mode()
def bits_of_columns(
    encoding: Encoding, diffusion: Diffusion, strings: BitStrings, seed: int
) -> Iterator[np.ndarray]:
    """How many bits each column takes of each record's bound: blocks of (n, G), whose rows sum to it.

    The bound is a sum over bits as well as over times; here the terms of a column's bits are added.
    A column that others tell takes few, so many bits say that it does not fit the others.
    """
    process, device = diffusion.process, diffusion.process.alpha.device
    G, L = len(encoding.coded), encoding.length
    of_column = torch.zeros(G, L, dtype=torch.bool, device=device)
    for g, place in enumerate(encoding.slices):
        of_column[g, place] = True
    block = max(1, (1 << 21) // (DRAWS * L))
    for first in range(0, len(strings), block):
        x_0 = strings.tensor(slice(first, first + block), device)
        n = len(x_0)
        number = torch.arange(first * DRAWS, (first + n) * DRAWS, device=device)
        u = Noise(derive_seed(seed, EXPLAINING), number, L + 1).uniform(0)
        stratum = (number % DRAWS).to(process.alpha.dtype)
        t, probability = process.times((stratum + u[:, 0].to(process.alpha.dtype)) / DRAWS)
        x_0 = x_0.repeat_interleave(DRAWS, dim=0)
        x_t = process.sample_x_t(x_0, t, u[:, 1:].contiguous())
        logits = diffusion.reverse_model(x_t, t).float()
        terms = [_term(process, x_0, x_t, logits, t, own) / probability for own in of_column]
        yield torch.stack(terms, dim=1).view(n, DRAWS, G).double().mean(dim=1).cpu().numpy()


def _term(process, x_0: Tensor, x_t: Tensor, logits: Tensor, t: Tensor, own: Tensor) -> Tensor:
    """The step's divergence of some of the bits: of the others the truth is known, at no cost."""
    known = torch.where(own, logits, (2 * x_0 - 1) * SURE)
    return process.step_divergence(x_0, x_t, known, t, t - 1)


def explanation(encoding: Encoding, parts: Iterator[np.ndarray]) -> Iterator[str]:
    """Lines of a table, tab-separated: each record's bits by column, and the odd one among them.

    Odd is the column that takes most bits beyond what it takes in the middle of the file's records.
    """
    bits = np.concatenate(list(parts))  # (N, G)
    beyond = bits - np.median(bits, axis=0)
    names = [printable(c.name).replace("\t", " ") for c in encoding.coded]
    yield "\t".join(["record", "odd_column", "bits_beyond_usual", "bits", *names]) + "\n"
    for number, (row, extra) in enumerate(zip(bits, beyond, strict=True), 1):
        g = int(extra.argmax())
        values = [f"{extra[g]:.4g}", f"{row.sum():.5g}", *(f"{v:.4g}" for v in row)]
        yield "\t".join([str(number), names[g], *values]) + "\n"
