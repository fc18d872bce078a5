"""Text files <-> packed bits: every file that is accepted, every mistake that is told, batches."""

import itertools
import mmap
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from processes import make_run

from bernoulli_diffusion.bits import data, membership
from bernoulli_diffusion.bits.batches import Batches
from bernoulli_diffusion.bits.data import BitStrings, read_bit_strings, to_text
from bernoulli_diffusion.bits.membership import Membership, count_distinct
from bernoulli_diffusion.noise import Permutation
from bernoulli_diffusion.system.errors import RunError, UserError
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer

CURE = (
    "write the bits without separators, 0110 and not 0,1,1,0 or 0 1 1 0"
    " (tr -d ', \\t;' < old > new)"
)


def read(folder, content: bytes, chunk_bytes: int | None = None) -> BitStrings:
    path = folder / "train.txt"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        if chunk_bytes:
            patch.setattr(data, "CHUNK_BYTES", chunk_bytes)
        return read_bit_strings(path)


def mistake(folder, content: bytes, chunk_bytes: int | None = None) -> str:
    """The message of the UserError, after the file's path."""
    with pytest.raises(UserError) as caught:
        read(folder, content, chunk_bytes)
    text = str(caught.value)
    assert text.startswith(f"{folder}/train.txt:")
    assert text.isprintable()
    return text.removeprefix(f"{folder}/train.txt:")


def as_lines(strings: BitStrings) -> list[str]:
    return ["".join(map(str, row)) for row in strings.bits()]


def random_strings(count: int, length: int, seed: int = 0) -> BitStrings:
    rng = np.random.default_rng(seed)
    return BitStrings.from_bits(rng.integers(0, 2, (count, length)))


# ----------------------------------------------------------------------------- what is accepted


@pytest.mark.parametrize(
    "content",
    [
        b"0110\n1111\n0000\n",
        b"0110\n1111\n0000",
        b"0110\r\n1111\r\n0000\r\n",
        b"0110\r\n1111\r\n0000",
        b"0110\n1111\r\n0000\n",
        b"0110\r\n1111\n0000\r\n",
        b"\xef\xbb\xbf0110\n1111\n0000\n",
        b"\xef\xbb\xbf0110\r\n1111\r\n0000",
        b"0110\n1111\n0000\n\n\n\n",
        b"0110\r\n1111\r\n0000\r\n\r\n\n\r\n",
        b"0110\n1111\n0000\n\r",
    ],
)
def test_accepted_files(tmp_path, content):
    for chunk_bytes in (1, 2, 3, 5, 7, None):
        strings = read(tmp_path, content, chunk_bytes)
        assert strings.length == 4
        assert as_lines(strings) == ["0110", "1111", "0000"]
        assert strings.packed.dtype == np.uint8
        assert strings.packed.tolist() == [[0b01100000], [0b11110000], [0]]


@pytest.mark.parametrize("length", [*range(1, 26), 31, 32, 33, 63, 64, 65, 784])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_every_length_is_packed_as_numpy_does(tmp_path, length, line_end):
    bits = np.random.default_rng(length).integers(0, 2, (7, length), dtype=np.uint8)
    content = line_end.join("".join(map(str, row)).encode() for row in bits) + line_end
    strings = read(tmp_path, content)
    np.testing.assert_array_equal(strings.packed, np.packbits(bits, axis=1))
    np.testing.assert_array_equal(strings.bits(), bits)
    np.testing.assert_array_equal(strings.bits(slice(2, 5)), bits[2:5])


def test_every_other_byte_is_refused(tmp_path):
    wrong_bytes = [c for c in range(256) if c not in b"01?"]  # ? is an unknown bit
    for wrong, column in itertools.product(wrong_bytes, (0, 7, 8, 10)):
        line = bytearray(b"01101001110")
        line[column] = wrong
        text = mistake(tmp_path, b"00000000000\n" + line + b"\n11111111111\n")
        if wrong == ord("\n"):  # two short lines
            assert text.startswith("2:")
        elif wrong == ord("\r") and column == 10:
            assert text.startswith("2: 10 characters")
        else:
            assert text.startswith(f"2:{column + 1}: expected 0 or 1, found ")


