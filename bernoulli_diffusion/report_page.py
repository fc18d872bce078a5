"""Make a run's report.html again: python -m bernoulli_diffusion.report_page RESULTS_DIR..."""

import sys

from .results.page import main
from .system.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
