"""Runs side by side: python -m bernoulli_diffusion.compare RUN_DIR...

Reads results.json, config.yaml and reverse_model.py of each results folder; neither imports torch
nor opens a checkpoint. Bounds are compared only among runs on the same data.
"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import dataclasses
import difflib
import io
import itertools
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from . import config as config_module
from .results import record
from .results.pages import duration, network_name, read_text, rendered, uri
from .results.record import Results, Shown
from .results.verdict import best_bounds, curve, findings
from .system.command_line import ArgumentParser, output_file, run
from .system.errors import UserError, printable
from .system.files import write_atomically

MAX_DEPTH = 4  # of folders below a given one, in which results are sought
ABOUT_FILES = {"save_every_n_epochs", "save_every_minutes", "keep_checkpoints"}  # change no number
LEGEND = "* best; = the difference to the best is smaller than its standard error. Bounds in bits."


class Run(NamedTuple):
    """One results folder."""

    folder: Path
    network: str
    parameters: int
    source_sha256: str
    data: tuple  # what has to agree for bounds to be comparable
    data_text: str
    settings: dict  # every key of config.yaml, "section.key"
    epochs: float
    status: str
    seconds: float
    bound: float  # the best one on val (on train without val.txt), bits
    error: float  # its standard error
    gap: float  # to the bound on train at the same epoch; NaN without val.txt
    measured: list[Shown]  # of the last samples
    samples_per_second: float  # NaN if it was not measured
    results: Results

    @property
    def name(self) -> str:
        """run folder/results folder."""
        path = self.folder.resolve()
        return f"{path.parent.parent.name}/{path.name}"


# How --sort orders, the smallest first; besides, by each measure of samples, the better first.
SORT_KEYS = {
    "bound": lambda r: r.bound,
    "gap": lambda r: r.gap,
    "epochs": lambda r: r.epochs,
    "time": lambda r: r.seconds,
    "parameters": lambda r: r.parameters,
    "speed": lambda r: -r.samples_per_second,
    "network": lambda r: r.network.lower(),
    "folder": lambda r: str(r.folder),
}


# ---------------------------------------------------------------------------------------- reading


def find_results(path: Path) -> list[Path]:
    """The results folders at or below path, oldest name first. Raises UserError if there are none."""
    if not path.is_dir():
        raise UserError(f"{printable(path)}: no such folder")
    if _is_results(path):
        return [path]
    found = []
    for folder, names, _ in os.walk(path):
        here = Path(folder)
        found += [here / name for name in names if _is_results(here / name)]
        deep = len(here.parts) - len(path.parts) >= MAX_DEPTH
        names[:] = [] if deep else [n for n in names if not _is_results(here / n)]
    if not found:
        raise UserError(f"{printable(path)}: no results folder there; train something first")
    return sorted(found)


def _is_results(folder: Path) -> bool:
    """A folder with results, or where they would stand had the run come so far."""
    return (folder / "results.json").is_file() or folder.resolve().parent.name == "results"


def read_run(folder: Path) -> Run:
    """Raises UserError if the folder is not that of a run with at least one validation."""
    results = record.read(folder)
    bounds = best_bounds(results)
    if bounds is None:
        raise UserError(f"{folder}: no validation yet (status: {printable(results.status)})")
    if not record.is_finite(results):
        raise UserError(f"{folder / record.FILE_NAME}: a number is not finite")
    data = results.data
    best, train = bounds[results.judged_by], bounds["train"]
    val = f"{data.val.lines:,} in val.txt" if data.val else "no val.txt"
    return Run(
        folder=folder,
        network=printable(network_name(read_text(folder / "reverse_model.py"))),
        parameters=results.num_parameters,
        source_sha256=printable(results.reverse_model_sha256),
        data=(data.train.sha256, data.val and data.val.sha256),
        data_text=printable(f"{data.train.lines:,} {results.what_lines_are} in train.txt, {val}"),
        settings=_settings(folder),
        epochs=results.validated_epochs[-1],
        status=printable(results.status),
        seconds=results.seconds[-1],
        bound=best.bits,
        error=best.error,
        gap=best.bits - train.bits if data.val else math.nan,
        measured=results.last_in_short(),
        samples_per_second=results.samples_per_second or math.nan,
        results=results,
    )


def _settings(folder: Path) -> dict:
    """{"section.key": value} of a results folder's config.yaml; empty if it cannot be read."""
    try:
        config = config_module.load_config(folder / "config.yaml")
    except UserError:  # of another version, say
        return {}
    found = {}
    for section in dataclasses.fields(config):
        for key, value in dataclasses.asdict(getattr(config, section.name)).items():
            if key in ABOUT_FILES:
                continue
            options = value if isinstance(value, dict) else None
            if options is None:
                found[f"{section.name}.{key}"] = value
            else:
                found |= {f"{section.name}.{key}.{name}": v for name, v in options.items()}
    return found


