"""How like its table a model's records are, in numbers, words and pictures: a part of report.html."""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..bits.data import read_bit_strings
from ..config import load_config
from ..kinds import kind_of
from ..likelihood import bound_of_each, plan_bound
from ..results import page, record
from ..results.page import ASSOCIATIONS, COLUMNS
from ..results.page import QUALITY as FILE_NAME
from ..system.errors import UserError, printable
from ..system.files import open_atomically, write_atomically
from ..weights import beside, represented
from . import quality
from .encoding import Encoding
from .generating import sample_records

MEMBERS = 400  # rows of train and of val whose bounds are compared
PRECISION = 0.02  # of the mean of these bounds


class Likeness(NamedTuple):
    """How like a table's rows a model's records are."""

    numbers: dict  # by name, plain
    shown: dict  # what templates/quality.html shows, in words
    pictures: dict  # by file name


def compare(
    columns: dict, diffusion, run_dir: Path, num_samples: int | None = None, seed: int = 0
) -> Likeness:
    """Draw records from a model and compare them with the rows of its run folder.

    columns: as checkpoints keep them; num_samples: default, as many as there are training rows. Rows with
    unknown values are left out. Raises UserError if train.txt is not of this table, or none is left.
    """
    encoding = Encoding.of_state(columns)
    strings = {"train": read_bit_strings(run_dir / "train.txt")}
    if (run_dir / "val.txt").is_file():
        strings["val"] = read_bit_strings(run_dir / "val.txt")
    for key, part in strings.items():
        part.weights = beside(run_dir / f"{key}.txt", len(part))
    whole = {key: _without_unknown(part) for key, part in strings.items()}
    if not len(whole["train"]):
        raise UserError(
            f"{printable(run_dir / 'train.txt')}: every row has unknown values, so there is nothing to"
            " compare with; make gaps values in columns.yaml (missing: a value)"
        )
    known = encoding.codes_of_bits(whole["train"].bits())  # what may be copied
    if (len(known) and known.shape[1] != len(encoding.coded)) or (known < 0).any():
        raise UserError(
            f"{printable(run_dir / 'train.txt')}: not the strings of this model's table"
        )
    codes = {k: encoding.codes_of_bits(represented(s).bits()) for k, s in whole.items()}
    train = codes["train"]
    N = num_samples or len(train)
    parts = list(sample_records(encoding, diffusion, range(N), seed))
    made = np.concatenate([p.codes for p in parts])
    val = codes.get("val")
    has_val = val is not None and len(val) >= 2

    def of_both(measure) -> tuple:
        """Of the synthetic rows, and of the held-out ones: that is what good looks like."""
        return measure(made), measure(val) if has_val else None

    def mean(values) -> float | None:
        return None if values is None else float(np.mean(values))

    data = quality.associations(train)
    ours, theirs = of_both(quality.associations)
    distance, distance_val = of_both(lambda rows: quality.column_distances(encoding, train, rows))
    copied, copied_val = of_both(lambda rows: quality.copies(rows, known))
    near, near_val = of_both(lambda rows: quality.closest(rows, known, seed))
    auc = quality.two_sample(val if has_val else train, made, seed)
    member = _membership(diffusion, strings, seed) if has_val else None
    numbers = {
        "samples": N,
        "column_distance": mean(distance),
        "column_distance_val": mean(distance_val),
        "association_difference": mean(np.abs(data - ours)),
        "association_difference_val": mean(np.abs(data - theirs)) if has_val else None,
        "two_sample_auc": auc and auc.value,
        "two_sample_auc_standard_error": auc and auc.error,
        "copies": copied.value,
        "copies_val": copied_val and copied_val.value,
        "columns_to_closest": mean(near),
        "columns_to_closest_val": mean(near_val),
        "membership_auc": member and member.value,
        "membership_auc_standard_error": member and member.error,
    }
    shown = {
        "num_samples": N,
        "num_train": len(train),
        "num_val": len(val) if has_val else 0,
        "tiles": _tiles(numbers),
        "columns": [
            {
                "name": c.name,
                "synthetic": f"{distance[g]:.3f}",
                "val": f"{distance_val[g]:.3f}" if has_val else "",
            }
            for g, c in enumerate(encoding.coded)
        ],
        "association_difference": f"{numbers['association_difference']:.4f}",
        "association_difference_val": f"{numbers['association_difference_val']:.4f}"
        if has_val
        else "",
        "two_sample": _told_apart(auc, has_val),
        "privacy": _privacy(numbers, copied, copied_val, near, near_val, member),
    }
    pictures = {
        COLUMNS: quality.figure(encoding, train, made),
        ASSOCIATIONS: quality.association_figure(encoding, data, ours),
    }
    return Likeness(numbers, shown, pictures)


