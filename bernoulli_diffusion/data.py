"""Text files <-> packed bits. Only this file knows the format: one string of 0 and 1 a line.

Bits stay packed, one bit a bit, in the order of numpy.packbits, and are unpacked a batch at a time.
"""

import codecs
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import UserError, cannot_open, printable
from .noise import derive_seed

CHUNK_BYTES = 1 << 18  # what fits into a core's cache is read fastest
MAX_LENGTH = 1_000_000
SLACK = 8


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
        size = 1 << (width - 1).bit_length()  # 1, 2, 4 or 8 bytes
        padded = np.zeros((len(self.packed), size), np.uint8)
        padded[:, :width] = self.packed
        return padded.view(f"u{size}")[:, 0]


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
            return _read(stream, _Parser(printable(path)))
    except OSError as error:
        raise cannot_open(printable(path), error) from None


def _read(stream, parser: "_Parser") -> BitStrings:
    start = stream.peek(3)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{parser.path}:1: UTF-16 text; save the file as plain text (UTF-8)")
    if start.startswith(codecs.BOM_UTF8):
        stream.read(3)
    buffer = bytearray(MAX_LENGTH + 2 + CHUNK_BYTES + 1 + SLACK)
    view = memoryview(buffer)
    held = 0  # bytes at the start of buffer: a line whose end is not read yet
    while count := stream.readinto(view[held : held + CHUNK_BYTES]):
        end = held + count
        cut = buffer.rfind(b"\n", held, end) + 1
        if cut:
            parser.add(buffer, cut)
        held = end - cut
        if held > MAX_LENGTH + 1:  # and a \r
            parser.find_mistake(bytes(view[cut:end]).removesuffix(b"\r"))
        view[:held] = view[cut:end]
    if held:
        buffer[held] = ord("\n")
        parser.add(buffer, held + 1)
    return parser.strings()


class _Parser:
    """Packs lines that come chunk by chunk, and remembers what the later ones must agree with."""

    def __init__(self, path: str):
        self.path = path
        self.packed = bytearray()  # grows in place: numpy.concatenate would need everything twice
        self.length: int | None = None  # of the strings, once there is one
        self.num_lines = 0
        self.first_empty: int | None = None  # line number of the first empty line

    def add(self, text: bytes | bytearray, end: int) -> None:
        """Take the whole lines text[:end]; text has SLACK bytes more. Raises UserError."""
        first_line = bytes(text[: text.index(b"\n") + 1])
        if not self._add_regular(text, end, 2 if first_line.endswith(b"\r\n") else 1):
            self._add_irregular(bytes(text[:end]))

    def _add_regular(self, text: bytes | bytearray, end: int, line_end: int) -> bool:
        """Take lines that all have the length and the line end of the first; False if they do not.

        line_end: the characters at the end of the first line, 1 for \\n and 2 for \\r\\n.
        """
        width = text.index(b"\n") + 1
        length = width - line_end
        if not 0 < length <= MAX_LENGTH or self.length not in (None, length) or self.first_empty:
            return False
        packed = _pack(text, end, length, width)
        if packed is None:
            return False
        self.packed += packed.data
        self.length = length
        self.num_lines += len(packed)
        return True

    def _add_irregular(self, text: bytes) -> None:
        """Take lines with mixed line ends, and empty lines at the end; or say what is wrong."""
        text = text.replace(b"\r\n", b"\n")
        end = len(text.rstrip(b"\n"))
        if end:
            end += 1
            if not self._add_regular(text[:end] + bytes(SLACK), end, 1):
                self.find_mistake(text[:end])
        if end < len(text):
            self.first_empty = self.first_empty or self.num_lines + 1

    def find_mistake(self, text: bytes) -> None:
        """Raise UserError for the first thing wrong with text: line by line, as it happens once."""
        for number, line in enumerate(text.removesuffix(b"\n").split(b"\n"), self.num_lines + 1):
            place = f"{self.path}:{number}"
            first_empty = self.first_empty or (None if line else number)
            if first_empty:
                raise UserError(
                    f"{self.path}:{first_empty}: an empty line among the strings; remove it"
                )
            wrong = np.flatnonzero((np.frombuffer(line, np.uint8) & 0xFE) != ord("0"))
            if len(wrong):
                raise UserError(_wrong_character(line, int(wrong[0]), place))
            if len(line) > MAX_LENGTH:
                raise UserError(f"{place}: more than {MAX_LENGTH:,} characters in one line")
            self.length = self.length or len(line)
            if len(line) != self.length:
                raise UserError(
                    f"{place}: {len(line)} characters, but the lines above have {self.length};"
                    " all strings must have one length"
                )
        raise AssertionError("irregular lines without a mistake")

    def strings(self) -> BitStrings:
        """All strings taken. Raises UserError if there are none."""
        if self.length is None:
            raise UserError(
                f"{self.path}: the file is empty; expected one string of 0 and 1 a line"
            )
        packed = np.frombuffer(self.packed, np.uint8).reshape(-1, -(-self.length // 8))
        return BitStrings(packed, self.length)


def _pack(text: bytes | bytearray, end: int, length: int, width: int) -> np.ndarray | None:
    """text[:end], lines of length characters and width with the line end -> (N, ceil(L / 8)) uint8.

    None if a character or a line end is another. Works on 8 characters at a time, as one integer;
    the last integer of a line reads on behind the line, which is why text has SLACK bytes more.
    """
    if end % width:
        return None
    count, bytes_per_row = end // width, -(-length // 8)
    line_ends = np.ndarray((count, width - length), np.uint8, text, length, (width, 1))
    if not (line_ends == np.frombuffer(text, np.uint8, width - length, length)).all():
        return None
    eights = np.ndarray((count, bytes_per_row), "<u8", text, 0, (width, 8))
    bits = eights ^ np.uint64(0x3030303030303030)  # '0' is 0x30, '1' is 0x31
    bits[:, -1] &= np.uint64(2 ** (8 * (length - 8 * (bytes_per_row - 1))) - 1)
    if np.bitwise_or.reduce(bits, axis=None) & np.uint64(0xFEFEFEFEFEFEFEFE):
        return None
    # the top byte of the product is the 8 low bits, the first character's on top, as numpy.packbits
    bits *= np.uint64(0x8040201008040201)
    bits >>= np.uint64(56)
    return bits.astype(np.uint8)


def _wrong_character(line: bytes, column: int, place: str) -> str:
    character = line[column : column + 4].decode("utf-8", "replace")[0]
    place = f"{place}:{column + 1}"
    if character in ", \t;":
        name = {",": "','", " ": "a space", "\t": "a tab", ";": "';'"}[character]
        cure = "write the bits without separators, 0110 and not 0,1,1,0 or 0 1 1 0"
        return f"{place}: expected 0 or 1, found {name}; {cure} (tr -d ', \\t;' < old > new)"
    if character == "\r":
        return f"{place}: expected 0 or 1, found a carriage return; end each line with a newline"
    cure = "" if character.isprintable() and character != "\ufffd" else "; is this a text file?"
    return f"{place}: expected 0 or 1, found '{printable(character)}'{cure}"


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
            keys = torch.rand(-(-self.batch_size // n), n, generator=self._generator(k))
            return keys.argsort(dim=1).flatten()[: self.batch_size]  # each pass in random order
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