def differences(runs: list[Run]) -> list[str]:
    """For each run, its settings that are not the same in all: "training.lr 0.005, model.T 50"."""
    names = dict.fromkeys(itertools.chain.from_iterable(r.settings for r in runs))
    varied = [n for n in names if len({repr(r.settings.get(n)) for r in runs if r.settings}) > 1]

    def tell(run: Run) -> str:
        if not run.settings:
            return "config.yaml cannot be read"
        told = [f"{n} {_plain(run.settings[n])}" for n in varied if n in run.settings]
        told += [f"{n} left out" for n in varied if n not in run.settings]
        return printable(", ".join(told))

    return [tell(run) for run in runs]


def _plain(value) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def sort_key(name: str, runs: list[Run]) -> Callable[[Run], float]:
    """What --sort name orders by: one of SORT_KEYS, or a measure's short name. Raises UserError."""
    measures = {m.short.replace(" ", "-"): m for r in runs for m in r.results.measures if m.short}
    if name not in SORT_KEYS and name not in measures:
        known = [*SORT_KEYS, *measures]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"--sort {printable(name)}: no such key; {hint}")
    if name in SORT_KEYS:
        return SORT_KEYS[name]

    def last(run: Run) -> float:
        measure = run.results.measure(measures[name].name)
        if measure is None:
            return math.nan
        return -measure.values[-1] if measure.better == "higher" else measure.values[-1]

    return last


def group(runs: list[Run], sort: str) -> list[list[Run]]:
    """Runs on the same data together, in the order of the key; those without a value come last."""
    key = sort_key(sort, runs)

    def order(r: Run):
        value = key(r)
        return value != value, value, r.bound  # NaN is not equal to itself

    groups: dict[tuple, list[Run]] = {}
    for one in sorted(runs, key=order):
        groups.setdefault(one.data, []).append(one)
    return list(groups.values())


def marks(runs: list[Run]) -> list[str]:
    """For each run on the same data: "*" for the best bound, "=" for one that ties with it, or ""."""
    best = min(runs, key=lambda r: r.bound)
    return [
        "*" if r is best else "=" * (r.bound - best.bound <= math.hypot(r.error, best.error))
        for r in runs
    ]


# ---------------------------------------------------------------------------------------- as text


def header(runs: list[Run]) -> tuple[str, ...]:
    """The names of the columns, for runs on the same data: of their measures, all that any has."""
    return "", "bound", "gap", *_measured(runs), "epochs", "time", "params", "samples/s"


def _measured(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(shown.title for r in runs for shown in r.measured))


def row(run: Run, runs: list[Run]) -> tuple[str, ...]:
    """The cells below the header, without the first one."""
    measured = {shown.title: shown.value.removesuffix("%") for shown in run.measured}
    return (
        f"{run.bound:.3f} ± {run.error:.3f}",
        "" if math.isnan(run.gap) else f"{run.gap:.3f}",
        *(measured.get(title, "") for title in _measured(runs)),
        f"{run.epochs:,}",
        duration(run.seconds),
        short(run.parameters),
        "" if math.isnan(run.samples_per_second) else short(run.samples_per_second),
    )


