"""train.py and generate.py as a user calls them, from another folder than the repository.

What has to do with processes (streams, signals, exit codes) runs in a process of its own; the many kinds
of wrong input call the same main() in this one.
"""

import contextlib
import fcntl
import importlib
import json
import math
import os
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as iio
import numpy as np
import processes
import pytest
import torch
from processes import Outcome

from bernoulli_diffusion import __version__, evaluate, generate
from bernoulli_diffusion import train as train_command
from bernoulli_diffusion.answers import PARTICLES
from bernoulli_diffusion.bits.data import read_bit_strings, to_text
from bernoulli_diffusion.config import load_config
from bernoulli_diffusion.sampling import sample
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training import checkpoint as checkpoints

ROOT = Path(__file__).parent.parent
TRAIN, GENERATE = ROOT / "train.py", ROOT / "generate.py"
EVALUATE = ROOT / "bernoulli_diffusion" / "evaluate.py"
OWN_NETWORK = (ROOT / "bernoulli_diffusion" / "reverse_model.py").read_text() + "\n# my own\n"
EPOCHS = 4
STRINGS = [format(number, "04b") * 2 for number in range(16)]
VAL = ["00000001", "11111110", *STRINGS[:1]]
CONFIG = f"""\
model: {{T: 20, reverse_model: {{width: 16}}}}
training:
  epochs: {EPOCHS}
  lr: 0.02
  warmup_steps: 2
  num_val_samples: 20
  num_bound_draws: 64
  validate_every_n_epochs: 2
data: {{batch_size: 8}}
"""


def make_run(run_dir: Path, **files: str | None) -> Path:
    """A run folder; files (with _ for the dot) replaces contents, None leaves the file out."""
    contents = {"train_txt": "\n".join(STRINGS) + "\n", "config_yaml": CONFIG} | files
    run_dir.mkdir(parents=True)
    for name, text in contents.items():
        if text is not None:
            (run_dir / re.sub("_([a-z]+)$", r".\1", name)).write_text(text)
    return run_dir


def execute(script: Path, *arguments: object, **options) -> Outcome:
    done = processes.call(script.name, *arguments, **options)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def call(call_here, monkeypatch, tmp_path):
    """Call a command in this process, on the CPU."""
    modules = {TRAIN: train_command, GENERATE: generate, EVALUATE: evaluate}

    def call(script: Path, *arguments: object) -> Outcome:
        device = [] if "--device" in arguments else ["--device", "cpu"]
        return call_here(modules[script], *arguments, *device, script=script)

    monkeypatch.chdir(tmp_path)
    return call


def assert_mistake(outcome: Outcome, *lines: str | list[str], code: int = 2) -> None:
    """One line on standard error for each mistake, with the given fragments, and nothing else."""
    told = outcome.stderr.splitlines()
    assert outcome.code == code, outcome
    assert outcome.stdout == ""
    assert len(told) == len(lines), outcome.stderr
    for line, fragments in zip(told, lines, strict=True):
        assert line.startswith("error: ")
        for fragment in [fragments] if isinstance(fragments, str) else fragments:
            assert fragment in line


class Trained(NamedTuple):
    cwd: Path
    run_dir: Path
    outcome: Outcome
    results_dir: Path

    @property
    def best(self) -> Path:
        return self.results_dir / "checkpoints" / "model_best.pt"

    @property
    def results(self) -> dict:
        return json.loads((self.results_dir / "results.json").read_text())


def train(run_dir: Path, *arguments: object, **options) -> Trained:
    """Train in a process; the run folder is given by a relative path, with a space in it."""
    outcome = execute(TRAIN, run_dir.name, *arguments, cwd=run_dir.parent, **options)
    last_line = outcome.stdout.removesuffix("\n").split("\n")[-1]
    return Trained(run_dir.parent, run_dir, outcome, run_dir.parent / last_line)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    run_dir = tmp_path_factory.mktemp("train") / "my run"
    make_run(run_dir, val_txt="\n".join(VAL), reverse_model_py=OWN_NETWORK)
    return train(run_dir)


@pytest.fixture
def copied(trained, tmp_path) -> Trained:
    """The trained run in a place of its own, to be changed."""
    run_dir = tmp_path / "copied run"
    shutil.copytree(trained.run_dir, run_dir)
    relative = trained.results_dir.relative_to(trained.run_dir)
    return Trained(tmp_path, run_dir, trained.outcome, run_dir / relative)


# ------------------------------------------------------------------------------- training


def test_the_results_folder_is_all_there_is_on_standard_output(trained):
    lines = trained.outcome.stdout.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"my run/results/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", lines[0])
    assert trained.results_dir.is_dir()


def test_every_file_of_the_results_folder(trained):
    found = {str(path.relative_to(trained.results_dir)) for path in trained.results_dir.rglob("*")}
    assert found == {
        "config.yaml",
        "reverse_model.py",
        "results.json",
        "metrics.jsonl",
        "report.html",
        "loss_curve.png",
        "validation.png",
        "sample_evolution_throughout_training.gif",
        "reverse_process.gif",
        "checkpoints",
        "checkpoints/model_epoch_2.pt",
        "checkpoints/model_epoch_4.pt",
        "checkpoints/model_best.pt",
    }
    assert (trained.results_dir / "reverse_model.py").read_text() == OWN_NETWORK


