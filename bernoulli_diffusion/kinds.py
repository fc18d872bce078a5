"""The two kinds of data side by side: bits that are redrawn, numbers that drown in noise.

Whatever differs between them has the same name in bits/ and numbers/; nothing else asks which one it
serves. A third kind is a third such folder and a line here (and its name among the choices of
model.process in config.py).
"""

from types import ModuleType

from . import bits, numbers
from .config import Config

KINDS = {"bernoulli": bits, "gaussian": numbers}


def kind_of(config: Config) -> ModuleType:
    """bits or numbers, as model.process says."""
    return KINDS[config.model.process]
