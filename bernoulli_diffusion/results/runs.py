"""Results folders side by side: found, read, put in order, and what their settings differ in."""

import dataclasses
import difflib
import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .. import config as config_module
from ..estimate import SURE, Difference
from ..system.errors import UserError, printable
from . import record
from .pages import network_name, read_text
from .record import Results, Shown
from .verdict import best_bounds, difference_of

MAX_DEPTH = 4  # of folders below a given one, in which results are sought
ABOUT_FILES = {"save_every_n_epochs", "save_every_minutes", "keep_checkpoints"}  # change no number


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


def find_results(path: Path) -> list[Path]:
    """The results folders at or below path, oldest name first. Raises UserError if there are none."""
    if path.is_file():
        raise UserError(
            f"{printable(path)}: this is a file; expected a run folder or one of its results folders"
        )
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
            if isinstance(value, dict):
                found |= {f"{section.name}.{key}.{name}": v for name, v in value.items()}
            else:
                found[f"{section.name}.{key}"] = value
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
    """For each run on the same data: "*" for the best bound, "=" for one that ties with it, or "".

    A tie is what chance explains in 95% of cases. "~" is one that was judged without pairs, by the
    errors of both bounds, which hides differences that pairs would show.
    """
    best = min(runs, key=lambda r: r.bound)
    return ["*" if r is best else _mark(r, best) for r in runs]


def _mark(run: Run, best: Run) -> str:
    if by_pairs := pair(run, best):
        return "" if by_pairs.is_higher else "="
    error = math.hypot(run.error, best.error)
    return "~" * (run.bound - best.bound <= SURE * error)


def pair(run: Run, other: Run) -> Difference | None:
    """The bound of run less that of other, by pairs; None if they have no lines and draws in common."""
    key, name = "training.num_bound_draws", run.results.judged_by
    bounds = [(r.results.final_bound or {}).get(name) for r in (run, other)]
    same = run.settings.get(key) == other.settings.get(key) is not None
    same = same and run.data == other.data and name == other.results.judged_by
    return difference_of(*bounds) if same and all(bounds) else None