def test_the_resolved_config_is_loadable(trained):
    resolved = load_config(trained.results_dir / "config.yaml")
    given = load_config(trained.run_dir / "config.yaml")
    assert resolved.model == given.model
    assert resolved.training.lr == 0.02
    assert resolved.training.epochs == EPOCHS
    assert resolved.training.save_every_n_epochs == 2  # null in the given one


def test_pictures_can_be_read(trained):
    least = {"sample_evolution_throughout_training.gif": 3, "reverse_process.gif": 10}
    for name in ("loss_curve.png", "validation.png", *least):
        picture = iio.imread(trained.results_dir / name)
        assert picture.ndim >= 3
        assert len(picture) >= least.get(name, 1)
        assert picture.min() < 100 < picture.max()


def test_results_name_the_data_and_the_versions(trained):
    told = trained.results
    assert told["status"] == "finished"
    assert told["best_epoch"] in told["validated_epochs"] == [0, 2, 4]
    assert told["seconds"] == sorted(told["seconds"])
    assert told["versions"]["torch"] == torch.__version__
    assert told["versions"]["python"].startswith("3.")
    for name, lines in (("train", 16), ("val", 3)):
        sha256 = read_bit_strings(trained.run_dir / f"{name}.txt").sha256()
        assert (told["data"][name]["lines"], told["data"][name]["sha256"]) == (lines, sha256)
    network = checkpoints.load(trained.best)
    assert told["reverse_model_sha256"] == network["reverse_model_sha256"]


def test_lines_on_standard_error_when_it_is_no_terminal(trained):
    text = trained.outcome.stderr
    assert "\r" not in text
    assert "\x1b" not in text
    lines = text.splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("epoch ")] == [
        "epoch 0/4",
        "epoch 2/4",
        "epoch 4/4",
    ]
    assert "16 strings of 8 bits (16 distinct), 3 in val.txt" in text
    assert f"T = {20}" in text
    assert "±" in text
    assert "finished" in lines


def test_lines_of_val_that_stand_in_train_are_counted(trained):
    [warning] = [s for s in trained.outcome.stderr.splitlines() if s.startswith("warning")]
    assert "val.txt: 1 of its 3 lines also stand in train.txt" in warning
    assert trained.results["data"]["val_lines_in_train"] == 1


def test_the_last_words_say_what_to_type_next(trained):
    command = trained.outcome.stderr.splitlines()[-1].removeprefix("next").strip()
    program, script, path, number = shlex.split(command)
    assert (program, script, number) == ("python", "generate.py", "10")
    assert (trained.cwd / path).is_file()


def without_timings(results_dir: Path) -> dict:
    told = json.loads((results_dir / "results.json").read_text())
    del told["seconds"], told["samples_per_second"], told["recommended"]["date"]
    return told


def test_the_same_seed_in_another_process(trained, tmp_path):
    """The same data and seed give the same numbers and weights, bit for bit."""
    run_dir = tmp_path / "my run"
    shutil.copytree(trained.run_dir, run_dir, ignore=shutil.ignore_patterns("results"))
    again = train(run_dir, "--quiet", prepare=processes.without_pictures)
    assert re.fullmatch("warning: .*also stand in.*\n", again.outcome.stderr)  # and nothing else
    assert without_timings(again.results_dir) == without_timings(trained.results_dir)
    for name in (f"model_epoch_{EPOCHS}.pt", "model_best.pt"):
        states = [checkpoints.load(r.results_dir / "checkpoints" / name) for r in (trained, again)]
        for kind in ("weights", "averaged_weights"):
            assert states[0][kind].keys() == states[1][kind].keys()
            assert all(torch.equal(w, states[1][kind][key]) for key, w in states[0][kind].items())


@pytest.mark.usefixtures("no_pictures")
def test_another_seed(call, tmp_path):
    run_dir = make_run(tmp_path / "run", val_txt="\n".join(VAL[:2]))
    told = []
    for seed in (("--seed", 7), ("--set", "training.seed=7"), ("--seed", "8")):
        outcome = call(TRAIN, run_dir, "--quiet", *seed)
        assert outcome.code == 0
        assert outcome.stderr == ""  # --quiet, and nothing to warn of
        told.append(without_timings(Path(outcome.stdout.strip())))
    assert told[0] == told[1]
    assert [t["seed"] for t in told] == [7, 7, 8]
    for key in ("losses", "bound", "examples_per_epoch"):
        assert told[1][key] != told[2][key]
    assert len(list((run_dir / "results").iterdir())) == 3  # within one second, perhaps


def on_terminal(name: str) -> None:
    processes.without_pictures()
    os.dup2(os.open(name, os.O_WRONLY), 2)


