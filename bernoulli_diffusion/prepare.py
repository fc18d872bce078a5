"""Turn a table into a run folder: python -m bernoulli_diffusion.prepare FILE RUN_DIR"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import argparse
import math
import shlex
import sys
from pathlib import Path

from .system.command_line import ArgumentParser, run, tell, this_call
from .system.errors import RunError, UserError, printable
from .system.files import write_atomically

EXAMPLES = """\
examples:
  python -m bernoulli_diffusion.prepare people.csv runs/people
  python -m bernoulli_diffusion.prepare people.csv runs/people --as zip=category,grade=ordered --drop name
  python -m bernoulli_diffusion.prepare train.csv runs/people --val val.csv --test test.csv
then:
  python train.py runs/people
  python generate.py runs/people/results/<time>/checkpoints/model_best.pt 1000 --output synthetic.csv
"""
MADE = ("train.txt", "val.txt", "test.txt")
MOST_REPEATED = 10_000_000  # lines, where weights repeat them


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
    prepare(
        arguments.file,
        arguments.run_dir,
        val=arguments.val,
        test=arguments.test,
        seed=arguments.seed,
        types=parse_types(arguments.types) | dict.fromkeys(arguments.drop, "left out"),
        header=None if arguments.header is None else arguments.header == "yes",
        missing=arguments.missing,
        command=this_call(),
    )
    print(arguments.run_dir)


def parse_types(texts: list[str]) -> dict[str, str]:
    """{name: type} from NAME=TYPE,NAME=TYPE."""
    from .tables.description import known_type

    found = {}
    for part in (p for text in texts for p in text.split(",")):
        name, equals, kind = part.rpartition("=")
        if not equals or not name:
            raise UserError(f"--as: expected NAME=TYPE, found {printable(part)!r}")
        found[name.strip()] = known_type(kind, f"--as {printable(name.strip())}")
    return found


def prepare(
    file: Path,
    run_dir: Path,
    *,
    val: float | Path = 0.1,
    test: float | Path = 0.0,
    seed: int = 0,
    types: dict[str, str] | None = None,
    header: bool | None = None,
    missing: list[str] | None = None,
    command: str = "",
) -> None:
    """Write train.txt, val.txt, test.txt, columns.yaml and encoding.json into run_dir.

    Nothing is written unless everything could be. Raises UserError for what the user can mend.
    """
    import numpy as np

    from .tables import description, reading
    from .tables.columns import LEVELS
    from .tables.planning import joined, plan

    yaml, encoding_json = run_dir / "columns.yaml", run_dir / "encoding.json"
    if (run_dir / "train.txt").exists() and not encoding_json.exists():
        raise UserError(
            f"{printable(run_dir / 'train.txt')}: was not made from a table; name another RUN_DIR, or"
            " remove it"
        )
    sources = [file, *(p for p in (val, test) if isinstance(p, Path))]
    tables = [reading.read(source, header, missing or ()) for source in sources]
    are_strings = [isinstance(t, reading.Strings) for t in tables]
    if any(are_strings) and not all(are_strings):
        raise UserError(f"{printable(file)} and the held-out files have different forms")
    sizes = [len(t.bits) if isinstance(t, reading.Strings) else len(t) for t in tables]
    parts = split(sizes, val, test, seed)
    for source, table in zip(sources, tables, strict=True):
        tell(f"{printable(source)}: {table.understood}")
    written: dict[str, bytes] = {}
    if all(are_strings):
        if types:
            raise UserError(
                f"{printable(file)}: holds bits without names of columns; --as and --drop need names"
            )
        if len({t.bits.shape[1] for t in tables}) > 1:
            raise UserError("the files have strings of different lengths")
        bits = np.concatenate([t.bits for t in tables])
        if tables[0].weights is not None and len(tables) == 1:
            weights = tables[0].weights[parts["train"]]
            if (weights % 1).any() or weights.sum() > MOST_REPEATED:
                raise UserError(
                    f"{printable(file)}: weights are whole numbers that add up to at most"
                    f" {MOST_REPEATED:,}; each line is written so many times"
                )
            parts["train"] = np.repeat(parts["train"], weights.astype(int))
            tell("each line of train.txt is written as often as its weight says")
    else:
        table = joined(tables)
        train = np.zeros(len(table), bool)
        train[parts["train"]] = True
        wishes = description.read(yaml) if yaml.exists() else {}
        wishes |= {
            n: wishes.get(n, description.Wish())._replace(type=t) for n, t in (types or {}).items()
        }
        try:
            encoding = plan(table, train, wishes)
        except UserError as error:
            raise UserError(f"{printable(file)}: {error}") from None
        bits = encoding.encode(table)
        for column in encoding.columns:
            tell(f"  {printable(column.name)}: {column.type}, {printable(column.reason)}")
        size = f"{len(table):,} rows, {len(table.columns)} columns -> {encoding.length} bits"
        tell(size)
        what = f"{file.name}: {table.understood}"
        written["columns.yaml"] = description.write(encoding, what, size, command, LEVELS)
        written["encoding.json"] = encoding.to_json(written["columns.yaml"], command)
    for name, rows in parts.items():
        if len(rows):
            written[f"{name}.txt"] = to_lines(bits[rows])
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        for name in MADE:  # of an earlier time, with other columns
            if name not in written and encoding_json.exists():
                (run_dir / name).unlink(missing_ok=True)
        for name, data in written.items():
            write_atomically(run_dir / name, data)
    except FileExistsError:
        raise UserError(f"{printable(run_dir)}: this is a file, expected a folder") from None
    except OSError as error:
        raise RunError(f"{printable(run_dir)}: {error.strerror or error}") from None
    lines = ", ".join(f"{name}.txt {len(rows):,}" for name, rows in parts.items() if len(rows))
    tell(f"wrote {lines} lines of {bits.shape[1]} bits")
    if "columns.yaml" in written:
        tell(f"decided {yaml}; edit it and run the same command again to decide otherwise")
    tell(f"next    python train.py {shlex.quote(str(run_dir))}")


def split(sizes: list[int], val: float | Path, test: float | Path, seed: int) -> dict:
    """{"train", "val", "test"}: numbers of the rows of each, in their order.

    sizes: rows of the file, and of those that val and test name. Raises UserError.
    """
    import numpy as np

    N, held_out = sizes[0], sizes[1:]
    order = np.random.default_rng(seed).permutation(N)
    parts, first, taken = {}, N, 0
    for name, source in (("val", val), ("test", test)):
        if isinstance(source, Path):
            rows = held_out.pop(0)
            parts[name] = np.arange(first, first + rows)
            first += rows
        else:
            rows = math.floor(source * N + 0.5)
            parts[name] = np.sort(order[taken : taken + rows])
            taken += rows
    if taken >= N:
        raise UserError(f"of {N:,} rows none is left to train on; lower --val and --test")
    return {"train": np.sort(order[taken:]), **parts}


def to_lines(bits) -> bytes:
    """(N, L) int8 of 0, 1 and -1 -> lines of 0, 1 and ?."""
    import numpy as np

    lines = np.full((bits.shape[0], bits.shape[1] + 1), ord("\n"), np.uint8)
    lines[:, :-1] = np.where(bits < 0, ord("?"), bits + ord("0"))
    return lines.tobytes()


def command() -> int:
    """The command line: bernoulli-prepare, python -m bernoulli_diffusion.prepare."""
    return run(main)


if __name__ == "__main__":
    sys.exit(command())
