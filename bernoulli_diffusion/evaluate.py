"""How probable strings are under a model: python -m bernoulli_diffusion.evaluate CHECKPOINT FILE"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import json
import sys
from functools import partial
from pathlib import Path

from .system.command_line import (
    ArgumentParser,
    given_options,
    png_file,
    positive,
    positive_number,
    put_out,
    run,
    trusting,
    tsv_file,
)
from .system.interrupt import ending_at_once

MAX_EXACT_LENGTH = 12
HEATMAP_LINES = 40

DESCRIPTION = """\
Print, as one JSON object, how many bits a trained model needs for the strings of FILE: the
variational bound on -log2 p(x), its standard error, and what fair and independent bits would need.
--particles adds the likelihood itself, which is tighter and costs more."""


def parse_arguments():
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_shared("checkpoint")
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="strings of 0 and 1, one a line; of a table: its CSV",
    )
    parser.add_argument(
        "--precision",
        type=positive_number,
        default=0.001,
        metavar="E",
        help="standard error of the mean bound, relative to it; default: 0.001. Half costs four times",
    )
    parser.add_argument(
        "--particles",
        type=positive,
        metavar="P",
        help="also estimate p(x) itself, without bias, by sequential Monte Carlo with P particles a"
        " string (100 to 1,000); -log2 of an estimate is too high rather than too low, and falls with P",
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        metavar="R",
        help="with --particles: independent estimates a string, averaged; their spread is told."
        " Default: 4",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help=f"also sum p(x) exactly over all 2^L states and T steps, for L <= {MAX_EXACT_LENGTH}",
    )
    parser.add_argument(
        "--per-line",
        type=tsv_file,
        metavar="TSV",
        help="write every string's own values: tab-separated, a header, then a row a string in the"
        " order of FILE",
    )
    parser.add_argument(
        "--explain",
        type=tsv_file,
        metavar="TSV",
        help="write, for every string and bit, the probability of the bit's value given all others:"
        " tab-separated, a header bit_1 .. bit_L; small numbers are surprising. Of a table: how many"
        " bits each column of each record takes, and which one is odd",
    )
    parser.add_argument(
        "--heatmap",
        type=png_file,
        metavar="PNG",
        help=f"draw that for the first {HEATMAP_LINES} strings, laid out by data.shape if it is set",
    )
    parser.add_shared("--seed", "--device", "--weights", "--trust-code")
    arguments = parser.parse_args()
    if arguments.repeats and not arguments.particles:
        parser.error("--repeats goes with --particles")
    if arguments.particles and arguments.particles > 1 << 20:
        parser.error("--particles: at most 1048576; more --repeats do the same")
    arguments.repeats = arguments.repeats or 4
    return arguments


def main() -> None:
    arguments = parse_arguments()
    # torch takes a second to import: after the arguments are known to be sound
    with ending_at_once():
        from . import evaluation
        from .kinds import kind_of, refuse_options_of_others
        from .on_file import read_samples
        from .system.device import choose_device
        from .system.errors import UserError
        from .system.files import open_atomically
        from .tables import answering, judging
        from .training import checkpoint as checkpoints

    device = choose_device(arguments.device)
    arguments.checkpoint = checkpoints.find(arguments.checkpoint)
    checkpoint = checkpoints.load(arguments.checkpoint)
    L = checkpoint["sequence_length"]
    config = checkpoints.config_of(checkpoint, arguments.checkpoint)
    kind = kind_of(config)
    refuse_options_of_others(kind, given_options(arguments))
    how = {"weights": arguments.weights, "device": device} | trusting(arguments)
    diffusion = checkpoints.restore(checkpoint, arguments.checkpoint, **how)
    encoding = answering.encoding_of(checkpoint, arguments.checkpoint)
    strings = read_samples(arguments.file, diffusion, config, L, encoding)
    if arguments.exact and L > MAX_EXACT_LENGTH:
        raise UserError(f"--exact: for strings of at most {MAX_EXACT_LENGTH} bits, these have {L}")
    unit, weights = kind.UNITS.removesuffix("s"), strings.weights
    seed = arguments.seed
    columns, draws = evaluation.bound(diffusion, strings, arguments.precision, seed, device)
    report = {
        "checkpoint": str(arguments.checkpoint),
        "file": str(arguments.file),
        "samples": len(strings),
        "length": L,
        "T": diffusion.T,
        "seed": seed,
        "bound": evaluation.summary(*columns.values(), L, unit, weights)
        | {"draws_per_sample": draws},
        "baselines": evaluation.baselines(kind, config, strings, arguments.checkpoint),
    }
    if arguments.particles:
        effort = {"particles": arguments.particles, "repeats": arguments.repeats}
        columns |= evaluation.likelihood(diffusion, strings, **effort, seed=seed, device=device)
        report["likelihood"] = evaluation.likelihood_summary(columns, L, unit, weights) | effort
    if arguments.exact:
        columns |= evaluation.exact(diffusion, strings, device)
        report["exact"] = evaluation.summary(columns["exact_bits"], None, L, unit, weights)
    if arguments.per_line:
        evaluation.write_table(arguments.per_line, columns)
    if arguments.explain and encoding:
        with open_atomically(arguments.explain) as file:
            parts = judging.bits_of_columns(encoding, diffusion, strings, seed)
            file.writelines(line.encode() for line in judging.explanation(encoding, parts))
    elif arguments.explain:
        evaluation.write_surprises(diffusion, strings, arguments.explain, device)
    if arguments.heatmap:
        picture = HEATMAP_LINES, arguments.heatmap, config.data.shape
        evaluation.draw_surprises(diffusion, strings, *picture, device)
    put_out(json.dumps(report, indent=2))


command = partial(run, main)  # bernoulli-evaluate, python -m ...; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
