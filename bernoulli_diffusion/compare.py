"""Runs side by side: python -m bernoulli_diffusion.compare RUN_DIR...

Reads results.json, config.yaml and reverse_model.py of each results folder; neither imports torch
nor opens a checkpoint. Bounds are compared only among runs on the same data. With --on FILE their
recommended checkpoints are opened, and measured on that file.
"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import json
import shutil
import sys
from functools import partial
from pathlib import Path

from .results.comparison import curves_picture, page, text
from .results.runs import SORT_KEYS, find_results, group, read_run
from .results.side_by_side import difference
from .system.command_line import (
    ArgumentParser,
    count,
    html_file,
    output_file,
    png_file,
    positive_number,
    run,
    tell,
    trusting,
)
from .system.errors import UserError
from .system.files import write_atomically
from .system.interrupt import ending_at_once

ONLY_ON = "precision", "seed", "json", "device", "trust_code"  # options that go with --on
NOT_ON = "sort", "html", "picture"  # and those that do not
PRECISION = 0.001


def parse_arguments():
    parser = ArgumentParser(
        description="Print a table of all results folders found, runs on the same data together: "
        "network, bound, samples, time, and what differs in their settings."
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="RUN_DIR",
        help="a run folder, one of its results folders, or a folder of run folders such as runs; with"
        " --on a checkpoint as well",
    )
    parser.add_argument(
        "--on",
        type=Path,
        metavar="FILE",
        help="instead: the recommended checkpoints of these runs on the lines of FILE, all with the same"
        " draws: their bounds, and the differences between them with their errors",
    )
    parser.add_argument(
        "--precision",
        type=positive_number,
        metavar="E",
        help="with --on: Monte Carlo error of a bound, relative to it; default: 0.001. Half costs four"
        " times",
    )
    parser.add_argument("--seed", type=count, metavar="S", help="with --on; default: 0")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="with --on: also write all numbers to FILE"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), help="with --on; default: auto"
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        default=None,
        help="with --on: run the network in a checkpoint, though it is none of this program's and"
        " nothing was trained with it on this machine",
    )
    parser.add_argument(
        "--sort",
        metavar="KEY",
        help=f"order of the rows: {', '.join(SORT_KEYS)}, or a measure of samples such as train, val,"
        " neither or pairs; default: bound",
    )
    parser.add_argument(
        "--html", type=html_file, metavar="FILE", help="also write a page with curves"
    )
    parser.add_argument(
        "--picture",
        type=png_file,
        metavar="PNG",
        help="also draw all curves, against epochs and against seconds; runs on one data set only",
    )
    parser.add_argument(
        "--diff",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="instead: config.yaml and reverse_model.py of two results folders side by side (of a "
        "run folder, its latest)",
    )
    arguments = parser.parse_args()
    given = {name for name, value in vars(arguments).items() if value is not None}
    for name in ONLY_ON if arguments.on is None else NOT_ON:
        if name in given:
            does = "goes with" if arguments.on is None else "does not go with"
            parser.error(f"--{name.replace('_', '-')} {does} --on FILE")
    if arguments.diff and (arguments.on or arguments.paths or arguments.html or arguments.picture):
        parser.error("--diff A B goes alone")
    if not (arguments.diff or arguments.paths):
        parser.error("expected a run folder, such as runs/heartbeat_len_20_per_5")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    wide = 100 if not sys.stdout.isatty() else shutil.get_terminal_size().columns
    if arguments.diff:
        print(difference(*arguments.diff, width=max(wide, 60)))
        return
    if arguments.on:
        _compare_on(arguments, max(wide, 60))
        return
    folders = dict.fromkeys(f for path in arguments.paths for f in find_results(path))
    runs, unreadable = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:  # noqa: PERF203
            unreadable.append(str(error))
    groups = group(runs, arguments.sort or "bound")
    if arguments.picture and len(groups) != 1:
        raise UserError(
            f"--picture: the runs are on {len(groups)} data sets, whose bounds cannot be compared;"
            " name runs on one of them, or use --html"
        )
    print(text(groups, unreadable, wide))
    if arguments.picture:
        names = [str(k) for k in range(1, len(groups[0]) + 1)]
        write_atomically(arguments.picture, curves_picture(groups[0], names))
    if arguments.html:
        write_atomically(arguments.html, page(groups, unreadable, arguments.html.parent))


def _compare_on(arguments, wide: int) -> None:
    """What --on asks for."""
    with ending_at_once():
        from tqdm import tqdm

        from . import on_file
        from .system.device import choose_device

    file, seed = arguments.on, arguments.seed or 0
    paths, left_out = on_file.find_checkpoints(arguments.paths)
    for reason in left_out:
        tell(f"left out: {reason}")
    device = choose_device(arguments.device or "auto")
    models = on_file.open_models(paths, file, device=device, **trusting(arguments))
    lines = len(models[0].samples)
    with tqdm(total=lines, desc="bounds", unit=" lines", disable=None, leave=False) as bar:
        found = on_file.compare(models, arguments.precision or PRECISION, seed, device, bar.update)
    print(on_file.text(models, found, file, wide))
    if arguments.json:
        numbers = json.dumps(on_file.report(models, found, file, seed), indent=2) + "\n"
        write_atomically(arguments.json, numbers.encode())


command = partial(run, main)  # bernoulli-compare, python -m ...; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