def test_length_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MAX_LENGTH", 50)
    for chunk_bytes, line_end in itertools.product((1, 8, 51, 1000), (b"", b"\n", b"\r\n")):
        assert read(tmp_path, b"1" * 50 + line_end, chunk_bytes).length == 50
        text = mistake(tmp_path, b"1" * 51 + line_end, chunk_bytes)
        assert text == "1: more than 50 characters in one line"
    text = mistake(tmp_path, (b"1" * 50 + b"\n") * 3 + b"1" * 60, 16)
    assert text == "4: more than 50 characters in one line"


# ----------------------------------------------------- against a reader that reads line by line


def reference(content: bytes) -> tuple[int, int | None] | list[str]:
    """The strings, or the place of the first mistake: (line, column or None)."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines = [line.removesuffix(b"\r") for line in lines[:-1]] + [lines[-1]]
    if lines[-1].endswith(b"\r"):  # the file ends in the middle of \r\n
        lines[-1] = lines[-1].removesuffix(b"\r")
    while lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line:
            return number, None
        for column, character in enumerate(line, start=1):
            if character not in b"01":
                return number, column
        if len(line) != len(lines[0]):
            return number, None
    return [line.decode() for line in lines]


@st.composite
def files(draw) -> bytes:
    """Mostly sound files, with a mistake or an oddity here and there."""
    length = draw(st.integers(1, 20))
    sound = st.integers(0, 2**length - 1).map(lambda n: f"{n:0{length}b}".encode())
    odd = st.sampled_from([b"", b"0", b"1" * 21, b"01 1", b"\r", b"0\r", b"\x00", b"\xef\xbb\xbf0"])
    lines = draw(st.lists(sound, max_size=12))
    for position, line in draw(st.lists(st.tuples(st.integers(0, 12), odd), max_size=2)):
        lines.insert(position, line)
    ends = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n"])
    if draw(st.booleans()):
        ends = st.just(draw(ends))
    content = b"".join(line + draw(ends) for line in lines)
    content += draw(st.sampled_from([b"", b"\n", b"\n\n\n", b"\r\n\r\n", b"\r"]))
    content = content.removesuffix(b"\n") if draw(st.booleans()) else content
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + content


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files(), st.integers(1, 40))
@example(b"01\n\n\n\n01\n", 2)  # empty lines end one chunk, strings begin the next
@example(b"01\n\n01\n", 4)
@example(b"01\r\r\n01\r\r\n", 40)
@example(b"01\n01\n0101\n", 6)
@example(b"01\r\n011\n", 40)
@example(b"01\r\n01x\n", 40)
def test_reads_as_the_reference_does(tmp_path_factory, content, chunk_bytes):
    folder = tmp_path_factory.getbasetemp()
    expected = reference(content)
    if expected == []:
        assert "the file is empty" in mistake(folder, content, chunk_bytes)
    elif isinstance(expected, list):
        strings = read(folder, content, chunk_bytes)
        assert as_lines(strings) == expected
        assert strings.length == len(expected[0])
    else:
        line, column = expected
        place = f"{line}:" if column is None else f"{line}:{column}:"
        text = mistake(folder, content, chunk_bytes)
        assert text.startswith(f"{place} "), text


def test_a_large_file_with_the_real_chunk_size(tmp_path):
    strings = random_strings(60_000, 20)
    content = to_text(strings.bits())
    assert len(content) > 4 * data.CHUNK_BYTES
    back = read(tmp_path, content)
    np.testing.assert_array_equal(back.packed, strings.packed)
    assert back.sha256() == strings.sha256()
    wrong = bytearray(content)
    wrong[21 * 54_321 + 7] = ord("2")
    assert mistake(tmp_path, bytes(wrong)) == "54322:8: expected 0 or 1, found '2'"
    assert mistake(tmp_path, content + b"\n" * 500_000 + b"0" * 20) == (
        "60001: an empty line among the strings; remove it"
    )


# ----------------------------------------------------------------------------- what is told


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"0110\n0,1,1,0\n", f"2:2: expected 0 or 1, found ','; {CURE}"),
        (b"0 1 1 0\n", f"1:2: expected 0 or 1, found a space; {CURE}"),
        (b"0\t1\n", f"1:2: expected 0 or 1, found a tab; {CURE}"),
        (b"0110\n011;\n", f"2:4: expected 0 or 1, found ';'; {CURE}"),
        (b"0110\n0120\n", "2:3: expected 0 or 1, found '2'"),
        (b"bits\n0110\n", "1:1: expected 0 or 1, found 'b'"),
        ("0110\n01é0\n".encode(), "2:3: expected 0 or 1, found 'é'"),
        ("01\U0001f600\n".encode(), "1:3: expected 0 or 1, found '\U0001f600'"),
        (
            b"0110\r0110\r",
            "1:5: expected 0 or 1, found a carriage return; end each line with a newline",
        ),
        (b"01\x1b[31m\n", "1:3: expected 0 or 1, found '\\x1b'; is this a text file?"),
        ("01\u202e\n".encode(), "1:3: expected 0 or 1, found '\\u202e'; is this a text file?"),
        (b"0\x001\x00\n", "1:2: expected 0 or 1, found '\\x00'; is this a text file?"),
        (b"01\x90\n", "1:3: expected 0 or 1, found '\ufffd'; is this a text file?"),
        (
            b"0110\n0110\n011\n0110\n",
            "3: 3 characters, but the lines above have 4; all strings must have one length",
        ),
        (
            b"0110\n01100\n",
            "2: 5 characters, but the lines above have 4; all strings must have one length",
        ),
        (b"0110\n\n0110\n", "2: an empty line among the strings; remove it"),
        (b"0110\n\n\n0110\n", "2: an empty line among the strings; remove it"),
        (b"\n0110\n", "1: an empty line among the strings; remove it"),
        (b"", " the file is empty; expected one string of 0 and 1 a line"),
        (b"\n\r\n\n", " the file is empty; expected one string of 0 and 1 a line"),
        (b"\xef\xbb\xbf", " the file is empty; expected one string of 0 and 1 a line"),
        (b"0110\n0x10\n0y10\n", "2:2: expected 0 or 1, found 'x'"),  # the first of two
    ],
)
def test_mistakes(tmp_path, content, expected):
    for chunk_bytes in (1, 4, 6, None):
        assert mistake(tmp_path, content, chunk_bytes) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16(tmp_path, encoding):
    bom = {"utf-16": "", "utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}[encoding]
    text = mistake(tmp_path, (bom + "0110\n").encode(encoding))
    assert text == "1: UTF-16 text; save the file as plain text (UTF-8)"


def test_missing_folder_and_unreadable(tmp_path):
    with pytest.raises(UserError, match=r"train\.txt: no such file$"):
        read_bit_strings(tmp_path / "train.txt")
    with pytest.raises(UserError, match=r"this is a folder, expected a file$"):
        read_bit_strings(tmp_path)
    with pytest.raises(UserError, match=r"x\\x1b\[31m\\ny\.txt: no such file$") as caught:
        read_bit_strings(tmp_path / "x\x1b[31m\ny.txt")
    assert str(caught.value).isprintable()
    (tmp_path / "a\nb.txt").write_bytes(b"02\n")
    with pytest.raises(UserError, match=r"a\\nb\.txt:1:2: expected"):
        read_bit_strings(tmp_path / "a\nb.txt")


def test_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = (
        "for part in b'01', b'10', b'\\n', b'0011', b'\\n11': stream.write(part); stream.flush()"
    )
    code = f"with open({str(pipe)!r}, 'wb') as stream:\n {writer}\n stream.write(b'00')"
    with subprocess.Popen([sys.executable, "-c", code]):
        assert as_lines(read_bit_strings(pipe)) == ["0110", "0011", "1100"]


@pytest.mark.parametrize("character", [b"0", b"\x00"])
def test_an_endless_line_costs_neither_time_nor_memory(tmp_path, character):
    """A file of 4 GB; all of it but the beginning is a hole on the disk."""
    path = tmp_path / "train.txt"
    with open(path, "wb") as stream:
        stream.write(character * 3_000_000)
        stream.truncate(4 * 2**30)
    started = time.monotonic()
    tracemalloc.start()
    with pytest.raises(UserError, match=r"more than 1,000,000 characters|found '\\x00'"):
        read_bit_strings(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert time.monotonic() - started < 5


def test_memory_is_that_of_the_packed_strings(tmp_path):
    """Not that of the text, and not twice that of the packed strings."""
    path = tmp_path / "train.txt"
    path.write_bytes(to_text(random_strings(300_000, 40).bits()))  # 12.3 MB, packed 1.5 MB
    tracemalloc.start()
    strings = read_bit_strings(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    buffers = data.MAX_LENGTH + 8 * data.CHUNK_BYTES
    assert strings.packed.nbytes == 1_500_000
    assert peak < 1.2 * strings.packed.nbytes + buffers


# ----------------------------------------------------------------------------- a large text


def is_mapped(strings: BitStrings) -> bool:
    base = strings.packed
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(getattr(base, "obj", base), mmap.mmap)


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)


@pytest.mark.parametrize("length", [1, 20, 64, 65])
def test_a_large_text_is_mapped_from_a_file(tmp_path, length, monkeypatch):
    content = to_text(random_strings(3000, length).bits())
    in_memory = read(tmp_path, content, 1000)
    assert not is_mapped(in_memory)
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", len(content) // 8)
    assert not is_mapped(read(tmp_path, content, 1000))
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", len(content) // 8 - 1)
    mapped = read(tmp_path, content, 1000)
    assert is_mapped(mapped)
    assert os.listdir(tmp_path) == ["train.txt"]  # the file has no name
    np.testing.assert_array_equal(mapped.packed, in_memory.packed)
    assert mapped.sha256() == in_memory.sha256()
    np.testing.assert_array_equal(mapped.ones, in_memory.ones)
    assert Membership(mapped).contains(in_memory).all()
    for k in (0, 7):
        batches = [Batches(strings, 100, seed=0) for strings in (mapped, in_memory)]
        assert batches[0].batch(k).equal(batches[1].batch(k))


def test_a_mapped_file_lies_beside_the_text(tmp_path, monkeypatch, everything_is_large):
    """Else where temporary files go. Not there first: that may be memory."""
    asked, make = [], tempfile.TemporaryFile

    def spy(dir):
        asked.append(dir)
        return make(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", spy)
    read(tmp_path, b"00001111\n")
    assert asked == [tmp_path]
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert as_lines(read(tmp_path, b"00001111\n")) == ["00001111"]
    assert asked[1:] == [Path(tempfile.gettempdir())]


def _open_full(dir):
    return open("/dev/full", "wb")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("count", [2, 100_000])  # found full at the end, and on the way
def test_no_room_for_the_mapped_file(tmp_path, monkeypatch, everything_is_large, count):
    monkeypatch.setattr(tempfile, "TemporaryFile", _open_full)
    with pytest.raises(RunError) as caught:
        read(tmp_path, b"00001111\n" * count)
    assert str(caught.value) == (
        f"{tmp_path}: No space left on device; the packed strings need {9 * count // 8 / 1e6:,.0f} MB"
        " there, for as long as they are in use"
    )


def test_mistakes_in_a_large_text(tmp_path, everything_is_large):
    content = b"00001111\n" * 5000
    assert mistake(tmp_path, content + b"0000 111\n", 500).startswith("5001:5: expected 0 or 1")
    assert mistake(tmp_path, content + b"0000\n", 500).startswith("5001: 4 characters, but")
    assert (
        mistake(tmp_path, b"\n" * 20) == " the file is empty; expected one string of 0 and 1 a line"
    )
    assert os.listdir(tmp_path) == ["train.txt"]


def test_a_large_text_takes_no_memory(tmp_path, everything_is_large):
    path = tmp_path / "train.txt"
    path.write_bytes(to_text(random_strings(300_000, 40).bits()))  # packed 1.5 MB
    tracemalloc.start()
    strings = read_bit_strings(path)
    strings.sha256()
    batches = Batches(strings, 100, seed=0)
    batches.batch(0)
    Membership(strings).contains(BitStrings(strings.packed[:10], 40))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert is_mapped(strings)
    assert peak < data.MAX_LENGTH + 8 * data.CHUNK_BYTES


def test_training_is_the_same_on_mapped_strings(tmp_path, monkeypatch):
    run_dir = make_run(tmp_path / "run")
    losses, shares = [], []
    for limit in (data.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(data, "IN_MEMORY_BYTES", limit)
        folder = read_run_folder(run_dir)
        assert is_mapped(folder.train) == is_mapped(folder.val) == (limit == 0)
        trainer = Trainer(folder, torch.device("cpu"), quiet=True)
        for _ in range(10):
            trainer.loop.train_step()
        losses.append(torch.stack(trainer.loop._pending))
        shares.append(trainer.validator.measures.of(trainer.validator.draw(trainer.averaged)))
    assert losses[0].equal(losses[1])
    assert shares[0] == shares[1]


# ----------------------------------------------------------------------------- writing


@pytest.mark.parametrize("length", [1, 7, 8, 20])
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32, np.int64])
def test_to_text(length, dtype):
    bits = random_strings(5, length).bits()
    expected = "".join("".join(map(str, row)) + "\n" for row in bits)
    assert to_text(bits.astype(dtype)) == expected.encode()


def test_to_text_of_nothing():
    assert to_text(np.zeros((0, 5), np.uint8)) == b""


# ----------------------------------------------------------------------------- keys and sets


def hard_strings(length: int) -> list[str]:
    """Strings that differ only at the very ends, random ones, and repetitions."""
    rng = np.random.default_rng(length)
    strings = ["0" * length, "1" * length, "0" * (length - 1) + "1", "1" + "0" * (length - 1)]
    strings += ["".join(map(str, row)) for row in rng.integers(0, 2, (12, length))]
    strings += [s[: length // 2] + "0" * (length - length // 2) for s in strings]
    return strings + strings[::3]


def from_lines(lines: list[str]) -> BitStrings:
    return BitStrings.from_bits(np.array([[int(c) for c in line] for line in lines]))


def test_membership_and_distinct_against_sets():
    for length in range(1, 201):
        strings = hard_strings(length)
        known, asked = strings[::2], [*strings[1::2], *strings[::5]]
        members = Membership(from_lines(known))
        expected = [line in set(known) for line in asked]
        assert members.contains(from_lines(asked)).tolist() == expected
        assert count_distinct(from_lines(strings)) == len(set(strings))


def test_membership_leaves_the_strings_as_they_were():
    for length in (5, 64, 65, 200):
        strings = random_strings(50, length)
        before = strings.packed.copy()
        Membership(strings).contains(strings)
        count_distinct(strings)
        np.testing.assert_array_equal(strings.packed, before)


def test_membership_of_nothing():
    nothing = BitStrings(np.zeros((0, 1), np.uint8), 2)
    assert Membership(from_lines(["01"])).contains(nothing).tolist() == []
    assert Membership(nothing).contains(from_lines(["01", "00"])).tolist() == [False, False]
    assert count_distinct(nothing) == 0


@pytest.mark.parametrize("length", [3, 20, 64, 65, 200])
def test_membership_piece_by_piece(length, monkeypatch):
    """The set is gone through in many pieces, the last of them not full; so are those sought."""
    monkeypatch.setattr(membership, "CHUNK_BYTES", 100)
    monkeypatch.setattr(membership, "QUESTION_BYTES", 2000)
    known, others = random_strings(1003, length, seed=1), random_strings(500, length, seed=2)
    asked = BitStrings(np.concatenate([others.packed, known.packed[::-2]]), length)
    expected = set(map(bytes, known.packed))
    assert Membership(known).contains(asked).tolist() == [
        bytes(x) in expected for x in asked.packed
    ]


@pytest.mark.parametrize("length", [20, 100])
def test_membership_is_exact_whatever_the_hash(length, monkeypatch):
    """With a hash of 3 bits everything collides, and with the first two seeds all are one."""
    seeds = []

    def weak_hash(words, seed):
        seeds.append(seed)
        return (words.sum(axis=1).view(np.uint64) * np.uint64(seed > 1)) << np.uint64(61)

    monkeypatch.setattr(membership, "_hash", weak_hash)
    strings = random_strings(300, length, seed=3)
    words = strings.words().sum(axis=1) % 8
    asked = BitStrings(
        strings.packed[[*(words == 1).nonzero()[0][:1], *(words == 6).nonzero()[0][:1]]], length
    )
    for present in (strings, BitStrings(strings.packed[1::3], length)):
        expected = [bytes(x) in set(map(bytes, present.packed)) for x in asked.packed]
        assert Membership(present).contains(asked).tolist() == expected
    assert {0, 1, 2} <= set(seeds)
    assert count_distinct(asked) == 2


def test_one_word_has_a_hash_of_its_own():
    keys = membership._hash(distinct_strings(1 << 16, 16).words(), seed=0)
    assert len(set(keys.tolist())) == 1 << 16


@pytest.mark.parametrize("length", [1, 2, 8, 20, 63, 64, 65, 130, 784])
def test_words_hold_the_bits(length):
    strings = random_strings(5, length)
    words = strings.words()
    assert words.shape == (5, -(-length // 64))
    bits = np.unpackbits(words.view(np.uint8), axis=1)
    np.testing.assert_array_equal(bits[:, :length], strings.bits())
    assert not bits[:, length:].any()


@pytest.mark.parametrize("chunk_bytes", [1, 700, 5000, data.CHUNK_BYTES])
@pytest.mark.parametrize("length", [1, 7, 20, 64, 300])
def test_ones_are_counted(length, chunk_bytes, monkeypatch):
    monkeypatch.setattr(data, "CHUNK_BYTES", chunk_bytes)
    strings = random_strings(2000, length)
    strings.packed[:1500] |= strings.packed[500:]  # different numbers in different places
    np.testing.assert_array_equal(strings.ones, strings.bits().sum(axis=0, dtype=np.int64))
    full = BitStrings.from_bits(np.ones((1999, length)))  # no sum of theirs overflows
    assert full.ones.tolist() == [1999] * length


def test_sha256_is_of_the_strings_and_their_order():
    a, b = from_lines(["0110", "0001"]), from_lines(["0001", "0110"])
    assert a.sha256() != b.sha256()
    assert a.sha256() == from_lines(["0110", "0001"]).sha256()
    assert from_lines(["0110"]).sha256() != from_lines(["01100"]).sha256()  # same packed bytes
    assert BitStrings(a.packed[::-1], 4).sha256() == b.sha256()  # not contiguous


# ----------------------------------------------------------------------------- batches


def row_ids(strings: BitStrings, batch: torch.Tensor) -> list[int]:
    """The numbers of the (distinct) strings in a batch."""
    lookup = {row.tobytes(): i for i, row in enumerate(strings.bits())}
    return [lookup[row.tobytes()] for row in batch.byte().numpy()]


def distinct_strings(count: int, length: int = 9) -> BitStrings:
    numbers = np.arange(count)
    return BitStrings.from_bits(numbers[:, None] >> np.arange(length - 1, -1, -1) & 1)


@pytest.mark.parametrize("length", [1, 3, 7, 8, 9, 16, 20, 63, 64, 65])
def test_batches_hold_the_original_bits(length):
    strings = random_strings(6, length)
    batch = Batches(strings, 6, seed=0).batch(0)
    assert batch.shape == (6, length)
    assert batch.dtype == torch.float32
    rows, originals = batch.byte().tolist(), strings.bits().tolist()
    assert sorted(rows) == sorted(originals)


@pytest.mark.parametrize(("count", "size"), [(10, 4), (12, 4), (13, 12), (100, 7), (5, 1), (1, 1)])
def test_each_pass_holds_each_string_once(count, size):
    strings = distinct_strings(count)
    batches = Batches(strings, size, seed=3)
    assert batches.steps_per_epoch == -(-count // size)
    passes = 6
    drawn = []
    for k in range(-(-passes * count // size)):
        batch = batches.batch(k)
        assert len(batch) == size
        drawn += row_ids(strings, batch)
    orders = [drawn[p * count : (p + 1) * count] for p in range(passes)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    if count >= 10:
        assert len({tuple(order) for order in orders}) == passes  # a new order each time


@pytest.mark.parametrize(("count", "size"), [(4, 4), (4, 10), (3, 9), (1, 5), (7, 8)])
def test_files_no_larger_than_a_batch(count, size):
    strings = distinct_strings(count)
    batches = Batches(strings, size, seed=3)
    assert batches.steps_per_epoch == 1
    for k in range(5):
        drawn = row_ids(strings, batches.batch(k))
        assert len(drawn) == size
        counts = np.bincount(drawn, minlength=count)
        assert counts.min() >= size // count
        assert counts.max() <= -(-size // count)


def test_the_part_of_a_pass_that_fills_a_batch_is_random():
    """Each of 3 strings fills the 4th row in a third of the batches; 600 batches, |z| < 4.5."""
    strings, extra = distinct_strings(3), np.zeros(3)
    batches = Batches(strings, 4, seed=1)
    for k in range(600):
        extra += np.bincount(row_ids(strings, batches.batch(k)), minlength=3) - 1
    assert extra.sum() == 600
    assert (abs(extra - 200) / np.sqrt(600 * 2 / 9) < 4.5).all()


@pytest.mark.parametrize(("count", "size"), [(10, 4), (4, 10), (4, 4)])
def test_a_batch_is_a_function_of_seed_and_number(count, size):
    strings = distinct_strings(count)
    in_order = [Batches(strings, size, seed=5).batch(0)]
    batches = Batches(strings, size, seed=5)
    in_order = [batches.batch(k) for k in range(12)]
    for k in (11, 3, 7, 0, 7, 10):
        torch.rand(3)  # torch's own random state has no part in it
        assert Batches(strings, size, seed=5).batch(k).equal(in_order[k])
        assert batches.batch(k).equal(in_order[k])
    others = [Batches(strings, size, seed=6).batch(k) for k in range(12)]
    assert not all(a.equal(b) for a, b in zip(in_order, others, strict=True))
    assert not all(a.equal(in_order[0]) for a in in_order)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize(("count", "size"), [(50, 8), (13, 12), (4, 10), (3, 4), (10, 10)])
def test_shards_are_the_batch(count, size, world):
    """Together and interleaved; also where a batch holds the end of one pass and the next's begin."""
    strings = distinct_strings(count)
    batches = Batches(strings, size, seed=2)
    shards = [Batches(strings, size, seed=2, shard=(rank, world)) for rank in range(world)]
    assert all(shard.steps_per_epoch == batches.steps_per_epoch for shard in shards)
    for k in range(20):
        whole = batches.batch(k)
        for rank, shard in enumerate(shards):
            assert shard.batch(k).equal(whole[rank::world])


