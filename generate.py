"""Draw samples from a trained model: python generate.py CHECKPOINT N"""

import argparse
import math
import sys
from pathlib import Path

from bernoulli_diffusion.system.command_line import (
    ArgumentParser,
    count,
    output_file,
    positive,
    positive_number,
    run,
)
from bernoulli_diffusion.system.interrupt import ending_at_once

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
        help="particles of a run; default: 256",
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
    with ending_at_once():
        from bernoulli_diffusion.generation import generate
        from bernoulli_diffusion.training.distributed import processes

    with processes() as group:
        generate(arguments, group)


if __name__ == "__main__":
    sys.exit(run(main))
