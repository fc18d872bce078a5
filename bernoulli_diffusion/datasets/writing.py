"""Data sets -> the text files of a run folder, and what config.yaml must say of them."""

import os
from pathlib import Path

import numpy as np

from ..system.errors import RunError, UserError, cannot_open
from ..system.files import write_atomically


def to_text(strings: np.ndarray) -> bytes:
    """(N, L) of 0 and 1 -> N lines. As in bits/data.py, which needs seconds to import torch."""
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
    refuse_to_overwrite(folder, force)
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


def refuse_to_overwrite(folder: Path, force: bool) -> None:
    """Raises UserError if train.txt or val.txt is there already, unless force."""
    for path in (folder / "train.txt", folder / "val.txt"):
        if not force and os.path.lexists(path):
            raise UserError(f"{path}: already there; --force replaces train.txt and val.txt")


def config_text(settings: dict) -> str:
    """A config.yaml of these settings, {"section.key": value}, or nothing."""
    lines = []
    for section in ("model", "data"):
        keys = [f"  {k.split('.')[1]}: {v}" for k, v in settings.items() if k.startswith(section)]
        lines += [f"{section}:", *keys] if keys else []
    return "".join(f"{line}\n" for line in lines)
