"""Data sets: python -m bernoulli_diffusion.datasets NAME RUN_DIR [options]

Writes RUN_DIR/train.txt and RUN_DIR/val.txt, one string of 0 and 1 a line, or one sample of real
numbers a line (for model.process: gaussian).

A data set is a function that returns (train, val), two uint8 arrays of shape (N, L) of which val
may be empty. Write one below and it is a command: its name is NAME, its docstring the help, and
its arguments the options, each annotated as Annotated[type, "help"] and with a default (the type is
int, float, Path, any of them `| None`, Sequence[int], or bool, False by default; a Literal of texts
without a default stands before RUN_DIR). The return annotation is what tells a data set from a helper:
Split, or Images when each row is an n x n picture; for real numbers (float64 arrays) Numbers or
GreyImages; or Pictures, which has test images and a shape of its own. What config.yaml must say of the
data is written there, if there is none.
"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import argparse
import inspect
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args, get_origin

import numpy as np
from tqdm import tqdm

from . import planar as planar_densities
from .image_files import drawn, read_mnist, read_pictures, thresholded
from .system.command_line import ArgumentParser, run, tell
from .system.errors import RunError, UserError, cannot_open, printable
from .system.files import write_atomically

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

MAX_LENGTH = 1_000_000  # bits per string that data.py reads
MAX_NUMBERS = 10_000  # in a sample that gaussian_data.py reads
MAX_BITS = 2**28  # per data set: keeps the peak memory below a few GB
MAX_GREYS = 2**26


def heartbeat(
    length: Annotated[int, "bits per string"] = 20,
    period: Annotated[int, "bits from one 1 to the next"] = 5,
    held_out: Annotated[Sequence[int], "phases that go to val.txt; the others train"] = (),
) -> Split:
    """A 1 every `period` bits, one string per phase; the phase is the position of the first 1."""
    _check_range("length", length, 1)
    _check_range("period", period, 1, length)
    _check_size(period, length)
    for phase in held_out:
        _check_range("held-out phase", phase, 0, period - 1)
    phases = np.arange(period)
    strings = np.arange(length) % period == phases[:, None]  # (period, L)
    in_val = np.isin(phases, held_out)
    if in_val.all():
        raise UserError(f"all {period} phases are held out, so none is left to train on")
    return strings[~in_val].astype(np.uint8), strings[in_val].astype(np.uint8)


def repeating_patterns(
    length: Annotated[int, "bits per string, not necessarily a multiple of the period"] = 20,
    period: Annotated[int, "bits per pattern"] = 10,
    num_train: Annotated[int | None, "strings in train.txt (default: 95% of all, 972)"] = None,
    num_val: Annotated[int | None, "strings in val.txt (default: 5%; for period 10, 50)"] = None,
    seed: Seed = 0,
) -> Split:
    """Each of the 2^period patterns of `period` bits, repeated to fill the length, shuffled.

    The default for period 10 is 972 and 50 strings, which leaves 2 of the 1,024 out.
    """
    _check_range("length", length, 1)
    _check_range("period", period, 1, min(length, 62))
    _check_size(2**period, length)
    total = 2**period
    _check_range("num-train", num_train, 1, total)
    _check_range("num-val", num_val, 0, total - (num_train or 1))
    if num_val is None:
        share = 50 if period == 10 else total - 19 * total // 20
        num_val = min(share, total - (num_train or 1))
    if num_train is None:
        num_train = min(19 * total // 20, total - num_val)
    patterns = _binary(np.arange(total), period)  # (2^period, period)
    strings = patterns[:, np.arange(length) % period]  # (2^period, L)
    return _random_split(strings, num_train, num_val, seed)


def multiples(
    bits: Annotated[int, "bits per number"] = 20,
    divisor: Annotated[int, "what every number is a multiple of"] = 5,
    val_share: ValShare = 0.05,
    seed: Seed = 0,
) -> Split:
    """The positive multiples of `divisor` as binary numbers, most significant bit first."""
    _check_range("bits", bits, 1, 62)  # numbers and their end fit into an int64
    _check_range("divisor", divisor, 1, 2**bits - 1)
    _check_size((2**bits - 1) // divisor, bits)
    # From the divisor, not from 0: with the defaults 209,715 strings, split 199,230 + 10,485.
    strings = _binary(np.arange(divisor, 2**bits, divisor), bits)  # (N, bits)
    return _share_split(strings, val_share, seed)


def bars_and_stripes(
    size: Annotated[int, "height and width of the image"] = 4,
    val_share: ValShare = 0.2,
    seed: Seed = 0,
) -> Images:
    """The 2^(size+1) - 2 images whose rows are all constant or whose columns are all constant."""
    _check_range("size", size, 1, 62)
    _check_size(2 ** (size + 1) - 2, size * size)
    patterns = _binary(np.arange(2**size), size)  # (2^n, n)
    constant_rows = np.repeat(patterns, size, axis=1)  # (2^n, n * n)
    # The first and the last pattern, all 0 and all 1, give images that the rows have given already.
    constant_columns = np.tile(patterns[1:-1], (1, size))  # (2^n - 2, n * n)
    return _share_split(np.concatenate([constant_rows, constant_columns]), val_share, seed)


def ising(
    size: Annotated[int, "height and width of the lattice"] = 8,
    temperature: Annotated[float, "in units of J / k_B; the critical one is 2.269"] = 2.27,
    num_train: Annotated[int, "strings in train.txt"] = 10_000,
    num_val: Annotated[int, "strings in val.txt"] = 1_000,
    seed: Seed = 0,
) -> Images:
    """Independent samples of the 2-D Ising model on a periodic square lattice; 1 is spin up.

    p(s) ~ exp(-E(s) / temperature), E(s) = -sum_i s_i (s_right(i) + s_down(i)), s in {-1,+1}: every
    site has one bond to its right and one to its lower neighbour. On the 2 x 2 lattice these meet
    the same neighbour from both sides, so there each pair has two bonds.
    """
    _check_range("size", size, 2)
    if not temperature > 0:  # written so that nan is refused too
        raise UserError(f"temperature is {temperature}, expected more than 0")
    _check_range("num-train", num_train, 1)
    _check_range("num-val", num_val, 0)
    _check_size(num_train + num_val, size * size)
    rng = _generator(seed)
    # One Markov chain per sample makes the samples independent. All start with every spin up: one
    # sweep is then exact in both limits (T -> 0: one cluster, flipped by a fair coin; T -> inf: no
    # bonds, fair spins). In between, Swendsen-Wang has no barrier to cross and is slowest at the
    # critical temperature, where we measured relaxation times of 2.8, 3.4, 4.0 and 4.8 sweeps at
    # size 8, 16, 32 and 64. We take at least 12 of them: a bias of exp(-12), far below the noise.
    num_sweeps = 10 * size.bit_length()
    num_chains = max(1, 2**16 // size**2)  # at a time: arrays that stay in the processor's cache
    spins = np.ones((num_train + num_val, size, size), dtype=np.uint8)
    starts = range(0, len(spins), num_chains)
    for start in tqdm(starts, "ising", leave=False, delay=1, disable=None):
        block = spins[start : start + num_chains]
        for _ in range(num_sweeps):
            block[:] = _swendsen_wang(block, temperature, rng)
    strings = spins.reshape(len(spins), size * size)
    return strings[:num_train], strings[num_train:]


def digits(
    threshold: Annotated[int, "darkness, 1 to 16, from which on a pixel is 1"] = 8,
    num_val: Annotated[int, "strings in val.txt, at most"] = 297,
    seed: Seed = 0,
) -> Images:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels, in black and white.

    Digits that are equal in black and white stay on the same side of the split, so that no
    validation string is also a training string; val.txt may be a few strings shorter for it.
    """
    _check_range("threshold", threshold, 1, 16)
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise UserError("digits needs scikit-learn: python -m pip install scikit-learn") from error
    strings = (load_digits().data >= threshold).astype(np.uint8)  # (1797, 64)
    _check_range("num-val", num_val, 0, len(strings) - 1)
    distinct, index = np.unique(strings, axis=0, return_inverse=True)
    rank = _generator(seed).permutation(len(distinct))[index.ravel()]  # equal strings, equal rank
    in_val = rank < np.sort(rank)[num_val]
    return strings[~in_val], strings[in_val]


