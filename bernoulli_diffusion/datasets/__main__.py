"""The command line: python -m bernoulli_diffusion.datasets."""

import sys

from . import command

if __name__ == "__main__":
    sys.exit(command())
