"""Records from a trained model: samples, answers to questions by name, gaps filled in.

None is invalid. Samples are drawn column by column (by_columns). Answers are drawn bit by bit, by
particles; where the bits of a column come out as no code, the column is drawn again from what the
denoiser says at the last time before 0, as a whole (valid.py).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ..conditioning import conditional_samples
from ..diffusion import Diffusion
from ..noise import Noise, derive_seed
from ..sampling import descend, grid_times
from ..system.errors import RunError
from .asking import Question, all_fit, fits
from .encoding import Encoding
from .table import Table, Values, joined
from .valid import Groups

STEPS, POWER = 32, 2  # of by_columns, and of its grid; docs/tables.md has what others give
BIT_STEPS = 64  # of particles, whose bits are drawn one by one
ROUNDS = 20  # of drawing again what does not fulfil a question
WALKING, REDRAWING, TEXTS, ACCEPTING, COLUMNS = range(
    21, 26
)  # streams of random numbers from one seed


class Records(NamedTuple):
    """codes: (n, G), all valid; u: (n, G) uniform, which of a code's texts is meant."""

    codes: np.ndarray
    u: np.ndarray


def sample_records(
    encoding: Encoding,
    diffusion: Diffusion,
    rows: range,
    seed: int,
    steps: int | None = STEPS,
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
) -> Iterator[Records]:
    """Records number rows.start .. rows.stop - 1 of this seed, in batches.

    steps: network calls of each batch; None: as many as the model has steps.
    """
    groups, times = Groups(encoding, device), grid_times(diffusion.T, steps or diffusion.T, POWER)
    for first in range(rows.start, rows.stop, batch_size):
        numbers = torch.arange(first, min(first + batch_size, rows.stop), device=device)
        codes = by_columns(diffusion, groups, seed, numbers, times)
        yield _records(codes, numbers, seed)