def planar(
    name: Annotated[Literal[tuple(planar_densities.DENSITIES)], "the density"],
    num_train: Annotated[int, "strings in train.txt"] = 200_000,
    num_val: Annotated[int, "strings in val.txt"] = 5_000,
    seed: Seed = 0,
) -> Split:
    """Points of a density in the plane: 32 bits, two coordinates of 16 bits in Gray code.

    A test set is the val.txt of another seed. bernoulli_diffusion/planar.py turns strings into points.
    """
    _check_range("num-train", num_train, 1)
    _check_range("num-val", num_val, 0)
    _check_size(num_train + num_val, 32)
    draw, _ = planar_densities.DENSITIES[name]
    points = draw(num_train + num_val, _generator(seed))
    return _in_order(planar_densities.to_strings(points, name), num_train)


NumTrain = Annotated[int, "samples in train.txt"]
NumVal = Annotated[int, "samples in val.txt"]


def gaussian_mixture(
    num_train: NumTrain = 10_000, num_val: NumVal = 2_000, seed: Seed = 0
) -> Numbers:
    """1-D: with probability 0.7 at +1/2, else at -1/2, with standard deviation 0.2."""
    rng, count = _numbers_generator(num_train, num_val, 1, seed)
    x = np.where(rng.random(count) < 0.7, 0.5, -0.5) + 0.2 * rng.standard_normal(count)
    return _in_order(x[:, None], num_train)


