"""What a data set's rows may be, what its arguments must be, and how it is split."""

import math
from typing import Annotated, NamedTuple

import numpy as np

from ..system.errors import UserError

Split = tuple[np.ndarray, np.ndarray]  # train (N, L) and val (M, L)
Images = Annotated[Split, "each row of L = n * n bits is an n x n image, row by row"]
Numbers = Annotated[Split, "each row is a sample of real numbers"]
GreyImages = Annotated[Split, "each row of n * n whole numbers is an n x n image, row by row"]


class Pictures(NamedTuple):
    """Images of any shape, a row each, as uint8: bits, or numbers from 0 to 255."""

    train: np.ndarray  # (N, L)
    val: np.ndarray
    test: np.ndarray  # may be empty
    shape: list[int]  # [rows, columns] or [rows, columns, 3]
    are_numbers: bool


Seed = Annotated[int, "seed of the random generator; the same seed gives the same files"]
ValShare = Annotated[float, "share of the strings that goes to val.txt, rounded down"]

NumTrain = Annotated[int, "samples in train.txt"]
NumVal = Annotated[int, "samples in val.txt"]

MAX_LENGTH = 1_000_000  # bits per string, as in bits/data.py
MAX_NUMBERS = 10_000  # in a sample, as in numbers/data.py
MAX_BITS = 2**28  # per data set: keeps the peak memory below a few GB
MAX_GREYS = 2**26


def in_order(x: np.ndarray, num_train: int) -> Split:
    """The first rows train, and the others are held out."""
    return x[:num_train], x[num_train:]


def random_split(strings: np.ndarray, num_train: int, num_val: int, seed: int) -> Split:
    """num_train and num_val rows of strings, drawn without replacement and in random order."""
    order = generator(seed).permutation(len(strings))
    return strings[order[:num_train]], strings[order[num_train : num_train + num_val]]


def share_split(strings: np.ndarray, val_share: float, seed: int) -> Split:
    """All rows of strings, in random order, the given share of them (rounded down) in val."""
    if not 0 <= val_share < 1:
        raise UserError(f"val-share is {val_share}, expected at least 0 and less than 1")
    num_val = math.floor(val_share * len(strings))
    return random_split(strings, len(strings) - num_val, num_val, seed)


def generator(seed: int) -> np.random.Generator:
    """Raises UserError for a negative seed."""
    check_range("seed", seed, 0)
    return np.random.default_rng(seed)


def check_range(name: str, value: int | None, low: int, high: int | None = None) -> None:
    """Raises UserError unless low <= value <= high, or there is no value."""
    if value is not None and (value < low or (high is not None and value > high)):
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        raise UserError(f"{name} is {value}, expected {expected}")


def check_size(num_strings: int, length: int) -> None:
    """Raises UserError for more bits than fit into memory."""
    if length > MAX_LENGTH:
        raise UserError(f"strings of {length:,} bits are too long: at most {MAX_LENGTH:,} bits")
    if num_strings * length > MAX_BITS:
        raise UserError(
            f"{num_strings:,} strings of {length:,} bits are too many: at most {MAX_BITS:,} bits"
        )
