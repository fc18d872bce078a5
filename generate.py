"""Draw samples from a trained model: python generate.py CHECKPOINT N"""

import sys

from bernoulli_diffusion.generate import command

if __name__ == "__main__":
    sys.exit(command())