def test_a_bar_on_a_terminal(tmp_path):
    run_dir = make_run(tmp_path / "run")
    ours, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    how = {"prepare": on_terminal, "given": [os.ttyname(terminal)]}
    command = processes.Command(tmp_path, "train.py", run_dir, **how)
    shown = b""
    while command.process.is_alive() or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.05)[0]:
            shown += os.read(ours, 10_000)
    assert command.wait() == 0
    os.close(terminal)
    os.close(ours)
    assert command.stdout.startswith(str(run_dir / "results"))
    text = shown.decode()
    assert re.search(r"\repoch 4/4: 100%\|.*bound .* bits", text)
    assert "train/val/neither" in text
    assert re.search(r"\d\d:\d\d<\d\d:\d\d", text)  # time passed and time left
    assert not re.search(r"^epoch", text, re.MULTILINE)  # no lines besides
    assert "warning: " in text  # about val.txt


def test_without_val(call, tmp_path):
    outcome = call(TRAIN, make_run(tmp_path / "run"))
    assert outcome.code == 0
    [warning] = [s for s in outcome.stderr.splitlines() if s.startswith("warning")]
    assert "val.txt: not there" in warning
    assert "missing" in warning
    names = {path.name for path in Path(outcome.stdout.strip()).iterdir()}
    assert {"loss_curve.png", "validation.png"} <= names


@pytest.mark.usefixtures("no_pictures")
def test_a_time_budget_that_is_over_before_the_first_step(call, tmp_path):
    outcome = call(TRAIN, make_run(tmp_path / "run"), "--set", "training.max_minutes=1e-9")
    assert outcome.code == 0
    assert "1e-09 minutes are over (training.max_minutes)" in outcome.stderr
    assert "None" not in outcome.stderr
    checkpoint = Path(outcome.stdout.strip()) / "checkpoints" / "model_epoch_0.pt"
    assert call(GENERATE, checkpoint, 3).code == 0


def test_check(call, tmp_path):
    run_dir = make_run(tmp_path / "run", val_txt="\n".join(VAL))
    before = sorted(path.name for path in run_dir.iterdir())
    outcome = call(TRAIN, run_dir, "--check", "--set", "training.epochs=5000")
    assert outcome.code == 0
    assert sorted(path.name for path in run_dir.iterdir()) == before
    text = outcome.stdout
    assert "16 strings of 8 bits (16 distinct), 3 in val.txt" in text
    assert re.search(r"[\d,]+ parameters, T = 20, on cpu", text)
    assert "5,000 epochs of 2 steps of 8 strings" in text
    assert re.search(r"time +about \d+ (s|min|h) for 10,000 steps \(\d+\.\d ms each\)", text)
    assert re.search(r"memory +about \d+\.\d GB", text)
    assert "ready to train" in text
    [first, second] = outcome.stderr.splitlines()
    assert first == f"checking {run_dir}, which takes some seconds; nothing is trained"
    assert second.startswith("warning: ")


def test_check_is_quick_whatever_the_config(call, tmp_path):
    """What takes long is priced by a part of it."""
    run_dir = make_run(tmp_path / "run", val_txt="\n".join(VAL))
    slow = "model.num_sample_steps=10000", "training.num_val_samples=1000000", "data.batch_size=16"
    settings = [word for text in slow for word in ("--set", text)]
    start = time.monotonic()
    outcome = call(TRAIN, run_dir, "--check", *settings, "--set", "training.val_batch_size=1000000")
    assert outcome.code == 0, outcome.stderr
    assert time.monotonic() - start < 10
    milliseconds = float(re.search(r"\((\d+\.\d) ms each\)", outcome.stdout)[1])
    assert milliseconds > 30


def test_a_shape_for_the_pictures(call, tmp_path):
    outcome = call(TRAIN, make_run(tmp_path / "run"), "--set", "data.shape=[2, 4]")
    assert outcome.code == 0
    results_dir = Path(outcome.stdout.strip())
    assert load_config(results_dir / "config.yaml").data.shape == [2, 4]
    film = iio.imread(results_dir / "reverse_process.gif")
    outcome = call(GENERATE, results_dir / "checkpoints" / "model_best.pt", 4, "--gif", "a.gif")
    assert outcome.code == 0
    assert iio.imread("a.gif").shape[0] == len(film)  # 20 steps and the start


NAN_NETWORK = """\
import math
from torch import nn

class ReverseModel(nn.Module):
    def __init__(self, sequence_length, T, width, good_calls):
        super().__init__()
        self.linear = nn.Linear(sequence_length, sequence_length)
        self.good_calls, self.calls = good_calls, 0

    def forward(self, x_t, t):
        self.calls += self.training
        return self.linear(x_t) * (math.nan if self.calls > self.good_calls else 1)
"""


def test_check_finds_a_loss_that_is_not_a_number(call, tmp_path):
    run_dir = make_run(tmp_path / "run", reverse_model_py=NAN_NETWORK, val_txt="\n".join(VAL[:2]))
    good = "--set", "model.reverse_model.good_calls=2"
    outcome = call(TRAIN, run_dir, "--check", "--quiet", *good)
    assert_mistake(outcome, "step 3: loss nan", code=1)
    assert not (run_dir / "results").exists()