def ramp(
    dimensions: Annotated[int, "numbers in a sample, independent of each other"] = 1,
    num_train: NumTrain = 10_000,
    num_val: NumVal = 2_000,
    seed: Seed = 0,
) -> Numbers:
    """The minimum of two uniform numbers: density 2 (1 - x) on [0, 1], in any number of dimensions."""
    rng, count = _numbers_generator(num_train, num_val, dimensions, seed)
    return _in_order(rng.random((count, dimensions, 2)).min(axis=2), num_train)


def spiral(num_train: NumTrain = 10_000, num_val: NumVal = 2_000, seed: Seed = 0) -> Numbers:
    """2-D: radius 0.65 u + 0.25 + 0.15 v at the angle 3 pi u, with u and v uniform."""
    rng, count = _numbers_generator(num_train, num_val, 2, seed)
    u, v = rng.random((2, count))
    return _in_order(_polar(0.65 * u + 0.25 + 0.15 * v, 3 * np.pi * u), num_train)


def swiss_roll(num_train: NumTrain = 10_000, num_val: NumVal = 2_000, seed: Seed = 0) -> Numbers:
    """2-D: the angle t, from 1.5 pi to 4.5 pi, is the radius too; noise 0.1; all divided by 10."""
    rng, count = _numbers_generator(num_train, num_val, 2, seed)
    t = 1.5 * np.pi * (1 + 2 * rng.random(count))
    return _in_order((_polar(t, t) + 0.1 * rng.standard_normal((count, 2))) / 10, num_train)


def n_gaussians(
    clusters: Annotated[int, "how many, evenly spaced on the unit circle"] = 8,
    deviation: Annotated[float, "standard deviation of each cluster"] = 0.2,
    num_train: NumTrain = 10_000,
    num_val: NumVal = 2_000,
    seed: Seed = 0,
) -> Numbers:
    """2-D: round Gaussian clusters on the unit circle."""
    _check_range("clusters", clusters, 1)
    if not 0 < deviation < math.inf:
        raise UserError(f"deviation is {deviation}, expected more than 0")
    rng, count = _numbers_generator(num_train, num_val, 2, seed)
    centres = _polar(np.ones(count), 2 * np.pi * rng.integers(clusters, size=count) / clusters)
    return _in_order(centres + deviation * rng.standard_normal((count, 2)), num_train)


