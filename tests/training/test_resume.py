"""A run that is stopped and resumed ends as if nothing had happened, to the last bit."""

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import (
    CONFIG,
    PHASES,
    ROOT,
    Command,
    assert_identical,
    call,
    make_run,
    only_results_dir,
    outcome,
    strike,
    train,
    without_pictures,
    without_timings,
)

from bernoulli_diffusion.likelihood import Estimate
from bernoulli_diffusion.results.page import QUALITY
from bernoulli_diffusion.system.errors import RunError, UserError
from bernoulli_diffusion.system.files import lock
from bernoulli_diffusion.system.interrupt import STOPPING, Interrupt, Interrupted, ending_at_once
from bernoulli_diffusion.training import checkpoint
from bernoulli_diffusion.training.loop import Loop
from bernoulli_diffusion.training.results_folder import ResultsFolder, new_results_dir
from bernoulli_diffusion.training.resume import find_results_dir, resume
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_pictures")
CPU = torch.device("cpu")


# ------------------------------------------------------------------------- in processes of their own


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    run_dir = make_run(tmp_path_factory.mktemp("undisturbed") / "run")
    return outcome(train(run_dir))


@pytest.fixture(scope="module")
def with_pictures(tmp_path_factory) -> dict:
    run_dir = make_run(tmp_path_factory.mktemp("undisturbed") / "run")
    call("train.py", run_dir)
    return outcome(only_results_dir(run_dir))


def strike_quickly(*blow) -> None:
    without_pictures()
    strike(*blow)


def stop_and_resume(folder: Path, *blow, pictures: bool = False) -> tuple[Command, Command]:
    """Strike a run with a signal, then resume it in its results folder."""
    run_dir = make_run(folder / "run")
    prepare = strike if pictures else strike_quickly
    stopped = Command(folder / "1", "train.py", run_dir, prepare=prepare, given=blow)
    stopped.wait()
    prepare = None if pictures else without_pictures
    resumed = Command(folder / "2", "train.py", run_dir, "--resume", prepare=prepare)
    resumed.wait()
    return stopped, resumed


@pytest.mark.parametrize(
    ("letter", "times", "number"),
    [
        ("v", 2, signal.SIGTERM),
        ("f", 1, signal.SIGINT),  # while a picture is drawn
        ("g", 2, signal.SIGUSR1),
    ],
)
def test_a_signal(tmp_path, undisturbed, with_pictures, letter, times, number):
    pictures = letter == "f"
    stopped, resumed = stop_and_resume(tmp_path, letter, times, number, pictures=pictures)
    assert stopped.wait() == 128 + number, stopped.stderr
    run_dir = tmp_path / "run"
    results_dir = only_results_dir(run_dir)
    assert stopped.stdout == f"{results_dir}\n"
    assert f"train.py {run_dir} --resume" in stopped.stderr
    assert (resumed.wait(), resumed.stdout) == (0, f"{results_dir}\n"), resumed.stderr
    assert_identical(outcome(results_dir), with_pictures if pictures else undisturbed)


def test_a_second_signal_leaves_at_once(tmp_path, undisturbed):
    stopped, resumed = stop_and_resume(tmp_path, "t", 14, signal.SIGINT, 0.0, 2)
    assert (stopped.wait(), stopped.stdout) == (130, "")
    assert resumed.wait() == 0, resumed.stderr
    assert_identical(outcome(only_results_dir(tmp_path / "run")), undisturbed)


def test_a_closed_terminal_says_so_twice(tmp_path, undisturbed):
    """The kernel sends SIGHUP, and so does the shell on its way out: the second one is no hurry."""
    stopped, resumed = stop_and_resume(tmp_path, "t", 14, signal.SIGHUP, 0.0, 2)
    assert stopped.wait() == 128 + signal.SIGHUP
    assert "saved at step 14;" in stopped.stderr
    assert resumed.wait() == 0, resumed.stderr
    assert_identical(outcome(only_results_dir(tmp_path / "run")), undisturbed)