# ------------------------------------------------------------------------------- wrong input: train.py


def network(line: str) -> str:
    return NAN_NETWORK.replace("width, good_calls", "width=16, good_calls=1000").replace(
        "        self.calls += self.training\n", f"        {line}\n"
    )


WRONG_RUNS = {  # files of the run folder, and a fragment or fragments of each line expected
    "commas": ({"train_txt": "01\n0,1\n"}, ["train.txt:2:2: expected 0 or 1, found ','", "tr -d"]),
    "val of another length": ({"val_txt": "0101\n"}, ["val.txt:1: 4 characters", "have 8"]),
    "several mistakes": (
        {"config_yaml": "model:\n  T: 0\ntraining:\n  lr: x\n  epox: 3\n"},
        "config.yaml:2: model.T",
        "config.yaml:4: training.lr",
        "config.yaml:5: training.epox",
    ),
    "network: option": (
        {"reverse_model_py": network("pass"), "config_yaml": "model: {reverse_model: {widht: 3}}"},
        ["model.reverse_model.widht:", "no such option; did you mean width?"],
    ),
    "network: mixes rows": (
        {"reverse_model_py": network("return self.linear(x_t - x_t.mean(dim=0))")},
        "depends on the other rows",
    ),
}


@pytest.mark.parametrize("name", WRONG_RUNS)
def test_wrong_run_folders(call, tmp_path, name):
    files, *lines = WRONG_RUNS[name]
    run_dir = make_run(tmp_path / "run", **files)
    before = sorted(run_dir.iterdir())
    assert_mistake(call(TRAIN, "run"), *lines)
    assert sorted(run_dir.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["nowhere"], ["nowhere: no such folder; expected a folder that holds train.txt"]),
        (["run/train.txt"], ["run/train.txt: this is a file"]),
        (["run", "--seed", "x"], ["training.seed: expected a whole number, found 'x'"]),
        (["run", "--set", "training.lr"], ["--set training.lr: expected section.key=value"]),
        (
            ["run", "--set", "model.T=x", "--set", "modell.T=1"],
            ["model.T: expected a whole number", "modell: unknown section"],
        ),
        (["run", "--device", "tpu"], ["invalid choice: 'tpu'"]),
        ([], ["required: RUN_DIR; see train.py --help"]),
        ([""], ["argument RUN_DIR: expected a path, found ''"]),
        (["run", "--epochs", "x"], ["--set training.epochs=x: training.epochs: expected a whole"]),
        (["run", "--patience", "3"], ["--patience 3; did you mean --set training.patience=VALUE?"]),
        (["run", "--learning_rate", "3"], ["--learning_rate 3; did you mean --lr?"]),
        (["run", "--resumee"], ["--resumee; did you mean --resume?"]),
    ],
)
def test_wrong_arguments_of_train(call, tmp_path, arguments, lines):
    run_dir = make_run(tmp_path / "run")
    assert_mistake(call(TRAIN, *arguments), *lines)
    assert not (run_dir / "results").exists()


def test_data_that_are_not_shipped_say_what_makes_them(call, tmp_path):
    make_run(tmp_path / "my runs" / "multiples_of_5", train_txt=None)
    outcome = call(TRAIN, "my runs/multiples_of_5")
    assert_mistake(outcome, "multiples_of_5/train.txt: no such file; make it with: python -m ")
    command = shlex.split(outcome.stderr.split("make it with: ")[1])
    assert command[:3] == ["python", "-m", "bernoulli_diffusion.datasets"]
    assert command[3:] == ["multiples", "my runs/multiples_of_5"]


def test_a_results_folder_that_cannot_be_made(call, tmp_path):
    run_dir = make_run(tmp_path / "run", results="a file in the way")
    outcome = call(TRAIN, "run", "--quiet")
    told = [line for line in outcome.stderr.splitlines() if not line.startswith("warning")]
    assert_mistake(outcome._replace(stderr="\n".join(told)), "run/results: ", code=1)
    assert (run_dir / "results").read_text() == "a file in the way"


COMMANDS = "train generate evaluate compare datasets prepare search ensemble report_page"


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
@pytest.mark.parametrize("name", [*COMMANDS.split(), "benchmark.__main__"])
def test_every_command_has_help_and_a_version(name, option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, option])
    with pytest.raises(SystemExit) as ending:
        importlib.import_module(f"bernoulli_diffusion.{name}").main()
    assert not ending.value.code
    told = capsys.readouterr().out
    version = f"bernoulli-diffusion {__version__}\n"
    assert told == version if option == "--version" else "--version" in told
    if name == "prepare":  # its examples are kept as they are, its description is wrapped
        assert max(map(len, told.partition("\npositional")[0].splitlines())) < 81