def grey_digits(num_val: Annotated[int, "digits in val.txt"] = 297, seed: Seed = 0) -> GreyImages:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels of darkness from 0 to 16."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise UserError(
            "grey_digits needs scikit-learn: python -m pip install scikit-learn"
        ) from error
    images = load_digits().data  # (1797, 64)
    _check_range("num-val", num_val, 0, len(images) - 1)
    return _random_split(images, len(images) - num_val, num_val, seed)


def mnist(
    from_: Annotated[
        Path | None, "folder with MNIST's IDX files, .gz or not; else: download"
    ] = None,
    grey: Annotated[bool, "numbers from 0 to 255, not bits"] = False,
    threshold: Annotated[int, "brightness, 1 to 255, from which on a pixel is 1"] = 128,
    draw: Annotated[bool, "a pixel is 1 with probability brightness / 255, drawn once"] = False,
    digits: Annotated[Sequence[int], "which digits, such as 3 8 (default: all)"] = (),
    num_train: Annotated[int | None, "images in train.txt (default: 50,000, or all)"] = None,
    num_val: Annotated[int | None, "images in val.txt (default: 10,000, or all)"] = None,
    num_test: Annotated[int | None, "images in test.txt (default: 10,000, or all)"] = None,
    seed: Seed = 0,
) -> Pictures:
    """MNIST: handwritten digits of 28 x 28 pixels, in black and white or in 256 greys.

    val.txt gets the last 10,000 of the 60,000 training images, as is customary, test.txt the test
    images. A pixel is 1, or large, where the stroke is.
    """
    _check_range("threshold", threshold, 1, 255)
    if grey and draw:
        raise UserError("--grey keeps numbers and --draw makes bits: leave one of them out")
    for digit in digits:
        _check_range("digit", digit, 0, 9)
    parts = read_mnist(from_, digits, tell)
    names = ("num-train", num_train), ("num-val", num_val), ("num-test", num_test)
    for k, (name, count) in enumerate(names):
        _check_range(name, count, 1 if k == 0 else 0, len(parts[k]))
        parts[k] = parts[k][:count]
    shape = list(parts[0].shape[1:])
    if not grey:
        rng = _generator(seed)
        parts = [drawn(part, rng) if draw else thresholded(part, threshold) for part in parts]
    return _pictures(parts, shape, grey)


def images(
    from_: Annotated[Path | None, "folder of pictures: PNG, PBM, JPEG and their like"] = None,
    size: Annotated[
        Sequence[int], "rows and columns to cut and scale to (default: as they are)"
    ] = (),
    grey: Annotated[bool, "numbers from 0 to 255, not bits"] = False,
    colour: Annotated[
        bool, "red, green and blue of each pixel, 1 or large where it is bright"
    ] = False,
    invert: Annotated[bool, "bright pixels are 1 or large, not dark ones"] = False,
    threshold: Annotated[int, "darkness (of colours: brightness), 1 to 255, of a 1"] = 128,
    val_share: ValShare = 0.1,
    seed: Seed = 0,
) -> Pictures:
    """The pictures of a folder, in black and white, greys or colours; dark pixels are 1, or large.

    Pictures of another size than --size are cut to its proportions, round their middle, and scaled.
    """
    if from_ is None:
        raise UserError("images needs --from FOLDER, a folder of pictures")
    _check_range("threshold", threshold, 1, 255)
    if len(size) > 2:
        raise UserError(f"--size: expected rows and columns, or one number, found {len(size)}")
    for side in size:
        _check_range("size", side, 1, 10_000)
    pixels = read_pictures(from_, size, colour, lambda paths: tqdm(paths, "pictures", disable=None))
    if colour == invert:  # of colours the bright is large, of greys the dark
        pixels = 255 - pixels
    shape = list(pixels.shape[1:])
    if not grey:
        pixels = thresholded(pixels, threshold)
    train, val = _share_split(pixels, val_share, seed)
    return _pictures([train, val, val[:0]], shape, grey)


