"""The commands in processes of their own, without the seconds that importing torch takes.

A server that has imported everything forks a process for each command (multiprocessing's forkserver).
From there on it is what a shell starts: signals, exit codes and sudden deaths are real. What only a
real start can show starts Python itself (tests/system).
"""

import contextlib
import gc
import itertools
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import torch

from bernoulli_diffusion.training import judge, loop, results_folder, shares, trainer, validator

os.fsync = lambda _: None  # no test cuts the power; test_hostile_files lets it fail

ROOT = Path(__file__).parent.parent
PACKAGE = "bernoulli_diffusion"
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "processes",
        "torch._dynamo",  # which torch imports for several processes
        "jinja2",
        *(
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for path in sorted((ROOT / PACKAGE).rglob("*.py"))
            if "__" not in path.stem
            and path.parent.name != "networks"
            and path.stem != "estimator"  # scikit-learn, which no command needs
        ),
    ]
)

TRAIN = [format(number, "04b") * 2 for number in range(16)]
CONFIG = """\
model: {T: 20, reverse_model: {width: 8, num_blocks: 1, dropout: 0.1}}
training: {epochs: 6, num_val_samples: 20, num_bound_draws: 64, warmup_steps: 2, num_examples: 3,
  validate_every_n_epochs: 2, save_every_n_epochs: 1}
data: {batch_size: 4}
"""
TIMINGS = {"seconds", "samples_per_second", "date", "config_sha256"}  # of the file as it was typed

# What a run does, by a letter, and the method with which that begins.
PHASES = {
    "t": (loop.Loop, "train_step"),
    "s": (trainer.Trainer, "save"),
    "v": (judge.Judge, "bounds"),
    "g": (validator.Validator, "draw"),
    "d": (results_folder.ResultsFolder, "draw_progress"),
    "f": (results_folder.ResultsFolder, "draw_reverse_process"),
}


