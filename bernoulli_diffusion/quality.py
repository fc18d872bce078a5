"""How like its table a model's records are: python -m bernoulli_diffusion.quality CHECKPOINT"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import json
import sys
from pathlib import Path

from .system.command_line import ArgumentParser, output_file, positive, run, tell
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
    parser.add_shared("--seed")
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
    from .results.pages import figure_uri, rendered
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

    def of_both(measure) -> tuple:
        """Of the synthetic rows, and of the held-out ones: that is what good looks like."""
        return measure(made), measure(val) if has_val else None

    def mean(values) -> float | None:
        return None if values is None else float(np.mean(values))

    data = quality.associations(train)
    ours, theirs = of_both(quality.associations)
    distance, distance_val = of_both(lambda rows: quality.column_distances(encoding, train, rows))
    copied, copied_val = of_both(lambda rows: quality.copies(rows, train))
    near, near_val = of_both(lambda rows: quality.closest(rows, train, seed))
    auc = quality.two_sample(val if has_val else train, made, seed)
    member = _membership(diffusion, strings, seed) if has_val else None
    numbers = {
        "samples": N,
        "redrawn": redrawn,
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
    page = rendered(
        "quality.html",
        title=f"Synthetic records: {run_dir.name}",
        checkpoint=name,
        num_samples=f"{N:,}",
        num_train=f"{len(train):,}",
        num_val=f"{len(val):,}" if has_val else "no",
        redrawn=f"in {redrawn:.1%} of them a column was drawn again, because its bits were no value",
        tiles=_tiles(numbers),
        columns_picture=figure_uri(quality.figure(encoding, train, made)),
        associations_picture=figure_uri(quality.association_figure(encoding, data, ours)),
        columns=[
            {
                "name": c.name,
                "synthetic": f"{distance[g]:.3f}",
                "val": "" if distance_val is None else f"{distance_val[g]:.3f}",
            }
            for g, c in enumerate(encoding.coded)
        ],
        association_difference=f"{numbers['association_difference']:.4f}",
        association_difference_val="none"
        if theirs is None
        else f"{numbers['association_difference_val']:.4f}",
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
