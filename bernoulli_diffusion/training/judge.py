"""What is measured of a run's weights, and by which bound they are judged: val's, or train's.

Weights are judged by val.txt as long as that is a guide. Where what is learnt from train.txt makes the
bound on val worse (verdict.py), they are judged by train.txt from then on.
"""

import math
import time
from collections.abc import Callable
from datetime import datetime

import torch

from ..diffusion import Diffusion
from ..estimate import Estimate
from ..results import record, verdict
from ..results.record import Results
from ..system.device import all_threads
from ..system.errors import RunError
from .loop import Loop, new_look
from .plan import Recipe
from .shares import mean_and_error
from .validator import Validator

FINAL_DRAWS = 16  # times as many draws for the final bound as for each validation's
DIVERGING = 3  # validations in a row that are worse than no training at all


class Judge:
    """Measures a loop's weights, and notes in the results what it finds."""

    def __init__(self, loop: Loop, validator: Validator, results: Results):
        self.loop, self.validator, self.results = loop, validator, results
        self.processes = loop.processes
        self._has_warned = False

    @property
    def is_recipe(self) -> bool:
        """Whether looks say which weights are best, and not validations."""
        return isinstance(self.loop.plan, Recipe)

    def bounds(
        self, diffusion: Diffusion, poll: Callable[[], None], times_draws: int = 1
    ) -> dict[str, Estimate | None]:
        """The bounds on train and val. Raises RunError if one is not finite."""
        self.processes.share_buffers(diffusion.reverse_model)
        bounds = self.validator.bounds(diffusion, poll, times_draws)
        for name, bound in bounds.items():
            if bound is not None and not math.isfinite(bound.bits + bound.standard_error):
                raise RunError(
                    f"step {self.loop.step}: the bound on {name} is {bound.bits}: the network's output"
                    " is not finite; try a smaller training.lr"
                )
        return bounds

    # ------------------------------------------------------------------------------- looks

    def new_look(self) -> Callable[[], torch.Tensor] | None:
        """A recipe's looks, by the first process; all know what it saw. None for another plan."""
        if not self.is_recipe:
            return None
        files, results = {"train": self.validator.train, "val": self.validator.val}, self.results
        # by strings of another kind, what is right about those of train would look like a mistake
        is_new = {"train": False, "val": not verdict.may_be_of_another_kind(results)}
        looks = {
            name: new_look(self.loop, data, is_new[name]) for name, data in files.items() if data
        }

        @all_threads()
        def look_together() -> torch.Tensor:
            self.processes.share_buffers(self.loop.averaged.reverse_model)
            bits = self.processes.from_first(looks[results.judged_by])
            least = verdict.floor(results, "val") if results.judged_by == "val" else None
            if least is not None and bits.double().mean().item() > least:
                on_train = self.processes.from_first(looks["train"])
                val, train = (record.Bound(*mean_and_error(x)) for x in (bits, on_train))
                if verdict.is_val_unlike_now(results, self.loop.plan.best_bound, val, train):
                    results.val_is_unlike = True
                    self.loop.forget_best()
                    return on_train
            return bits

        return look_together

    # ------------------------------------------------------------------------------- validations

    def validate(
        self, epochs: float, seconds: Callable[[], float], poll: Callable[[], None]
    ) -> bool:
        """Measure the averaged weights, and note it. Returns whether they are the best so far.

        epochs: done, with a fraction; seconds: since the start.
        """
        averaged, plan, results = self.loop.averaged, self.loop.plan, self.results
        bounds = self.bounds(averaged, poll)
        start = time.monotonic()
        samples = self.validator.draw(averaged, poll)
        samples_per_second = len(samples) / max(1e-9, time.monotonic() - start)
        results.validated_epochs.append(epochs)
        results.seconds.append(round(seconds(), 3))
        for name, bound in bounds.items():
            if bound is not None:
                getattr(results.bound, name).append(bound.bits)
                getattr(results.bound, f"{name}_standard_error").append(bound.standard_error)
                self._keep_blocks(name, bound)
        measures = self.validator.measures
        results.add_measured(measures.of(samples))
        results.examples_per_epoch.append(self._examples(samples))
        results.samples_per_second = float(f"{samples_per_second:.4g}")
        results.statistics = measures.statistics(samples)
        if not self.is_recipe and verdict.is_val_unlike(results) != results.val_is_unlike:
            results.val_is_unlike = not results.val_is_unlike  # by another measure from now on
            plan.best_bound = math.inf
        return self.loop.note(bounds[results.judged_by].bits)

    def _examples(self, samples) -> list:
        return self.validator.measures.examples(samples, self.loop.training.num_examples)

    def _keep_blocks(self, name: str, bound: Estimate) -> None:
        """What later differences to this validation need: the means of blocks of lines."""
        results = self.results
        blocks = results.blocks.setdefault(name, [])
        missing = len(results.validated_epochs) - 1 - len(blocks)  # of a run that version 1.0 began
        blocks += [[] for _ in range(missing)]
        blocks.append(_rounded(bound.blocks))
        results.block_lines[name] = bound.lines

    def count_without_progress(self) -> None:
        """Tell the plan how many validations ago the bound fell beyond doubt; looks know better."""
        if not self.is_recipe:
            so_far = verdict.validations_without_progress(self.results)
            self.loop.plan.validations_without_progress = so_far

    def warning(self) -> str | None:
        """What to say, once, of a run that gets nowhere."""
        if self._has_warned or not verdict.has_diverged(self.results, DIVERGING):
            return None
        self._has_warned = True
        return (
            f"the bound on train has been worse than without any training for {DIVERGING} validations;"
            " try a smaller training.lr, or more warmup_steps"
        )

    # ------------------------------------------------------------------------------- at the end

    def needs_best(self) -> bool:
        """Whether other weights than the last ones are recommended. A recipe ends with its best ones."""
        results = self.results
        return not self.is_recipe and results.best_epoch not in (None, results.validated_epochs[-1])

    def measure_recommended(
        self, best: Diffusion | None, epoch: int, poll: Callable[[], None]
    ) -> None:
        """Measure the recommended weights precisely, and the last ones too if others are best.

        From more draws than at each validation, and from other ones: the best of many is lucky.
        best: None if the last ones are; epoch: of the last ones.
        """
        results, last, averaged = (
            self.results,
            self.results.validated_epochs[-1],
            self.loop.averaged,
        )
        if best:
            results.last = self._measured(averaged, last, f"model_epoch_{epoch}.pt", poll)
        is_kept = best or self.is_recipe
        of_epoch = results.best_epoch if is_kept and results.best_epoch is not None else last
        results.recommended = self._measured(best or averaged, of_epoch, "model_best.pt", poll)
        results.final_bound = results.recommended.bounds

    def _measured(
        self, diffusion: Diffusion, epoch: float, file: str, poll: Callable[[], None]
    ) -> record.Measured:
        measures = self.validator.measures
        bounds = self.bounds(diffusion, poll, FINAL_DRAWS)
        samples = self.validator.draw(diffusion, poll, at_the_end=True)
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
            examples=self._examples(samples),
        )


def _rounded(blocks: tuple[float, ...]) -> list[float]:
    """To seven digits, which is more than their noise leaves any meaning."""
    return [float(f"{value:.7g}") for value in blocks]
