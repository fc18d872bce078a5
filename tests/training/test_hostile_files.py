"""Files from strangers and faults of the world: whatever comes, success or one line and an exit code."""

import contextlib
import errno
import io
import json
import math
import os
import re
import resource
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import ROOT, Command, make_run, only_results_dir, without_pictures

from bernoulli_diffusion import generate, train
from bernoulli_diffusion.config import SECTIONS
from bernoulli_diffusion.results import plots
from bernoulli_diffusion.results.frames import write_gif
from bernoulli_diffusion.results.record import from_text
from bernoulli_diffusion.system import command_line, files
from bernoulli_diffusion.system.interrupt import Interrupted
from bernoulli_diffusion.training import checkpoint, soundness
from bernoulli_diffusion.training.loop import Loop
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer

FUZZ = settings(
    max_examples=40,  # tests/stress looks longer
    deadline=20_000,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
GIB = 1 << 30


# ------------------------------------------------------------------------- one line and an exit code


def tell(main) -> tuple[int, str]:
    """The exit code and standard error of main(), which may end in success or one-line errors only."""
    stdout, stderr = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            code = command_line.run(main)
        except SystemExit as end:  # --help
            code = end.code or 0
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < GIB
    lines = stderr.getvalue().split("\n")
    assert all(c.isprintable() for line in lines for c in line)
    assert code in (0, 1, 2)
    if code:
        assert [line for line in lines if line.startswith("error: ")]
        told = ("error: ", "warning: ", "checking ")
        assert all(line.startswith(told) for line in lines if line)
    return code, stderr.getvalue()


@contextlib.contextmanager
def inside(folder: str):
    """With folder as the working directory, where harm would show."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


MAINS = {"train.py": train.main, "generate.py": generate.main}


def call(script: str, *arguments: object) -> tuple[int, str]:
    with patch.object(sys, "argv", [script, *map(str, arguments)]):
        return tell(MAINS[script])


# ------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run folder whose run was stopped in its last epoch, and the last checkpoint."""
    run_dir = make_run(tmp_path_factory.mktemp("stopped") / "run")
    with pictureless(), patch.object(Trainer, "measure_recommended", interrupt):
        trainer = Trainer(
            read_run_folder(run_dir, ["training.epochs=1"]), torch.device("cpu"), quiet=True
        )
        with pytest.raises(Interrupted):
            trainer.train()
    return run_dir, only_results_dir(run_dir) / "checkpoints" / "model_epoch_1.pt"


def interrupt(*_):
    raise Interrupted(2)


@contextlib.contextmanager
def pictureless():
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_pictures(monkeypatch.setattr)
        yield


def try_checkpoint(stopped, data: bytes) -> tuple[int, int]:
    """The exit codes of generate.py and train.py --resume for a file with this content."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        shutil.copytree(stopped[0], run_dir)
        path = only_results_dir(run_dir) / "checkpoints" / stopped[1].name
        path.write_bytes(data)
        (only_results_dir(run_dir) / "checkpoints" / "model_best.pt").unlink()
        with inside(folder):
            drawn, _ = call("generate.py", path, 2, "--device", "cpu", "--gif", f"{folder}/x.gif")
            with pictureless():
                resumed, _ = call("train.py", run_dir, "--resume", "--device", "cpu", "--quiet")
        assert not (Path(folder) / "executed").exists()
    return drawn, resumed


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def zipped(contents: dict[str, bytes], compression=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_entry(data: bytes, key: str, opcodes: bytes) -> bytes:
    """The checkpoint with one more entry (the last one counts), given in the pickle machine's code."""
    contents = members(data)
    name = next(n for n in contents if n.endswith("data.pkl"))
    text = b"X" + len(key).to_bytes(4, "little") + key.encode()
    contents[name] = contents[name].removesuffix(b".") + text + opcodes + b"s."
    return zipped(contents)


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def call_of(module: str, name: str, argument: str) -> bytes:
    text = b"X" + len(argument).to_bytes(4, "little") + argument.encode()
    return f"c{module}\n{name}\n".encode() + text + b"\x85R"


LAUGHS = b"]q\xf0" + b"](h\xf0h\xf0eq\xf0" * 60  # 60 lists that each hold the one before twice
OPCODES = {
    "system": call_of("posix", "system", "touch executed"),
    "eval": call_of("builtins", "eval", "open('executed', 'w')"),
    "old exec": call_of("__builtin__", "exec", "open('executed', 'w')"),
    "hub": call_of("torch.hub", "load", "x"),
    "load": call_of("torch", "load", "executed"),
    "import": call_of("importlib", "import_module", "this"),
    "getattr": b"cbuiltins\ngetattr\ncos\nsystem\n\x86R",
    "deep list": b"]" * 100_000 + b"a" * 99_999,
    "deep key": b"})" + b"\x85" * 100_000 + b"K\x01s",
    "self": b"]q\xf1h\xf1a",
    "laughs": LAUGHS,
    "huge int": b"\x8b" + (10_000).to_bytes(4, "little") + b"\x7f" * 10_000,
    "huge tensor": b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n"
    b"(ctorch\nfloat32\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85K\x01\x85\x89tR",
}
NUMBERS = [True, 0, -1, 3, 2**63, 10**5000, 0.5, 1e308, math.nan, math.inf, -math.inf]
TEXTS = ["", "\x1b[2J\n", "\ud800", "{}", "[" * 100_000, "training: {epochs: 2}", b"01"]
LISTS = [[], (), [1.0], [math.nan], ["x"], {}, {"x": 1}, {1: 2}, {"state": {}}]
VAST = torch.zeros(1).expand(10**6, 10**6)
TENSORS = [
    torch.zeros(3),
    torch.zeros(0),
    torch.full((8, 8), math.nan),
    torch.eye(3).to_sparse(),
    VAST,
]
STATES = [{"w": tensor} for tensor in [*TENSORS, torch.zeros(3, dtype=torch.complex64)]]
VALUES = [None, *NUMBERS, *TEXTS, *LISTS, *TENSORS, *STATES, {"read_in.weight": torch.zeros(1)}]
NO_LISTS = [
    None,
    1,
    -1.5,
    "x",
    [1],
    [1, "x"],
    [[]],
    [["2"]],
    [math.inf],
    math.nan,
    {"a": 1},
    {},
    [],
]
OPTIONS = """width: 1000000000|width: 1000000000000000000000000000000|width: -1|width: 0|width: [1]
width: x|width: 16|width: null|num_blocks: 1000000000|num_blocks: -1|num_blocks: 0|num_blocks: 0.5
dropout: 2|dropout: x|dropout: 1e-400|other: 1|width: 8, num_blocks: 2|a: {b: [1, {c: 2}]}"""
SETTINGS = """T: 1000000000000|T: 1|T: 21|shape: [2, 4]|shape: [3, 5]|batch_size: 3|ema_decay: 0
num_examples: 2|weight_decay: 1|num_blocks: 2"""
KINDS = "cut flip flip_inside entry members value value tensor config results param_groups junk"


def one_of(text: str):
    return st.sampled_from(re.split("[|\n]", text))


def replace_tensor(draw, state: dict, where: str) -> None:
    tensors = state[where]
    if where == "optimizer":
        tensors = draw(st.sampled_from(list(state[where]["state"].values())))
    name = draw(st.sampled_from(list(tensors)))
    old = tensors[name]
    tensors[name] = draw(
        st.sampled_from(VALUES)
        | st.sampled_from([old * math.nan, old[..., None], old.double(), old.bool(), old * 1e38])
    )


@st.composite
def checkpoint_bytes(draw, data: bytes) -> bytes:
    """A checkpoint that is broken, strange or made to do harm."""
    kind = draw(st.sampled_from(KINDS.split()))
    place = draw(st.integers(0, len(data) - 1))
    state = torch.load(io.BytesIO(data), weights_only=True)
    if kind == "cut":
        return data[:place]
    if kind == "junk":
        return draw(st.sampled_from([b"", b"PK\3\4", b"\x80\x02"])) + draw(st.binary(max_size=200))
    if kind == "flip":
        return (
            data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :]
        )
    if kind == "entry":
        opcodes = OPCODES[draw(st.sampled_from(sorted(OPCODES)))]
        return with_entry(data, draw(st.sampled_from([*soundness.KEYS, "new"])), opcodes)
    if kind in ("members", "flip_inside"):
        contents = members(data)
        name = draw(st.sampled_from(sorted(contents)))
        if kind == "flip_inside":  # with a CRC that fits
            name = draw(
                st.sampled_from([name, next(n for n in contents if n.endswith("data.pkl"))])
            )
            changed = bytearray(contents[name] or b"\0")
            for _ in range(draw(st.integers(1, 4))):
                changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
            contents[name] = bytes(changed)
            return zipped(contents)
        other = draw(st.sampled_from(sorted(contents)))
        action = draw(st.sampled_from(["swap", "drop", "rename", "compress", "add"]))
        if action == "swap":
            contents[name], contents[other] = contents[other], contents[name]
        elif action == "drop":
            del contents[name]
        elif action == "rename":
            contents[draw(st.sampled_from(["constants.pkl", "x/data.pkl", "../x", "/x"]))] = (
                contents.pop(name)
            )
        elif action == "add":
            contents[draw(st.sampled_from(["x/constants.pkl", "archive/DATA.PKL", "x"]))] = (
                contents[name]
            )
        return zipped(
            contents, zipfile.ZIP_DEFLATED if action == "compress" else zipfile.ZIP_STORED
        )
    if kind == "value":
        key = draw(st.sampled_from(list(state)))
        state[key] = draw(st.sampled_from(VALUES))
        if draw(st.booleans()):
            del state[key]
    elif kind == "tensor":
        replace_tensor(
            draw, state, draw(st.sampled_from(["weights", "averaged_weights", "optimizer"]))
        )
    elif kind == "config":
        config = state["config"]
        if draw(st.booleans()):  # all options of the network are replaced
            options = f"reverse_model: {{{draw(one_of(OPTIONS))}}}"
            config = re.sub(r"reverse_model:\n(    .*\n)*", f"{options}\n", config)
        else:
            setting = draw(one_of(SETTINGS))
            key, value = setting.split(": ", 1)
            config = re.sub(rf"\b{key}: .*", setting, config)
            if key == "T":
                state["T"] = int(value)
        state["config"] = config
    elif kind == "results":
        results = json.loads(state["results"])
        holder = draw(
            st.sampled_from([results, results["bound"], results["measures"][0], results["data"]])
        )
        key = draw(st.sampled_from(sorted(holder)))
        holder[key] = draw(st.sampled_from(NO_LISTS))
        state["results"] = json.dumps(results)
    elif kind == "param_groups":
        group = state["optimizer"]["param_groups"][0]
        group[draw(st.sampled_from(sorted(group)))] = draw(st.sampled_from(VALUES))
    return saved(state)


