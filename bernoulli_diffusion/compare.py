"""Runs side by side: python -m bernoulli_diffusion.compare RUN_DIR...

Reads results.json, config.yaml and reverse_model.py of each results folder; neither imports torch
nor opens a checkpoint. Bounds are compared only among runs on the same data.
"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import shutil
import sys
from pathlib import Path

from .results.comparison import curves_picture, page, text
from .results.runs import SORT_KEYS, find_results, group, read_run
from .results.side_by_side import difference
from .system.command_line import ArgumentParser, html_file, png_file, run
from .system.errors import UserError
from .system.files import write_atomically


def parse_arguments():
    parser = ArgumentParser(
        description="Print a table of all results folders found, runs on the same data together: "
        "network, bound, samples, time, and what differs in their settings.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="RUN_DIR",
        help="a run folder, one of its results folders, or a folder of run folders such as runs",
    )
    parser.add_argument(
        "--sort",
        default="bound",
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
    if arguments.diff and (arguments.paths or arguments.html or arguments.picture):
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
    folders = dict.fromkeys(f for path in arguments.paths for f in find_results(path))
    runs, unreadable = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:  # noqa: PERF203
            unreadable.append(str(error))
    groups = group(runs, arguments.sort)
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


def command() -> int:
    """The command line: bernoulli-compare, python -m ... Returns the exit code."""
    return run(main)


if __name__ == "__main__":
    sys.exit(command())
