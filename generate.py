"""Draw samples from a trained model: python generate.py CHECKPOINT N"""

import argparse
import math
import shlex
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from bernoulli_diffusion.command_line import (
    ArgumentParser,
    count,
    output_file,
    positive,
    positive_number,
    run,
    tell,
)

PARTICLES = 256
FEW = 16  # an effective sample size below this makes for few different answers
EXAMPLES = """\
examples:
  generate.py model_best.pt 1000                                     1,000 strings
  generate.py model_best.pt 8 --given '01??1???'                     8 ways to fill in the unknown bits
  generate.py model_best.pt 5 --denoise seen.txt --flip-probability 0.1
  generate.py model_best.pt 5 --denoise seen.txt --flip-probability 0.1 --mean
of real numbers:
  generate.py model_best.pt 8 --given '0.3 ? ?'                      8 ways to fill in the unknown numbers
  generate.py model_best.pt 5 --denoise seen.txt --noise-std 0.1
"""


def probability_of_flips(text: str) -> float:
    """A number in [0, 0.5]."""
    try:
        p = float(text)
    except ValueError:
        p = math.nan
    if not 0 <= p <= 0.5:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 0.5, found {text!r}")
    return p


def parse_arguments():
    parser = ArgumentParser(
        prog="generate.py",
        description="Print N strings drawn from a trained model, one a line. The same seed gives the "
        "same strings, and the first lines of a longer list, whatever the batch size.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="results/.../checkpoints/model_best.pt"
    )
    parser.add_argument(
        "N", type=count, help="how many strings; with patterns or noisy strings, so many for each"
    )
    parser.add_argument("--seed", type=count, default=0, metavar="S", help="default: 0")
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="K",
        help="walk a grid of K steps: fast and approximate. Default: the exact law of all T steps, by "
        "thinning for short strings (network calls only where a bit may flip), else step by step",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="of real numbers: no noise on the way (DDIM); goes well with --steps",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="B",
        help="strings or particles that walk together; default: 1024 strings, 4096 particles",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--output", type=output_file, metavar="FILE", help="write there, not to the screen"
    )
    parser.add_argument(
        "--weights",
        choices=("averaged", "raw"),
        default="averaged",
        help="the averaged weights (default, those that were validated) or the last step's",
    )
    parser.add_argument(
        "--gif",
        type=output_file,
        metavar="FILE",
        help="also draw the way from noise to the first samples",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="run the reverse_model.py kept inside the checkpoint, if it differs from the live file",
    )
    ask = parser.add_argument_group(
        "what fits a pattern, what was it before the noise",
        "Sequential Monte Carlo, exact as the number of particles grows. On standard error: the "
        "probability of what is known, the effective sample size, and a warning where these say "
        "that the samples are not to be relied on.",
    )
    what = ask.add_mutually_exclusive_group()
    what.add_argument(
        "--given",
        metavar="PATTERN",
        help="0 and 1 are known, ? is asked: '01??1???'; of real numbers: '0.3 ? ?'",
    )
    what.add_argument("--given-file", type=Path, metavar="FILE", help="one such pattern a line")
    what.add_argument(
        "--denoise",
        type=Path,
        metavar="FILE",
        help="noisy strings, one a line (? where a bit is unknown). Without ? and --particles, the "
        "reverse process starts at the noisy string: fast, independent draws, exact if the network "
        "is; with particles, the exact posterior under the model's own law",
    )
    ask.add_argument(
        "--flip-probability",
        type=probability_of_flips,
        metavar="p",
        help="with --denoise: each bit was flipped with this probability, from 0 to 0.5",
    )
    ask.add_argument(
        "--noise-std",
        type=positive_number,
        metavar="s",
        help="with --denoise, of real numbers: noise of this standard deviation was added to each",
    )
    ask.add_argument(
        "--mean",
        action="store_true",
        help="print for each pattern or noisy string, tab-separated, its most probable value bit by "
        "bit and then every bit's probability of being 1, instead of samples",
    )
    ask.add_argument(
        "--particles",
        type=positive,
        metavar="P",
        help=f"particles of a run; default: {PARTICLES}",
    )
    ask.add_argument(
        "--independent",
        action="store_true",
        help="every sample from a run of its own. Default: a run gives P/8 samples, which may share "
        "ancestors; how many different ones there are is told",
    )
    arguments = parser.parse_args()
    noises = [x for x in (arguments.flip_probability, arguments.noise_std) if x is not None]
    if len(noises) != (arguments.denoise is not None):
        parser.error("--denoise FILE and --flip-probability p (or --noise-std s) go together")
    arguments.noise = noises[0] if noises else 0.0
    asked = arguments.given is not None or arguments.given_file or arguments.denoise
    for option in ("mean", "particles", "independent"):
        if getattr(arguments, option) and not asked:
            parser.error(f"--{option} goes with --given, --given-file or --denoise")
    if asked and arguments.deterministic:
        parser.error("--deterministic draws samples without conditions; leave it out")
    if asked and arguments.gif:
        parser.error("--gif shows samples without conditions; leave it out")
    if arguments.particles and arguments.particles > 1 << 20:
        parser.error("--particles: at most 1048576")
    arguments.asked = bool(asked)
    return arguments