@pytest.mark.usefixtures("no_pictures")
def test_the_familiar_options_are_short_for_settings(call, tmp_path):
    run_dir = make_run(tmp_path / "run")
    options = ["--lr", "0.5", "--epochs", 3, "--batch-size", 4, "--seed", 7]
    outcome = call(TRAIN, run_dir, *options, "--quiet")
    config = load_config(Path(outcome.stdout.strip()) / "config.yaml")
    assert (config.training.lr, config.training.epochs, config.training.seed) == (0.5, 3, 7)
    assert config.data.batch_size == 4


def test_wrong_usage_in_a_process_of_its_own(tmp_path):
    """No traceback, no torch: the answer comes at once."""
    done = subprocess.run([sys.executable, TRAIN], cwd=tmp_path, capture_output=True, text=True)
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert_mistake(outcome, "required: RUN_DIR; see train.py --help")
    outcome = execute(GENERATE, "--help", cwd=tmp_path)
    assert "--trust-code" in outcome.stdout
    assert f"particles of a run; default: {PARTICLES}" in outcome.stdout


# ------------------------------------------------------------------------------- generating


def test_generate(trained):
    """N lines of L characters, and nothing else."""
    path = trained.best.relative_to(trained.cwd)
    outcome = execute(GENERATE, path, 5, cwd=trained.cwd)
    assert outcome.stderr == ""
    assert re.fullmatch("([01]{8}\n){5}", outcome.stdout)
    assert execute(GENERATE, path, 0, cwd=trained.cwd) == (0, "", "")


def expected_strings(path: Path, N: int, seed: int, weights: str, steps: int | None = None) -> str:
    diffusion = checkpoints.restore(checkpoints.load(path), path, weights=weights)
    batches = sample(diffusion, 8, range(N), seed, steps)
    return b"".join(to_text(batch.byte().numpy()) for batch in batches).decode()


def test_the_same_seed_gives_the_same_strings(call, trained):
    outcome = call(GENERATE, trained.best, 30, "--seed", 3)
    assert outcome.stdout == expected_strings(trained.best, 30, 3, "averaged")
    for size in (1, 7, 1000):
        again = call(GENERATE, trained.best, 30, "--seed", 3, "--batch-size", size)
        assert again == outcome
    longer = call(GENERATE, trained.best, 50, "--seed", 3, "--batch-size", 16)
    assert longer.stdout[: len(outcome.stdout)] == outcome.stdout
    assert call(GENERATE, trained.best, 30, "--seed", 4).stdout != outcome.stdout
    assert call(GENERATE, trained.best, 30).stdout == (
        call(GENERATE, trained.best, 30, "--seed", 0).stdout
    )


def test_generate_in_fewer_steps(call, trained):
    outcomes = {
        steps: call(GENERATE, trained.best, 50, "--steps", steps, "--batch-size", 20)
        for steps in (1, 5, 20, 1000)
    }
    for steps, outcome in outcomes.items():
        assert outcome.code == 0
        assert outcome.stdout == expected_strings(trained.best, 50, 0, "averaged", steps)
    assert outcomes[1].stdout != outcomes[5].stdout
    assert outcomes[20] == outcomes[1000] == call(GENERATE, trained.best, 50)  # all T steps


def test_generate_from_the_raw_weights(call, trained):
    path = trained.results_dir / "checkpoints" / f"model_epoch_{EPOCHS}.pt"
    texts = {w: call(GENERATE, path, 3000, "--weights", w).stdout for w in ("averaged", "raw")}
    for weights, text in texts.items():
        assert text == expected_strings(path, 3000, 0, weights)
    assert texts["averaged"] != texts["raw"]
    assert call(GENERATE, path, 3000).stdout == texts["averaged"]


def test_generate_into_a_file(call, trained, tmp_path):
    shown = call(GENERATE, trained.best, 12).stdout
    (tmp_path / "out.txt").write_text("something older\n")
    assert call(GENERATE, trained.best, 12, "--output", "out.txt") == (0, "", "")
    assert (tmp_path / "out.txt").read_text() == shown
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert call(GENERATE, trained.best, 0, "--output", "none.txt") == (0, "", "")
    assert (tmp_path / "none.txt").read_text() == ""


@pytest.mark.parametrize("steps", [[], ["--steps", "6"]])
def test_generate_a_film(call, trained, tmp_path, steps):
    outcome = call(GENERATE, trained.best, 40, "--gif", "film.gif", *steps)
    assert outcome == call(GENERATE, trained.best, 40, *steps)
    frames = iio.imread(tmp_path / "film.gif")
    assert len(frames) == (7 if steps else 21)
    assert frames.ndim in (3, 4)
    assert frames.min() < 100 < frames.max()
    assert not np.array_equal(frames[0], frames[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]


def test_head_ends_it_quietly(trained, tmp_path):
    os.mkfifo(tmp_path / "stdout")
    command = processes.Command(tmp_path, "generate.py", trained.best, 10**9)
    with open(tmp_path / "stdout") as reader:
        assert re.fullmatch("[01]{8}\n", reader.readline())
    assert (command.wait(), command.stderr) == (0, "")


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM] * 3], ids=["Ctrl-C", "timeout"]
)
def test_a_signal_ends_it_quietly(signals, trained, tmp_path):
    """timeout sends its signal to the command and once more to its group."""
    command = processes.Command(tmp_path, "generate.py", trained.best, 10**9)
    deadline = time.monotonic() + 60
    while "\n" not in command.stdout:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for number in signals:
        with contextlib.suppress(ProcessLookupError):  # the first may have ended it already
            os.kill(command.pid, number)
        time.sleep(0.01)
    assert (command.wait(), command.stderr) == (128 + signals[0], "")
    assert re.match("[01]{8}\n", command.stdout)


