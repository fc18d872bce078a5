"""Text files <-> packed bits. The only place that knows the file format: one string of 0 and 1 a line.

Bits stay packed, one bit a bit, in the order of numpy.packbits, and are unpacked a batch at a time.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import UserError, cannot_open, printable
from .noise import derive_seed

CHUNK_BYTES = 1 << 22
MAX_LENGTH = 1_000_000


class BitStrings:
    """N binary strings of length L, packed 8 bits to a byte: packed is (N, ceil(L / 8)) uint8."""

    def __init__(self, packed: np.ndarray, length: int):
        self.packed, self.length = packed, length

    @classmethod
    def from_bits(cls, bits: np.ndarray) -> "BitStrings":
        """bits: (N, L) of 0 and 1."""
        return cls(np.packbits(bits.astype(np.uint8), axis=1), bits.shape[1])

    def __len__(self) -> int:
        return len(self.packed)

    def bits(self, rows=slice(None)) -> np.ndarray:
        """(N, L) uint8 of 0 and 1."""
        return np.unpackbits(self.packed[rows], axis=1, count=self.length)

    def sha256(self) -> str:
        """A hash of the strings in their order, whatever the file's line endings."""
        digest = hashlib.sha256(f"{self.length}\n".encode())
        digest.update(np.ascontiguousarray(self.packed).data)
        return digest.hexdigest()

    def keys(self) -> np.ndarray:
        """(N,) one comparable key a string: an integer for L <= 64, else raw bytes."""
        width = self.packed.shape[1]
        if width > 8:
            return np.ascontiguousarray(self.packed).view(f"V{width}")[:, 0]
        padded = np.zeros((len(self.packed), 8), np.uint8)
        padded[:, :width] = self.packed
        return padded.view(np.uint64)[:, 0]


class Membership:
    """Which strings stand in a given set. Built by one sort, asked by binary search."""

    def __init__(self, strings: BitStrings):
        self.sorted_keys = np.sort(_sortable(strings.keys()))

    def contains(self, strings: BitStrings) -> np.ndarray:
        """(N,) bool: is each string in the set?"""
        keys = _sortable(strings.keys())
        position = np.searchsorted(self.sorted_keys, keys)
        position[position == len(self.sorted_keys)] = 0
        return self.sorted_keys[position] == keys


def _sortable(keys: np.ndarray) -> np.ndarray:
    # numpy does not order void; fixed-width bytes it does, but strips trailing zero bytes when it
    # compares, which is harmless because all keys have the same width
    return keys.view(f"S{keys.dtype.itemsize}") if keys.dtype.kind == "V" else keys


def count_distinct(strings: BitStrings) -> int:
    """The number of different strings."""
    keys = np.sort(_sortable(strings.keys()))
    return int(1 + (keys[1:] != keys[:-1]).sum()) if len(keys) else 0


# ---------------------------------------------------------------------------------------- reading


def read_bit_strings(path: Path) -> BitStrings:
    """Read a text file with one string of 0 and 1 a line, all of one length.

    Accepted besides: \\r\\n line ends, a missing last newline, empty lines at the end, a UTF-8
    byte-order mark. Raises UserError with file, line, column and cure for anything else.
    """
    try:
        with open(path, "rb") as stream:
            return _read(stream, path)
    except OSError as error:
        raise cannot_open(path, error) from None


def _read(stream, path: Path) -> BitStrings:
    packed, length, line_number, rest = [], None, 1, b""
    first = True
    while chunk := stream.read(CHUNK_BYTES):
        if first:
            chunk, first = chunk.removeprefix(b"\xef\xbb\xbf"), False
        chunk = rest + chunk
        cut = chunk.rfind(b"\n") + 1
        chunk, rest = chunk[:cut], chunk[cut:]
        if len(rest) > MAX_LENGTH + 1:
            raise UserError(f"{path}:{line_number}: a line of more than {MAX_LENGTH:,} characters")
        if chunk:
            rows, length = _parse(chunk, path, line_number, length)
            packed.append(rows)
            line_number += chunk.count(b"\n")
    if rest:
        rows, length = _parse(rest + b"\n", path, line_number, length)
        packed.append(rows)
    if length is None:
        raise UserError(f"{path}: the file is empty; expected one string of 0 and 1 a line")
    packed = [rows for rows in packed if len(rows)]
    return BitStrings(packed[0] if len(packed) == 1 else np.concatenate(packed), length)


