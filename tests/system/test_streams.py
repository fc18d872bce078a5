"""Standard streams that are closed, full or read by nobody are no reason to lose a training."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from processes import Command, make_run, only_results_dir, without_pictures

from bernoulli_diffusion.system import command_line


def close(number: int) -> None:
    """As a shell's >&- does before the program starts."""
    os.close(number)
    setattr(sys, ("stdin", "stdout", "stderr")[number], None)


def fill(number: int) -> None:
    """As if the stream went to a file on a full disk."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def lose_reader(number: int) -> None:
    """As if the stream went to a program that has ended."""
    reading, writing = os.pipe()
    os.dup2(writing, number)
    os.close(reading)
    setattr(sys, ("stdin", "stdout", "stderr")[number], open(number, "w", closefd=False))  # noqa: SIM115


def break_stream(how, number: int) -> None:
    without_pictures()
    how(number)


def train(folder: Path, prepare, number: int) -> tuple[Command, Path]:
    run_dir = make_run(folder / "run")
    command = Command(
        folder,
        "train.py",
        run_dir,
        *("--set", "training.epochs=1"),
        prepare=break_stream,
        given=[prepare, number],
    )
    command.wait()
    assert json.loads((only_results_dir(run_dir) / "results.json").read_text())["status"] == (
        "finished"
    )
    return command, only_results_dir(run_dir)


@pytest.mark.parametrize("prepare", [close, fill, lose_reader])
def test_training_goes_on_without_standard_error(tmp_path, prepare):
    command, results_dir = train(tmp_path, prepare, 2)
    assert command.wait() == 0
    assert command.stdout == f"{results_dir}\n"


@pytest.mark.parametrize(("prepare", "code"), [(close, 0), (lose_reader, 0), (fill, 1)])
def test_the_results_folder_is_told_on_standard_error_then(tmp_path, prepare, code):
    command, results_dir = train(tmp_path, prepare, 1)
    assert command.wait() == code, command.stderr
    assert "Traceback" not in command.stderr
    assert str(results_dir) in command.stderr.splitlines()


def test_files_do_not_take_the_number_of_a_closed_stream(tmp_path, monkeypatch):
    """What is printed would go into them."""
    kept = os.dup(1)
    try:
        os.close(1)
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(command_line, "_closed", set())
        command_line._open_closed_streams()
        with open(tmp_path / "file", "w") as file:
            assert file.fileno() != 1
            print("to nobody", flush=True)
        with pytest.raises(command_line.UserError, match="standard output is closed; use -o"):
            command_line.require_standard_output("use -o")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert (tmp_path / "file").read_text() == ""


def test_two_signals_at_once_are_one_request_to_stop(monkeypatch):
    end, now = command_line._ending(), 100.0
    monkeypatch.setattr(command_line.time, "monotonic", lambda: now)
    with pytest.raises(KeyboardInterrupt):
        end(signal.SIGTERM, None)
    end(signal.SIGTERM, None)  # while temporary files go
    now += 2
    with pytest.raises(KeyboardInterrupt):
        end(signal.SIGTERM, None)