def main() -> None:
    arguments = parse_arguments()
    # torch takes a second to import: after the arguments are known to be sound
    from bernoulli_diffusion.distributed import processes

    with processes() as group:
        generate(arguments, group)


def generate(arguments, group) -> None:
    """Print what is asked for; with several processes (torchrun) the first one alone prints."""
    from bernoulli_diffusion import checkpoint as checkpoints
    from bernoulli_diffusion.device import choose_device
    from bernoulli_diffusion.files import open_atomically
    from bernoulli_diffusion.process import process_of

    device = choose_device(arguments.device)
    checkpoint = checkpoints.load(arguments.checkpoint)
    config = checkpoints.config_of(checkpoint, arguments.checkpoint)
    kind = process_of(config)
    kind.refuse_options(arguments)
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
        for text in texts:
            stream.write(text)
    if arguments.gif and arguments.N:
        count = min(arguments.N, kind.PICTURE_SAMPLES)
        kind.draw_trajectory(
            diffusion, length, config, count, arguments.seed, arguments.steps, arguments.gif
        )


def read_question(kind, arguments, length: int):
    """The patterns, (M, L), -1 (of bits) or NaN where unknown; None if there are none."""
    if arguments.given is not None:
        text = arguments.given.encode("utf-8", "replace")
        return kind.parse_pattern(text, length, "--given")[None]
    if arguments.asked:
        return kind.read_patterns(arguments.given_file or arguments.denoise, length)
    return None


def samples(kind, diffusion, length: int, arguments, device, group):
    """Samples without conditions as text, piece by piece. The processes take batches in turn."""
    from bernoulli_diffusion.sampling import sample

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
        return b"".join(kind.to_text(diffusion.process.to_data(batch)) for batch in batches)

    for first in range(0, N, batch_size * group.size):
        part = range(first, min(first + batch_size * group.size, N))
        own = group.share(len(part))
        yield b"".join(group.gather(partial(draw, part[own.start : own.stop])))


def answers(kind, diffusion, patterns, arguments, device):
    """Samples with conditions as text, piece by piece."""
    import torch

    patterns = torch.from_numpy(patterns).to(device).float()
    started_at_string = arguments.denoise and not arguments.particles and not arguments.independent
    if started_at_string and diffusion.process.has_flips and kind.are_known(patterns).all():
        yield from restored(kind, diffusion, patterns, arguments)
    else:
        yield from completed(kind, diffusion, patterns, arguments)


def restored(kind, diffusion, y, arguments):
    """Noisy strings, by the reverse process started at them."""
    import torch

    from bernoulli_diffusion.conditioning import MAX_RUNS, denoised, denoised_mean
    from bernoulli_diffusion.noise import Noise

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
        yield kind.to_text(diffusion.process.to_data(x_0))


def completed(kind, diffusion, patterns, arguments):
    """Patterns with unknown bits, and noisy strings under the model's own law: by particles."""
    from bernoulli_diffusion.conditioning import conditional_samples

    particles = arguments.particles or PARTICLES
    process = diffusion.process
    evidence = process.evidence_of(patterns, arguments.noise)
    found = []
    for one in conditional_samples(
        diffusion,
        evidence,
        arguments.N,
        arguments.seed,
        particles,
        1 if arguments.independent else None,
        arguments.steps,
        arguments.batch_size or 4096,
    ):
        found.append((-one.log_evidence / math.log(2), one.effective_sample_size, one.ancestors))
        yield (
            kind.mean_text(process.mean_to_data(one.mean[None]))
            if arguments.mean
            else kind.to_text(process.to_data(one.samples))
        )
    known = kind.are_known(patterns).sum(dim=1).tolist()
    tell_quality(kind, found, known, particles, arguments)


def tell_quality(kind, found, known: list[int], particles: int, arguments) -> None:
    """On standard error: how probable what is known is, and how far the samples can be trusted."""
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
        elif cost > known[number] * kind.SURPRISING + 20:
            problem = f"what is known is all but impossible under the model (2^-{cost:,.0f})"
        elif size < FEW:
            problem = (
                f"effective sample size {size:,.1f}; try --particles {max(16 * particles, 4096)}"
            )
        else:
            continue
        tell(f"warning: {what} {number + 1}: the samples are not to be relied on: {problem}")


if __name__ == "__main__":
    sys.exit(run(main))
