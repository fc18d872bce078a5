"""Make a run's report.html again: python -m bernoulli_diffusion.report_page RESULTS_DIR..."""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import sys
from functools import partial
from pathlib import Path

from .system.command_line import ArgumentParser, run


def main() -> None:
    parser = ArgumentParser(
        description="Make report.html in results folders again, from results.json and the pictures."
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="RESULTS_DIR",
        type=Path,
        help="or the folder of a run: all its results folders",
    )
    arguments = parser.parse_args()
    from .config import load_config  # torch takes a second to import
    from .kinds import kind_of
    from .results import page, record
    from .results.runs import find_results
    from .system.errors import UserError

    for folder in [folder for path in arguments.folders for folder in find_results(path)]:
        results = record.read(folder)
        config = load_config(folder / "config.yaml")
        try:
            page.write(results, kind_of(config), folder, config.data.shape)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(
                f"{folder / record.FILE_NAME}: not the results of a run: {reason}"
            ) from None
        print(folder / page.FILE_NAME)


command = partial(run, main)  # python -m ...; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