def short(number: float) -> str:
    """About three digits: 57, 1.23k, 45.6k, 7.89M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines with columns that stand below each other, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]


def text(groups: list[list[Run]], unreadable: list[str], width: int) -> str:
    """All that compare prints. width: of the terminal, in characters."""
    parts, number = [], 0
    for runs in groups:
        parts.append(f"{runs[0].data_text}; the bound is the best on {_judged_by(runs[0])}")
        rows, legend = [header(runs)], []
        for one, mark, told in zip(runs, marks(runs), differences(runs), strict=True):
            number += 1
            rows.append((f"{mark}{number}", *row(one, runs)))
            legend += _legend(number, one, told, width)
        parts += ["", *table(rows), "", *legend, ""]
    if any(len(runs) > 1 for runs in groups):
        parts += textwrap.wrap(LEGEND, width)
    for reason in unreadable:
        parts.append(printable(f"left out: {reason}"))
    return "\n".join(parts).rstrip("\n")


def _legend(number: int, run: Run, told: str, width: int) -> list[str]:
    """What the row with this number is."""
    about = f"{run.network}; {run.parameters:,} parameters, source {run.source_sha256[:8]}"
    lines = [f"{number:3d}  {printable(run.folder)} ({run.status})"]
    for line in (about, told):
        lines += textwrap.wrap(
            line, max(40, width), initial_indent=" " * 5, subsequent_indent=" " * 5
        )
    return lines


def _judged_by(run: Run) -> str:
    return run.results.judged_by


# ---------------------------------------------------------------------------------------- as a page


def page(groups: list[list[Run]], unreadable: list[str], base: Path) -> bytes:
    """The same as HTML, with a picture of the curves. base: the folder in which the page will lie."""
    shown, number = [], 0
    for runs in groups:
        names = [f"{number + k}" for k in range(1, len(runs) + 1)]
        rows = [
            {
                "number": name,
                "is_best": mark == "*",
                "cells": (f"{mark} {name}".strip(), *row(one, runs)),
                "claim": findings(one.results)[0].claim,
                "name": one.name,
                "link": _link(one, base),
                "status": one.status,
                "network": f"{one.network} ({one.parameters:,} parameters, {one.source_sha256[:8]})",
                "differs": told,
            }
            for one, name, mark, told in zip(
                runs, names, marks(runs), differences(runs), strict=True
            )
        ]
        group = {"data": runs[0].data_text, "header": header(runs), "runs": rows}
        shown.append(group | {"curves": uri(curves_picture(runs, names), "png")})
        number += len(runs)
    title = f"{number} run{'s' if number != 1 else ''} compared"
    return rendered("compare.html", title=title, legend=LEGEND, groups=shown, unreadable=unreadable)


def _link(run: Run, base: Path) -> str:
    """Where the run's report.html lies; "" if there is none."""
    target = run.folder / "report.html"
    if not target.is_file():
        return ""
    where = Path(os.path.relpath(target.resolve(), base.resolve())).as_posix()
    # "./" so that no name is taken for a scheme such as javascript:
    return "./" + quote(where, errors="surrogateescape")


def curves_picture(runs: list[Run], names: list[str]) -> bytes:
    """A PNG: the bounds by which runs are judged, against epochs and against seconds."""
    from .results import plots  # importing matplotlib takes half a second

    lines = []
    for one, name in zip(runs, names, strict=True):
        points = curve(one.results, _judged_by(one))
        seconds = one.results.seconds[-len(points) :]
        lines.append((f"{name}  {one.name}", points, seconds))
    buffer = io.BytesIO()
    figure = plots.comparison(lines, f"bound on {_judged_by(runs[0])}, bits per string")
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------- two runs


def side_by_side(a: str, b: str, width: int, context: int = 3) -> list[str]:
    """Two texts in two columns; < > | between them mark lines that are gone, new, changed.

    Of lines that are the same, only `context` around a change are shown.
    """
    left, right = (printable_lines(text) for text in (a, b))
    half = max(20, (width - 3) // 2)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    lines, at = [], (0, 0)
    for block in matcher.get_grouped_opcodes(context):
        skipped = block[0][1] - at[0]
        lines += [f"... {skipped} equal lines"] if skipped else []
        for kind, i1, i2, j1, j2 in block:
            mark = {"equal": " ", "delete": "<", "insert": ">", "replace": "|"}[kind]
            for x, y in itertools.zip_longest(left[i1:i2], right[j1:j2], fillvalue=None):
                sign = mark if x is not None and y is not None else "<" if y is None else ">"
                lines.append(f"{_cut(x or '', half):{half}} {sign} {_cut(y or '', half)}".rstrip())
        at = block[-1][2], block[-1][4]
    rest = len(left) - at[0]
    if not lines:
        return ["the same"]
    return [*lines, f"... {rest} equal lines"] if rest else lines


def printable_lines(text: str) -> list[str]:
    return [printable(line.expandtabs(4)) for line in text.splitlines()]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def difference(first: Path, second: Path, width: int) -> str:
    """config.yaml and reverse_model.py of two results folders, side by side."""
    a, b = (_one_results(path) for path in (first, second))
    half = max(20, (width - 3) // 2)
    lines = [f"{_cut(printable(a), half):{half}}   {_cut(printable(b), half)}".rstrip()]
    for name in ("config.yaml", "reverse_model.py"):
        texts = read_text(a / name), read_text(b / name)
        lines += ["", f"--- {name}", *side_by_side(*texts, width)]
    return "\n".join(lines)


def _one_results(path: Path) -> Path:
    """A results folder, or the latest one of a run folder."""
    return find_results(path)[-1]


# ---------------------------------------------------------------------------------------- command


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
        "--html", type=output_file, metavar="FILE", help="also write a page with curves"
    )
    parser.add_argument(
        "--picture",
        type=output_file,
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