def ignore_hangups(*blow) -> None:
    """As nohup does, before the program starts."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    strike_quickly(*blow)


def test_nohup_goes_on(tmp_path, undisturbed):
    run_dir, blow = make_run(tmp_path / "run"), ("t", 9, signal.SIGHUP)
    call("train.py", run_dir, prepare=ignore_hangups, given=blow)
    assert_identical(outcome(only_results_dir(run_dir)), undisturbed)


@pytest.mark.parametrize(("letter", "times", "delay"), [("s", 4, 0.002), ("d", 1, 0.1)])
def test_a_sudden_death(tmp_path, undisturbed, with_pictures, letter, times, delay):
    pictures = letter == "d"
    blow = letter, times, signal.SIGKILL, delay
    stopped, resumed = stop_and_resume(tmp_path, *blow, pictures=pictures)
    assert stopped.wait() == -signal.SIGKILL
    assert resumed.wait() == 0, resumed.stderr
    expected = with_pictures if pictures else undisturbed
    assert_identical(outcome(only_results_dir(tmp_path / "run")), expected)


# ------------------------------------------------------------------------- in this process

train_step = Loop.train_step


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The last state of a run that nobody stopped."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_pictures(monkeypatch.setattr)
        trainer = start(make_run(tmp_path_factory.mktemp("whole") / "run"))
        trainer.train()
    return last_state(trainer)


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "run")


def start(run_dir: Path, *overrides: str) -> Trainer:
    return Trainer(read_run_folder(run_dir, overrides), CPU, quiet=True)


def go_on(run_dir: Path, *overrides: str, results_dir=None, trust_code=False) -> Trainer:
    command = "python train.py X --resume --trust-code"
    return resume(
        run_dir, results_dir, overrides, CPU, quiet=True, trust_code=trust_code, command=command
    )


def stop_at(monkeypatch, step: int) -> None:
    """SIGINT before that step."""

    def with_signal(loop: Loop) -> None:
        if loop.step == step:
            signal.raise_signal(signal.SIGINT)
        train_step(loop)

    monkeypatch.setattr(Loop, "train_step", with_signal)


def stopped(run_dir: Path, monkeypatch, step: int, *overrides: str) -> Path:
    """The results folder of a run that was stopped during a step."""
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Interrupted):
            start(run_dir, *overrides).train()
    return find_results_dir(run_dir)


def names(results_dir: Path) -> set[str]:
    return {path.name for path in (results_dir / "checkpoints").iterdir()}


def last_state(trainer: Trainer) -> dict:
    results = json.loads((trainer.results_dir / "results.json").read_text())
    return without_timings({**trainer.state(), "results": results})


@pytest.mark.parametrize("step", [0, 3, 4, 23])
def test_stopped_at_any_step(whole, run_dir, monkeypatch, step):
    stopped(run_dir, monkeypatch, step)
    resumed = go_on(run_dir)
    assert resumed.step == step + 1
    resumed.train()
    assert_identical(last_state(resumed), whole)


@pytest.mark.parametrize(
    ("letter", "times", "number"),
    [
        ("t", 2, signal.SIGINT),
        ("v", 1, signal.SIGTERM),
        ("v", 5, signal.SIGINT),
        ("g", 1, signal.SIGINT),
        ("g", 3, signal.SIGTERM),
    ],
)
def test_a_signal_in_each_phase(whole, run_dir, monkeypatch, letter, times, number):
    with monkeypatch.context() as patch:
        for owner, name in PHASES.values():  # so that they are put back
            patch.setattr(owner, name, getattr(owner, name))
        strike(letter, times, number)
        with pytest.raises(Interrupted) as caught:
            start(run_dir).train()
    assert caught.value.exit_code == 128 + number
    results_dir = find_results_dir(run_dir)
    status = json.loads((results_dir / "results.json").read_text())["status"]
    assert status == f"stopped by {signal.Signals(number).name}"
    resumed = go_on(run_dir)
    resumed.train()
    assert_identical(last_state(resumed), whole)


def test_a_signal_while_the_last_files_are_written(run_dir, monkeypatch):
    """Comes too late: the run is finished."""
    monkeypatch.setattr(
        ResultsFolder, "draw_progress", lambda _: signal.raise_signal(signal.SIGTERM)
    )
    trainer = start(run_dir)
    trainer.train()
    assert trainer.results.status == "finished"


def test_more_epochs(run_dir):
    constant = "training.lr_schedule=constant", "training.validate_every_n_epochs=1"
    whole = start(run_dir, *constant)
    whole.train()
    start(run_dir, *constant, "training.epochs=2").train()
    resumed = go_on(run_dir, "training.epochs=6")
    assert not resumed.is_finished
    resumed.train()
    assert_identical(last_state(resumed), last_state(whole))


def rates(trainer: Trainer, monkeypatch) -> list[float]:
    """Train, and return the learning rates of all steps."""
    found = []

    def watched(loop: Loop) -> None:
        train_step(loop)
        found.append(loop.optimizer.lr)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "train_step", watched)
        trainer.train()
    return found


def test_more_epochs_of_a_falling_rate_warm_up_again_and_say_so(run_dir, monkeypatch):
    how = "training.lr=0.01", "training.warmup_steps=4", "training.lr_schedule=cosine"
    first = rates(start(run_dir, *how, "training.epochs=3"), monkeypatch)
    resumed = go_on(run_dir, "training.epochs=6")
    [note] = [note for note in resumed.folder.notes if "rises again" in note]
    assert note.startswith(
        "training.epochs: 6, not 3 any more: the learning rate rises again from 0"
    )
    assert "over 4 steps" in note
    rest = rates(resumed, monkeypatch)
    n = len(first)
    assert len(rest) == n
    cosine = [0.01 * (1 + math.cos(math.pi * step / (2 * n))) / 2 for step in range(n, 2 * n)]
    share = [min(1, (k + 1) / 4) for k in range(n)]
    assert rest == pytest.approx([a * b for a, b in zip(share, cosine, strict=True)])
    # nothing is said, and nothing changes, where the epochs are the same
    again = go_on(run_dir)
    assert not [note for note in again.folder.notes if "rises again" in note]
    assert again.loop.plan == resumed.loop.plan


def test_a_recipe_that_ended_for_lack_of_time_is_constant_again(run_dir, monkeypatch):
    how = "training.lr=0.01", "training.warmup_steps=4", "training.lr_schedule=adaptive"
    assert rates(start(run_dir, *how, "training.epochs=20"), monkeypatch)[-1] < 0.005  # it fell
    resumed = go_on(run_dir, "training.epochs=40")
    [note] = [note for note in resumed.folder.notes if "rises again" in note]
    assert note.startswith("training.epochs: 40, not 20 any more: the learning rate rises")
    rest = rates(resumed, monkeypatch)
    assert rest.index(0.01) < 6
    assert rest[-1] < 0.005  # and falls again until the new end


def test_a_run_that_goes_on_forgets_what_its_table_was_compared_with(run_dir):
    trainer = start(run_dir, "training.epochs=1")
    trainer.results_dir = new_results_dir(run_dir)
    found = trainer.results_dir / QUALITY
    found.write_text("{}")
    trainer.files.begin()
    assert not found.exists()


def test_a_stop_while_it_warms_up_again_changes_nothing(run_dir, tmp_path, monkeypatch):
    how = "training.warmup_steps=4", "training.lr_schedule=cosine", "training.epochs=2"
    start(run_dir, *how).train()
    twin = Path(shutil.copytree(run_dir, tmp_path / "twin"))
    undisturbed = go_on(run_dir, "training.epochs=6")
    at = undisturbed.step
    undisturbed.train()
    stop_at(monkeypatch, at + 1)
    with pytest.raises(Interrupted):
        go_on(twin, "training.epochs=6").train()
    monkeypatch.setattr(Loop, "train_step", train_step)
    rest = go_on(twin)
    assert (rest.loop.plan.warm_from, rest.step) == (at, at + 2)
    rest.train()
    assert_identical(last_state(rest), last_state(undisturbed))


def test_killed_between_the_last_checkpoint_and_results_json(whole, run_dir, monkeypatch):
    with monkeypatch.context() as patch:

        def die(_):
            raise KeyboardInterrupt

        patch.setattr(ResultsFolder, "draw_progress", die)
        patch.setattr("bernoulli_diffusion.training.results_folder.DRAW_SHARE", math.inf)
        with pytest.raises(KeyboardInterrupt):
            start(run_dir).train()
    resumed = go_on(run_dir)
    assert not resumed.is_finished
    resumed.train()
    assert_identical(last_state(resumed), whole)


def test_the_latest_unfinished_run_is_resumed(run_dir, monkeypatch):
    first = stopped(run_dir, monkeypatch, 5)
    second = stopped(run_dir, monkeypatch, 6)
    start(run_dir).train()
    assert find_results_dir(run_dir) == second
    assert go_on(run_dir, results_dir=first).step == 6
    (second / "results.json").write_text("[" * 100_000)  # is no news from a finished run
    assert find_results_dir(run_dir) == second
    (first / "report.html").write_text("made again")  # changes the folder, not when it was started
    assert find_results_dir(run_dir) == second


def test_the_order_of_runs_is_that_of_their_starts(tmp_path):
    """Not that of their names as text, nor of what was written last."""
    day = "2026-11-25_18-00-0"
    names = ["my best", f"{day}0", f"{day}0_2", f"{day}0_10", f"{day}1"]
    for name in reversed(names):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoint.by_start(tmp_path)] == names


def test_nothing_to_resume(run_dir):
    with pytest.raises(UserError, match="start one without --resume"):
        go_on(run_dir)
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        go_on(run_dir, results_dir=run_dir / "results" / "x")
    with pytest.raises(UserError, match="no such folder"):
        go_on(run_dir / "x")
    (run_dir / "my best.pt").touch()
    with pytest.raises(UserError, match=r"with a checkpoint's weights: --from '.*/my best\.pt'$"):
        go_on(run_dir, results_dir=run_dir / "my best.pt")
    (run_dir / "results").mkdir()
    with pytest.raises(UserError, match="a run folder; --resume alone goes on with"):
        go_on(run_dir, results_dir=run_dir)


def test_conflicting_options(run_dir, monkeypatch):
    stopped(run_dir, monkeypatch, 5)
    with pytest.raises(UserError) as caught:
        go_on(run_dir, "training.lr=0.5", "data.batch_size=2", "training.max_minutes=9")
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0] for line in lines] == ["training.lr", "data.batch_size"]
    assert all("leave this option out" in line for line in lines)
    assert go_on(run_dir, "training.lr=0.001").step == 6  # what it was anyway


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("train.txt", "01010101\n" * 16, "changed"),
        ("train.txt", "0101\n" * 99, "changed"),
        ("val.txt", "11111111\n", "changed"),
        ("val.txt", None, "gone"),
    ],
)
def test_changed_data(run_dir, monkeypatch, name, text, what):
    stopped(run_dir, monkeypatch, 5)
    if text is None:
        (run_dir / name).unlink()
    else:
        if len(text.split()[0]) != 8:
            (run_dir / "val.txt").unlink()
        (run_dir / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}: {what} since .*; put the old file back"):
        go_on(run_dir)


def test_data_that_appeared(run_dir, monkeypatch):
    val = (run_dir / "val.txt").read_text()
    (run_dir / "val.txt").unlink()
    stopped(run_dir, monkeypatch, 5)
    (run_dir / "val.txt").write_text(val)
    with pytest.raises(UserError, match=r"val.txt: appeared since"):
        go_on(run_dir)


def test_a_changed_network(whole, run_dir, monkeypatch, tmp_path):
    """A run goes on with the network that it was started with, on the machine where that was."""
    network = read_run_folder(run_dir).source.text + "\n# my own\n"
    (run_dir / "reverse_model.py").write_text(network)
    stopped(run_dir, monkeypatch, 5)
    (run_dir / "reverse_model.py").write_text(network + "\nraise SystemExit\n")
    resumed = go_on(run_dir)
    assert [note for note in resumed.folder.notes if "reverse_model.py: edited since" in note]
    resumed.train()
    state = last_state(resumed)
    assert_identical(state["weights"], whole["weights"])
    assert state["reverse_model_source"] == network

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    with pytest.raises(
        UserError, match=r"if you trust .*: python train.py X --resume --trust-code"
    ):
        go_on(run_dir)
    assert go_on(run_dir, trust_code=True).is_finished


def test_checkpoints_in_the_middle_of_an_epoch(whole, run_dir, monkeypatch):
    always = "training.save_every_minutes=0.0000001"
    with monkeypatch.context() as patch:

        def die(loop: Loop) -> None:
            if loop.step == 6:
                raise KeyboardInterrupt

        patch.setattr(Loop, "train_step", lambda loop: (die(loop), train_step(loop)))
        with pytest.raises(KeyboardInterrupt):
            start(run_dir, always).train()
    results_dir = find_results_dir(run_dir)
    assert names(results_dir) == {"model_epoch_0.pt", "model_epoch_1.pt", "model_epoch_1_step_6.pt"}
    resumed = go_on(run_dir)
    assert resumed.step == 6
    resumed.train()
    kept = {f"model_epoch_{n}.pt" for n in (4, 5, 6)}
    assert names(results_dir) == kept | {"model_best.pt"}
    state = last_state(resumed)
    state["config"] = whole["config"]  # save_every_minutes
    assert_identical(state, whole)


@pytest.mark.parametrize(("keep", "epochs"), [("1", [6]), ("null", [1, 2, 3, 4, 5, 6])])
def test_keep_checkpoints_after_a_stop(run_dir, monkeypatch, keep, epochs):
    results_dir = stopped(run_dir, monkeypatch, 10, f"training.keep_checkpoints={keep}")
    go_on(run_dir).train()
    expected = {f"model_epoch_{n}.pt" for n in epochs} | {"model_best.pt"}
    assert names(results_dir) == expected


def test_stray_temporary_files(run_dir, monkeypatch):
    results_dir = stopped(run_dir, monkeypatch, 5)
    stray = [
        results_dir / ".tmp-results.json-0123",
        results_dir / "checkpoints" / ".tmp-model_epoch_9.pt-0123",
    ]
    for path in stray:
        path.write_bytes(b"half a file")
    go_on(run_dir).train()
    assert not any(path.exists() for path in stray)


def test_a_checkpoint_that_vanishes_ends_nothing(run_dir, monkeypatch):
    by_age = checkpoint.by_age
    gone = Path("nowhere/model_epoch_0_step_1.pt")
    monkeypatch.setattr(checkpoint, "by_age", lambda folder: [gone, *by_age(folder)])
    start(run_dir).train()


def test_two_processes_in_one_results_folder(run_dir, monkeypatch):
    results_dir = stopped(run_dir, monkeypatch, 5)
    before = sorted(p.stat().st_mtime_ns for p in results_dir.rglob("*"))
    with lock(results_dir), pytest.raises(RunError, match="another process is training there"):
        go_on(run_dir).train()
    assert sorted(p.stat().st_mtime_ns for p in results_dir.rglob("*")) == before
    go_on(run_dir).train()


def test_a_loss_that_diverges_when_the_run_is_stopped(run_dir, monkeypatch):
    """It is told, and no checkpoint is written."""
    trainer = start(run_dir)

    def diverge() -> None:
        train_step(trainer.loop)
        trainer.loop._pending[-1] *= math.nan
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer.loop, "train_step", diverge)
    with pytest.raises(RunError, match="step 1: loss nan"):
        trainer.train()
    status = json.loads((trainer.results_dir / "results.json").read_text())["status"]
    assert status.startswith("failed: step 1")
    assert names(trainer.results_dir) == set()


def test_an_infinite_bound_ends_the_run(run_dir, monkeypatch):
    monkeypatch.setattr(
        "bernoulli_diffusion.training.validator.estimate_of", lambda *_: Estimate(8.0, math.inf)
    )
    trainer = start(run_dir)
    with pytest.raises(RunError, match="the bound on train"):
        trainer.train()
    text = (trainer.results_dir / "results.json").read_text()
    json.loads(text, parse_constant=pytest.fail)


def handlers() -> list:
    return [signal.getsignal(number) for number in STOPPING]


def test_handlers_are_put_back():
    before = handlers()
    with Interrupt() as interrupt:
        interrupt.poll()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            interrupt.poll()
    assert caught.value.exit_code == 143
    assert handlers() == before


def test_while_modules_are_imported_signals_have_their_default_effect():
    before = handlers()
    with ending_at_once():
        assert set(handlers()) == {signal.SIG_DFL}
    assert handlers() == before


def test_the_end_of_a_jobs_time_does_not_cut_short_what_the_warning_began():
    """SLURM: SIGUSR1 some time before, SIGTERM at the end. A second SIGTERM insists."""
    with Interrupt() as interrupt:
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        with pytest.raises(Interrupted) as caught:
            interrupt.poll()
    assert caught.value.exit_code == 143


WATCH = """
import runpy, signal, sys