def fill_the_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk(trained):
    outcome = execute(GENERATE, trained.best, 3, prepare=fill_the_disk, code=1)
    assert_mistake(outcome, "No space left", code=1)


# ------------------------------------------------------------------------------- old checkpoints


@pytest.fixture
def stranger(monkeypatch, tmp_path) -> None:
    """Somebody else on another machine, who got the folder by mail."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of a stranger"))


def test_a_strangers_network_runs_only_by_a_command_that_is_told(copied, tmp_path, stranger):
    """Also if its run folder came along: that is as foreign."""
    checkpoint = copied.best.relative_to(tmp_path)
    refused = execute(GENERATE, checkpoint, 3, cwd=tmp_path, code=2)
    saved = checkpoints.load(copied.best)["reverse_model_sha256"][:16]
    assert_mistake(refused, [str(checkpoint), saved, "if you trust", "python ", "--trust-code"])

    script, *told = shlex.split(refused.stderr.strip().split(": python ")[1])
    assert script == str(GENERATE)
    assert execute(GENERATE, *told, cwd=tmp_path) == (0, expected_strings_of(copied, 3), "")


@pytest.mark.usefixtures("no_pictures")
def test_no_command_runs_a_strangers_network(call, copied, stranger):
    (copied.run_dir / "reverse_model.py").write_text(OWN_NETWORK)  # the same as in the checkpoint
    refusal = "none of this program's, and nothing was trained with it on this machine"
    data = copied.run_dir / "train.txt"
    assert_mistake(call(GENERATE, copied.best, 3), refusal)
    assert_mistake(call(EVALUATE, copied.best, data), refusal)
    assert_mistake(call(TRAIN, copied.run_dir, "--resume"), refusal)
    assert call(EVALUATE, copied.best, data, "--trust-code").code == 0
    assert not Path(os.environ["XDG_STATE_HOME"]).exists()  # to look is not to train
    more = "--resume", "--set", f"training.epochs={EPOCHS + 2}", "--quiet"
    assert call(TRAIN, copied.run_dir, *more, "--trust-code").code == 0
    assert call(GENERATE, copied.best, 3).code == 0  # now it was trained with here


def expected_strings_of(trained: Trained, N: int) -> str:
    state = checkpoints.load(trained.best)
    diffusion = checkpoints.restore(state, trained.best, trust_code=True)
    [batch] = sample(diffusion, 8, range(N), 0)
    return to_text(batch.byte().numpy()).decode()


def test_what_was_trained_with_here_runs_wherever_it_is(call, copied, tmp_path):
    """As it was then, whatever has become of the file."""
    expected = expected_strings_of(copied, 3)
    assert call(GENERATE, copied.best, 3) == (0, expected, "")
    moved = tmp_path / "elsewhere.pt"
    shutil.copy(copied.best, moved)
    assert call(GENERATE, moved, 3) == (0, expected, "")
    live = copied.run_dir / "reverse_model.py"
    for text in (OWN_NETWORK + "\nprint('the edited file')\n", "this is not Python"):
        live.write_text(text)
        assert call(GENERATE, copied.best, 3) == (0, expected, "")
    live.unlink()
    assert call(GENERATE, copied.best, 3) == (0, expected, "")


@pytest.mark.usefixtures("no_pictures")
def test_nothing_can_be_noted(call, tmp_path, monkeypatch):
    """A home that is read-only or not there: training works, and the flag is needed then."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    run_dir = make_run(tmp_path / "run", reverse_model_py=OWN_NETWORK)
    outcome = call(TRAIN, run_dir, "--quiet", "--epochs", 1)
    assert outcome.code == 0, outcome.stderr
    assert_mistake(call(GENERATE, run_dir, 1), "--trust-code")