def test_a_shard_computes_its_own_rows_alone(monkeypatch):
    asked, permute = [], Permutation.__call__

    def spy(permutation, positions):
        asked.append(len(positions))
        return permute(permutation, positions)

    monkeypatch.setattr(Permutation, "__call__", spy)
    batches = Batches(distinct_strings(100), 16, seed=0, shard=(1, 4))
    assert batches.batch(0).shape == (4, 9)
    assert asked[0] == 4


def permutation(n: int, seed: int) -> Permutation:
    return Permutation(n, torch.Generator().manual_seed(seed))


def test_a_permutation_has_each_number_once():
    for n in (*range(1, 70), 100, 101, 255, 256, 257, 1000, 65_535, 1_000_003):
        for seed in range(3):
            numbers = permutation(n, seed)(np.arange(n))
            np.testing.assert_array_equal(np.sort(numbers), np.arange(n))


def test_a_permutation_is_computed_number_by_number():
    whole = permutation(1000, 0)(np.arange(1000))
    some = np.random.default_rng(0).integers(0, 1000, 77)
    np.testing.assert_array_equal(permutation(1000, 0)(some), whole[some])


def test_a_permutation_is_not_stored():
    n = 10**12
    order = permutation(n, 0)
    assert order.add_to_x.nbytes + order.add_to_y.nbytes < 100e6  # 8 bytes a number would be 8 TB
    positions = np.append(np.arange(10_000), np.arange(n - 10_000, n))
    numbers = order(positions)
    assert numbers.min() >= 0
    assert numbers.max() < n
    assert len(set(numbers.tolist())) == len(positions)


