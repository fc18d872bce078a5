"""What is said of a run against what is true of it: small runs whose truth is known.

    python tests/stress/stress_verdicts.py            # the table; some ten minutes on one core

The strings come from a law of which the best possible bound is known (oracles.py). Each case says what
may be claimed and what would be false.
"""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from oracles import BitsOracle  # noqa: E402

from bernoulli_diffusion.bits.data import to_text  # noqa: E402
from bernoulli_diffusion.results.verdict import curve, findings  # noqa: E402
from bernoulli_diffusion.system.interrupt import Interrupted  # noqa: E402
from bernoulli_diffusion.training.resume import resume  # noqa: E402
from bernoulli_diffusion.training.run_folder import read_run_folder  # noqa: E402
from bernoulli_diffusion.training.trainer import Trainer  # noqa: E402

SMALL = """\
model: {T: 20, reverse_model: {width: 32, num_blocks: 1}}
training: {num_val_samples: 200, num_val_steps: 10, lr_schedule: cosine}
data: {batch_size: 64}
"""
NUMBERS = SMALL.replace("{T: 20,", "{process: gaussian, T: 20,")
BETTER_BY = 0.03  # of the best possible bound: a run that is farther away has not converged


MANY = 400  # lines in train.txt, from which more training helps rather than more data


class Case(NamedTuple):
    """A kind of run. lines: in train.txt and val.txt; overrides: assignments of config.yaml."""

    truth: str
    lines: tuple[int, int]
    steps: int
    may: tuple[str, ...]  # how claims may begin that are right
    overrides: tuple[str, ...] = ()
    wrong_val: bool = False
    numbers: bool = False
    stopped_at: int = 0  # step, and resumed from there
    first_epochs: float = 1.0  # share of the epochs with which the run finished first


CANNOT = "Cannot tell", "Too early"
CASES = [
    Case("cut short", (2000, 500), 40, ("Still", "Undertrained", *CANNOT)),
    Case("cut short", (400, 0), 120, ("Still", "Undertrained", *CANNOT)),
    Case("trained long", (4000, 1000), 2500, ("Converged", "Still", "Overfitting", *CANNOT)),
    Case("trained long, no val", (4000, 0), 2500, ("Converged", "Still", *CANNOT)),
    Case(
        "overfits",
        (60, 500),
        2000,
        ("Overfitting", "Memorising", "val.txt is no", "Converged", *CANNOT),
    ),
    Case("diverges", (400, 100), 60, ("Diverged", "The run failed"), ("training.lr=10",)),
    Case("wrong val", (1000, 200), 600, ("val.txt is no",), wrong_val=True),
    Case("tiny val", (2000, 4), 400, ("Still", "Converged", "Overfitting", *CANNOT)),
    Case(
        "rate too small",
        (2000, 500),
        300,
        ("Still", "Undertrained", *CANNOT),
        ("training.lr=3e-5",),
    ),
    Case(
        "stopped and resumed",
        (4000, 1000),
        2500,
        ("Converged", "Still", "Overfitting", *CANNOT),
        stopped_at=1100,
    ),
    Case(
        "stopped, resumed, cut short",
        (2000, 500),
        128,
        ("Still", "Undertrained", *CANNOT),
        stopped_at=70,
    ),
    Case(
        "finished, more epochs",
        (4000, 1000),
        2500,
        ("Converged", "Still", "Overfitting", *CANNOT),
        first_epochs=0.3,
    ),
    Case(
        "finished, few more epochs",
        (2000, 500),
        260,
        ("Still", "Undertrained", *CANNOT),
        first_epochs=0.5,
    ),
    Case(
        "numbers, finished, more",
        (2000, 500),
        1500,
        ("Converged", "Still", *CANNOT),
        numbers=True,
        first_epochs=0.4,
    ),
    Case("numbers, cut short", (2000, 500), 40, ("Still", "Getting", *CANNOT), numbers=True),
    Case("numbers, trained long", (2000, 500), 1500, ("Converged", "Still", *CANNOT), numbers=True),
]


