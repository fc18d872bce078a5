"""Images as arrays: MNIST's files, scikit-learn's digits, folders of pictures, and bits made of greys."""

import hashlib
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..system.errors import UserError, cannot_open, printable

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST = {  # file: sha256 of its .gz
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
HELD_OUT = 10_000  # of MNIST's 60,000 training images, the last: val, as in the literature
PICTURES = (".png", ".pbm", ".pgm", ".ppm", ".jpg", ".jpeg", ".bmp", ".gif")
MOST_BYTES = 1 << 28  # of a file
MOST_PIXELS = 1 << 28  # of all pictures of a folder


# ------------------------------------------------------------------------------------------ MNIST


def read_mnist(
    folder: Path | None, digits: Sequence[int], tell: Callable[[str], None]
) -> list[np.ndarray]:
    """MNIST's images, (N, rows, columns) uint8: for training, to validate, to test.

    folder: where its IDX files are, with .gz or without; None downloads them. digits: those wanted, all
    if empty; to choose them needs the files of labels. tell is told of each file that is downloaded.
    Raises UserError for a file that is missing, damaged or not reached.
    """
    parts = []
    for part in ("train", "t10k"):
        images = _idx(folder, f"{part}-images-idx3-ubyte", 3, tell)
        if digits:
            labels = _idx(folder, f"{part}-labels-idx1-ubyte", 1, tell)
            if len(labels) != len(images):
                raise UserError(
                    f"{folder}: {len(labels):,} labels for {len(images):,} images in {part}; are the"
                    " files of one set?"
                )
            wanted = np.isin(labels, digits)
        else:
            wanted = np.ones(len(images), bool)
        if part == "t10k":
            parts.append(images[wanted])
            continue
        held_out = min(HELD_OUT, len(images) // 6)
        first = slice(None, len(images) - held_out), slice(len(images) - held_out, None)
        parts += [images[rows][wanted[rows]] for rows in first]
    return parts


def _idx(folder: Path | None, name: str, dimensions: int, tell) -> np.ndarray:
    """The array in an IDX file of bytes: two zeros, 8, its dimensions, each as 4 bytes, the values."""
    if folder is None:
        source = f"{MIRROR}{name}.gz"
        tell(f"downloading {source}")
        data = _download(name)
    else:
        source, data = _read(folder, name)
    data = _unzipped(data, source)
    header = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < header:
        raise UserError(f"{source}: not an IDX file of bytes in {dimensions} dimensions")
    shape = np.frombuffer(data[4:header], ">u4").astype(int)
    if len(data) != header + shape.prod():
        raise UserError(
            f"{source}: {len(data) - header:,} bytes, expected {shape.prod():,}; is it complete?"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _read(folder: Path, name: str) -> tuple[Path, bytes]:
    # some programs write the second - of a name as a dot
    names = [name, name.replace("-idx", ".idx")]
    paths = [folder / f"{spelling}{end}" for spelling in names for end in ("", ".gz")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        why = ", which says which image is which digit" if "labels" in name else ""
        raise UserError(f"{folder}: neither {name} nor {name}.gz is there{why}")
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise cannot_open(path, error) from None


def _unzipped(data: bytes, source) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return zlib.decompressobj(wbits=31).decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise UserError(f"{source}: cannot be unpacked: {error}") from None


def _download(name: str) -> bytes:
    """A file of MNIST from MIRROR, checked against its hash."""
    url = f"{MIRROR}{name}.gz"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            data = answer.read(MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url}: cannot be downloaded: {reason}; where there is no network, give the folder that"
            " holds MNIST's four IDX files: --from FOLDER"
        ) from None
    if hashlib.sha256(data).hexdigest() != MNIST[name]:
        raise UserError(f"{url}: not the file that was expected (sha256 differs); try again later")
    return data


# ------------------------------------------------------------------------------------------ digits


def read_digits(asked: str) -> np.ndarray:
    """scikit-learn's 1,797 digits, (1797, 64) of darkness from 0 to 16. asked: the data set's name."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise UserError(
            f"{asked} needs scikit-learn: python -m pip install scikit-learn"
        ) from error
    return load_digits().data


# ------------------------------------------------------------------------------------------ pictures


def read_pictures(
    folder: Path, size: Sequence[int], is_colour: bool, progress=lambda paths: paths
) -> np.ndarray:
    """The PNG, PBM, JPEG (and so on) files of a folder, by name: brightness as uint8.

    Returns (N, rows, columns), with is_colour (N, rows, columns, 3).
    size: [rows, columns], [side], or [] for that of the first picture, which all must then have; pictures
    of another size are cut to its proportions, round their middle, and scaled. What is transparent is
    white. progress wraps the list of files, as tqdm does. Raises UserError for one that cannot be read.
    """
    from PIL import Image, ImageOps  # imageio brings it along

    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    except OSError as error:
        raise cannot_open(folder, error, "--from names a folder of pictures") from None
    if not paths:
        has_folders = any(path.is_dir() for path in folder.iterdir())
        inside = "; those of the folders in it are not looked at" if has_folders else ""
        raise UserError(
            f"{folder}: no picture in it: no file that ends with {' '.join(PICTURES)}{inside}"
        )
    rows, columns = (*size, *size)[:2] if size else (None, None)
    images = []
    for path in progress(paths):
        try:
            with Image.open(path) as opened:
                picture = _eight_bits(ImageOps.exif_transpose(opened)).convert("RGBA")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(printable(f"{path}: cannot be read as a picture: {error}")) from None
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture).convert("RGB" if is_colour else "L")
        if rows is None:
            columns, rows = picture.size
        if picture.size != (columns, rows):
            if not size:
                raise UserError(
                    f"{path}: {picture.height} x {picture.width} pixels, but {paths[0].name} has"
                    f" {rows} x {columns}; --size {rows} {columns} cuts and scales all to one size"
                )
            picture = ImageOps.fit(picture, (columns, rows), Image.Resampling.BOX)
        images.append(np.asarray(picture))
        if len(images) * images[0].size > MOST_PIXELS:
            raise UserError(
                f"{folder}: more than {MOST_PIXELS:,} pixels in all; choose a smaller --size"
            )
    return np.stack(images)


def _eight_bits(picture):
    """A picture of 16-bit greys as one of 256, which Pillow's convert() would clip instead."""
    from PIL import Image

    if not picture.mode.startswith("I"):  # "I;16", or "I" of a PGM
        return picture
    return Image.fromarray(np.rint(np.asarray(picture) / 257).clip(0, 255).astype(np.uint8))


# ------------------------------------------------------------------------------------------ bits


def thresholded(images: np.ndarray, threshold: int) -> np.ndarray:
    """Bits: 1 where a value is at least threshold. images: uint8 of any shape."""
    return (images >= threshold).view(np.uint8)


def drawn(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bits: 1 with probability value / 255, drawn once (Salakhutdinov & Murray 2008). images: uint8."""
    bits = np.empty(images.shape, np.uint8)
    for one, image in zip(bits, images, strict=True):  # an image at a time: bounded memory
        np.less(rng.integers(255, size=image.shape, dtype=np.uint8), image, out=one.view(bool))
    return bits
