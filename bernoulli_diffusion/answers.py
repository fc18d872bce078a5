"""What generate.py prints: samples, and what fits a pattern or was there before the noise, as text.

All functions yield lines of text piece by piece. kind is the kind of data (kinds.py), patterns are
(M, L) with -1 (of bits) or NaN where unknown; count is how many samples, for each pattern if there
are any.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .conditioning import (
    MAX_RUNS,
    conditional_samples,
    denoised,
    denoised_mean,
    has_channel,
    replaced,
)
from .config import Config
from .diffusion import Diffusion
from .noise import Noise
from .sampling import sample
from .system.command_line import tell
from .training.distributed import ALONE, Processes

STRINGS, PARTICLES_TOGETHER = 1024, 4096  # that walk together, at most
VALUES = 1 << 20  # of those strings or particles, so that long ones leave memory for the network
PARTICLES = 256  # of a run; generate.py's help says all three
FEW = 16  # an effective sample size below this makes for few different answers


class How(NamedTuple):
    """How samples are drawn, whatever is asked."""

    seed: int = 0
    steps: int | None = None  # None: all T of them
    batch_size: int | None = None  # None: a size that suits
    device: torch.device | str = "cpu"
    poll: Callable[[], object] = lambda: None  # called at every step of every batch

    def batch(self, most: int, length: int) -> int:
        """What walks together; if nobody says: `most`, or fewer if they are long."""
        return self.batch_size or max(1, min(most, VALUES // length))


def samples(
    kind,
    diffusion: Diffusion,
    length: int,
    count: int,
    how: How,
    *,
    sampler: str | None = None,
    processes: Processes = ALONE,
) -> Iterator[bytes]:
    """Samples without conditions. The processes take batches in turn."""
    batch_size = how.batch(STRINGS, length)

    def draw(rows: range) -> bytes:
        batches = sample(
            diffusion, length, rows, how.seed, how.steps, batch_size, how.device, how.poll, sampler
        )
        return b"".join(kind.to_text(diffusion.process.as_written(batch)) for batch in batches)

    together = batch_size * processes.size
    for first in range(0, count, together):
        part = range(first, min(first + together, count))
        own = processes.share(len(part))
        texts = processes.gather(partial(draw, part[own.start : own.stop]))
        try:
            yield b"".join(texts)
        except BrokenPipeError as error:  # the reader has seen enough
            if first + together < count:  # the other processes are at work on the next piece
                processes.gather(partial(_fail, error))
            raise


def _fail(error: Exception) -> None:
    raise error


def draw(
    kind,
    diffusion: Diffusion,
    length: int,
    config: Config,
    path: Path,
    count: int,
    how: How,
    sampler: str | None,
) -> None:
    """A GIF of the first samples on their way from noise."""
    numbers = torch.arange(min(count, kind.most_drawn(length)), device=how.device)
    noise = Noise(how.seed, numbers, length)
    kind.draw_trajectory(diffusion, noise, config, path, steps=how.steps, sampler=sampler)


def restored(
    kind,
    diffusion: Diffusion,
    patterns: np.ndarray,
    noise: float,
    count: int,
    how: How,
    *,
    mean: bool = False,
    particles: int | None = None,
    independent: bool = False,
) -> Iterator[bytes]:
    """What noisy patterns were before the noise: its flip probability, or standard deviation.

    Bits that are all known start the reverse process at the noisy string. With unknown ones, with
    real numbers, or if particles or independent ones are asked for: as completed does it.
    """
    with_particles = particles or independent or not has_channel(diffusion)
    if with_particles or not kind.are_known(torch.from_numpy(patterns)).all():
        asked = {"mean": mean, "particles": particles, "independent": independent}
        yield from completed(kind, diffusion, patterns, count, how, noise=noise, **asked)
        return
    y = torch.from_numpy(patterns).to(how.device).float()  # (M, L)
    if mean:
        for part in y.split(how.batch(STRINGS, y.shape[1])):
            yield kind.mean_text(denoised_mean(diffusion, part, noise))
        return
    for line, random in _walks(*y.shape, count, how):
        x_0 = denoised(diffusion, y[line], noise, random, how.steps, how.poll)
        yield kind.to_text(diffusion.process.as_written(x_0))


def _walks(M: int, L: int, count: int, how: How) -> Iterator[tuple[Tensor, Noise]]:
    """Batches of `count` walks for each of M lines: whose they are, (B,), and their noise."""
    batch_size = how.batch(STRINGS, L)
    for first in range(0, M * count, batch_size):
        number = torch.arange(first, min(first + batch_size, M * count), device=how.device)
        line = number // count
        yield line, Noise(how.seed, line * MAX_RUNS + number % count, L)


def completed(
    kind,
    diffusion: Diffusion,
    patterns: np.ndarray,
    count: int,
    how: How,
    *,
    noise: float | None = None,
    mean: bool = False,
    particles: int | None = None,
    independent: bool = False,
) -> Iterator[bytes]:
    """Samples that fit patterns, by particles; with noise, what noisy ones were before it.

    mean: for each pattern the mean of what fits it, instead of samples. On standard error: how
    probable what is known is, and how far the samples can be trusted.
    """
    patterns, particles = torch.from_numpy(patterns), particles or PARTICLES
    process = diffusion.process
    runs = conditional_samples(
        diffusion,
        process.evidence_of(patterns, noise or 0.0),
        count,
        how.seed,
        particles,
        independent,
        how.steps,
        how.batch(PARTICLES_TOGETHER, patterns.shape[1]),
        how.poll,
    )
    found = []
    for one, pattern in zip(runs, patterns, strict=True):
        cost = 0.0 - one.log_evidence / math.log(2)  # no -0
        found.append((cost, one.effective_sample_size, one.ancestors))
        if mean:
            yield kind.mean_text(process.mean_as_written(one.mean[None]))
            continue
        values = process.as_written(one.samples)
        if noise is None:  # what was given stays what it was, to the last digit
            values = np.where(kind.are_known(pattern), pattern, values).astype(values.dtype)
        yield kind.to_text(values)
    known = kind.are_known(patterns)
    unlikely = kind.all_but_impossible(process, known).tolist()
    what = "pattern" if noise is None else f"noisy {kind.SAMPLES.removesuffix('s')}"
    _tell_quality(what, kind.UNITS, found, known.sum(dim=1).tolist(), unlikely, particles, count)


def replaced_in(
    kind, diffusion: Diffusion, patterns: np.ndarray, count: int, repeats: int, how: How
) -> Iterator[bytes]:
    """Samples that fit patterns, roughly and fast: by replacement, without particles."""
    patterns, process = torch.from_numpy(patterns), diffusion.process
    evidence = process.evidence_of(patterns)  # without columns that were kept aside
    for line, noise in _walks(*evidence.shape[:2], count, how):
        x_0 = replaced(diffusion, evidence[line], noise, repeats, how.steps, how.poll)
        values, given = process.as_written(x_0), patterns[line.cpu()]
        yield kind.to_text(np.where(kind.are_known(given), given, values).astype(values.dtype))
    tell(
        "approximate: by replacement, which keeps to what is known but does not weigh what else fits"
        " it by the model's law; leave --replace out for particles, which do"
    )


def _tell_quality(
    what: str, units: str, found, known: list[int], unlikely: list[float], particles, count
) -> None:
    """On standard error: how probable what is known is, and how far the samples can be trusted.

    found: of each pattern -log2 p, the effective sample size and the ancestors; unlikely: from how
    many bits on -log2 p is out of the question.
    """

    def span(values, form: str) -> str:
        low, high = form.format(min(values)), form.format(max(values))
        return low if low == high else f"{low} to {high}"

    bits, sizes, ancestors = zip(*found, strict=True)
    tell(
        f"{len(found):,} {what}{'s' if len(found) > 1 else ''}: {span(known, '{:,}')} known"
        f" {units if max(known) != 1 else units.removesuffix('s')} with -log2 p ="
        f" {span(bits, '{:,.2f}')} under the model; effective sample size"
        f" {span(sizes, '{:,.0f}')} of {particles:,} particles;"
        f" {count:,} sample{'s' if count > 1 else ''} of {span(ancestors, '{:,}')} different"
        f" ancestor{'s' if max(ancestors) > 1 else ''}"
    )
    for number, (cost, size, _) in enumerate(found):
        if not math.isfinite(cost):
            problem = "the model gives what is known the probability 0"
        elif cost > unlikely[number]:
            problem = f"what is known is all but impossible under the model (2^-{cost:,.0f})"
        elif size < FEW:
            problem = (
                f"effective sample size {size:,.1f}; try --particles {max(16 * particles, 4096)}"
            )
        else:
            continue
        tell(f"warning: {what} {number + 1}: the samples are not to be relied on: {problem}")