def write(case: Case, run_dir: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(NUMBERS if case.numbers else SMALL)
    for name, count in zip(("train", "val"), case.lines, strict=True):
        if not count:
            continue
        if case.numbers:  # two curved clouds
            x = rng.normal(size=count)
            y = x**2 / 2 + 0.3 * rng.normal(size=count)
            text = "".join(f"{a:.6f} {b:.6f}\n" for a, b in zip(x, y, strict=True)).encode()
        else:
            strings, _ = ORACLE.file(count, False, rng)
            bits = strings.bits()
            if name == "val" and case.wrong_val:
                bits = 1 - bits
            text = to_text(bits)
        (run_dir / f"{name}.txt").write_bytes(text)


ORACLE = BitsOracle(noise=0.0)


def train(trainer: Trainer, stop_at: int = 0) -> None:
    """Without pictures; stop_at: the step after which a signal ends it, if any."""
    for name in ("draw_progress", "draw_reverse_process", "write_report"):
        setattr(trainer.files, name, lambda *_: None)
    step = trainer.loop.train_step

    def stopping() -> None:
        if stop_at and trainer.step == stop_at:
            raise Interrupted(15)
        step()

    trainer.loop.train_step = stopping
    with contextlib.suppress(Interrupted):
        trainer.train()
    assert trainer.results.status == ("stopped by SIGTERM" if stop_at else "finished")


def judge(case: Case, seed: int, folder: Path) -> tuple[list[str], float, bool]:
    """The claims, how far the bound is from the best possible one (a share), and whether all hold."""
    run_dir = folder / f"{case.truth} {seed} {case.steps}".replace(" ", "_").replace(",", "")
    write(case, run_dir, seed)
    epochs = max(1, case.steps // -(-case.lines[0] // 64))
    first = max(1, round(case.first_epochs * epochs))
    overrides = [f"training.epochs={first}", f"training.seed={seed}", *case.overrides]
    overrides.append(f"training.validate_every_n_epochs={max(1, epochs // 12)}")
    trainer = Trainer(read_run_folder(run_dir, overrides), torch.device("cpu"), quiet=True)
    try:
        train(trainer, case.stopped_at)
        if case.stopped_at or first < epochs:
            trainer = resume(
                run_dir,
                trainer.results_dir,
                [f"training.epochs={epochs}"],
                torch.device("cpu"),
                quiet=True,
                trust_code=False,
                command="",
            )
            train(trainer)
    except Exception as error:  # a run that fails says so
        return [f"The run failed: {error}"[:60]], np.nan, "diverges" in case.truth
    results = trainer.results
    claims = [finding.claim for finding in findings(results)]
    best = ORACLE.law_bound(False)
    gap = np.nan if case.numbers else curve(results, results.judged_by)[-1].bits / best - 1
    holds = any(claim.startswith(case.may) for claim in claims)
    if gap > BETTER_BY and case.lines[0] >= MANY:  # few lines are far from the best, however long
        holds &= not any(claim.startswith("Converged") for claim in claims)
    return claims, gap, holds


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.truth)
def test_what_is_said_is_true(case, tmp_path):
    claims, gap, holds = judge(case, 0, tmp_path)
    assert holds, (claims, gap)


def main() -> None:
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    right = total = 0
    print(f"{'truth':24} seed  above the best possible  right  claims")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for case in CASES:
                claims, gap, holds = judge(case, seed, Path(folder))
                right, total = right + holds, total + 1
                yes = "yes" if holds else "NO"
                print(
                    f"{case.truth:24} {seed:4}  {100 * gap:22.1f}%  {yes:5}  {' '.join(claims)}",
                    flush=True,
                )
    print(f"{right} of {total} right")


if __name__ == "__main__":
    main()
