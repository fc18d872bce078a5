"""Train a model on a run folder: python train.py RUN_DIR"""

import sys

from bernoulli_diffusion.train import command

if __name__ == "__main__":
    sys.exit(command())
