"""Data sets of pictures: MNIST, grey digits, and those of a folder."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from tqdm import tqdm

from ..system.command_line import tell
from ..system.errors import UserError
from .forms import (
    MAX_GREYS,
    MAX_LENGTH,
    MAX_NUMBERS,
    GreyImages,
    Pictures,
    Seed,
    ValShare,
    check_range,
    generator,
    random_split,
    share_split,
)
from .image_files import drawn, read_digits, read_mnist, read_pictures, thresholded


def grey_digits(num_val: Annotated[int, "digits in val.txt"] = 297, seed: Seed = 0) -> GreyImages:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels of darkness from 0 to 16."""
    images = read_digits("grey_digits")
    check_range("num-val", num_val, 0, len(images) - 1)
    return random_split(images, len(images) - num_val, num_val, seed)


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
    check_range("threshold", threshold, 1, 255)
    if grey and draw:
        raise UserError("--grey keeps numbers and --draw makes bits: leave one of them out")
    for digit in digits:
        check_range("digit", digit, 0, 9)
    parts = read_mnist(from_, digits, tell)
    names = ("num-train", num_train), ("num-val", num_val), ("num-test", num_test)
    for k, (name, count) in enumerate(names):
        check_range(name, count, 1 if k == 0 else 0, len(parts[k]))
        parts[k] = parts[k][:count]
    shape = list(parts[0].shape[1:])
    if not grey:
        rng = generator(seed)
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
    check_range("threshold", threshold, 1, 255)
    if len(size) > 2:
        raise UserError(f"--size: expected rows and columns, or one number, found {len(size)}")
    for side in size:
        check_range("size", side, 1, 10_000)
    pixels = read_pictures(from_, size, colour, lambda paths: tqdm(paths, "pictures", disable=None))
    if colour == invert:  # of colours the bright is large, of greys the dark
        pixels = 255 - pixels
    shape = list(pixels.shape[1:])
    if not grey:
        pixels = thresholded(pixels, threshold)
    train, val = share_split(pixels, val_share, seed)
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