# ------------------------------------------------------------------------------- kinds of path


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(call, copied):
    expected = call(GENERATE, copied.best, 3).stdout
    for folder in (copied.run_dir, copied.results_dir, copied.best.parent):
        outcome = call(GENERATE, folder, "-n", 3)
        assert outcome == (0, expected, f"checkpoint {copied.best}\n")
    told = call(EVALUATE, copied.run_dir, copied.run_dir / "train.txt")
    assert json.loads(told.stdout)["checkpoint"] == str(copied.best)
    empty = copied.run_dir / "results" / "2999-01-01_00-00-00"  # has just begun
    empty.mkdir()
    assert call(GENERATE, copied.run_dir, 3).stdout == expected
    assert_mistake(call(GENERATE, empty, 3), [str(empty), "no trained model in this folder"])


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("generate m.pt 1 --gif a.mp4", "gif"),
        ("evaluate m.pt f --heatmap a.jpg", "png"),
        ("evaluate m.pt f --per-line a.csv", "tsv"),
        ("compare run --html a.pdf", "html"),
        ("compare run --picture a.svg", "png"),
    ],
)
def test_endings_of_files_that_are_written(words, end, monkeypatch):
    monkeypatch.setattr(sys, "argv", words.split())
    file = words.split()[-1]
    with pytest.raises(UserError, match=rf"{file}: what is written is .{end}; call it a.{end}"):
        importlib.import_module(f"bernoulli_diffusion.{sys.argv[0]}").main()


# ------------------------------------------------------------------------------- wrong input: generate.py


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "required: CHECKPOINT, N; see generate.py --help"),
        (["model.pt", "--num-samples", "x"], "expected a whole number from 0, found 'x'"),
        (["", "3"], "argument CHECKPOINT: expected a path, found ''"),
        (["model.pt", "3", "--output", ""], "argument -o/--output: expected a path, found ''"),
        (["model.pt", "-1"], "argument N: expected a whole number from 0, found '-1'"),
        (["model.pt", str(2**63)], "argument N: expected a whole number"),
        (["model.pt", "1", "--steps", "0"], "argument --steps: expected a whole number from 1"),
        (["model.pt", "1", "--weights", "best"], "argument --weights: invalid choice: 'best'"),
        (["model.pt", "1", "2"], "unrecognized arguments: 2"),
        (["model.pt", "1"], "model.pt: no such file; expected a checkpoint such as model_best.pt"),
        ([".", "1"], ".: no trained model in this folder; expected a checkpoint such as"),
    ],
)
def test_wrong_arguments_of_generate(call, arguments, expected):
    assert_mistake(call(GENERATE, *arguments), expected)


@pytest.mark.parametrize("option", ["--output", "--gif"])
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nowhere/file", "nowhere/file: there is no folder nowhere"),
        (".", ".: this is a folder, expected a file"),
        ("model.pt/file", "model.pt/file: there is no folder model.pt"),
        ("pipe", "pipe: not a regular file"),
        pytest.param(
            "locked/file",
            "locked may not be written to",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere"),
        ),
    ],
)
def test_output_that_cannot_be_written(call, trained, tmp_path, option, target, expected):
    shutil.copy(trained.best, "model.pt")
    os.mkfifo("pipe")  # stands for /dev/null, which must never be replaced by a file
    Path("locked").mkdir(mode=0o555)
    before = sorted(tmp_path.iterdir())
    arguments = ["model.pt", 3, "--trust-code", option, target]
    assert_mistake(call(GENERATE, *arguments), f"{option}: {expected}")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "pipe").is_fifo()


class Code:
    def __reduce__(self):
        return os.mkdir, ("code has run",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"optimizer": {"state": Code()}}, "holds more than tensors and plain Python"),
        ({"format_version": 9}, "a checkpoint of format 9, this program reads formats 1 and"),
        ({"weights": None}, "not a sound checkpoint: weights"),
        (
            {"averaged_weights": {"x": torch.tensor([math.nan])}},
            "not a sound checkpoint: averaged_weights are not finite",
        ),
        ({"T": 30}, "not a sound checkpoint: T is 30, but 20"),
        ({"sequence_length": 9}, "do not fit the network"),
        ({"averaged_weights": {"x": torch.zeros(1)}}, "do not fit the network"),
    ],
)
def test_what_is_no_sound_checkpoint(call, copied, tmp_path, change, expected):
    path = copied.best.with_name("broken.pt")
    torch.save(torch.load(copied.best, weights_only=True) | change, path)
    assert_mistake(call(GENERATE, path, 3), [str(path), expected])
    assert not (tmp_path / "code has run").exists()


def test_what_is_no_checkpoint(call, copied):
    path, data = copied.best.with_name("broken.pt"), copied.best.read_bytes()
    shorter = [data[: int(share * len(data))] for share in (0.0001, 0.5, 0.97)]
    for content in (b"0101\n" * 1000, b"", data[:-1], *shorter):
        path.write_bytes(content)
        expected = "broken.pt: not a checkpoint, or one that was cut short"
        assert_mistake(call(GENERATE, path, 3), expected)
    torch.save(torch.zeros(3), path)
    assert_mistake(call(GENERATE, path, 3), "broken.pt: not a checkpoint of this program")


# ------------------------------------------------------------------------------- patterns and noise


