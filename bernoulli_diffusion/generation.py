"""What generate.py does: samples, and answers to what fits a pattern or was there before the noise."""

import math
import shlex
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch

from .conditioning import MAX_RUNS, conditional_samples, denoised, denoised_mean, has_channel
from .kinds import kind_of, refuse_options_of_others
from .noise import Noise
from .sampling import sample
from .system.command_line import tell
from .system.device import choose_device
from .system.files import open_atomically
from .training import checkpoint as checkpoints
from .training.distributed import Processes

PARTICLES = 256  # of a run; generate.py's help says so
FEW = 16  # an effective sample size below this makes for few different answers


def generate(arguments, group: Processes) -> None:
    """Print what is asked for; with several processes (torchrun) the first one alone prints."""
    device = choose_device(arguments.device)
    checkpoint = checkpoints.load(arguments.checkpoint)
    config = checkpoints.config_of(checkpoint, arguments.checkpoint)
    kind = kind_of(config)
    given = ("flip_probability", "noise_std", "deterministic")
    given = [name.replace("_", "-") for name in given if getattr(arguments, name)]
    refuse_options_of_others(kind, given)
    patterns = read_question(kind, arguments, checkpoint["sequence_length"])
    diffusion = checkpoints.restore(
        checkpoint,
        arguments.checkpoint,
        weights=arguments.weights,
        trust_code=arguments.trust_code,
        command=shlex.join(["python", *sys.argv, "--trust-code"]),
        device=device,
    )
    length = checkpoint["sequence_length"]
    if patterns is None:
        texts = samples(kind, diffusion, length, arguments, device, group)
    elif group.is_first:
        texts = answers(kind, diffusion, patterns, arguments, device)
    else:
        texts = []
    if not group.is_first:
        for _ in texts:
            pass
        return
    target = (
        open_atomically(arguments.output) if arguments.output else nullcontext(sys.stdout.buffer)
    )
    with target as stream:
        try:
            for text in texts:
                stream.write(text)
        except BrokenPipeError as error:
            texts.throw(error)  # which raises it in all processes
    if arguments.gif and arguments.N:
        numbers = torch.arange(min(arguments.N, kind.most_drawn(length)), device=device)
        noise = Noise(arguments.seed, numbers, length)
        how = {"steps": arguments.steps, "is_deterministic": arguments.deterministic}
        kind.draw_trajectory(diffusion, noise, config, arguments.gif, **how)


def read_question(kind, arguments, length: int) -> np.ndarray | None:
    """The patterns, (M, L), -1 (of bits) or NaN where unknown; None if there are none."""
    if arguments.given is not None:
        text = arguments.given.encode("utf-8", "replace")
        return kind.parse_pattern(text, length, "--given")[None]
    if arguments.asked:
        return kind.read_patterns(arguments.given_file or arguments.denoise, length)
    return None


def samples(kind, diffusion, length: int, arguments, device, group) -> Iterator[bytes]:
    """Samples without conditions as text, piece by piece. The processes take batches in turn."""
    N, seed, batch_size = arguments.N, arguments.seed, arguments.batch_size or 1024

    def draw(rows: range) -> bytes:
        batches = sample(
            diffusion,
            length,
            rows,
            seed,
            arguments.steps,
            batch_size,
            device,
            is_deterministic=arguments.deterministic,
        )
        return b"".join(kind.to_text(diffusion.process.as_written(batch)) for batch in batches)

    together = batch_size * group.size
    for first in range(0, N, together):
        part = range(first, min(first + together, N))
        own = group.share(len(part))
        texts = group.gather(partial(draw, part[own.start : own.stop]))
        try:
            yield b"".join(texts)
        except BrokenPipeError as error:  # the reader has seen enough
            if first + together < N:  # the other processes are at work on the next piece
                group.gather(partial(_fail, error))
            raise


def _fail(error: Exception) -> None:
    raise error


def answers(kind, diffusion, patterns, arguments, device) -> Iterator[bytes]:
    """Samples with conditions as text, piece by piece."""
    patterns = torch.from_numpy(patterns)
    started_at_string = arguments.denoise and not arguments.particles and not arguments.independent
    if started_at_string and has_channel(diffusion) and kind.are_known(patterns).all():
        yield from restored(kind, diffusion, patterns.to(device).float(), arguments)
    else:
        yield from completed(kind, diffusion, patterns, arguments)


def restored(kind, diffusion, y, arguments) -> Iterator[bytes]:
    """Noisy strings, by the reverse process started at them."""
    (M, L), N, batch_size = y.shape, arguments.N, arguments.batch_size or 1024
    if arguments.mean:
        for first in range(0, M, batch_size):
            part = y[first : first + batch_size]
            yield kind.mean_text(denoised_mean(diffusion, part, arguments.noise))
        return
    for first in range(0, M * N, batch_size):
        number = torch.arange(first, min(first + batch_size, M * N), device=y.device)
        line = number // N
        noise = Noise(arguments.seed, line * MAX_RUNS + number % N, L)
        x_0 = denoised(diffusion, y[line], arguments.noise, noise, arguments.steps)
        yield kind.to_text(diffusion.process.as_written(x_0))


def completed(kind, diffusion, patterns, arguments) -> Iterator[bytes]:
    """Patterns with unknown bits, and noisy strings under the model's own law: by particles."""
    particles = arguments.particles or PARTICLES
    process = diffusion.process
    evidence = process.evidence_of(patterns, arguments.noise)
    runs = conditional_samples(
        diffusion,
        evidence,
        arguments.N,
        arguments.seed,
        particles,
        1 if arguments.independent else None,
        arguments.steps,
        arguments.batch_size or 4096,
    )
    found = []
    for one, pattern in zip(runs, patterns, strict=True):
        cost = 0.0 - one.log_evidence / math.log(2)  # no -0
        found.append((cost, one.effective_sample_size, one.ancestors))
        if arguments.mean:
            yield kind.mean_text(process.mean_as_written(one.mean[None]))
            continue
        values = process.as_written(one.samples)
        if not arguments.denoise:  # what was given stays what it was, to the last digit
            values = np.where(kind.are_known(pattern), pattern, values).astype(values.dtype)
        yield kind.to_text(values)
    known = kind.are_known(patterns)
    unlikely = kind.all_but_impossible(process, known).tolist()
    tell_quality(kind, found, known.sum(dim=1).tolist(), unlikely, particles, arguments)


def tell_quality(
    kind, found, known: list[int], unlikely: list[float], particles, arguments
) -> None:
    """On standard error: how probable what is known is, and how far the samples can be trusted.

    found: of each pattern -log2 p, the effective sample size and the ancestors; unlikely: from how
    many bits on -log2 p is out of the question.
    """
    what = f"noisy {kind.SAMPLES.removesuffix('s')}" if arguments.denoise else "pattern"

    def span(values, form: str) -> str:
        low, high = form.format(min(values)), form.format(max(values))
        return low if low == high else f"{low} to {high}"

    bits, sizes, ancestors = zip(*found, strict=True)
    tell(
        f"{len(found):,} {what}{'s' if len(found) > 1 else ''}: {span(known, '{:,}')} known"
        f" {kind.UNITS}, which have -log2 p = {span(bits, '{:,.2f}')} under the model; effective"
        f" sample size {span(sizes, '{:,.0f}')} of {particles:,} particles;"
        f" {span(ancestors, '{:,}')} ancestors of {arguments.N:,} samples"
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