@pytest.mark.parametrize("n", [10, 64, 101])
def test_permutations_are_random(n):
    """1,500 of them: where each number goes, and how far apart two neighbours land; |z| < 4.5."""
    count = 1500
    orders = np.stack([permutation(n, seed)(np.arange(n)) for seed in range(count)])
    goes = (orders[:, :, None] == np.arange(n)).sum(axis=0)  # (n, n)
    z = (goes - count / n) / np.sqrt(count / n * (1 - 1 / n))
    assert abs(z).max() < 4.5 + np.log10(n)  # the largest of n * n
    chi_square, freedom = (z**2).sum() * (1 - 1 / n), (n - 1) ** 2
    assert abs(chi_square - freedom) / np.sqrt(2 * freedom) < 4.5
    apart = np.bincount(((orders[:, 1] - orders[:, 0]) % n), minlength=n)[1:]
    chi_square, freedom = ((apart - count / (n - 1)) ** 2).sum() / (count / (n - 1)), n - 2
    assert abs(chi_square - freedom) / np.sqrt(2 * freedom) < 4.5
    rises = (orders[:, 1:] > orders[:, :-1]).mean()  # 1/2 of them, with variance 1 / 12 a place
    assert abs(rises - 0.5) * np.sqrt(12 * count * n) < 4.5


def test_batches_leave_torchs_random_state_alone():
    state = torch.get_rng_state()
    Batches(distinct_strings(10), 3, seed=0).batch(4)
    Batches(distinct_strings(3), 10, seed=0).batch(4)
    assert torch.get_rng_state().equal(state)


def test_reading_then_batching_warns_of_nothing(tmp_path, recwarn):
    """torch warns of arrays that it must not write to."""
    strings = read(tmp_path, b"0110\n1111\n")
    assert Batches(strings, 2, seed=0).batch(0).shape == (2, 4)
    assert not recwarn.list