def check_checkpoint(stopped, data) -> None:
    content = data.draw(checkpoint_bytes(stopped[1].read_bytes()))
    try_checkpoint(stopped, content)


def test_a_sound_checkpoint(stopped):
    assert try_checkpoint(stopped, stopped[1].read_bytes()) == (0, 0)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *(("weights", name) for name in sorted(OPCODES)),
        *(("format_version", name) for name in ("system", "deep list", "self", "huge int")),
    ],
)
def test_hostile_pickles(stopped, key, name):
    data = with_entry(stopped[1].read_bytes(), key, OPCODES[name])
    assert try_checkpoint(stopped, data) == (2, 2)


def test_every_changed_byte_is_noticed(stopped):
    """Weights that are not those that were saved are not sampled from."""
    data = stopped[1].read_bytes()
    contents = members(data)
    start = data.index(max((v for k, v in contents.items() if "/data/" in k), key=len))
    changed = data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :]
    assert try_checkpoint(stopped, changed) == (2, 2)


def test_only_a_recipe_goes_back_to_weights(stopped):
    saved, buffer = torch.load(stopped[1], weights_only=True), io.BytesIO()
    torch.save(saved | {"best": {"w": torch.zeros(2)}}, buffer)
    assert try_checkpoint(stopped, buffer.getvalue()) == (0, 2)