class Watch:
    def find_spec(name, path, target=None):
        if name in ("torch", "numpy"):
            numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1
            handlers = {signal.getsignal(n) for n in numbers}
            print(name, handlers == {signal.SIG_DFL}, flush=True)
            if name == "torch":
                sys.exit(2)  # what comes then takes seconds

sys.meta_path.insert(0, Watch)
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "command",
    [("train.py", "nowhere"), ("generate.py", "nowhere", "1")],
    ids=lambda command: command[0],
)
def test_the_commands_import_so(command):
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines()[-1] == "torch True"
    assert "False" not in done.stdout


def test_other_faults_are_noted_in_the_results(tmp_path, monkeypatch):
    trainer = start(make_run(tmp_path / "run"))

    def fail():
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(trainer.loop, "train_step", fail)
    with pytest.raises(RuntimeError):
        trainer.train()
    results = json.loads((trainer.results_dir / "results.json").read_text())
    assert results["status"] == "failed: shapes do not match"


def test_a_process_on_its_way_out_hears_no_second_signal():
    """torchrun passes on a signal to processes that may have learnt of it from another one already."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(Interrupted), Interrupt(has_parent=True):
            raise Interrupted(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_edited_config_is_compared_with_the_kept_one(run_dir, monkeypatch):
    stopped(run_dir, monkeypatch, 5, "training.lr=0.01")
    assert go_on(run_dir).folder.notes == []
    text = CONFIG.replace("epochs: 6", "epochs: 1").replace("width: 8", "width: 9")
    (run_dir / "config.yaml").write_text(text + "  # none\n")
    resumed = go_on(run_dir, "training.max_minutes=9")
    assert resumed.training.epochs == 6
    assert resumed.training.max_minutes == 9
    [width, epochs] = resumed.folder.notes
    file = run_dir / "config.yaml"
    assert epochs.startswith(
        f"{file}: training.epochs: 1, but this run goes on with 6, --set train"
    )
    assert width.startswith(f"{file}: model.reverse_model: {{'width': 9,")
    assert width.endswith(
        "with which it was started; for the other, start a new run without --resume"
    )
    assert len(go_on(run_dir, "training.epochs=7").folder.notes) == 1  # said anew, so not told
    file.write_text("{")
    [note] = go_on(run_dir).folder.notes
    assert note.startswith(f"{file}:1")


SHARED = """\
from torch import nn

class ReverseModel(nn.Module):
    def __init__(self, sequence_length, T):
        super().__init__()
        self.first, self.second = (nn.Linear(sequence_length, sequence_length) for _ in range(2))
        self.second.weight = self.first.weight

    def forward(self, x_t, t):
        return self.second(self.first(x_t))
"""


def test_a_network_with_shared_weights(run_dir, monkeypatch):
    """Makes more parameters than there are weights in its checkpoint, which is no reason to refuse."""
    (run_dir / "reverse_model.py").write_text(SHARED)
    (run_dir / "config.yaml").write_text(
        CONFIG.replace("{width: 8, num_blocks: 1, dropout: 0.1}", "{}")
    )
    stopped(run_dir, monkeypatch, 5)
    go_on(run_dir).train()
    path = find_results_dir(run_dir) / "checkpoints" / "model_best.pt"
    checkpoint.restore(checkpoint.load(path), path)


def test_a_damaged_last_checkpoint_names_the_one_before(run_dir):
    results_dir = start(run_dir).train()
    before, last = checkpoint.by_age(results_dir / "checkpoints")[-2:]
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"remove it to go on from {before}"):
        go_on(run_dir)
    last.unlink()
    assert go_on(run_dir).step > 0
