"""Text files <-> packed bits. Only this file knows the format: one string of 0 and 1 a line.

Bits stay packed, one bit a bit, in the order of numpy.packbits, and are unpacked a batch at a time.
Whatever goes through all strings goes piece by piece, so that they may be more than the memory holds.
"""

import codecs
import contextlib
import functools
import hashlib
import itertools
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..system.errors import RunError, UserError, cannot_open, printable

CHUNK_BYTES = 1 << 18  # what fits into a core's cache is read fastest
IN_MEMORY_BYTES = 1 << 28  # packed strings of more bytes are mapped from a file
MAX_LENGTH = 1_000_000
SLACK = 8
UNKNOWN = 0.5  # an unknown bit of x_0


class BitStrings:
    """N binary strings of length L, packed 8 bits to a byte: packed is (N, ceil(L / 8)) uint8.

    unknown: of the same form, 1 where a bit is unknown (and 0 in packed); None if all are known.
    weights: (N,) float64, how much each string counts; None if all count the same.
    """

    def __init__(
        self,
        packed: np.ndarray,
        length: int,
        unknown: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ):
        self.packed, self.length, self.unknown, self.weights = packed, length, unknown, weights

    @classmethod
    def from_bits(cls, bits: np.ndarray) -> "BitStrings":
        """bits: (N, L) of 0 and 1, and of -1 where a bit is unknown."""
        unknown = bits < 0 if bits.dtype.kind != "u" and bits.dtype.kind != "b" else None
        unknown = np.packbits(unknown, axis=1) if unknown is not None and unknown.any() else None
        return cls(np.packbits(bits == 1, axis=1), bits.shape[1], unknown)

    def __len__(self) -> int:
        return len(self.packed)

    def bits(self, rows=slice(None)) -> np.ndarray:
        """(N, L) uint8 of 0 and 1."""
        return np.unpackbits(self.packed[rows], axis=1, count=self.length)

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes

    def tensor(self, rows, device: torch.device | str = "cpu", draw=0) -> Tensor:
        """(n, L) float 0 and 1, UNKNOWN where a bit is: what the process and the network take.

        draw: bits are not blurred.
        """
        x = torch.from_numpy(self.bits(rows)).to(device).float()
        if self.unknown is None:
            return x
        unknown = BitStrings(self.unknown, self.length).bits(rows)
        return x + UNKNOWN * torch.from_numpy(unknown).to(device)

    def sha256(self) -> str:
        """A hash of the strings in their order, whatever the file's line endings."""
        digest = hashlib.sha256(f"{self.length}\n".encode())
        digest.update(np.ascontiguousarray(self.packed).data)
        if self.unknown is not None:
            digest.update(np.ascontiguousarray(self.unknown).data)
        if self.weights is not None:
            digest.update(self.weights.tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def ones(self) -> np.ndarray:
        """(L,) int64: how many strings have a 1 there."""
        depth = min(255, -(-CHUNK_BYTES // self.length))  # sums of 255 bits fit into a byte
        width = -(-CHUNK_BYTES // (depth * self.length))
        total = np.zeros(self.length, np.int64)
        for piece in self.pieces(depth * width):
            bits = piece.bits()
            if len(bits) == depth * width:  # long rows are added fastest: width strings in each
                bits = bits.reshape(depth, -1).sum(axis=0, dtype=np.uint8).reshape(width, -1)
            total += bits.sum(axis=0, dtype=np.int64)
        return total

    @functools.cached_property
    def known(self) -> np.ndarray:
        """(L,) int64: in how many strings the bit is known."""
        unknown = 0 if self.unknown is None else BitStrings(self.unknown, self.length).ones
        return np.full(self.length, len(self), np.int64) - unknown

    def part(self, rows) -> "BitStrings":
        """Those of the strings. rows: a range, or indices."""
        if isinstance(rows, range):
            rows = slice(rows.start, rows.stop)
        unknown = None if self.unknown is None else self.unknown[rows]
        weights = None if self.weights is None else self.weights[rows]
        return BitStrings(self.packed[rows], self.length, unknown, weights)

    def pieces(self, rows: int) -> Iterator["BitStrings"]:
        """The strings in their order, so many at a time."""
        for first in range(0, len(self), rows):
            yield self.part(slice(first, first + rows))

    def words(self) -> np.ndarray:
        """(N, ceil(L / 64)) int64: 64 bits in each, and zeros behind the last."""
        width = self.packed.shape[1]
        padded = np.zeros((len(self), -(-width // 8) * 8), np.uint8)
        padded[:, :width] = self.packed
        return padded.view(np.int64)


# ---------------------------------------------------------------------------------------- reading


def read_bit_strings(path: Path) -> BitStrings:
    """Read a text file with one string of 0 and 1 a line, all of one length; ? is an unknown bit.

    Accepted besides: \\r\\n line ends, a missing last newline, empty lines at the end, a UTF-8
    byte-order mark. Raises UserError with file, line, column and cure for anything else; RunError if
    the strings are too many for memory and the disk has no room for them either.
    """
    try:
        with open(path, "rb") as stream, contextlib.closing(_Store(path, stream)) as store:
            return _read(stream, _Parser(printable(path), store))
    except UserError as error:
        if not str(error).endswith("found '?'") or (strings := _read_with_unknown(path)) is None:
            raise
        return strings
    except OSError as error:
        raise cannot_open(printable(path), error) from None


def _read_with_unknown(path: Path) -> BitStrings | None:
    """The strings of a file of 0, 1 and ? alone, as a whole in memory; None if it holds others."""
    text = (
        Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").rstrip(b"\n")
    )
    if b"?" not in text or text.translate(None, b"01?\n"):
        return None
    width = text.index(b"\n") + 1 if b"\n" in text else len(text) + 1
    codes = np.frombuffer(text + b"\n", np.uint8)
    if width < 2 or len(codes) % width:
        return None  # the parser's own message says where
    codes = codes.reshape(-1, width)
    if not (codes[:, -1] == ord("\n")).all() or (codes[:, :-1] == ord("\n")).any():
        return None
    codes = codes[:, :-1]
    unknown = np.packbits(codes == ord("?"), axis=1)
    return BitStrings(np.packbits(codes == ord("1"), axis=1), width - 1, unknown)


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


class _Store:
    """Where packed strings go: memory, or, if the text is large, a file that is mapped at the end.

    What is mapped is as fast as memory while memory is there, and makes room when it is not. The
    file has no name and so goes with the process. It lies beside the text, which is 8 times as large:
    the folder for temporary files is often small, or is memory itself.
    """

    def __init__(self, path: Path, stream):
        self._in_memory = bytearray()  # grows in place: numpy.concatenate would need all twice
        self._file = None
        self._num_bytes = os.fstat(stream.fileno()).st_size // 8
        if self._num_bytes > IN_MEMORY_BYTES:
            beside = Path(path).parent
            self._folder = beside if os.access(beside, os.W_OK) else Path(tempfile.gettempdir())
            with self._telling():
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115

    def add(self, packed: np.ndarray) -> None:
        if self._file is None:
            self._in_memory += packed.data
        else:
            with self._telling():
                self._file.write(packed.data)

    def contents(self) -> np.ndarray:
        """All bytes that were added: (n,) uint8."""
        if self._file is None:
            return np.frombuffer(self._in_memory, np.uint8)
        with self._telling():
            self._file.flush()
            return np.frombuffer(mmap.mmap(self._file.fileno(), 0), np.uint8)

    @contextlib.contextmanager
    def _telling(self):
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{printable(self._folder)}: {error.strerror}; the packed strings need"
                f" {self._num_bytes / 1e6:,.0f} MB there, for as long as they are in use"
            ) from None

    def close(self) -> None:
        """Let the file go; what is mapped stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # on a full disk, what could not be written before
                self._file.close()


class _Parser:
    """Packs lines that come chunk by chunk, and remembers what the later ones must agree with."""

    def __init__(self, path: str, store: _Store):
        self.path = path
        self.store = store
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
        self.store.add(packed)
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
        packed = self.store.contents().reshape(-1, -(-self.length // 8))
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
    if character in ".-":
        cure = "; to train on numbers, set model.process: gaussian in config.yaml"
    return f"{place}: expected 0 or 1, found '{printable(character)}'{cure}"


def read_patterns(path: Path, length: int) -> np.ndarray:
    """Read a text file of strings of 0, 1 and ? (unknown), one a line, all of the given length.

    Returns (N, length) int8 of 0, 1 and -1. Raises UserError with file, line, column and cure.
    """
    try:
        lines = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    except OSError as error:
        raise cannot_open(printable(path), error) from None
    lines = lines.rstrip(b"\n").split(b"\n")
    if lines == [b""]:
        raise UserError(f"{printable(path)}: the file is empty; expected one pattern a line")
    places = (f"{printable(path)}:{number}" for number in itertools.count(1))
    return np.stack(
        [parse_pattern(line, length, place) for line, place in zip(lines, places, strict=False)]
    )


def parse_pattern(text: bytes, length: int, place: str) -> np.ndarray:
    """A string of 0, 1 and ? -> (length,) int8 of 0, 1 and -1. Errors begin with place."""
    codes = np.frombuffer(text, np.uint8)
    pattern = np.full(len(codes), -1, np.int8)
    pattern[codes == ord("0")] = 0
    pattern[codes == ord("1")] = 1
    wrong = np.flatnonzero((pattern == -1) & (codes != ord("?")))
    if len(wrong):
        character = printable(text[wrong[0] : wrong[0] + 4].decode("utf-8", "replace")[0])
        raise UserError(f"{place}:{wrong[0] + 1}: expected 0, 1 or ?, found '{character}'")
    if len(codes) != length:
        raise UserError(f"{place}: {len(codes)} characters, but the model's strings have {length}")
    return pattern


def to_text(bits: np.ndarray) -> bytes:
    """(N, L) of 0 and 1 -> N lines."""
    lines = np.full((bits.shape[0], bits.shape[1] + 1), ord("\n"), np.uint8)
    lines[:, :-1] = bits
    lines[:, :-1] += ord("0")
    return lines.tobytes()
