"""Draw samples from a trained model: python generate.py CHECKPOINT N"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import argparse
import math
import re
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from .system.command_line import (
    ArgumentParser,
    count,
    gif_file,
    given_options,
    number,
    output_file,
    positive,
    positive_number,
    require_standard_output,
    run,
    tell,
    trusting,
)
from .system.interrupt import ending_at_once

EXAMPLES = """\
examples:
  generate.py model_best.pt 1000                                     1,000 strings
  generate.py model_best.pt 8 --given '01??1???'                     8 ways to fill in the unknown bits
  generate.py model_best.pt 5 --denoise seen.txt --flip-probability 0.1
  generate.py model_best.pt 5 --denoise seen.txt --flip-probability 0.1 --mean
of a table (see python -m bernoulli_diffusion.prepare --help), in its own columns:
  generate.py model_best.pt 1000 --output synthetic.csv              or .parquet, .npy
  generate.py model_best.pt 100 --given 'smoker=yes, age>=40'
  generate.py model_best.pt 1 --fill gaps.csv --output full.csv
of real numbers:
  generate.py model_best.pt 8 --given '0.3 ? ?'                      8 ways to fill in the unknown numbers
  generate.py model_best.pt 5 --denoise seen.txt --noise-std 0.1
"""


def probability_of_flips(text: str) -> float:
    return number(text, lambda p: 0 <= p <= 0.5, "from 0 to 0.5")


def parse_arguments():
    parser = ArgumentParser(
        description="Print N strings drawn from a trained model, one a line. The same seed gives the "
        "same strings, and the first lines of a longer list, whatever the batch size.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_shared("checkpoint")
    how_many = "how many strings; with patterns or noisy strings, so many for each"
    if not any(re.match(r"-n\d*$|--num-samples", word) for word in sys.argv[1:]):
        parser.add_argument("N", type=count, help=how_many)
    parser.add_argument(
        "-n",
        "--num-samples",
        dest="N",
        type=count,
        default=argparse.SUPPRESS,
        metavar="N",
        help="the same, as an option",
    )
    parser.add_shared("--seed")
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="K",
        help="walk a grid of K steps: fast and approximate. Default: 32 for a table; else the exact "
        "law of all T steps, by thinning for short strings (network calls only where a bit may flip), "
        "else step by step",
    )
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help="ancestral (step by step), thinned (the same law, faster for short strings), balanced (a"
        " grid of large steps of bits) or deterministic (DDIM, for real numbers). Default: thinned or"
        " ancestral, whichever is faster; with --steps, balanced, or ancestral for real numbers",
    )
    parser.add_argument(
        "--deterministic",
        action="store_const",
        dest="sampler",
        const="deterministic",
        help="the same as --sampler deterministic",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="B",
        help="strings or particles that walk together; default: 1024 strings, 4096 particles",
    )
    parser.add_shared("--device")
    parser.add_argument(
        "-o", "--output", type=output_file, metavar="FILE", help="write there, not to the screen"
    )
    parser.add_argument(
        "--bits", action="store_true", help="of a table: write the strings of bits, not the records"
    )
    parser.add_shared("--weights")
    parser.add_argument(
        "--gif",
        type=gif_file,
        metavar="FILE",
        help="also draw the way from noise to the first samples",
    )
    parser.add_shared("--trust-code")
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
        help="0 and 1 are known, ? is asked: '01??1???'; of real numbers: '0.3 ? ?'; of a table: "
        "'smoker=yes, age>=40, town=Bonn|Trier'",
    )
    what.add_argument(
        "--fill",
        type=Path,
        metavar="FILE",
        help="of a table: rows with gaps, as CSV; each is written N times, its gaps drawn",
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
        "bit and then every bit's probability of being 1, instead of samples; with --fill, the most "
        "probable value in each gap and its probability",
    )
    ask.add_argument(
        "--particles", type=positive, metavar="P", help="particles of a run; default: 256"
    )
    ask.add_argument(
        "--independent",
        action="store_true",
        help="every sample from a run of its own. Default: a run for each P/8 samples, drawn from all "
        "together, so that some share ancestors; how many different ones there are is told",
    )
    ask.add_argument(
        "--replace",
        type=positive,
        metavar="R",
        help="with --given or --given-file: fast and approximate, without particles. What is known is "
        "put into every step, and each step is undone and taken again, R times in all (RePaint)",
    )
    arguments = parser.parse_args()
    noises = [x for x in (arguments.flip_probability, arguments.noise_std) if x is not None]
    if len(noises) != (arguments.denoise is not None):
        parser.error("--denoise FILE and --flip-probability p (or --noise-std s) go together")
    asked = arguments.given is not None or arguments.given_file or arguments.denoise
    asked = asked or arguments.fill
    for option in ("mean", "particles", "independent"):
        if getattr(arguments, option) and not asked:
            parser.error(f"--{option} goes with --given, --given-file, --fill or --denoise")
    if asked and arguments.sampler:
        parser.error("--sampler draws samples without conditions; leave it out")
    if arguments.replace and (arguments.mean or arguments.particles or arguments.independent):
        parser.error(
            "--replace does without particles: leave --mean, --particles, --independent out"
        )
    if arguments.replace and not (arguments.given is not None or arguments.given_file):
        parser.error("--replace goes with --given or --given-file")
    if asked and arguments.gif:
        parser.error("--gif shows samples without conditions; leave it out")
    if arguments.particles and arguments.particles > 1 << 20:
        parser.error("--particles: at most 1048576")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    # torch takes a second to import: after the arguments are known to be sound
    with ending_at_once():
        from .training.distributed import processes

    with processes() as group:
        _generate(arguments, group)


def _generate(arguments, group) -> None:
    """What main does; of the group's processes the first one alone prints."""
    with ending_at_once():
        from tqdm import tqdm

        from . import answers
        from .kinds import kind_of, refuse_options_of_others
        from .sampling import network_calls
        from .system.device import choose_device
        from .system.errors import UserError, printable
        from .system.files import open_atomically
        from .tables import answering, writing
        from .training import checkpoint as checkpoints

    device = choose_device(arguments.device)
    path = checkpoints.find(arguments.checkpoint)
    if not arguments.output:
        require_standard_output("write to a file: --output FILE")
    checkpoint = checkpoints.load(path)
    config = checkpoints.config_of(checkpoint, path)
    kind, length, N = kind_of(config), checkpoint["sequence_length"], arguments.N
    refuse_options_of_others(kind, given_options(arguments))
    encoding = patterns = None
    if not (arguments.bits or arguments.denoise or arguments.given_file or arguments.gif):
        encoding = answering.encoding_of(
            checkpoint, arguments.checkpoint, arguments.given, arguments.fill
        )
    if not encoding:  # else questions are about columns
        ending = arguments.output.suffix.lower() if arguments.output else ""
        if ending in writing.OTHERS or writing.FORMS.get(ending, "text") != "text":
            where = f"--output {printable(arguments.output)}"
            raise UserError(f"{where}: what is written is text, no {ending}")
        values_in_file = kind.values_in_file(checkpoint["process_state"], length)
        if arguments.given is not None:
            text = arguments.given.encode("utf-8", "replace")
            patterns = kind.parse_pattern(text, values_in_file, "--given")[None]
        elif file := arguments.given_file or arguments.denoise:
            patterns = kind.read_patterns(file, values_in_file)
    how = {"weights": arguments.weights, "device": device} | trusting(arguments)
    diffusion = checkpoints.restore(checkpoint, path, **how)
    if path != arguments.checkpoint and group.is_first:
        tell(f"checkpoint {path}")
    check_sampler(kind, diffusion, arguments.sampler, arguments.steps)
    if encoding and arguments.replace:
        raise UserError(
            "--replace: for patterns of bits, not for questions about a table's columns"
        )
    # on a terminal, unless the strings themselves run across it
    is_hidden = encoding or not group.is_first or (sys.stdout.isatty() and not arguments.output)
    bar = tqdm(desc="sampling", unit="step", disable=True if is_hidden else None, leave=False)
    how = answers.How(arguments.seed, arguments.steps, arguments.batch_size, device, bar.update)
    asked = {"mean": arguments.mean, "particles": arguments.particles}
    if encoding:
        table = arguments.output, arguments.given, arguments.fill
        texts = answering.records(encoding, diffusion, N, *table, *how[:-1], **asked)
    elif patterns is None:
        batches = math.ceil(N / (how.batch(answers.STRINGS, length) * group.size))
        calls = network_calls(diffusion, length, arguments.steps, arguments.sampler)
        bar.total = calls and (calls + 1) * batches  # x_T is counted too
        together = {"sampler": arguments.sampler, "processes": group}
        texts = answers.samples(kind, diffusion, length, N, how, **together)
    elif arguments.replace:
        texts = answers.replaced_in(kind, diffusion, patterns, N, arguments.replace, how)
    else:
        asked["independent"] = arguments.independent
        if arguments.denoise:
            noise = arguments.flip_probability
            noise = arguments.noise_std if noise is None else noise
            texts = answers.restored(kind, diffusion, patterns, noise, N, how, **asked)
        else:
            texts = answers.completed(kind, diffusion, patterns, N, how, **asked)
    if not group.is_first:
        if not encoding and patterns is None:  # else the first process works alone
            for _ in texts:
                pass
        return
    target = open_atomically(arguments.output) if arguments.output else None
    with bar, target or nullcontext(sys.stdout.buffer) as stream:
        try:
            for text in texts:
                stream.write(text)
        except BrokenPipeError as error:
            texts.throw(error)  # which raises it in all processes
    if arguments.gif and N:
        answers.draw(kind, diffusion, length, config, arguments.gif, N, how, arguments.sampler)


def check_sampler(kind, diffusion, name: str | None, steps: int | None) -> None:
    """Raises UserError unless there is a sampler of that name, and it suits the model and steps."""
    from .sampling import SAMPLERS, samplers_for
    from .system.errors import UserError, printable

    if name is None or name in samplers_for(diffusion, steps):
        return
    if name in samplers_for(diffusion):
        raise UserError(f"--sampler {name}: makes all T steps; leave out --steps {steps}")
    problem = f"not for models of {kind.NAME}" if name in SAMPLERS else "no such sampler"
    cure = f"choose one of {', '.join(samplers_for(diffusion, steps))}"
    raise UserError(f"--sampler {printable(name)}: {problem}; {cure}")


command = partial(run, main)  # bernoulli-generate, python generate.py; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
