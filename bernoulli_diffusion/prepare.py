"""Turn a table into a run folder: python -m bernoulli_diffusion.prepare FILE RUN_DIR"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import argparse
import re
import sys
from functools import partial
from pathlib import Path

from .system.command_line import ArgumentParser, run, this_call
from .system.errors import UserError, printable

EXAMPLES = """\
examples:
  python -m bernoulli_diffusion.prepare people.csv runs/people
  python -m bernoulli_diffusion.prepare people.csv runs/people --as zip=category,grade=ordered --drop name
  python -m bernoulli_diffusion.prepare train.csv runs/people --val val.csv --test test.csv
then:
  python train.py runs/people
  python generate.py runs/people/results/<time>/checkpoints/model_best.pt 1000 --output synthetic.csv
"""


def share_or_file(text: str) -> float | Path:
    """A number in [0, 1), or the path of a file."""
    try:
        share = float(text)
    except ValueError:
        return Path(text)
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, or a file, found {text!r}")
    return share


def parse_arguments():
    parser = ArgumentParser(
        description="Turn a table (CSV and its like, .npy, .npz, JSON, ARFF; with pandas Parquet, "
        "Excel, Stata) into a run folder: train.txt and val.txt, and columns.yaml, which says what "
        "was decided about each column. Edit that file and run the command again to decide otherwise.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="made if it is not there")
    parser.add_argument(
        "--val",
        type=share_or_file,
        default=0.1,
        metavar="SHARE",
        help="the share of the rows to hold out, drawn by chance, or a file of them; default: 0.1",
    )
    parser.add_argument(
        "--test",
        type=share_or_file,
        default=0.0,
        metavar="SHARE",
        help="the same for a last look, into test.txt; default: none",
    )
    parser.add_shared("--seed")
    parser.add_argument(
        "--as",
        action="append",
        default=[],
        dest="types",
        metavar="NAME=TYPE,...",
        help="yes/no, category, ordered, whole number, number or date",
    )
    parser.add_argument(
        "--drop", action="append", default=[], metavar="NAME", help="leave a column out"
    )
    parser.add_argument(
        "--weights",
        metavar="COLUMN",
        help="how much each row counts; the column itself is not learnt",
    )
    parser.add_argument(
        "--header",
        choices=("yes", "no"),
        help="whether the first line has names; default: found out",
    )
    parser.add_argument(
        "--missing",
        action="append",
        default=[],
        metavar="WORD",
        help="a further word that stands for a missing value, such as -99",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from .tables.preparing import prepare  # numpy takes a moment to import

    prepare(
        arguments.file,
        arguments.run_dir,
        val=arguments.val,
        test=arguments.test,
        seed=arguments.seed,
        types=parse_types(arguments.types)
        | dict.fromkeys(arguments.drop, "left out")
        | ({arguments.weights: "weight"} if arguments.weights else {}),
        header=None if arguments.header is None else arguments.header == "yes",
        missing=arguments.missing,
        command=this_call(),
    )
    print(arguments.run_dir)


def parse_types(texts: list[str]) -> dict[str, str]:
    """{name: type} from NAME=TYPE,NAME=TYPE; a name with a comma stands in double quotes."""
    from .tables.description import known_type

    found = {}
    for part in (p for text in texts for p in re.findall(r'(?:"[^"]*"|[^,])+', text)):
        name, equals, kind = part.rpartition("=")
        name = re.sub(r'^\s*"(.*)"\s*$', r"\1", name)
        if not equals or not name:
            raise UserError(f"--as: expected NAME=TYPE, found {printable(part)!r}")
        place = f"--as {printable(name.strip())}"
        found[name.strip()] = known_type(kind, place)
        if found[name.strip()] in ("constant", "row number", "determined"):
            raise UserError(f"{place}: {kind.strip()} is found, not asked for; leave it out")
    return found


command = partial(run, main)  # bernoulli-prepare, python -m ...; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