def _pictures(parts: list[np.ndarray], shape: list[int], are_numbers: bool) -> Pictures:
    """parts: train, val and test images, (N, *shape)."""
    length, most = math.prod(shape), MAX_NUMBERS if are_numbers else MAX_LENGTH
    if length > most:
        cells = " x ".join(map(str, shape))
        raise UserError(f"images of {cells} = {length:,} values are too large: at most {most:,}")
    if are_numbers and (count := sum(map(len, parts))) * length > MAX_GREYS:
        raise UserError(
            f"{count:,} images of {length:,} numbers are more than {MAX_GREYS:,} numbers"
        )
    return Pictures(*(part.reshape(len(part), length) for part in parts), shape, are_numbers)


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(N, 2) points in the plane."""
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _numbers_generator(num_train: int, num_val: int, dimensions: int, seed: int):
    """The random generator and the number of samples, for checked arguments."""
    _check_range("num-train", num_train, 1)
    _check_range("num-val", num_val, 0)
    _check_range("dimensions", dimensions, 1, MAX_NUMBERS)
    _check_size(num_train + num_val, 32 * dimensions)
    return _generator(seed), num_train + num_val


def _in_order(x: np.ndarray, num_train: int) -> Split:
    return x[:num_train], x[num_train:]


def _swendsen_wang(spins: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """One Swendsen-Wang sweep of independent periodic lattices; spins and result (B, n, n), 0 or 1.

    Bonds between equal spins become active with probability 1 - exp(-2 / temperature); each cluster
    of sites joined by active bonds gets one fair spin. (Phys. Rev. Lett. 58, 86, 1987.)
    """
    p_active = -math.expm1(-2 / temperature)
    sites = np.arange(spins.size, dtype=np.int32).reshape(spins.shape)
    from_sites, to_sites = [], []
    for axis in (1, 2):  # down, right
        equal = spins == np.roll(spins, -1, axis)
        active = equal & (rng.random(spins.shape) < p_active)
        from_sites.append(sites[active])
        to_sites.append(np.roll(sites, -1, axis)[active])
    root = _components(spins.size, np.concatenate(from_sites), np.concatenate(to_sites))
    fair = rng.integers(0, 2, spins.size, dtype=np.uint8)
    return fair[root].reshape(spins.shape)


def _components(num_nodes: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Connected components of the graph with edges a[k] - b[k]: each node's root, (num_nodes,).

    Two nodes have the same root exactly when they are connected. Each round hooks every root that
    has a smaller neighbour onto one of them; a handful of rounds is enough (Shiloach and Vishkin).
    """
    root = np.arange(num_nodes, dtype=a.dtype)
    while a.size:
        root[np.maximum(a, b)] = np.minimum(a, b)  # a and b are roots; of several edges, one wins
        while not np.array_equal(root, higher := root[root]):
            root = higher
        a, b = root[a], root[b]
        apart = a != b
        a, b = a[apart], b[apart]
    return root


def _binary(numbers: np.ndarray, width: int) -> np.ndarray:
    """The binary digits of int64 numbers (N,), most significant first: uint8 (N, width)."""
    octets = numbers.astype(">i8").view(np.uint8).reshape(-1, 8)  # (N, 8), big-endian
    return np.unpackbits(octets, axis=1)[:, 64 - width :]


def _random_split(strings: np.ndarray, num_train: int, num_val: int, seed: int) -> Split:
    """num_train and num_val rows of strings, drawn without replacement and in random order."""
    order = _generator(seed).permutation(len(strings))
    return strings[order[:num_train]], strings[order[num_train : num_train + num_val]]


def _share_split(strings: np.ndarray, val_share: float, seed: int) -> Split:
    """All rows of strings, in random order, the given share of them (rounded down) in val."""
    if not 0 <= val_share < 1:
        raise UserError(f"val-share is {val_share}, expected at least 0 and less than 1")
    num_val = math.floor(val_share * len(strings))
    return _random_split(strings, len(strings) - num_val, num_val, seed)


