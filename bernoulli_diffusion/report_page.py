"""Make a run's report.html again: python -m bernoulli_diffusion.report_page RESULTS_DIR..."""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import sys
from pathlib import Path

from .config import load_config
from .results.page import DAMAGED, FILE_NAME, read_results, write
from .system.command_line import ArgumentParser, run
from .system.errors import UserError


def main() -> None:
    parser = ArgumentParser(
        description="Make report.html in results folders again, from results.json and the pictures."
    )
    parser.add_argument("folders", nargs="+", metavar="RESULTS_DIR", type=Path)
    for folder in parser.parse_args().folders:
        results = read_results(folder)
        try:
            write(results, folder, load_config(folder / "config.yaml").data.shape)
        except DAMAGED as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(
                f"{folder / 'results.json'}: not the results of a run: {reason}"
            ) from None
        print(folder / FILE_NAME)


def command() -> int:
    """The command line: python -m bernoulli_diffusion.report_page. Returns the exit code."""
    return run(main)


if __name__ == "__main__":
    sys.exit(command())