@torch.inference_mode()
def by_columns(
    diffusion: Diffusion, groups: Groups, seed: int, numbers: torch.Tensor, times: list[int]
) -> torch.Tensor:
    """Codes (B, G) of records by ancestral sampling in which the bits of a column are drawn together.

    A step draws a code of each column from what the denoiser says of it, x_0, and then x_r from q(x_r |
    x_t, x_0). So within a column the law is that of the network however large the steps are; with bits
    of their own it is so only in the limit of small steps. The last step ends on codes: none is invalid.
    """
    process, (G, L) = diffusion.process, (len(groups.exists), len(groups.column))
    noise, of_columns = Noise(seed, numbers, L), Noise(derive_seed(seed, COLUMNS), numbers, G)

    def step(x_t: torch.Tensor, t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        p = process.denoise(x_t, diffusion.reverse_model(x_t, t), t)
        x_0 = groups.draw_bits(p, of_columns.uniform(diffusion.T - r[0]))
        return process.posterior_step(x_t, x_0, t, r, noise.uniform(diffusion.T - r[0]))

    *_, (last, x_t) = descend(diffusion, noise, times[:-1], step)
    t = torch.full_like(numbers, last)
    p = process.denoise(x_t, diffusion.reverse_model(x_t, t), t)
    return groups.draw(groups.probabilities(p), of_columns.uniform(diffusion.T))


def _records(codes: torch.Tensor, numbers: torch.Tensor, seed: int) -> Records:
    u = Noise(derive_seed(seed, TEXTS), numbers, codes.shape[1]).uniform(0)
    return Records(codes.cpu().numpy(), u.double().cpu().numpy())


@torch.inference_mode()
def make_valid(
    encoding: Encoding,
    diffusion: Diffusion,
    groups: Groups,
    x_t: torch.Tensor,
    t: int,
    x_0: torch.Tensor,
    numbers: torch.Tensor,
    seed: int,
    allowed: torch.Tensor | None = None,
) -> Records:
    """The codes of x_0 (B, L); where there is none, or none that is allowed, one drawn given x_t.

    numbers: (B,) of the records, which with the seed say what is drawn; allowed: (B or 1, G, K) bool.
    """
    G = len(encoding.coded)
    codes = torch.from_numpy(encoding.codes_of_bits(x_0.byte().cpu().numpy())).to(x_0.device)
    wrong = codes < 0
    if allowed is not None:
        wrong |= ~allowed.expand(len(codes), -1, -1).gather(2, codes.clamp_min(0)[:, :, None])[
            :, :, 0
        ]
    rows = wrong.any(dim=1).nonzero()[:, 0]
    if len(rows):
        now = torch.full((len(rows),), t, device=x_0.device)
        x = x_t[rows]
        p = diffusion.process.denoise(x, diffusion.reverse_model(x, now), now)
        probability = groups.probabilities(p)
        if allowed is not None:
            probability = probability * allowed.expand(len(codes), -1, -1)[rows]
        u = Noise(derive_seed(seed, REDRAWING), numbers[rows], G).uniform(0)
        codes[rows] = torch.where(wrong[rows], groups.draw(probability, u), codes[rows])
    return _records(codes, numbers, seed)


class Answers(NamedTuple):
    """Records that fulfil a question, and how far they can be trusted."""

    columns: dict[str, Values]
    log_evidence: float  # nats: how probable the known bits are under the model
    effective_sample_size: float
    ancestors: int


@torch.inference_mode()
def answer(
    encoding: Encoding,
    diffusion: Diffusion,
    question: Question,
    N: int,
    seed: int,
    particles: int = 256,
    steps: int | None = None,
    batch_size: int = 4096,
) -> Answers:
    """N records that fulfil a question, by particles with the bits that it fixes as evidence.

    What bits cannot say (one of several levels, part of a bin, a product of columns) is seen to
    afterwards by drawing again, at most ROUNDS times. Raises RunError if that does not suffice.
    """
    device = diffusion.process.alpha.device
    groups = Groups(encoding, device)
    pattern = torch.from_numpy(question.pattern(encoding))[None]
    evidence = diffusion.process.evidence_of(pattern)
    allowed = torch.from_numpy(question.allowed).to(device)[None]
    most = question.share.max(axis=1)[:, None]  # (G, 1)
    made, found, wanted, first = [], 0, N, 0
    for number in range(ROUNDS):
        walking = derive_seed(seed, WALKING, number)
        [runs] = conditional_samples(
            diffusion, evidence, wanted, walking, particles, False, steps, batch_size
        )
        if number == 0:
            told = runs.log_evidence, runs.effective_sample_size, runs.ancestors
        numbers = torch.arange(first, first + wanted, device=device)
        t, x_t = _noised(diffusion, runs.samples, numbers, seed)
        records = make_valid(
            encoding, diffusion, groups, x_t, t, runs.samples, numbers, seed, allowed
        )
        # of a bin at the border, only the part that fits counts
        u = Noise(derive_seed(seed, ACCEPTING), numbers, len(encoding.coded)).uniform(0)
        each = np.arange(len(encoding.coded))
        part = question.share[each, records.codes] / most[each, 0]
        columns = encoding.texts(records.codes, _within(encoding, question, records), first)
        keep = (u.cpu().numpy() < part).all(axis=1) & all_fit(
            encoding, columns, question.conditions
        )
        made.append({n: v._replace(codes=v.codes[keep]) for n, v in columns.items()})
        found += int(keep.sum())
        if found >= N:
            whole = {n: joined([m[n] for m in made]) for n in columns}
            return Answers({n: v._replace(codes=v.codes[:N]) for n, v in whole.items()}, *told)
        first += wanted
        rate = max(found / first, 0.02)
        wanted = min(int((N - found) / rate * 1.1) + 8, 8 * N + 64)
    raise RunError(
        f"only {found:,} of {first:,} drawn records fulfil {', '.join(map(str, question.conditions))};"
        " ask for less, or for fewer records"
    )


def _within(encoding: Encoding, question: Question, records: Records) -> np.ndarray:
    """u such that, of each code's texts, one that fits is drawn."""
    u = records.u.copy()
    for g, column in enumerate(encoding.coded):
        for c in np.flatnonzero((question.share[g] > 0) & (question.share[g] < 1)):
            texts = column.texts[c]
            fit = np.ones(len(texts), bool)
            for condition in question.conditions:
                if condition.name == column.name:
                    fit &= fits(column, texts, condition)
            weight = np.array(column.counts[c], float)
            ends = (weight / weight.sum()).cumsum()
            inside = (weight * fit).cumsum() / (weight * fit).sum()
            here = records.codes[:, g] == c
            place = np.minimum(np.searchsorted(inside, u[here, g], "right"), len(texts) - 1)
            u[here, g] = ends[place] - weight[place] / weight.sum() / 2
    return u


def _noised(diffusion: Diffusion, x_0: torch.Tensor, numbers: torch.Tensor, seed: int):
    """A late time of the grid and x_0 seen there, from which an invalid column is drawn again."""
    t = grid_times(diffusion.T, min(BIT_STEPS, diffusion.T))[-2]
    now = torch.full((len(x_0),), t, device=x_0.device)
    u = Noise(derive_seed(seed, REDRAWING, t), numbers, x_0.shape[1]).uniform(0)
    return t, diffusion.process.sample_x_t(x_0, now, u)


class Filled(NamedTuple):
    """One row of a table with gaps, filled N times: codes (N, G), u (N, G); probability (G,) of the
    most probable code of each column, whose code is best (G,)."""

    codes: np.ndarray
    u: np.ndarray
    best: np.ndarray
    probability: np.ndarray
    effective_sample_size: float


@torch.inference_mode()
def fill(
    encoding: Encoding,
    diffusion: Diffusion,
    table: Table,
    N: int,
    seed: int,
    particles: int = 64,
    steps: int | None = BIT_STEPS,
    batch_size: int = 4096,
) -> Iterator[Filled]:
    """The gaps of each row of a table, drawn N times given what the row holds.

    A gap is filled with a value, also where gaps are values of their own to the model.
    """
    device = diffusion.process.alpha.device
    groups = Groups(encoding, device)
    allowed = allowed_by_rows(encoding, table)
    patterns = np.full((len(table), encoding.length), -1, np.int8)
    for g, (column, place) in enumerate(zip(encoding.coded, encoding.slices, strict=True)):
        masks, which = np.unique(allowed[:, g, : column.num_codes], axis=0, return_inverse=True)
        own = column.patterns()
        common = [np.where((own[m] == own[m][0]).all(axis=0), own[m][0], -1) for m in masks]
        patterns[:, place] = np.array(common, np.int8).reshape(len(masks), -1)[which.reshape(-1)]
    has_gaps = (allowed.sum(axis=2) > 1).any(axis=1)
    runs = iter(())
    if has_gaps.any():
        evidence = diffusion.process.evidence_of(torch.from_numpy(patterns[has_gaps]))
        runs = conditional_samples(
            diffusion, evidence, N, derive_seed(seed, WALKING), particles, False, steps, batch_size
        )
    for row in range(len(table)):
        if not has_gaps[row]:  # nothing is asked
            codes, G = allowed[row].argmax(axis=1), allowed.shape[1]
            u = np.full((N, G), 0.5)
            yield Filled(np.tile(codes, (N, 1)), u, codes, np.ones(G), float(particles))
            continue
        one = next(runs)
        numbers = torch.arange(row * N, (row + 1) * N, device=device)
        t, x_t = _noised(diffusion, one.samples, numbers, seed)
        own = torch.from_numpy(allowed[row]).to(device)[None]
        records = make_valid(encoding, diffusion, groups, x_t, t, one.samples, numbers, seed, own)
        probability = groups.probabilities(one.mean[None].float()) * own
        probability = (probability / probability.sum(dim=2, keepdim=True))[0].max(dim=1)
        yield Filled(
            records.codes,
            records.u,
            probability.indices.cpu().numpy(),
            probability.values.cpu().numpy(),
            one.effective_sample_size,
        )


def allowed_by_rows(encoding: Encoding, table: Table) -> np.ndarray:
    """(N, G, K) bool: the codes that each row of a table leaves open. Raises UserError."""
    codes = encoding.codes(table)  # a gap that is a value has a code of its own
    K = max(c.num_codes for c in encoding.coded)
    allowed = np.zeros((len(table), len(encoding.coded), K), bool)
    for g, column in enumerate(encoding.coded):
        k = len(column.texts)
        gap = (codes[:, g] < 0) | (codes[:, g] >= k)
        allowed[:, g, :k] = gap[:, None] | (np.arange(k) == codes[:, g, None])
    for column in encoding.columns:  # what is computed from another column says what that one is
        values = table.columns.get(column.name)
        if column.type != "determined" or column.rule != "lookup" or values is None:
            continue
        source = encoding.column(column.sources[0])
        g, k = encoding.coded.index(source), len(source.texts)
        of = dict(column.lookup)
        says = np.ones((len(values.texts) + 1, k), bool)
        for i, text in enumerate(values.texts):
            says[i] = [any(of.get(t) == text for t in texts) for texts in source.texts]
        fits_too = allowed[:, g, :k] & says[values.codes]
        allowed[:, g, :k] = np.where(
            fits_too.any(axis=1, keepdims=True), fits_too, allowed[:, g, :k]
        )
    return allowed