def _generator(seed: int) -> np.random.Generator:
    _check_range("seed", seed, 0)
    return np.random.default_rng(seed)


def _check_range(name: str, value: int | None, low: int, high: int | None = None) -> None:
    if value is not None and (value < low or (high is not None and value > high)):
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        raise UserError(f"{name} is {value}, expected {expected}")


def _check_size(num_strings: int, length: int) -> None:
    if length > MAX_LENGTH:
        raise UserError(f"strings of {length:,} bits are too long: at most {MAX_LENGTH:,} bits")
    if num_strings * length > MAX_BITS:
        raise UserError(
            f"{num_strings:,} strings of {length:,} bits are too many: at most {MAX_BITS:,} bits"
        )


def to_text(strings: np.ndarray) -> bytes:
    """(N, L) of 0 and 1 -> N lines. As in data.py, which needs seconds to import torch."""
    num_strings, length = strings.shape
    text = np.full((num_strings, length + 1), ord("\n"), dtype=np.uint8)
    text[:, :-1] = strings + ord("0")
    return text.tobytes()


def numbers_to_text(samples: np.ndarray) -> bytes:
    """(N, D) -> N lines of numbers with five digits, between spaces."""
    rows = (" ".join([f"{v:.5g}" for v in row]) for row in samples.tolist())
    return "".join(f"{row}\n" for row in rows).encode()


def whole_numbers_to_text(samples: np.ndarray) -> bytes:
    """(N, D) uint8 -> N lines of numbers between spaces, many times as fast as the above."""
    words = [str(value) for value in range(256)]
    rows = (" ".join(map(words.__getitem__, row.tobytes())) for row in samples)
    return "".join(f"{row}\n" for row in rows).encode()


def write_split(
    folder: Path,
    train: bytes,
    val: bytes,
    force: bool = False,
    test: bytes = b"",
    config: str = "",
) -> None:
    """Write folder/train.txt and folder/val.txt; with no val there will be no val.txt.

    test: also write test.txt; config: and config.yaml, if there is none. Each file appears complete or
    not at all. UserError if train.txt or val.txt is there already, unless force.
    """
    _refuse_to_overwrite(folder, force)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not val:  # one that is there belongs to other training data
            (folder / "val.txt").unlink(missing_ok=True)
    except OSError as error:
        raise cannot_open(folder, error, "RUN_DIR is a folder to write to") from error
    # train.txt last: a folder in which only half of this was done has no train.txt to train on.
    try:
        if test:
            write_atomically(folder / "test.txt", test)
        if val:
            write_atomically(folder / "val.txt", val)
        if config and not (folder / "config.yaml").exists():
            write_atomically(folder / "config.yaml", config.encode())
        write_atomically(folder / "train.txt", train)
    except OSError as error:
        raise RunError(f"{folder}: cannot write: {error.strerror or error}") from error


def _refuse_to_overwrite(folder: Path, force: bool) -> None:
    for path in (folder / "train.txt", folder / "val.txt"):
        if not force and os.path.lexists(path):
            raise UserError(f"{path}: already there; --force replaces train.txt and val.txt")


def data_sets() -> list[Callable[..., Split]]:
    """The functions of this file whose return annotation is one of the five, in their order."""
    return [
        function
        for name, function in globals().items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and inspect.signature(function).return_annotation
        in (Split, Images, Numbers, GreyImages, Pictures)
    ]