def test_given(call, trained):
    outcome = call(GENERATE, trained.best, 40, "--given", "01??????", "--particles", 32)
    assert outcome.code == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert len(lines) == 40
    assert all(re.fullmatch("01[01]{6}", line) for line in lines)
    assert "2 known bits with" in outcome.stderr
    alone = call(GENERATE, trained.best, 1, "--given", "0???????", "--particles", 8)
    assert "1 known bit with" in alone.stderr
    assert re.search(r"; 40 samples of \d+ different ancestors\n", outcome.stderr)
    question = "--given", "01??????", "--particles", 32
    assert call(GENERATE, trained.best, 40, *question).stdout == outcome.stdout
    # runs are weighed against each other unless every sample has its own
    more, few = (
        call(GENERATE, trained.best, n, *question, "--independent").stdout for n in (20, 10)
    )
    assert few.splitlines() == more.splitlines()[:10]


def test_replacement_says_that_it_is_approximate(call, trained):
    outcome = call(GENERATE, trained.best, 30, "--given", "01??????", "--replace", 2, "--steps", 5)
    strings = outcome.stdout.split()
    assert (outcome.code, len(strings)) == (0, 30)
    assert all(s.startswith("01") and len(s) == 8 for s in strings)
    assert outcome.stderr.startswith("approximate: by replacement")
    for options in (
        ["--given", "01??????", "--mean"],
        ["--given", "01??????", "--particles", 9],
        [],
    ):
        outcome = call(GENERATE, trained.best, 3, "--replace", 2, *options)
        assert outcome.code == 2
        assert "--replace" in outcome.stderr


def test_given_file(call, trained, tmp_path):
    (tmp_path / "patterns.txt").write_text("01??????\r\n????0000\n")
    arguments = trained.best, 3, "--given-file", "patterns.txt", "--particles", 32
    outcome = call(GENERATE, *arguments, "--independent")
    assert outcome.code == 0, outcome.stderr
    assert re.fullmatch("(01[01]{6}\n){3}([01]{4}0000\n){3}", outcome.stdout)
    assert call(GENERATE, *arguments, "--independent", "--batch-size", 1).stdout == outcome.stdout


def test_denoise(call, trained, tmp_path):
    (tmp_path / "seen.txt").write_text("01010101\n11110000\n")
    arguments = trained.best, 5, "--denoise", "seen.txt", "--flip-probability"
    outcome = call(GENERATE, *arguments, 0)
    assert outcome.stdout == "01010101\n" * 5 + "11110000\n" * 5
    assert outcome.stderr == ""
    outcome = call(GENERATE, *arguments, 0.23, "--steps", 7)
    assert re.fullmatch("([01]{8}\n){10}", outcome.stdout)
    (tmp_path / "seen.txt").write_text("0101?101\n")
    outcome = call(GENERATE, *arguments, 0.1)
    assert re.fullmatch("([01]{8}\n){5}", outcome.stdout)
    assert "7 known bits" in outcome.stderr


@pytest.mark.parametrize("more", [[], ["--particles", 64]])
def test_posterior_means(call, trained, tmp_path, more):
    (tmp_path / "seen.txt").write_text("01010101\n11110000\n")
    arguments = "--denoise", "seen.txt", "--flip-probability", 0.05, "--mean", *more
    outcome = call(GENERATE, trained.best, 1, *arguments)
    rows = [line.split("\t") for line in outcome.stdout.splitlines()]
    assert len(rows) == 2
    for bits, *p in rows:
        assert len(p) == 8
        assert bits == "".join(str(int(float(q) > 0.5)) for q in p)


def test_a_warning_where_the_samples_are_not_to_be_relied_on(call, trained):
    outcome = call(GENERATE, trained.best, 3, "--given", "0101????", "--particles", 4)
    assert outcome.code == 0
    assert "warning: pattern 1" in outcome.stderr
    assert "--particles" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--given", "01?"], ["--given", "3 characters", "8"]),
        (["--given", "01??x???"], ["--given:5", "0, 1 or ?", "'x'"]),
        (["--given", "01??????", "--particles", "0"], "from 1"),
        (["--given", "01??????", "--gif", "a.gif"], "--gif"),
        (["--given", "01??????", "--given-file", "p.txt"], "not allowed with"),
        (["--given-file", "p.txt"], ["p.txt:2:3", "'2'"]),
        (["--given-file", "none.txt"], "no such file"),
        (["--given-file", "empty.txt"], "empty"),
        (["--denoise", "p.txt"], "--flip-probability"),
        (["--flip-probability", "0.1"], "--denoise"),
        (["--denoise", "p.txt", "--flip-probability", "0.6"], "0 to 0.5"),
        (["--denoise", "p.txt", "--flip-probability", "-0.1"], "0 to 0.5"),
        (["--denoise", "p.txt", "--flip-probability", "nan"], "0 to 0.5"),
        (["--mean"], "--given"),
        (["--particles", "10"], "--given"),
        (["--output", "two.npy"], "--output two.npy: what is written is text, no .npy"),
    ],
)
def test_wrong_questions(call, trained, tmp_path, arguments, expected):
    (tmp_path / "p.txt").write_text("01010101\n012?????\n")
    (tmp_path / "empty.txt").write_text("")
    assert_mistake(call(GENERATE, trained.best, 2, *arguments), expected)
