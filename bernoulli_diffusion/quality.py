"""How like its table a model's records are: python -m bernoulli_diffusion.quality CHECKPOINT"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import json
import sys
from functools import partial
from pathlib import Path

from .system.command_line import ArgumentParser, positive, run, tell
from .system.errors import UserError, printable
from .system.interrupt import ending_at_once


def parse_arguments():
    parser = ArgumentParser(
        description="Draw records from a model of a table and compare them with its run folder's "
        "training and held-out rows: each column, every two columns, a classifier that tries to tell "
        "them apart (needs scikit-learn), copies of training rows. Prints the numbers as one JSON "
        "object and shows all in the run's report.html."
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
    parser.add_argument("--trust-code", action="store_true", help="as generate.py's")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with ending_at_once():
        from .tables.likeness import add_to_report, compare
        from .training import checkpoint as checkpoints

    path = checkpoints.find(arguments.checkpoint)
    saved = checkpoints.load(path)
    run_dir = checkpoints.run_dir_of(path)
    if not saved["columns"]:
        raise UserError(f"{printable(path)}: was not trained on a table made by prepare")
    if not run_dir or not (run_dir / "train.txt").is_file():
        raise UserError(f"{printable(path)}: does not lie in a run folder with its train.txt")
    diffusion = checkpoints.restore(saved, path, trust_code=arguments.trust_code)
    found = compare(saved["columns"], diffusion, run_dir, arguments.samples, arguments.seed)
    results_dir = path.parent.parent
    add_to_report(results_dir, found)
    tell(f"page       {results_dir / 'report.html'}")
    print(json.dumps(found.numbers, indent=2))


command = partial(run, main)  # bernoulli-quality, python -m ...; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
