"""Trainer: a run, from its run folder to its results folder. What is trained is loop.py's.

judge.py measures the weights, results_folder.py writes, progress.py tells a person.
"""

import copy
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from .. import config as config_module
from ..diffusion import Diffusion
from ..kinds import kind_of
from ..results import record
from ..system.device import all_threads, better_threads, use_threads
from ..system.errors import RunError, UserError, printable
from ..system.files import lock
from ..system.interrupt import Interrupt, Interrupted
from . import checkpoint, trust
from .distributed import ALONE, Processes, check_batch_size
from .judge import Judge
from .loop import FLUSH_EVERY, Diverged, Loop, new_batches
from .network import new_diffusion
from .progress import Progress
from .results_folder import ResultsFolder, new_results_dir
from .run_folder import RunFolder, file_sha256
from .validator import Validator


def _stamp(path: Path) -> tuple:
    """What changes when a file is replaced."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


class Trainer:
    """Trains a fresh ReverseModel on a run folder.

    With several processes all of them do so together: each computes its part of every batch and of
    the validations, all know the results, and the first one writes them.
    fresh: whether the network is to look at the data (its prepare); one that is loaded has done so.
    Raises UserError if the run folder's network cannot be built, prepared or tried.
    """

    def __init__(
        self,
        folder: RunFolder,
        device: torch.device,
        *,
        quiet: bool = False,
        processes: Processes = ALONE,
        tensorboard: bool = False,
        fresh: bool = True,
    ):
        self.processes, self.quiet, self.tensorboard = processes, quiet, tensorboard
        self.folder, self.config, self.device = folder, folder.config, device
        self.training, self.length = folder.config.training, folder.train.length
        self.kind = kind_of(self.config)
        check_batch_size(self.config.data.batch_size, processes.size)
        diffusion = new_diffusion(folder.source, folder.train, self.config, device, fresh=fresh)
        batches = new_batches(folder.train, self.config, device, processes)
        self.loop = Loop(diffusion, batches, self.config, processes)
        self.averaged = self.recommended = self.loop.averaged  # the diffusion that is measured
        self.validator = Validator(folder.train, folder.val, self.config, device, processes)
        self.seconds_before = 0.0  # spent before this process took over
        self.started = time.monotonic()
        self.now = 0.0  # seconds(), as the processes have agreed on it at the last step
        self._last_saved = self.now
        self._resumed_from: tuple | None = None  # a checkpoint, and what its file was
        self._keep_in(self._new_results())

    def _keep_in(self, results: record.Results) -> None:
        """Let results be what this run adds to."""
        self.results = results
        self.loop.losses = results.losses
        self.judge = Judge(self.loop, self.validator, results)
        self.progress = Progress(self.loop, results, self.quiet)
        is_first, warn = self.processes.is_first, self.progress.warn
        self.files = ResultsFolder(self.folder, results, is_first=is_first, warn=warn)

    def resume(self, path: Path, saved: dict) -> None:
        """Go on from a checkpoint, saved, that was loaded from path, as if the run had never stopped.

        Raises UserError if its weights do not fit the network.
        """
        self._resumed_from = path, _stamp(path)
        for diffusion, key in (
            (self.loop.diffusion, "weights"),
            (self.averaged, "averaged_weights"),
        ):
            checkpoint.load_weights(diffusion.reverse_model, saved[key], path)
        self.loop.load(saved)
        self.seconds_before = self.now = self._last_saved = saved["seconds"]
        self._keep_in(record.from_text(saved["results"]))
        self.results_dir = path.parent.parent
        self.loop.plan.is_warm = self.results.started_from is not None
        if self.epochs_done in self.results.validated_epochs:
            self.loop.validated_at = self.step

    def start_from(self, path: Path, saved: dict) -> list[str]:
        """Begin with the averaged weights of a checkpoint, saved, loaded from path, not with fresh ones.

        Returns what of these weights and of the network's does not fit, which stays fresh. Raises
        UserError if nothing fits.
        """
        model = self.loop.diffusion.reverse_model
        left = checkpoint.load_fitting(model, saved["averaged_weights"], path)
        self.averaged.reverse_model.load_state_dict(model.state_dict())
        self.results.started_from, self.loop.plan.is_warm = str(path), True
        return left

    # ------------------------------------------------------------------------------- sizes

    @property
    def results_dir(self) -> Path | None:
        """None until train makes it, but of a resumed run."""
        return self.files.path

    @results_dir.setter
    def results_dir(self, path: Path) -> None:
        self.files.path = path

    @property
    def step(self) -> int:
        """Steps done."""
        return self.loop.step

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.loop.batches.steps_per_epoch

    @property
    def epochs_done(self) -> int | float:
        """Passes over the data, with a fraction in the middle of one: where a curve is drawn."""
        done = self.step / self.loop.batches.steps_per_epoch
        return int(done) if done == int(done) else round(done, 4)

    @property
    def total_steps(self) -> int:
        return self.loop.plan.total_steps

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.loop.diffusion.reverse_model.parameters())

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    @property
    def is_finished(self) -> bool:
        """Whether a resumed run has nothing left to do."""
        return self.results.status.startswith("finished") and (
            self.loop.plan.reason_to_stop(self.step, self.now) is not None
        )

    # ------------------------------------------------------------------------------- a run

    def train(self) -> Path:
        """Train to the end, to a stop that the config asks for, or to a signal (Interrupted).

        Returns the results folder, which is up to date in every case. Raises RunError if the loss or
        its gradient is not finite.
        """
        self.started = time.monotonic()
        if self.results_dir is None:
            run_dir, parent = self.folder.path, self.folder.results
            self.results_dir = self.processes.from_first(lambda: new_results_dir(run_dir, parent))
        results = self.results
        results.status = "running"
        results.final_bound = results.recommended = results.last = None
        mine = lock(self.results_dir) if self.processes.is_first else nullcontext()
        interrupt = Interrupt(has_parent=self.processes.size > 1)
        with mine, interrupt, self.progress.opened():
            self._refuse_progress_of_others()
            if self.processes.is_first:
                trust.remember(self.folder.source)
            self.choose_threads()
            self.files.begin()
            self.files.write_results()
            if self.tensorboard:
                self.files.open_board(self.step)
            try:
                try:
                    reason = self._run(interrupt)
                    self.measure_recommended(interrupt)
                    with all_threads():
                        self.files.draw_reverse_process(self.recommended, interrupt.poll)
                except Interrupted as stop:
                    self._close(f"stopped by {stop}")
                    raise
                self._close(reason)
            except (RunError, OSError, RuntimeError) as error:
                if isinstance(error, Diverged):
                    error = RunError(f"{error}; {self.files.last_good()}")
                results.status = f"failed: {printable(str(error).strip() or repr(error))}"
                with suppress(OSError):  # it may be the disk that is full
                    self.files.write_results()
                    self.files.write_report()
                raise error
            finally:
                self.files.close_board()
        return self.results_dir

    def _refuse_progress_of_others(self) -> None:
        """Raises RunError if another process has gone on with the run since its checkpoint was read."""
        if self._resumed_from and self.processes.is_first:
            path, stamp = self._resumed_from
            last = checkpoint.by_age(path.parent)[-1:]
            if last != [path] or _stamp(path) != stamp:
                raise RunError(
                    f"{self.results_dir}: another process has gone on here; resume again"
                )

    def choose_threads(self) -> None:
        """Let torch use as many threads as serve a training step best: measured once in a run."""
        if self.results.threads is None:
            self.results.threads = better_threads(self.device, self._trial_step())
        use_threads(self.results.threads)

    def _trial_step(self) -> Callable[[], None]:
        """A training step on a copy of the network, to be timed: it leaves no trace."""
        diffusion, x_0 = self.loop.diffusion, self.loop.batches.batch(0)
        trial = Diffusion(diffusion.process, copy.deepcopy(diffusion.reverse_model))

        def step() -> None:
            with torch.random.fork_rng(devices=[]):
                trial.loss(x_0, self.config.model.num_sample_steps).backward()

        return step

    def _run(self, interrupt: Interrupt) -> str:
        """Alternate training steps, validations and checkpoints. Returns why it ended."""

        def agree() -> Callable[[], list[float]]:
            return self.processes.greatest(lambda: (interrupt.number, self.seconds()))

        agreed = agree()

        def seconds() -> float:
            signal, self.now = agreed()
            if signal:
                raise Interrupted(int(signal))
            return self.now

        def before_step() -> None:
            nonlocal agreed
            self.progress.advance()
            if self.step % FLUSH_EVERY == 0:
                self.progress.show()
            if self._is_save_due():
                self.save()
            agreed = agree()  # what has been measured by now is known after the step

        return self.loop.run(
            lambda: self.validate(interrupt),
            seconds,
            before_step,
            self.judge.new_look(),
            self._save_best,
        )

    @all_threads()
    def validate(self, interrupt: Interrupt) -> None:
        """Measure the averaged weights, note it, keep the best, bring results and pictures up to date."""
        self.progress.show()
        if self.judge.validate(self.epochs_done, self.seconds, interrupt.poll):
            self._save_best()
        self.judge.count_without_progress()
        if warning := self.judge.warning():
            self.progress.warn(warning)
        self.files.write_results()
        self.files.append_metrics()
        self.files.draw_progress_if_due()
        self.files.write_report()
        self.files.show_on_board(self.averaged, self.step)
        self.progress.report(self.seconds())

    @all_threads()
    def measure_recommended(self, interrupt: Interrupt) -> None:
        """Measure the weights that are recommended in the end, and the last ones if these are others."""
        best = self._load_best() if self.judge.needs_best() else None
        self.recommended = best or self.averaged
        self.judge.measure_recommended(best, self.epoch, interrupt.poll)

    def _load_best(self) -> Diffusion | None:
        """The averaged weights of model_best.pt; None, with a warning, if they are gone."""
        try:
            weights = self.processes.from_first(self.files.best_weights)
            model = copy.deepcopy(self.averaged.reverse_model)
            checkpoint.load_weights(model, weights, self.files.checkpoints / checkpoint.BEST)
        except UserError as error:
            self.progress.warn(f"{error}; the last weights are described instead")
            return None
        return Diffusion(self.averaged.process, model)

    def _close(self, status: str) -> None:
        """Bring everything in the results folder up to date for the last time, results.json last."""
        self.results.status = status
        self.save()
        self.files.draw_progress()
        self.files.write_report()
        self.files.write_results()

    # ------------------------------------------------------------------------------- checkpoints

    def _is_save_due(self) -> bool:
        minutes = self.training.save_every_minutes
        return self.loop.plan.is_save_due(self.step) or (
            minutes is not None and self.now - self._last_saved >= 60 * minutes
        )

    def save(self) -> None:
        """Write a checkpoint."""
        self.loop.look_at_losses()
        self._last_saved = self.now
        at_end = self.step % self.loop.batches.steps_per_epoch == 0
        self.files.save(self.state, self.epoch, None if at_end else self.step)

    def _save_best(self) -> None:
        self.results.best_epoch = self.epochs_done
        self.files.save_best(self.state)

    def state(self) -> dict:
        """The checkpoint of this moment; see soundness.KEYS."""
        source = self.folder.source
        return {
            "config": config_module.to_yaml(self.config),
            "sequence_length": self.length,
            "T": self.config.model.T,
            "process_state": self.loop.diffusion.process.state(),
            "columns": self.folder.columns,
            "reverse_model_source": source.text,
            "reverse_model_sha256": source.sha256,
            **self.loop.state(),
            "epoch": self.epoch,
            "seconds": self.seconds(),
            "results": record.to_text(self.results),
        }

    def _new_results(self) -> record.Results:
        """The results of a run that has not begun."""
        train, val, measures = self.folder.train, self.folder.val, self.validator.measures
        return record.Results(
            status="running",
            process=self.config.model.process,
            samples=self.kind.SAMPLES,
            units=self.kind.UNITS,
            length=self.length,
            data=record.Data(
                record.File(len(train), train.sha256()),
                val and record.File(len(val), val.sha256()),
                measures.facts,
            ),
            baselines=measures.baselines,
            losses=self.loop.losses,
            measures=measures.described(),
            data_examples=measures.data_examples(),
            num_val_samples=self.training.num_val_samples,
            num_parameters=self.num_parameters,
            reverse_model_sha256=self.folder.source.sha256,
            config_sha256=file_sha256(self.folder.path / "config.yaml"),
            seed=self.training.seed,
            device=str(self.device),
            versions={
                "bernoulli_diffusion": __version__,
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        )
