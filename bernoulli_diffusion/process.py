"""The two processes side by side: bits that are redrawn, numbers that drown in noise.

Whatever differs between them has the same name in bernoulli.py and gaussian.py; nothing else asks
which one it serves. A third process is a third such module, a class beside BernoulliProcess and
GaussianProcess, and a line here (and its name among the choices of model.process in config.py).
"""

from types import ModuleType

from . import bernoulli, gaussian
from .config import Config

PROCESSES = {"bernoulli": bernoulli, "gaussian": gaussian}


def process_of(config: Config) -> ModuleType:
    """bernoulli or gaussian, as model.process says."""
    return PROCESSES[config.model.process]
