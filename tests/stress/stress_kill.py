"""Sudden deaths: kill -9 at random moments of a run, which then resumes and ends bit for bit the same.

Takes about five minutes: python -m pytest tests/stress/stress_*.py
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

KILLS = 50


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[dict, str]:
    """What a run leaves behind, and its phases."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_dir, phases = make_run(folder / "run"), folder / "phases"
    command = Command(
        folder, "train.py", run_dir, "--device", "cpu", prepare=record, given=[str(phases)]
    )
    assert command.wait() == 0, command.stderr
    return outcome(only_results_dir(run_dir)), phases.read_text()


@pytest.mark.parametrize("number", range(KILLS))
def test_a_sudden_death(tmp_path, undisturbed, number):
    expected, phases = undisturbed
    rng = random.Random(number)
    letter = list(PHASES)[number % len(PHASES)]
    times = rng.randint(1, phases.count(letter))
    # from the first instant of the phase to well into what follows; pictures take longest
    delay = 0.0 if rng.random() < 0.2 else rng.uniform(0, 0.4 if letter in "df" else 0.02)
    run_dir = make_run(tmp_path / "run")
    blow = letter, times, signal.SIGKILL, delay
    killed = Command(
        tmp_path / "1", "train.py", run_dir, "--device", "cpu", prepare=strike, given=blow
    )
    survived = killed.wait() == 0  # the blow came after the end
    assert survived or killed.wait() == -signal.SIGKILL, killed.stderr
    resumed = Command(tmp_path / "2", "train.py", run_dir, "--resume", "--device", "cpu")
    if resumed.wait() == 2 and "no run with a checkpoint to resume" in resumed.stderr:
        # killed in the first epoch: the first checkpoint was not written yet
        assert not list(only_results_dir(run_dir).glob("checkpoints/model_*"))
        only_results_dir(run_dir).rename(tmp_path / "lost")
        resumed = Command(tmp_path / "3", "train.py", run_dir, "--device", "cpu")
        print("STARTED AGAIN", blow)
    assert resumed.wait() == 0, resumed.stderr
    assert_identical(outcome(only_results_dir(run_dir)), expected)
    print("SURVIVED" if survived else "KILLED", blow)
