"""Trainer: the results folder round the training loop, kept up to date at every validation."""

import copy
import math
import platform
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .. import __version__
from .. import config as config_module
from ..diffusion import Diffusion
from ..estimate import Estimate, text
from ..kinds import kind_of
from ..noise import derive_seed
from ..results import metrics, page, record, verdict
from ..system.command_line import tell
from ..system.device import all_threads, better_threads, use_threads
from ..system.errors import RunError, UserError, printable
from ..system.files import lock, remove_stray_temporaries, write_atomically
from ..system.interrupt import Interrupt, Interrupted
from . import checkpoint, trust
from .distributed import ALONE, Processes, check_batch_size
from .loop import FLUSH_EVERY, Diverged, Loop, new_batches, new_look
from .network import new_diffusion
from .plan import Recipe
from .run_folder import RunFolder, file_sha256
from .shares import mean_and_error
from .validator import Validator

PICTURE = 14  # the stream of random numbers, of the run's seed, for reverse_process.gif
DIVERGING = 3  # validations in a row that are worse than no training at all
FINAL_DRAWS = 16  # times as many draws for the final bound as for each validation's
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
        self.processes = processes
        self.folder, self.config, self.device = folder, folder.config, device
        self.training, self.length = folder.config.training, folder.train.length
        self.quiet = quiet or not processes.is_first
        self.kind = kind_of(self.config)
        check_batch_size(self.config.data.batch_size, processes.size)
        diffusion = new_diffusion(folder.source, folder.train, self.config, device, fresh=fresh)
        batches = new_batches(folder.train, self.config, device, processes)
        self.loop = Loop(diffusion, batches, self.config, processes)
        self.averaged = self.recommended = self.loop.averaged  # the diffusion that is measured
        self._has_warned = False
        self.validator = Validator(folder.train, folder.val, self.config, device, processes)
        self.seconds_before = 0.0  # spent before this process took over
        self.started = time.monotonic()
        self.now = 0.0  # seconds(), as the processes have agreed on it at the last step
        self._last_saved = self.now
        self._last_drawn, self._seconds_per_drawing = self.started, 0.5
        self.results = self._new_results()
        self.results_dir: Path | None = None
        self._resumed_from: tuple | None = None  # a checkpoint, and what its file was
        self.tensorboard = tensorboard and processes.is_first
        self.board = None
        self.bar = tqdm(disable=True)

    def resume(self, path: Path, saved: dict) -> None:
        """Go on from a checkpoint, saved, that was loaded from path, as if the run had never stopped.

        Raises UserError if its weights do not fit the network.
        """
        self.results_dir, self._resumed_from = path.parent.parent, (path, _stamp(path))
        for diffusion, key in (
            (self.loop.diffusion, "weights"),
            (self.averaged, "averaged_weights"),
        ):
            checkpoint.load_weights(diffusion.reverse_model, saved[key], path)
        self.loop.load(saved)
        self.seconds_before = self.now = self._last_saved = saved["seconds"]
        self.results = record.from_text(saved["results"])
        self.loop.losses = self.results.losses
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

    # ------------------------------------------------------------------------------- training

    def train(self) -> Path:
        """Train to the end, to a stop that the config asks for, or to a signal (Interrupted).

        Returns the results folder, which is up to date in every case. Raises RunError if the loss or
        its gradient is not finite.
        """
        self.started = time.monotonic()
        if self.results_dir is None:
            folder = self.folder
            self.results_dir = self.processes.from_first(
                lambda: new_results_dir(folder.path, folder.results)
            )
        results = self.results
        results.status = "running"
        results.final_bound = results.recommended = results.last = None
        mine = lock(self.results_dir) if self.processes.is_first else nullcontext()
        interrupt = Interrupt(has_parent=self.processes.size > 1)
        with mine, interrupt, self._progress_bar() as self.bar:
            self._refuse_progress_of_others()
            if self.processes.is_first:
                trust.remember(self.folder.source)
            self.choose_threads()
            self._write_sources()
            self.write_results()
            self._open_board()
            try:
                try:
                    reason = self._run(interrupt)
                    self.measure_final_bound(interrupt)
                    self.draw_reverse_process(interrupt)
                except Interrupted as stop:
                    self._close(f"stopped by {stop}")
                    raise
                self._close(reason)
            except (RunError, OSError, RuntimeError) as error:
                if isinstance(error, Diverged):
                    error = RunError(f"{error}; {self._last_good()}")
                self.results.status = f"failed: {printable(str(error).strip() or repr(error))}"
                with suppress(OSError):  # it may be the disk that is full
                    self.write_results()
                    self.write_report()
                raise error
            finally:
                if self.board:
                    self.board.close()
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

    def _close(self, status: str) -> None:
        """Bring everything in the results folder up to date for the last time.

        results.json comes last: if it says that the run is finished, all the rest is there.
        """
        self.results.status = status
        self.save()
        self.draw_progress()
        self.write_report()
        self.write_results()

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
            self.bar.update(self.step - self.bar.n)
            if self.step % FLUSH_EVERY == 0:
                self._show_progress()
            if self._is_save_due():
                self.save()
            agreed = agree()  # what has been measured by now is known after the step

        return self.loop.run(
            lambda: self.validate(interrupt),
            seconds,
            before_step,
            self._new_look(),
            self._save_best,
        )

    def _new_look(self) -> Callable[[], torch.Tensor] | None:
        """A recipe's looks, by the first process; all know what it saw.

        They are at val.txt as long as that is a guide, and else at train.txt, from the look on that
        finds out.
        """
        if not isinstance(self.loop.plan, Recipe):
            return None
        files = {"train": self.folder.train, "val": self.folder.val}
        looks = {name: new_look(self.loop, data) for name, data in files.items() if data}

        @all_threads()
        def look_together() -> torch.Tensor:
            self.processes.share_buffers(self.averaged.reverse_model)
            bits = self.processes.from_first(looks[self.results.judged_by])
            if self.results.judged_by == "val" and self._is_val_bad(bits):
                on_train = self.processes.from_first(looks["train"])
                if self._is_val_unlike(bits, on_train):
                    self.results.val_is_unlike = True
                    self.loop.forget_best()
                    return on_train
            return bits

        return look_together

    def _is_val_bad(self, on_val: torch.Tensor) -> bool:
        least = verdict.floor(self.results, "val")
        return least is not None and on_val.double().mean().item() > least

    def _is_val_unlike(self, on_val: torch.Tensor, on_train: torch.Tensor) -> bool:
        val, train = (record.Bound(*mean_and_error(bits)) for bits in (on_val, on_train))
        return verdict.is_val_unlike_now(self.results, self.loop.plan.best_bound, val, train)

    @property
    def is_finished(self) -> bool:
        """Whether a resumed run has nothing left to do."""
        return self.results.status.startswith("finished") and (
            self.loop.plan.reason_to_stop(self.step, self.now) is not None
        )

    def _is_save_due(self) -> bool:
        minutes = self.training.save_every_minutes
        return self.loop.plan.is_save_due(self.step) or (
            minutes is not None and self.now - self._last_saved >= 60 * minutes
        )

    def _last_good(self) -> str:
        """What is left after training has diverged."""
        saved = checkpoint.by_age(self.results_dir / "checkpoints")
        return (
            f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written yet"
        )

    # ------------------------------------------------------------------------------- validating

    @all_threads()
    def validate(self, interrupt: Interrupt) -> None:
        """Measure the averaged weights, note it, keep the best, bring results and pictures up to date."""
        self._show_progress()
        bounds = self._measure_bounds(interrupt)
        start = time.monotonic()
        samples = self.validator.draw(self.averaged, interrupt.poll)
        samples_per_second = len(samples) / max(1e-9, time.monotonic() - start)
        measures, results = self.validator.measures, self.results
        results.validated_epochs.append(self.epochs_done)
        results.seconds.append(round(self.seconds(), 3))
        for name, bound in bounds.items():
            if bound is not None:
                getattr(results.bound, name).append(bound.bits)
                getattr(results.bound, f"{name}_standard_error").append(bound.standard_error)
                self._keep_blocks(name, bound)
        results.add_measured(measures.of(samples))
        examples = measures.examples(samples, self.training.num_examples)
        results.examples_per_epoch.append(examples)
        results.samples_per_second = float(f"{samples_per_second:.4g}")
        results.statistics = measures.statistics(samples)
        plan, is_recipe = self.loop.plan, isinstance(self.loop.plan, Recipe)  # whose looks decide
        if not is_recipe and verdict.is_val_unlike(results) != results.val_is_unlike:
            results.val_is_unlike = not results.val_is_unlike  # by another measure from now on
            plan.best_bound = math.inf
        self._keep_best(bounds[results.judged_by].bits)
        if not is_recipe:
            plan.validations_without_progress = verdict.validations_without_progress(results)
        self._warn_of_divergence()
        self.write_results()
        if self.processes.is_first:
            metrics.append_last(results, self.results_dir)
        if time.monotonic() - self._last_drawn > DRAW_SHARE * self._seconds_per_drawing:
            self.draw_progress()
        self.write_report()
        self._show_on_board()
        self._report()

    def _measure_bounds(
        self, interrupt: Interrupt, times: int = 1, diffusion: Diffusion | None = None
    ) -> dict[str, Estimate | None]:
        diffusion = diffusion or self.averaged
        self.processes.share_buffers(diffusion.reverse_model)
        bounds = self.validator.bounds(diffusion, interrupt.poll, times)
        for name, bound in bounds.items():
            if bound is not None and not math.isfinite(bound.bits + bound.standard_error):
                raise RunError(
                    f"step {self.step}: the bound on {name} is {bound.bits}: the network's output"
                    " is not finite; try a smaller training.lr"
                )
        return bounds

    def _keep_blocks(self, name: str, bound: Estimate) -> None:
        """What later differences to this validation need: the means of blocks of lines."""
        results = self.results
        blocks = results.blocks.setdefault(name, [])
        missing = len(results.validated_epochs) - 1 - len(blocks)  # of a run that version 1.0 began
        blocks += [[] for _ in range(missing)]
        blocks.append(_rounded(bound.blocks))
        results.block_lines[name] = bound.lines

    def _warn_of_divergence(self) -> None:
        if self._has_warned or not verdict.has_diverged(self.results, DIVERGING):
            return
        self._has_warned = True
        self.warn(
            f"the bound on train has been worse than without any training for {DIVERGING} validations;"
            " try a smaller training.lr, or more warmup_steps"
        )

    @all_threads()
    def measure_final_bound(self, interrupt: Interrupt) -> None:
        """Measure the recommended weights precisely, and the last ones too if these are others.

        From more draws than at each validation, and from other ones: the best of many is lucky.
        """
        results, last = self.results, self.results.validated_epochs[-1]
        # a recipe ends with its best weights
        are_others = results.best_epoch not in (None, last)
        are_others = are_others and not isinstance(self.loop.plan, Recipe)
        best = self._load_best() if are_others else None
        self.recommended = best or self.averaged
        if best:
            file = f"model_epoch_{self.epoch}.pt"
            results.last = self._measured(self.averaged, last, file, interrupt)
        is_kept = best or isinstance(self.loop.plan, Recipe)
        epoch = results.best_epoch if is_kept and results.best_epoch is not None else last
        results.recommended = self._measured(self.recommended, epoch, "model_best.pt", interrupt)
        results.final_bound = results.recommended.bounds

    def _load_best(self) -> Diffusion | None:
        """The averaged weights of model_best.pt; None, with a warning, if they are gone."""
        path = self.results_dir / "checkpoints" / "model_best.pt"
        try:
            weights = self.processes.from_first(lambda: checkpoint.load(path)["averaged_weights"])
            model = copy.deepcopy(self.averaged.reverse_model)
            checkpoint.load_weights(model, weights, path)
        except UserError as error:
            self.warn(f"{error}; the last weights are described instead")
            return None
        return Diffusion(self.averaged.process, model)

    def _measured(
        self, diffusion: Diffusion, epoch: float, file: str, interrupt: Interrupt
    ) -> record.Measured:
        measures = self.validator.measures
        bounds = self._measure_bounds(interrupt, FINAL_DRAWS, diffusion)
        samples = self.validator.draw(diffusion, interrupt.poll)
        self.results.statistics = measures.statistics(samples)
        return record.Measured(
            epoch=epoch,
            date=datetime.now().isoformat(" ", "seconds"),
            checkpoint=file,
            bounds={
                name: bound and record.Bound(*bound[:4], _rounded(bound.blocks))
                for name, bound in bounds.items()
            },
            samples=measures.of(samples),
            examples=measures.examples(samples, self.training.num_examples),
        )

    def _keep_best(self, bound: float) -> None:
        """Keep the weights with the best bound in model_best.pt."""
        if self.loop.note(bound):
            self._save_best()

    def _save_best(self) -> None:
        self.results.best_epoch = self.epochs_done
        if self.processes.is_first:
            path = self.results_dir / "checkpoints" / "model_best.pt"
            checkpoint.save(path, self.state() | {"best": {}})  # they are the best themselves

    def _last_validation(self) -> str:
        """The latest bound and shares, for the progress bar and the log."""
        results = self.results
        if not results.validated_epochs:
            return ""
        bound = results.bound
        told = f", bound {text(bound.train[-1], bound.train_standard_error[-1])} bits"
        if results.has_val:
            told += f" (val {text(bound.val[-1], bound.val_standard_error[-1])})"
        return told + results.last_on_one_line()

    # ------------------------------------------------------------------------------- telling

    def _progress_bar(self) -> tqdm:
        """A bar on a terminal; elsewhere nothing, and _report prints a line at each validation."""
        return tqdm(
            total=self.total_steps,
            initial=self.step,
            disable=True if self.quiet else None,
            unit="step",
            desc=self._epoch_of_all(),
            dynamic_ncols=True,
        )

    def _show_progress(self) -> None:
        """On the bar: steps, and the latest loss and validation."""
        self.bar.update(self.step - self.bar.n)
        if self.loop.last_loss is not None:
            self.bar.total = self.total_steps  # which a recipe may lower
            self.bar.set_description_str(self._epoch_of_all(), refresh=False)
            loss = f"loss {self.loop.last_loss:.3f} bits"
            self.bar.set_postfix_str(loss + self._last_validation())

    def _report(self) -> None:
        if self.bar.disable and not self.quiet:
            left = self.seconds() * (self.total_steps / max(1, self.step) - 1)
            is_known = 0 < self.step < self.total_steps and self.loop.plan.is_end_known
            time_left = f", about {left:.0f} s left" if is_known else ""
            self._print(f"{self._epoch_of_all()}{self._last_validation()}{time_left}")

    def _epoch_of_all(self) -> str:
        return f"epoch {self.epoch}/{-(-self.total_steps // self.loop.batches.steps_per_epoch)}"

    def warn(self, message: str) -> None:
        if self.processes.is_first:
            self._print(f"warning: {printable(message)}")

    def _print(self, line: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):  # above the bar
            tell(line)

    # ------------------------------------------------------------------------------- writing

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

    def state(self) -> dict:
        """The checkpoint of this moment; see checkpoint.KEYS."""
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

    def save(self) -> None:
        """Write a checkpoint and remove the oldest beyond keep_checkpoints.

        At the end of an epoch it is called model_epoch_<n>.pt; one from the middle of an epoch serves
        for resuming alone, and goes when there is a later one.
        """
        self.loop.look_at_losses()
        self._last_saved = self.now
        if not self.processes.is_first:
            return
        folder = self.results_dir / "checkpoints"
        at_end = self.step % self.loop.batches.steps_per_epoch == 0
        path = folder / f"model_epoch_{self.epoch}{'' if at_end else f'_step_{self.step}'}.pt"
        checkpoint.save(path, self.state())
        older = [p for p in checkpoint.by_age(folder) if p != path]
        for old in older:
            if "_step_" in old.name:
                old.unlink(missing_ok=True)
        if keep := self.training.keep_checkpoints:
            ends = [p for p in older if "_step_" not in p.name]
            for old in ends[: max(0, len(ends) + at_end - keep)]:
                old.unlink(missing_ok=True)

    def _write_sources(self) -> None:
        if not self.processes.is_first:
            return
        remove_stray_temporaries(self.results_dir)
        remove_stray_temporaries(self.results_dir / "checkpoints")
        text = config_module.to_yaml(self.config)
        write_atomically(self.results_dir / "config.yaml", text.encode())
        write_atomically(self.results_dir / "reverse_model.py", self.folder.source.text.encode())
        metrics.write_all(self.results, self.results_dir)

    def write_results(self) -> None:
        if not self.processes.is_first:
            return
        text = record.to_text(self.results)
        write_atomically(self.results_dir / record.FILE_NAME, text.encode())

    def draw_progress(self) -> None:
        """Draw what results.json holds: both curves and the sample evolution."""
        start = time.monotonic()
        results, folder = self.results, self.results_dir
        if not (self.processes.is_first and results.validated_epochs):
            return
        try:
            from ..results import plots  # here, because importing matplotlib takes half a second

            plots.draw_progress(results, self.kind, self.config, self.folder.train, folder)
        except Exception as error:
            self.warn(f"the pictures could not be drawn: {type(error).__name__}: {error}")
        self._last_drawn = time.monotonic()
        self._seconds_per_drawing = self._last_drawn - start

    def write_report(self) -> None:
        """Bring report.html up to date, with the pictures as they are."""
        if not self.processes.is_first:
            return
        try:
            shape = self.config.data.shape
            page.write(self.results, self.kind, self.results_dir, shape)
        except Exception as error:
            self.warn(f"report.html could not be written: {type(error).__name__}: {error}")

    def _open_board(self) -> None:
        if self.tensorboard:
            from ..results.tensorboard import Board

            self.board = Board(self.results_dir, self.step)

    def _show_on_board(self) -> None:
        """The same for TensorBoard, with --tensorboard."""
        if self.board:
            last = self.results.examples_per_epoch[-1:], self.results.validated_epochs[-1:]
            [frame] = self.kind.training_frames(*last, self.config, self.folder.train)
            self.board.add(self.results, self.averaged.reverse_model, frame, self.step)

    @all_threads()
    def draw_reverse_process(self, interrupt: Interrupt) -> None:
        """Draw reverse_process.gif: samples from noise to data; and what goes with it."""
        interrupt.poll()
        if not self.processes.is_first:
            return
        seed, train = derive_seed(self.training.seed, PICTURE), self.folder.train
        try:
            self.kind.draw_model(
                self.recommended, self.config, train, seed, self.results_dir, interrupt.poll
            )
        except Interrupted:
            raise
        except Exception as error:
            self.warn(f"reverse_process.gif could not be drawn: {type(error).__name__}: {error}")


def _rounded(blocks: tuple[float, ...]) -> list[float]:
    """To seven digits, which is more than their noise leaves any meaning."""
    return [float(f"{value:.7g}") for value in blocks]