def test_checkpoints(stopped):
    FUZZ(given(st.data())(lambda data: check_checkpoint(stopped, data)))()


# ------------------------------------------------------------------------- train.txt, config.yaml, usage


PIECES = b"""\0|\r|\xff\xfe|\xef\xbb\xbf|\x1b[2J|2| |\xd9\xa1\xe2\x80\xae|\t- &a [*a, *a]|: {
|1e999|.nan|~|||!!python/object/apply:os.system ['touch executed']""".split(b"|")
PIECES += [b"01" * 500, b"0\n" * 999, b"'" * 99, b"[" * 999, b"9" * 9999]


@st.composite
def texts(draw, base: bytes) -> bytes:
    """base with a few bytes changed, or any bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(base)))
        end = start + draw(st.sampled_from([0, 0, 1, 7, len(base)]))
        base = base[:start] + draw(st.sampled_from(PIECES) | st.binary(max_size=5)) + base[end:]
    return base


def check_text(name: str, data) -> None:
    with tempfile.TemporaryDirectory() as folder, inside(folder):
        run_dir = make_run(Path(folder) / "run")
        file = run_dir / name
        file.write_bytes(data.draw(texts(file.read_bytes())))
        tell(lambda: read_run_folder(run_dir))
        assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["train.txt", "val.txt", "config.yaml"])
def test_texts(name):
    FUZZ(given(st.data())(lambda data: check_text(name, data)))()


KEYS = [f"{section}.{key}" for section, make in SECTIONS.items() for key in vars(make())]
ODD = "|-|--|0|-1|nan|\x1b[2J|\udcff|%s|{}|[1, 2]|é|../..|/dev/null|/proc/self/mem|~|&a|*a|!!x|'|: :|@x"
ODD = [*ODD.split("|"), "a\nb", "9" * 5000, "x" * 5000, "{a: " * 50]
FLAGS = {
    "train.py": "--seed --device --set --resume --trust-code --check --quiet --help --s --from --results"
    " --lr --epochs --batch-size --version",
    "generate.py": "--seed --steps --batch-size --device --output --weights --gif --trust-code --help -n"
    " -o --num-samples --version",
}


@st.composite
def arguments(draw, script: str) -> list[str]:
    odd = st.sampled_from(ODD) | st.text(max_size=5).filter(lambda s: "\0" not in s)
    setting = st.builds(
        "{}={}".format, st.sampled_from([*KEYS, "model.reverse_model.width", "a.b"]), odd
    )
    places = st.sampled_from(["run", "file", "nowhere", "run/train.txt"])
    return draw(
        st.lists(st.sampled_from(FLAGS[script].split()) | odd | setting | places, max_size=7)
    )


def check_arguments(script: str, data) -> None:
    with tempfile.TemporaryDirectory() as folder, inside(folder):
        Path("run").mkdir()
        Path("file").write_text("x")
        call(script, *data.draw(arguments(script)))


@pytest.mark.parametrize("script", ["train.py", "generate.py"])
def test_arguments(script):
    FUZZ(given(st.data())(lambda data: check_arguments(script, data)))()


# ------------------------------------------------------------------------- faults of the world


class FullDisk:
    """open() for files on a disk with `room` bytes left; or where another step of writing fails."""

    def __init__(self, room: float):
        self.room = room

    def open(self, path, mode):
        file = open(path, mode, buffering=0)  # noqa: SIM115
        write = file.write

        class File(io.RawIOBase):
            def writable(_):  # noqa: N805
                return True

            def write(_, data):  # noqa: N805
                if self.room <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                count = write(bytes(data)[: int(min(self.room, len(data)))])
                self.room -= count
                return count

            def fileno(_):  # noqa: N805
                return file.fileno()

            def close(_):  # noqa: N805
                file.close()

        return io.BufferedWriter(File(), 1024)


def writers(stopped) -> dict:
    """What is written into a results folder: name -> (write(path), size)."""
    state = torch.load(stopped[1], weights_only=True)
    frames = np.zeros((3, 40, 40), np.uint8)
    figure = plots.validation(from_text(state["results"]))
    return {
        "model_epoch_1.pt": lambda path: checkpoint.save(path, state),
        "results.json": lambda path: files.write_atomically(path, state["results"].encode()),
        "validation.png": lambda path: plots.write_figure(figure, path),
        "film.gif": lambda path: write_gif(frames, path),
    }


@pytest.mark.parametrize("name", ["model_epoch_1.pt", "results.json", "validation.png", "film.gif"])
def test_a_full_disk(stopped, tmp_path, name):
    path, write = tmp_path / name, writers(stopped)[name]
    write(path)
    size = path.stat().st_size
    path.write_bytes(b"the previous one")
    for room in range(0, size, max(1, size // 4)):
        with patch.object(files, "open", FullDisk(room).open, create=True):
            code, told = tell(lambda: write(path))
        assert (code, told) == (1, f"error: {path}: No space left on device\n")
        assert path.read_bytes() == b"the previous one"
        assert list(tmp_path.iterdir()) == [path]
    for step in ("fsync", "replace"):
        full = OSError(errno.EIO, os.strerror(errno.EIO))
        with patch.object(files.os, step, side_effect=full):
            assert tell(lambda: write(path)) == (1, f"error: {path}: Input/output error\n")
        assert path.read_bytes() == b"the previous one"
        assert list(tmp_path.iterdir()) == [path]
    with patch.object(files, "open", FullDisk(size).open, create=True):
        write(path)
    assert path.stat().st_size == size


def test_a_disk_that_fills_while_training(tmp_path):
    """Training ends with one line; a picture alone only warns; what was written is whole."""
    run_dir = make_run(tmp_path / "run")
    for room, code in ((40_000, 1), (math.inf, 0)):
        with patch.object(files, "open", FullDisk(room).open, create=True):
            assert call("train.py", run_dir, "--device", "cpu", "--quiet")[0] == code
    for path in run_dir.rglob("*.pt"):
        checkpoint.load(path)
    no_pictures = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.png")
    with patch.object(plots, "write_atomically", side_effect=no_pictures):
        code, told = call("train.py", run_dir, "--device", "cpu", "--quiet")
    assert code == 0
    assert "warning: the pictures could not be drawn: OSError" in told


def test_a_results_folder_that_vanishes(tmp_path):
    run_dir = make_run(tmp_path / "run")
    train_step = Loop.train_step

    def vanish(loop: Loop) -> None:
        train_step(loop)
        for path in (run_dir / "results").iterdir():
            shutil.rmtree(path)

    with patch.object(Loop, "train_step", vanish):
        code, told = call("train.py", run_dir, "--device", "cpu", "--quiet")
    assert code == 1
    assert told.endswith("No such file or directory\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(tmp_path):
    run_dir = make_run(tmp_path / "run")
    run_dir.chmod(0o500)
    code, told = call("train.py", run_dir, "--device", "cpu", "--quiet")
    assert (code, told) == (1, f"error: {run_dir / 'results'}: Permission denied\n")


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 * GIB, 4 * GIB))


def test_out_of_memory(tmp_path):
    run_dir = make_run(tmp_path / "run", train=["01" * 100] * 4, val=["01" * 100])
    command = Command(
        tmp_path,
        "train.py",
        run_dir,
        "--quiet",
        "--device",
        "cpu",
        "--set",
        "model.reverse_model.width=60000",
        prepare=limit_memory,
    )
    assert command.wait() == 1, command.stderr
    told = command.stderr.splitlines()[-1]
    assert told.startswith("error: out of memory; lower data.batch_size")
    assert "model.reverse_model" in told


# ------------------------------------------------------------------------- the first format


def test_the_first_format_can_always_be_read(tmp_path):
    path = ROOT / "tests" / "data" / "checkpoint_format_1.pt"
    output = tmp_path / "strings"
    code, told = call(
        "generate.py", path, 12, "--trust-code", "--device", "cpu", "--output", output
    )
    assert (code, told) == (0, "")
    assert output.read_text() == (ROOT / "tests" / "data" / "checkpoint_format_1.txt").read_text()
