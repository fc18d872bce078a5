"""A run's results folder: all that is written into it. loop.py trains without one.

results.json comes last of all: if it says that the run is finished, all the rest is there.
"""

import functools
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from .. import config as config_module
from ..diffusion import Diffusion
from ..kinds import kind_of
from ..noise import derive_seed
from ..results import metrics, page, record
from ..results.record import Results
from ..system.files import remove_stray_temporaries, write_atomically
from ..system.interrupt import Interrupted
from . import checkpoint
from .run_folder import RunFolder

PICTURE = 14  # the stream of random numbers, of the run's seed, for reverse_process.gif
DRAW_SHARE = 100  # redraw the pictures once this many times their cost has passed


def new_results_dir(run_dir: Path, parent: Path | None = None) -> Path:
    """Make RUN_DIR/results/<date>_<time>, with _2, _3 ... if it is taken. Never shared by two runs.

    parent: where to make it instead of RUN_DIR/results.
    """
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    parent = parent or run_dir / "results"
    parent.mkdir(exist_ok=True, parents=True)
    number = 1
    while True:
        path = parent / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        (path / "checkpoints").mkdir()
        return path


def _by_first(write: Callable) -> Callable:
    """Of several processes the first one writes, and the others do nothing."""

    @functools.wraps(write)
    def by_first(self, *arguments) -> None:
        if self.is_first:
            write(self, *arguments)

    return by_first


class ResultsFolder:
    """What a run writes. A picture or page that cannot be made is a warning, and no reason to stop."""

    def __init__(
        self, run: RunFolder, results: Results, *, is_first: bool, warn: Callable[[str], None]
    ):
        self.run, self.results, self.is_first, self.warn = run, results, is_first, warn
        self.path: Path | None = None  # until it is made or found
        self.kind, self.board = kind_of(run.config), None
        self._last_drawn, self._seconds_per_drawing = time.monotonic(), 0.5

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @_by_first
    def begin(self) -> None:
        """What a run is made from, and the metrics of what it has done so far."""
        remove_stray_temporaries(self.path)
        remove_stray_temporaries(self.checkpoints)
        text = config_module.to_yaml(self.run.config)
        write_atomically(self.path / "config.yaml", text.encode())
        write_atomically(self.path / "reverse_model.py", self.run.source.text.encode())
        metrics.write_all(self.results, self.path)
        (self.path / page.QUALITY).unlink(missing_ok=True)  # of weights that are trained further

    # ------------------------------------------------------------------------------- checkpoints

    @_by_first
    def save(self, state: Callable[[], dict], epoch: int, step: int | None) -> None:
        """Write a checkpoint and remove the oldest beyond keep_checkpoints.

        step: None at the end of an epoch. From the middle of one, a checkpoint serves for resuming
        alone, and goes when there is a later one.
        """
        end = "" if step is None else f"_step_{step}"
        path = self.checkpoints / f"model_epoch_{epoch}{end}.pt"
        checkpoint.save(path, state())
        older = [p for p in checkpoint.by_age(self.checkpoints) if p != path]
        ends = [p for p in older if "_step_" not in p.name]
        keep = self.run.config.training.keep_checkpoints
        surplus = ends[: max(0, len(ends) + (step is None) - keep)] if keep else []
        for old in [p for p in older if "_step_" in p.name] + surplus:
            old.unlink(missing_ok=True)

    @_by_first
    def save_best(self, state: Callable[[], dict]) -> None:
        itself = {"best": {}}  # what a recipe would go back to
        checkpoint.save(self.checkpoints / checkpoint.BEST, state() | itself)

    def best_weights(self) -> dict:
        """The averaged weights of model_best.pt. Raises UserError if they are gone."""
        return checkpoint.load(self.checkpoints / checkpoint.BEST)["averaged_weights"]

    def last_good(self) -> str:
        """What is left after training has diverged."""
        saved = checkpoint.by_age(self.checkpoints)
        return (
            f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written yet"
        )

    # ------------------------------------------------------------------------------- numbers

    @_by_first
    def write_results(self) -> None:
        text = record.to_text(self.results)
        write_atomically(self.path / record.FILE_NAME, text.encode())

    @_by_first
    def append_metrics(self) -> None:
        metrics.append_last(self.results, self.path)

    # ------------------------------------------------------------------------------- pictures and pages

    def draw_progress_if_due(self) -> None:
        if time.monotonic() - self._last_drawn > DRAW_SHARE * self._seconds_per_drawing:
            self.draw_progress()

    @_by_first
    def draw_progress(self) -> None:
        """Draw what results.json holds: both curves and the sample evolution."""
        if not self.results.validated_epochs:
            return
        start, run = time.monotonic(), self.run
        try:
            from ..results import plots  # here, because importing matplotlib takes half a second

            plots.draw_progress(self.results, self.kind, run.config, run.train, self.path)
        except Exception as error:
            self.warn(f"the pictures could not be drawn: {type(error).__name__}: {error}")
        self._last_drawn = time.monotonic()
        self._seconds_per_drawing = self._last_drawn - start

    def draw_reverse_process(self, diffusion: Diffusion, poll: Callable[[], None]) -> None:
        """Draw reverse_process.gif: samples from noise to data; and what goes with it."""
        poll()
        if not self.is_first:
            return
        config, train = self.run.config, self.run.train
        seed = derive_seed(config.training.seed, PICTURE)
        try:
            self.kind.draw_model(diffusion, config, train, seed, self.path, poll)
        except Interrupted:
            raise
        except Exception as error:
            self.warn(f"reverse_process.gif could not be drawn: {type(error).__name__}: {error}")

    @_by_first
    def write_report(self) -> None:
        """Bring report.html up to date, with the pictures as they are."""
        try:
            page.write(self.results, self.kind, self.path, self.run.config.data.shape)
        except Exception as error:
            self.warn(f"report.html could not be written: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------------------- TensorBoard

    @_by_first
    def open_board(self, step: int) -> None:
        from ..results.tensorboard import Board

        self.board = Board(self.path, step)

    def show_on_board(self, diffusion: Diffusion, step: int) -> None:
        """The last validation, if there is a board."""
        if self.board:
            last = self.results.examples_per_epoch[-1:], self.results.validated_epochs[-1:]
            [frame] = self.kind.training_frames(*last, self.run.config, self.run.train)
            self.board.add(self.results, diffusion.reverse_model, frame, step)

    def close_board(self) -> None:
        if self.board:
            self.board.close()