def build_parser() -> ArgumentParser:
    """One subcommand per data set; its options are the arguments of the function."""
    parser = ArgumentParser(
        description="Write a data set to RUN_DIR/train.txt and RUN_DIR/val.txt.",
        allow_abbrev=False,
    )
    parser.epilog = f"The options of a data set: {parser.prog} NAME --help"
    commands = parser.add_subparsers(metavar="NAME", required=True)
    for function in data_sets():
        description = inspect.getdoc(function)
        command = commands.add_parser(
            function.__name__,
            help=description.splitlines()[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(function=function)
        parameters = inspect.signature(function).parameters
        for name in [name for name, p in parameters.items() if p.default is p.empty]:
            choices, text = get_args(parameters[name].annotation)
            names = get_args(choices)
            text = f"{text}: {', '.join(names)}"
            command.add_argument(name, metavar=name.upper(), choices=names, help=text)
        command.add_argument(
            "run_dir", metavar="RUN_DIR", type=Path, help="folder to write to, made if missing"
        )
        for name, parameter in parameters.items():
            if parameter.default is not parameter.empty:
                _add_option(command, name, parameter)
        command.add_argument(
            "--force", action="store_true", help="replace train.txt and val.txt if they are there"
        )
    return parser


def _add_option(command: ArgumentParser, name: str, parameter: inspect.Parameter) -> None:
    annotated, text = get_args(parameter.annotation)
    kind = (get_args(annotated) or (annotated,))[0]  # int | None and Sequence[int] are read as int
    option = "--" + name.rstrip("_").replace("_", "-")  # from_, since from is a word of Python
    if kind is bool:
        command.add_argument(option, dest=name, action="store_true", help=text)
        return
    several = {"nargs": "+", "action": "extend"} if get_origin(annotated) is Sequence else {}
    if parameter.default not in (None, ()):
        text += f" (default: {parameter.default})"
    command.add_argument(
        option,
        dest=name,
        type=kind,
        default=argparse.SUPPRESS,  # an option not given is not passed on: the function knows
        metavar="FOLDER" if kind is Path else kind.__name__.upper(),
        help=text.replace("%", "%%"),
        **several,
    )


def main() -> None:
    arguments = build_parser().parse_args()
    folder, function, force = arguments.run_dir, arguments.function, arguments.force
    _refuse_to_overwrite(folder, force)  # before the work, which may take minutes
    names = inspect.signature(function).parameters
    options = {name: value for name, value in vars(arguments).items() if name in names}
    made = function(**options)
    returned = inspect.signature(function).return_annotation
    are_numbers = made.are_numbers if returned is Pictures else returned in (Numbers, GreyImages)
    test = made.test if returned is Pictures else made[0][:0]
    train, val = made[:2]
    shape = made.shape if returned is Pictures else None
    if returned in (Images, GreyImages):
        shape = [math.isqrt(train.shape[1])] * 2
    settings = {}  # that the data need
    if are_numbers:
        settings["model.process"] = "gaussian"
    if shape:
        settings["data.shape"] = shape
    if are_numbers and shape:  # whole numbers have no density
        settings["data.dequantize"] = 1
    write = to_text
    if are_numbers:
        write = whole_numbers_to_text if train.dtype == np.uint8 else numbers_to_text
    has_config = (folder / "config.yaml").exists()
    write_split(folder, write(train), write(val), force, write(test), config_text(settings))

    length = train.shape[1]
    counts = [f"{len(train):,} in train.txt"]
    counts.append(f"{len(val):,} in val.txt" if len(val) else "none held out, so no val.txt")
    counts += [f"{len(test):,} in test.txt"] if len(test) else []
    what = f"samples of {length:,} numbers" if are_numbers else f"strings of {length:,} bits"
    notes = [f"{what}: {', '.join(counts)}"]
    if settings:
        said = ", ".join(f"{name}: {value}" for name, value in settings.items())
        notes.append(f"config.yaml {'should say' if has_config else 'says'} {said}")
    if not has_config:
        notes.append(f"next: python train.py {shlex.quote(str(folder))}")
    for note in notes:
        tell(printable(note))
    print(printable(folder))


def config_text(settings: dict) -> str:
    """A config.yaml of these settings, {"section.key": value}, or nothing."""
    lines = []
    for section in ("model", "data"):
        keys = [f"  {k.split('.')[1]}: {v}" for k, v in settings.items() if k.startswith(section)]
        lines += [f"{section}:", *keys] if keys else []
    return "".join(f"{line}\n" for line in lines)


def command() -> int:
    """The command line: bernoulli-datasets, python -m ... Returns the exit code."""
    return run(main)


if __name__ == "__main__":
    sys.exit(command())
