"""How probable strings are under a model: python -m bernoulli_diffusion.evaluate CHECKPOINT FILE"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import json
import math
import sys
from pathlib import Path

from .system.command_line import (
    ArgumentParser,
    given_options,
    png_file,
    positive,
    positive_number,
    put_out,
    run,
    this_call,
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
    diffusion = checkpoints.restore(
        checkpoint,
        arguments.checkpoint,
        weights=arguments.weights,
        trust_code=arguments.trust_code,
        command=this_call("--trust-code"),
        device=device,
    )
    encoding = answering.encoding_of(checkpoint, arguments.checkpoint)
    strings = read_samples(arguments.file, diffusion, config, L, encoding)
    if arguments.exact and L > MAX_EXACT_LENGTH:
        raise UserError(f"--exact: for strings of at most {MAX_EXACT_LENGTH} bits, these have {L}")
    unit = kind.UNITS.removesuffix("s")
    columns = _bound(diffusion, strings, arguments.precision, arguments.seed, device)
    report = {
        "checkpoint": str(arguments.checkpoint),
        "file": str(arguments.file),
        "samples": len(strings),
        "length": L,
        "T": diffusion.T,
        "seed": arguments.seed,
        "bound": _summary(columns["bound_bits"], columns["bound_standard_error"], L, unit),
        "baselines": _baselines(kind, config, strings, arguments.checkpoint),
    }
    report["bound"]["draws_per_sample"] = columns.pop("draws")
    if arguments.particles:
        particles, repeats = arguments.particles, arguments.repeats
        columns |= _likelihood(diffusion, strings, particles, repeats, arguments.seed, device)
        report["likelihood"] = _likelihood_summary(columns, L, unit) | {
            "particles": particles,
            "repeats": repeats,
        }
    if arguments.exact:
        columns |= _exact(diffusion, strings, device)
        report["exact"] = _summary(columns["exact_bits"], None, L, unit)
    if arguments.per_line:
        _write_table(arguments.per_line, columns)
    if arguments.explain and encoding:
        with open_atomically(arguments.explain) as file:
            parts = judging.bits_of_columns(encoding, diffusion, strings, arguments.seed)
            file.writelines(line.encode() for line in judging.explanation(encoding, parts))
    elif arguments.explain:
        _explain(diffusion, strings, arguments.explain, device)
    if arguments.heatmap:
        _draw_heatmap(diffusion, strings, arguments.heatmap, config.data.shape, device)
    put_out(json.dumps(report, indent=2))


def _bar(total: int, what: str):
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=" strings", disable=None, leave=False)


def _bound(diffusion, strings, precision: float, seed: int, device) -> dict:
    import torch

    from .likelihood import bound_of_each, plan_bound

    effort = plan_bound(diffusion, strings, precision, seed, device)
    parts = []
    with _bar(len(strings), "bound") as bar:
        for part in bound_of_each(diffusion, strings, effort, seed, device):
            parts.append(part)
            bar.update(len(part[0]))
    bits, error = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
    return {"bound_bits": bits, "bound_standard_error": error, "draws": effort.draws}


def _likelihood(diffusion, strings, particles: int, repeats: int, seed: int, device) -> dict:
    import torch

    from .conditioning import log2_likelihoods

    parts = []
    with _bar(len(strings), "likelihood") as bar:
        for part in log2_likelihoods(diffusion, strings, particles, repeats, seed, device):
            parts.append(part)
            bar.update(len(part.log2_p))
    fields = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
    log2_p, error, spread, size = fields
    return {
        "likelihood_bits": -log2_p,
        "likelihood_standard_error": error,
        "likelihood_spread": spread,
        "effective_sample_size": size,
    }


def _exact(diffusion, strings, device) -> dict:
    import numpy as np

    from .likelihood import exact_law
    from .system.errors import UserError

    if strings.unknown is not None:
        raise UserError("--exact: for strings without unknown bits; use --particles")
    law = exact_law(diffusion, strings.length, device).numpy()
    number = strings.bits().astype(np.int64) @ (1 << np.arange(strings.length)[::-1])
    return {"exact_bits": -np.log2(law[number])}


def _summary(bits, errors, L: int, unit: str) -> dict:
    """Means over the strings, and two errors of them.

    standard_error: of the mean over these very strings (Monte Carlo; errors None: there is none);
    law_standard_error: of the mean of the law they come from, which also counts how they differ.
    """
    from .estimate import of_lines

    mean = float(bits.mean())
    found = {}
    if errors is not None:
        found["standard_error"] = float((errors**2).sum() ** 0.5 / len(errors))
    if len(bits) > 1:
        found["law_standard_error"] = of_lines(bits).standard_error
    scales = {"bits": 1.0, "nats": math.log(2), f"bits_per_{unit}": 1 / L}
    result = {}
    for name, scale in scales.items():
        result[name] = mean * scale
        for kind, error in found.items():
            result[f"{name}_{kind}"] = None if math.isnan(error) else error * scale
    return result


def _likelihood_summary(columns: dict, L: int, unit: str) -> dict:
    summary = _summary(columns["likelihood_bits"], columns["likelihood_standard_error"], L, unit)
    spread = float((columns["likelihood_spread"] ** 2).mean() ** 0.5)
    return summary | {
        "spread_over_repeats_bits": None if math.isnan(spread) else spread,
        "effective_sample_size": float(columns["effective_sample_size"].mean()),
    }


def _baselines(kind, config, strings, checkpoint: Path) -> dict:
    """Bits a sample without a model, which is fitted to the run's train.txt if it is there."""
    from .system.errors import UserError
    from .training.checkpoint import run_dir_of

    source, train = "FILE", strings
    run_dir = run_dir_of(checkpoint)
    if run_dir and (run_dir / "train.txt").is_file():
        try:
            found = kind.read(run_dir / "train.txt", config)
        except UserError:  # it is not what the user asked about
            found = None
        if found and found.length == strings.length:
            source, train = str(run_dir / "train.txt"), found
    return kind.baseline_bits(train, strings, source)


def _write_table(path: Path, columns: dict) -> None:
    from .system.files import open_atomically

    with open_atomically(path) as file:
        file.write(("\t".join(["line", *columns]) + "\n").encode())
        for number, row in enumerate(zip(*columns.values(), strict=True), 1):
            file.write(("\t".join([str(number), *(f"{v:.6g}" for v in row)]) + "\n").encode())


def _explain(diffusion, strings, path: Path, device) -> None:
    import torch

    from .conditioning import leave_one_out
    from .system.files import open_atomically

    with open_atomically(path) as file:
        header = "\t".join(f"bit_{i}" for i in range(1, strings.length + 1))
        file.write(f"{header}\n".encode())
        for first in range(0, len(strings), 4096):
            x_0 = torch.from_numpy(strings.bits(slice(first, first + 4096))).float().to(device)
            for row in leave_one_out(diffusion, x_0).tolist():
                file.write(("\t".join(f"{p:.6g}" for p in row) + "\n").encode())


def _draw_heatmap(diffusion, strings, path: Path, shape, device) -> None:
    import torch

    from .bits.pictures import surprise_map
    from .conditioning import leave_one_out
    from .results import plots

    bits = strings.bits(slice(HEATMAP_LINES))
    p = leave_one_out(diffusion, torch.from_numpy(bits).float().to(device)).cpu().numpy()
    plots.write_figure(surprise_map(bits, p, len(strings), shape), path)


def command() -> int:
    """The command line: bernoulli-evaluate, python -m ... Returns the exit code."""
    return run(main)


if __name__ == "__main__":
    sys.exit(command())
