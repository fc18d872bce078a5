"""How like its table a model's records are: python -m bernoulli_diffusion.quality CHECKPOINT"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import base64
import io
import json
import sys
from pathlib import Path

from .system.command_line import ArgumentParser, count, output_file, positive, run, tell
from .system.errors import UserError, printable
from .system.files import write_atomically
from .system.interrupt import ending_at_once

PAGE = "quality.html"
MEMBERS = 400  # rows of train and of val whose bounds are compared
PRECISION = 0.02  # of the mean of these bounds


def parse_arguments():
    parser = ArgumentParser(
        description="Draw records from a model of a table and compare them with its run folder's "
        "training and held-out rows: each column, every two columns, a classifier that tries to tell "
        "them apart (needs scikit-learn), copies of training rows. Prints the numbers as one JSON "
        f"object and writes a page, {PAGE}.",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=Path,
        help="or the folder of a run; its train.txt is read",
    )
    parser.add_argument(
        "--samples", type=positive, metavar="N", help="default: as many as there are training rows"
    )
    parser.add_argument("--seed", type=count, default=0, metavar="S", help="default: 0")
    parser.add_argument(
        "--output", type=output_file, metavar="HTML", help=f"default: {PAGE} in the results folder"
    )
    parser.add_argument("--trust-code", action="store_true", help="as generate.py's")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with ending_at_once():
        from .training import checkpoint as checkpoints

    path = checkpoints.find(arguments.checkpoint)
    saved = checkpoints.load(path)
    run_dir = checkpoints.run_dir_of(path)
    if not saved["columns"]:
        raise UserError(f"{printable(path)}: was not trained on a table made by prepare")
    if not run_dir or not (run_dir / "train.txt").is_file():
        raise UserError(f"{printable(path)}: does not lie in a run folder with its train.txt")
    diffusion = checkpoints.restore(saved, path, trust_code=arguments.trust_code)
    numbers, page = compare(saved, diffusion, run_dir, str(path), arguments.samples, arguments.seed)
    output = arguments.output or path.parent.parent / PAGE
    write_atomically(output, page)
    tell(f"page       {output}")
    print(json.dumps(numbers, indent=2))


def compare(
    saved: dict, diffusion, run_dir: Path, name: str, num_samples: int | None, seed: int
) -> tuple[dict, bytes]:
    """The measures as plain numbers, and the page that shows them."""
    import numpy as np

    from .bits.data import read_bit_strings
    from .results.pages import rendered
    from .tables import quality
    from .tables.encoding import Encoding
    from .tables.generating import sample_records

    encoding = Encoding.of_state(saved["columns"])
    strings = {"train": read_bit_strings(run_dir / "train.txt")}
    if (run_dir / "val.txt").is_file():
        strings["val"] = read_bit_strings(run_dir / "val.txt")
    codes = {key: encoding.codes_of_bits(s.bits()) for key, s in strings.items()}
    train = codes["train"]
    if (len(train) and train.shape[1] != len(encoding.coded)) or (train < 0).any():
        raise UserError(
            f"{printable(run_dir / 'train.txt')}: not the strings of this model's table"
        )
    N = num_samples or len(train)
    parts = list(sample_records(encoding, diffusion, range(N), seed))
    made = np.concatenate([p.codes for p in parts])
    redrawn = sum(p.redrawn for p in parts) / N
    val = codes.get("val")
    has_val = val is not None and len(val) >= 2
    data, ours = quality.associations(train), quality.associations(made)
    theirs = quality.associations(val) if has_val else None
    distance = quality.column_distances(encoding, train, made)
    distance_val = quality.column_distances(encoding, train, val) if has_val else None
    auc = quality.two_sample(val if has_val else train, made, seed)
    copied = quality.copies(made, train)
    copied_val = quality.copies(val, train) if has_val else None
    near = quality.closest(made, train, seed)
    near_val = quality.closest(val, train, seed) if has_val else None
    member = _membership(diffusion, strings, seed) if has_val else None
    numbers = {
        "samples": N,
        "redrawn": redrawn,
        "column_distance": float(distance.mean()),
        "column_distance_val": None if distance_val is None else float(distance_val.mean()),
        "association_difference": float(np.abs(data - ours).mean()),
        "association_difference_val": None
        if theirs is None
        else float(np.abs(data - theirs).mean()),
        "two_sample_auc": auc and auc.value,
        "two_sample_auc_standard_error": auc and auc.error,
        "copies": copied.value,
        "copies_val": copied_val and copied_val.value,
        "columns_to_closest": float(near.mean()),
        "columns_to_closest_val": None if near_val is None else float(near_val.mean()),
        "membership_auc": member and member.value,
        "membership_auc_standard_error": member and member.error,
    }
    page = rendered(
        "quality.html",
        title=f"Synthetic records: {run_dir.name}",
        checkpoint=name,
        num_samples=f"{N:,}",
        num_train=f"{len(train):,}",
        num_val=f"{len(val):,}" if has_val else "no",
        redrawn=f"in {redrawn:.1%} of them a column was drawn again, because its bits were no value",
        tiles=_tiles(numbers),
        columns_picture=_picture(quality.figure(encoding, train, made)),
        associations_picture=_picture(quality.association_figure(encoding, data, ours)),
        columns=[
            {
                "name": c.name,
                "synthetic": f"{distance[g]:.3f}",
                "val": "" if distance_val is None else f"{distance_val[g]:.3f}",
            }
            for g, c in enumerate(encoding.coded)
        ],
        association_difference=f"{numbers['association_difference']:.4f}",
        association_difference_val=_or_none(numbers["association_difference_val"], "{:.4f}"),
        two_sample=_told_apart(auc, has_val),
        privacy=_privacy(numbers, copied, copied_val, near, near_val, member),
    )
    return numbers, page


def _membership(diffusion, strings: dict, seed: int):
    """Whether the bound on single rows tells those of train from those of val."""
    import numpy as np
    import torch

    from .likelihood import bound_of_each, plan_bound
    from .tables import quality

    rows = [
        np.random.default_rng(seed).permutation(len(strings[key]))[:MEMBERS]
        for key in ("train", "val")
    ]
    bits, effort = [], None
    for key, chosen in zip(("train", "val"), rows, strict=True):
        part = strings[key].part(np.sort(chosen))
        effort = effort or plan_bound(diffusion, part, PRECISION, seed)
        found = bound_of_each(diffusion, part, effort, seed)
        bits.append(torch.cat([values for values, _ in found]).numpy())
    return quality.membership(*bits)


def _picture(figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _or_none(value, form: str) -> str:
    return "none" if value is None else form.format(value)


def _tiles(numbers: dict) -> list[dict]:
    tiles = [("mean distance of a column", "column_distance", "{:.3f}")]
    tiles += [("copies of training rows", "copies", "{:.1%}")]
    tiles += [("the same of held-out rows", "copies_val", "{:.1%}")]
    tiles += [("AUC of telling apart, 0.5 is best", "two_sample_auc", "{:.3f}")]
    return [
        {"name": name, "value": form.format(numbers[key])}
        for name, key, form in tiles
        if numbers[key] is not None
    ]


def _told_apart(auc, has_val: bool) -> str:
    if auc is None:
        return "Not measured: it needs scikit-learn (pip install scikit-learn)."
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


def command() -> int:
    """The command line: bernoulli-quality, python -m bernoulli_diffusion.quality."""
    return run(main)


if __name__ == "__main__":
    sys.exit(command())