def _parse(chunk: bytes, path: Path, line_number: int, length: int | None):
    """Whole lines -> (packed rows, length). length is None before the first line with bits."""
    text = np.frombuffer(chunk, np.uint8)
    first_end = chunk.index(b"\n")
    ending = 2 if chunk[first_end - 1 : first_end] == b"\r" else 1
    width = first_end + 1 - ending
    if width > 0 and width == (length or width) and len(text) % (width + ending) == 0:
        lines = text.reshape(-1, width + ending)
        characters = lines[:, :width]
        if (
            (lines[:, -1] == ord("\n")).all()
            and (ending == 1 or (lines[:, -2] == ord("\r")).all())
            and ((characters & 0xFE) == ord("0")).all()
        ):
            return np.packbits(characters & 1, axis=1), width
    return _parse_line_by_line(chunk, path, line_number, length)


def _parse_line_by_line(chunk: bytes, path: Path, line_number: int, length: int | None):
    """The slow way, for mixed line ends, and to say what is wrong and where."""
    rows, first_empty = [], None
    for number, line in enumerate(chunk.split(b"\n")[:-1], start=line_number):
        line = line.removesuffix(b"\r")
        if not line:
            first_empty = first_empty or number
            continue
        if first_empty:
            raise UserError(f"{path}:{first_empty}: an empty line among the strings; remove it")
        digits = np.frombuffer(line, np.uint8)
        wrong = np.flatnonzero((digits & 0xFE) != ord("0"))
        if len(wrong):
            raise UserError(_wrong_character(line, int(wrong[0]), f"{path}:{number}"))
        length = length or len(line)
        if len(line) != length:
            raise UserError(
                f"{path}:{number}: {len(line)} characters, but the lines above have {length};"
                " all strings must have one length"
            )
        rows.append(digits & 1)
    if not rows:
        return np.zeros((0, 0), np.uint8), length
    return np.packbits(np.stack(rows), axis=1), length


def _wrong_character(line: bytes, column: int, place: str) -> str:
    character = line[column:].decode("utf-8", "replace")[0]
    place = f"{place}:{column + 1}"
    if character in ", \t;":
        name = {",": "','", " ": "a space", "\t": "a tab", ";": "';'"}[character]
        cure = "write the bits without separators, 0110 and not 0,1,1,0 or 0 1 1 0"
        return f"{place}: expected 0 or 1, found {name}; {cure} (tr -d ', \\t;' < old > new)"
    if character == "\x00":
        return f"{place}: expected 0 or 1, found a zero byte; is this a text file?"
    return f"{place}: expected 0 or 1, found '{printable(character)}'"


def to_text(bits: np.ndarray) -> bytes:
    """(N, L) of 0 and 1 -> N lines."""
    lines = np.full((bits.shape[0], bits.shape[1] + 1), ord("\n"), np.uint8)
    lines[:, :-1] = bits
    lines[:, :-1] += ord("0")
    return lines.tobytes()


# --------------------------------------------------------------------------------------- batching


class Batches:
    """The endless stream of training batches: one permutation of the strings after another.

    Every batch is full. A file shorter than a batch is repeated to fill it, and the last batch of a
    pass takes its missing rows from the next pass. Batch number k is a pure function of (seed, k).
    """

    def __init__(self, strings: BitStrings, batch_size: int, seed: int, device="cpu"):
        self.length, self.batch_size, self.seed = strings.length, batch_size, seed
        self.device = torch.device(device)
        self.packed = torch.from_numpy(strings.packed).to(device)  # (N, ceil(L / 8)) uint8
        self._shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
        self._pass_number, self._permutation = None, None

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.packed) // self.batch_size)

    def _row_numbers(self, k: int) -> Tensor:
        """(batch_size,) the rows of batch k."""
        n, start = len(self.packed), k * self.batch_size
        if n <= self.batch_size:  # whole passes, and a random part of one more
            order = torch.rand(-(-self.batch_size // n), n, generator=self._generator(k)).argsort(dim=1)
            return order.flatten()[: self.batch_size]
        parts = []
        while start < (k + 1) * self.batch_size:
            pass_number, offset = divmod(start, n)
            part = self._permute(pass_number)[offset : offset + (k + 1) * self.batch_size - start]
            parts.append(part)
            start += len(part)
        return torch.cat(parts)

    def _permute(self, pass_number: int) -> Tensor:
        if pass_number != self._pass_number:
            generator = self._generator(pass_number)
            self._permutation = torch.randperm(len(self.packed), generator=generator)
            self._pass_number = pass_number
        return self._permutation

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, number))

    def batch(self, k: int) -> Tensor:
        """x_0 of batch k: (batch_size, L) float bits on the device."""
        rows = self._row_numbers(k).to(self.device)
        packed = self.packed[rows]  # (B, ceil(L / 8))
        bits = (packed[:, :, None] >> self._shifts) & 1  # (B, ceil(L / 8), 8)
        return bits.flatten(1)[:, : self.length].float()