def _without_unknown(strings):
    """Those of which every bit is known."""
    if strings.unknown is None:
        return strings
    return strings.part(np.flatnonzero(~strings.unknown.any(axis=1)))


def add_to_report(results_dir: Path, found: Likeness) -> None:
    """Write what was found into a results folder, and its report.html with it. Raises OSError."""
    for name, figure in found.pictures.items():
        with open_atomically(results_dir / name) as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # letters that the font lacks become boxes
            figure.savefig(file, format="png")
    text = json.dumps({"numbers": found.numbers, "shown": found.shown}, indent=2)
    write_atomically(results_dir / FILE_NAME, text.encode())
    config = load_config(results_dir / "config.yaml")
    page.write(record.read(results_dir), kind_of(config), results_dir, config.data.shape)


def _membership(diffusion, strings: dict, seed: int):
    """Whether the bound on single rows tells those of train from those of val."""
    bits, effort = [], None
    for key in ("train", "val"):
        rows = np.random.default_rng(seed).permutation(len(strings[key]))[:MEMBERS]
        part = strings[key].part(np.sort(rows))
        effort = effort or plan_bound(diffusion, part, PRECISION, seed)
        found = bound_of_each(diffusion, part, effort, seed)
        bits.append(torch.cat([values for values, _ in found]).numpy())
    return quality.membership(*bits)


def _tiles(numbers: dict) -> list[dict]:
    tiles = (
        ("mean distance of a column", "column_distance", "{:.3f}"),
        ("copies of training rows", "copies", "{:.1%}"),
        ("the same of held-out rows", "copies_val", "{:.1%}"),
        ("AUC of telling apart, 0.5 is best", "two_sample_auc", "{:.3f}"),
    )
    return [
        {"name": name, "value": form.format(numbers[key])}
        for name, key, form in tiles
        if numbers[key] is not None
    ]


def _told_apart(auc, has_val: bool) -> str:
    if auc is None:
        needed = f"scikit-learn (pip install scikit-learn) and {quality.FOLDS} rows of each kind"
        return f"Not measured: it needs {needed}."
    rows = "held-out rows" if has_val else "training rows (there are no held-out ones)"
    return (
        f"Boosted trees that were shown some of the {rows} and of the synthetic ones tell the others"
        f" apart with an AUC of {auc.value:.3f} ± {auc.error:.3f}. 0.5 is a coin, 1 never errs."
    )


def _privacy(numbers: dict, copied, copied_val, near, near_val, member) -> list[str]:
    lines = [f"{copied.value:.2%} ± {copied.error:.2%} of the synthetic records stand in train.txt"]
    if copied_val:
        lines[0] += f"; of held-out rows {copied_val.value:.2%} ± {copied_val.error:.2%} do"
    lines.append(
        f"the training row most like a synthetic record differs in {near.mean():.2f} columns on average"
    )
    if near_val is not None:
        lines[1] += f"; for a held-out row it is {near_val.mean():.2f}"
    if member:
        lines.append(
            f"a training row costs the model less than a held-out one in {member.value:.1%} ±"
            f" {member.error:.1%} of pairs; 50% would say that it tells no members"
        )
    return lines