def make_run(run_dir: Path, **files: str) -> Path:
    """A run folder with a dozen seconds' worth of everything in a second."""
    files = {"train": TRAIN, "val": [*TRAIN[:1], "00000001", "11111110"]} | files
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(CONFIG)
    for name, lines in files.items():
        (run_dir / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return run_dir


class Outcome(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Command:
    """A running `python script arguments`, or a command of the package by its name without .py.

    Its streams go to files in folder. given is passed to prepare, which is called first in the process;
    environment is added to this one's.
    """

    def __init__(
        self,
        folder: Path,
        script: str,
        *arguments: object,
        prepare=None,
        given=(),
        cwd: Path = ROOT,
        stdin: str = "",
        environment: dict[str, object] | None = None,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.streams = [folder / name for name in ("stdin", "stdout", "stderr")]
        self.streams[0].write_text(stdin)
        for path in self.streams[1:]:
            path.touch()
        words = [str(script), *map(str, arguments)]
        variables = dict(os.environ) | {k: str(v) for k, v in (environment or {}).items()}
        place = variables, str(cwd), list(map(str, self.streams))
        self.process = _context.Process(
            target=_run, args=(words, place, prepare, given), daemon=True
        )
        with _importable():
            self.process.start()
        self.pid = self.process.pid

    def wait(self, timeout: float = 60) -> int:
        """The exit code; negative for a signal that nobody handled."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"still running after {timeout} s")
        return self.process.exitcode

    @property
    def stdout(self) -> str:
        return self.streams[1].read_text()

    @property
    def stderr(self) -> str:
        return self.streams[2].read_text()


def call(*words: object, code: int = 0, **options) -> subprocess.CompletedProcess:
    """The outcome of a command, which must end with this exit code and never with a traceback."""
    with tempfile.TemporaryDirectory() as folder:
        command = Command(Path(folder), *words, **options)
        outcome = command.wait(120), command.stdout, command.stderr
    assert outcome[0] == code, outcome[2]
    assert "Traceback" not in outcome[2]
    return subprocess.CompletedProcess(words, *outcome)


def mistake(*words: object, **options) -> str:
    """The one line in which a command tells a mistake, having written nothing else."""
    done = call(*words, code=2, **options)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1), done
    assert done.stderr.startswith("error: ")
    return done.stderr


def without_pictures(setattr=setattr) -> None:
    """Let training draw none, which takes most of the time of a small run; setattr: a monkeypatch's."""
    for name in ("draw_progress", "draw_reverse_process"):
        setattr(results_folder.ResultsFolder, name, lambda *_: None)


def fewer_draws(setattr=setattr) -> None:
    """Shares are fitted to fewer draws: quicker, and no less true. setattr: a monkeypatch's."""
    setattr(shares, "ELEMENTS", 1 << 14)


def without_trees() -> None:
    """No pictures, and no boosted trees to tell records from samples: importing them takes seconds."""
    without_pictures()
    sys.modules["sklearn.ensemble"] = None  # as if it were not installed


def train(run_dir: Path, *options: object, prepare=without_pictures, **more) -> Path:
    """The results folder of a run without pictures."""
    done = call("train.py", run_dir, *options, prepare=prepare, **more)
    return Path(done.stdout.splitlines()[-1])


class Together:
    """Two processes of one command, with the variables that torchrun gives its processes."""

    def __init__(self, folder: Path, *words: object):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
        self.commands = [
            Command(
                folder / f"rank {rank}",
                *words,
                environment=place
                | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2},
            )
            for rank in range(2)
        ]

    def finish(self) -> tuple[list[int], str, str]:
        """Exit codes, and what both have written."""
        codes = [command.wait() for command in self.commands]
        out, err = ("".join(getattr(c, s) for c in self.commands) for s in ("stdout", "stderr"))
        return codes, out, err


@contextlib.contextmanager
def _importable():
    """PYTHONPATH for the server, which is started with the first command and knows no sys.path."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _run(words: list[str], place: tuple, prepare, given) -> None:
    gc.freeze()  # what the server has imported is not looked through again
    environment, cwd, streams = place
    os.environ.clear()
    os.environ.update(environment | {"CUDA_VISIBLE_DEVICES": ""})
    os.chdir(cwd)
    for number, path in enumerate(streams):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
        os.dup2(os.open(path, flags, 0o666), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    if prepare:
        prepare(*given)
    sys.argv = words
    if words[0].endswith(".py"):
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    else:
        name = f"{PACKAGE}.{words[0]}"
        sys.modules.pop(name, None)  # it was imported, and would be there twice
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def when(begins) -> None:
    """Call begins(letter, times) whenever a phase begins for the times-th time."""

    def wrap(letter: str, method, count):
        def wrapped(*arguments, **options):
            begins(letter, next(count))
            return method(*arguments, **options)

        return wrapped

    for letter, (owner, name) in PHASES.items():
        setattr(owner, name, wrap(letter, getattr(owner, name), itertools.count(1)))


def record(path: str) -> None:
    """Prepares a command to write the letter of each phase to a file."""

    def begins(letter: str, _times: int) -> None:
        with open(path, "a") as file:
            file.write(letter)

    when(begins)


def strike(letter: str, times: int, number: int, delay: float = 0.0, repeats: int = 1) -> None:
    """Prepares a command to get a signal, a delay after a phase has begun for the times-th time."""

    def kill() -> None:
        for _ in range(repeats):
            os.kill(os.getpid(), number)

    def begins(*phase: object) -> None:
        if phase == (letter, times):
            threading.Timer(delay, kill).start() if delay else kill()

    when(begins)


def only_results_dir(run_dir: Path) -> Path:
    [path] = (run_dir / "results").iterdir()
    return path


def without_timings(value):
    """The same without what differs between two runs of one computation: times, and where it ran."""
    if isinstance(value, dict):
        return {k: without_timings(v) for k, v in value.items() if k not in TIMINGS}
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            parsed = json.loads(value)
            return without_timings(parsed) if isinstance(parsed, dict) else value
    if isinstance(value, (list, tuple)):
        return [without_timings(v) for v in value]
    return value


def assert_identical(a, b, name: str = "") -> None:
    """Equal to the last bit, tensors too."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_identical(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), name
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{name}[{index}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, name
        assert torch.equal(a, b), name
    else:
        assert a == b, name


def outcome(results_dir: Path) -> dict:
    """All that a finished run has left behind, without timings."""
    checkpoints = sorted((results_dir / "checkpoints").iterdir())
    files = {
        path.name: without_timings(torch.load(path, weights_only=True)) for path in checkpoints
    }
    files["results.json"] = without_timings(json.loads((results_dir / "results.json").read_text()))
    files["config.yaml"] = (results_dir / "config.yaml").read_text()
    files["reverse_model.py"] = (results_dir / "reverse_model.py").read_text()
    files["names"] = sorted(str(p.relative_to(results_dir)) for p in results_dir.rglob("*"))
    files |= {path.name: path.read_bytes() for path in results_dir.glob("*.gif")}
    return files
