"""Sudden deaths and requests to stop at random moments of a run, which then ends bit for bit the same.

kill -9 and every signal that asks to stop; runs with results in their run folder and elsewhere, and runs
that begin with the weights of another one. Takes about five minutes on two idle cores:
python -m pytest -n 0 tests/stress/stress_kill.py
"""

import random
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from processes import (
    PHASES,
    Command,
    assert_identical,
    make_run,
    only_results_dir,
    outcome,
    record,
    strike,
)

BLOWS = 60
KILL = signal.SIGKILL
SIGNALS = (KILL, signal.SIGHUP, KILL, signal.SIGUSR1, KILL, signal.SIGTERM, signal.SIGINT)
WAYS = ("in the run folder", "--results", "--from")


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """The best checkpoint of another run."""
    folder = tmp_path_factory.mktemp("start")
    command = Command(folder, "train.py", make_run(folder / "run"), "--device", "cpu", "--seed", 9)
    assert command.wait(300) == 0, command.stderr
    return only_results_dir(folder / "run") / "checkpoints" / "model_best.pt"


def options(way: str, folder: Path, start: Path) -> tuple[list[str], list[str], Path]:
    """For a run and for its resumption, and the folder that holds the results folder."""
    if way == "--results":
        elsewhere = ["--results", str(folder / "elsewhere" / "results")]
        return elsewhere, elsewhere, folder / "elsewhere"
    return ["--from", str(start)] if way == "--from" else [], [], folder / "run"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, start) -> dict[str, tuple[dict, str]]:
    """What a run leaves behind, and its phases, by the way in which it was started."""
    found = {}
    for way in WAYS:
        folder = tmp_path_factory.mktemp("undisturbed")
        run_dir, phases = make_run(folder / "run"), folder / "phases"
        begin, _, place = options(way, folder, start)
        arguments = run_dir, "--device", "cpu", *begin
        command = Command(folder, "train.py", *arguments, prepare=record, given=[str(phases)])
        assert command.wait(300) == 0, command.stderr
        found[way] = outcome(only_results_dir(place)), phases.read_text()
    return found


@pytest.mark.parametrize("number", range(BLOWS))
def test_a_run_that_is_struck_and_resumed(tmp_path, undisturbed, start, number):
    rng = random.Random(number)
    way, letter = WAYS[number % len(WAYS)], list(PHASES)[rng.randrange(len(PHASES))]
    expected, phases = undisturbed[way]
    times = rng.randint(1, phases.count(letter))
    # from the first instant of the phase to well into what follows; pictures take longest
    delay = 0.0 if rng.random() < 0.2 else rng.uniform(0, 0.4 if letter in "df" else 0.02)
    run_dir, sent = make_run(tmp_path / "run"), SIGNALS[number % len(SIGNALS)]
    begin, more, place = options(way, tmp_path, start)
    blow = letter, times, sent, delay
    begin, more = [run_dir, "--device", "cpu", *begin], [run_dir, "--device", "cpu", *more]
    struck = Command(tmp_path / "1", "train.py", *begin, prepare=strike, given=blow)
    survived = struck.wait(300) == 0  # the blow came after the end
    codes = (-sent,) if sent == KILL else (128 + sent, -sent)
    assert survived or struck.wait() in codes, struck.stderr
    resumed = Command(tmp_path / "2", "train.py", *more, "--resume")
    if resumed.wait(300) == 2 and "no run with a checkpoint to resume" in resumed.stderr:
        # killed in the first epoch: the first checkpoint was not written yet
        assert sent == KILL
        assert not list(only_results_dir(place).glob("checkpoints/model_epoch_*"))
        only_results_dir(place).rename(tmp_path / "lost")
        resumed = Command(tmp_path / "3", "train.py", *begin)
        print("STARTED AGAIN", way, blow)
    assert resumed.wait(300) == 0, resumed.stderr
    assert_identical(outcome(only_results_dir(place)), expected)
    print("SURVIVED" if survived else "STRUCK", way, blow)
