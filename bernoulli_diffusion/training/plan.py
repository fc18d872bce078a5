"""What is done at which step: learning rate, looks at val, validations, and when to stop.

A Plan follows the config's epochs. A Recipe follows val: a constant rate while val improves, back to the
best weights, and down to zero. Both know steps, seconds and bounds, and nothing of networks and files.
"""

import math
from dataclasses import dataclass

from ..config import TrainingConfig

FIRST_LOOK, LOOK_SPACING = 20, 1.25  # steps, and the ratio of each look's step to the one before it
FIRST_VALIDATION, VALIDATION_SPACING = 100, 1.6  # the same; validations take longer than looks
ANNEAL_SHARE = 0.3  # of the steps to the best weights: so many more take the rate to zero
ANNEAL_LOOKS = 8  # while they do
LEAST_ANNEALING = 50  # steps
LIMIT = 2.0  # standard errors by which a bound is worse than the best before it is called worse
WORSE_PATIENCE = 1.5, 200  # times the best look's step and as many more: end, if the bound is worse
FLAT_PATIENCE = 2.0, 1500  # the same, if it is not: a plateau may have an end

READY = "finished: prepare() has found all that this network learns"

MEMORIES = 2.0, 9.0  # steps so far for each that the averaged weights remember: least and most
FULL_MEMORY = 9000  # steps after which they remember as many as training.ema_decay says

RECIPE_NUMBERS = ("best_step", "next_look", "validated_at", "anneal_from", "anneal_steps")


@dataclass
class Plan:
    """epochs at a constant rate or one that falls along a cosine, as the config says.

    What it remembers of validations is its state, which goes into every checkpoint: a resumed run does
    what the stopped one would have done.
    """

    training: TrainingConfig
    steps_per_epoch: int
    best_bound: float = math.inf  # bits
    validations_without_progress: int = 0
    is_warm: bool = False  # begun with trained weights, which compete from step 0 on
    is_ready: bool = False  # prepare() has found everything: there is no step to take
    warm_from: int = 0  # the step from which the learning rate rises ...
    warm_rate: float = 0.0  # ... from this: those of a run that got more epochs

    @property
    def most_steps(self) -> int:
        """That training.epochs allow."""
        return self.training.epochs * self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Of the run, as far as can be known."""
        return self.most_steps

    is_end_known = True
    ends_by_time = False  # as far as can be known

    def learning_rate(self, step: int) -> float:
        """At a step (from 0): linear warm-up, then constant or cosine to zero at the last step."""
        decay = 1.0
        if self.training.lr_schedule != "constant":
            decay = (1 + math.cos(math.pi * step / self.total_steps)) / 2
        return self._warmed(step, self.training.lr * decay)

    def _warmed(self, step: int, rate: float) -> float:
        """The rate at a step, if it would be that without warm-up."""
        risen = max(0, step - self.warm_from + 1) / max(1, self.training.warmup_steps)
        return rate if risen >= 1 else self.warm_rate + risen * (rate - self.warm_rate)

    def warm_again(self, step: int, rate: float) -> None:
        """Let the rate rise from here to what it is to be now, if that is more."""
        if self.learning_rate(step) > rate:
            self.warm_from, self.warm_rate = step, rate

    def averaging_decay(self, step: int) -> float:
        """Of the averaged weights at a step (from 0), which remember about 1 / (1 - decay) steps.

        But one of so many of the steps so far at most, as MEMORIES says.
        """
        decay, (least, most) = self.training.ema_decay, MEMORIES
        memories = min(most, max(least, (1 - decay) * FULL_MEMORY))
        return min(decay, (1 + step) / (1 + memories + step))

    def is_validation_due(self, step: int) -> bool:
        return step % (self.training.validate_every_n_epochs * self.steps_per_epoch) == 0

    def count_validations(self) -> int:
        """How many there will be, about."""
        return 1 + self.training.epochs // self.training.validate_every_n_epochs

    def is_save_due(self, step: int) -> bool:
        return step > 0 and step % (self.training.save_every_n_epochs * self.steps_per_epoch) == 0

    def note(self, step: int, bound: float) -> bool:
        """Take note of a validation: whether its weights are the best so far.

        Untrained ones, at step 0, do not compete.
        """
        competes = step > 0 or self.is_warm or self.is_ready
        is_best = competes and bound < self.best_bound
        if is_best:
            self.best_bound, self.validations_without_progress = bound, 0
        elif competes:
            self.validations_without_progress += 1
        return is_best

    def reason_to_stop(self, step: int, seconds: float) -> str | None:
        """Why training is over after so many steps and seconds, if it is."""
        patience = self.training.patience
        if self.is_ready:
            return READY
        if step >= self.total_steps:
            return "finished"
        if patience and self.validations_without_progress >= patience:
            return f"finished: no better bound in {patience} validations (training.patience)"
        return self._time_is_over(seconds)

    def seconds_left(self, step: int, seconds: float) -> float | None:
        """Until the end, at the speed of the steps so far. None if it is not known, or reached."""
        if not (0 < step < self.total_steps and self.is_end_known):
            return None
        left = seconds * (self.total_steps / step - 1)
        minutes = self.training.max_minutes
        return max(0.0, min(left, 60 * minutes - seconds)) if minutes else left

    def _time_is_over(self, seconds: float) -> str | None:
        minutes = self.training.max_minutes
        if minutes and seconds >= 60 * minutes:
            are_over = "minute is over" if minutes == 1 else "minutes are over"
            return f"finished: {minutes:g} {are_over} (training.max_minutes)"
        return None

    def state(self) -> dict:
        """The keys of a checkpoint that are the plan's."""
        return {
            "best_bound": self.best_bound,
            "validations_without_progress": self.validations_without_progress,
            "warm_from": self.warm_from,
            "warm_rate": self.warm_rate,
            "recipe": {},
        }

    def load(self, saved: dict) -> None:
        """Take over the state from a checkpoint, saved."""
        for key in ("best_bound", "validations_without_progress", "warm_from", "warm_rate"):
            setattr(self, key, saved[key])


@dataclass
class Recipe(Plan):
    """A constant rate while val improves, then back to the best weights and down to zero.

    training.epochs are the most that it may take. Looks are cheap: the bound on val (on train without
    it) from the same draws each time, so that two looks differ by the weights alone. They are spaced
    geometrically, for a small file is at its best after fifty steps. Step 0 competes: a network that
    looked at the data may be at its best there.
    """

    best_step: int = 0
    next_look: int = 0
    validated_at: int = -1  # the step of the last validation
    anneal_from: int = 0  # the step at which the rate began to fall; 0: not yet
    anneal_steps: int = 0

    @property
    def total_steps(self) -> int:
        """Of the run, as far as can be known."""
        if self.anneal_from:
            return self.anneal_from + self.anneal_steps
        return self.most_steps

    @property
    def is_end_known(self) -> bool:
        return self.anneal_from > 0

    @property
    def ends_by_time(self) -> bool:
        return bool(self.training.max_minutes) and not self.is_end_known

    def learning_rate(self, step: int) -> float:
        """At a step (from 0): linear warm-up, constant, then linear to zero."""
        decay = 1.0
        if self.anneal_from:
            decay = max(0.0, 1 - (step - self.anneal_from) / self.anneal_steps)
        return self._warmed(step, self.training.lr * decay)

    def go_on(self, step: int, before: TrainingConfig) -> None:
        """Let the rate be constant again, from a step on, if there is more time than before."""
        least, most = before.max_minutes, self.training.max_minutes
        more_minutes = least is not None and (most is None or most > least)
        if self.training.epochs > before.epochs or more_minutes:
            self.anneal_from = self.anneal_steps = 0
            self.next_look = step

    def is_look_due(self, step: int, seconds: float) -> bool:
        return step >= self.next_look or (not self.anneal_from and self._is_time_to_anneal(seconds))

    def is_validation_due(self, step: int) -> bool:
        if self.training.validate_every_n_epochs is not None:
            return super().is_validation_due(step)
        return step >= max(FIRST_VALIDATION, VALIDATION_SPACING * self.validated_at) or step == 0

    def count_validations(self) -> int:
        if self.training.validate_every_n_epochs is not None:
            return super().count_validations()
        later = math.log(max(1, self.total_steps / FIRST_VALIDATION), VALIDATION_SPACING)
        return 3 + int(later)

    def is_save_due(self, step: int) -> bool:
        if self.training.save_every_n_epochs is not None:
            return super().is_save_due(step)
        return step > 0 and step == self.validated_at

    def note(self, step: int, bound: float) -> bool:
        """Take note of a validation. Which weights are best is for the looks to say."""
        self.validated_at = step
        return False

    def note_look(self, step: int, bound: float, error: float, seconds: float) -> tuple[bool, bool]:
        """Take note of a look: whether its weights are the best, and whether to go back to the best.

        bound: bits; error: standard error of its difference to the best; seconds: time spent.
        """
        is_worse = bound - self.best_bound > LIMIT * error
        is_best = bound < self.best_bound
        if is_best:
            self.best_bound, self.best_step, self.validations_without_progress = bound, step, 0
        else:
            self.validations_without_progress += 1
        turns = not self.anneal_from and self._is_enough(step, is_worse, seconds)
        if turns:
            self.anneal_from = step
            most = max(1, self.most_steps - step)
            wanted = max(LEAST_ANNEALING, math.ceil(ANNEAL_SHARE * self.best_step))
            self.anneal_steps = min(most, wanted)
        if self.anneal_from:
            later, end = step + max(1, self.anneal_steps // ANNEAL_LOOKS), self.total_steps
        else:
            later = max(FIRST_LOOK, math.ceil(LOOK_SPACING * step))
            end = self._last_constant_step()
        self.next_look = min(later, end) if step < end else later
        return is_best, turns

    def _is_enough(self, step: int, is_worse: bool, seconds: float) -> bool:
        """Whether the constant rate has led as far as it goes."""
        times, more = WORSE_PATIENCE if is_worse else FLAT_PATIENCE
        patience = self.training.patience
        return step > 0 and (
            step > times * self.best_step + more
            or step >= self._last_constant_step()
            or self._is_time_to_anneal(seconds)
            or (patience is not None and self.validations_without_progress >= patience)
        )

    def _last_constant_step(self) -> int:
        return max(1, int(self.most_steps / (1 + ANNEAL_SHARE)))

    def _is_time_to_anneal(self, seconds: float) -> bool:
        minutes = self.training.max_minutes
        return minutes is not None and seconds * (1 + ANNEAL_SHARE) >= 60 * minutes

    def reason_to_stop(self, step: int, seconds: float) -> str | None:
        if self.is_ready:
            return READY
        if self.anneal_from and step >= self.total_steps:
            return "finished"
        return self._time_is_over(seconds)

    def state(self) -> dict:
        recipe = {name: getattr(self, name) for name in RECIPE_NUMBERS}
        return super().state() | {"recipe": recipe}

    def load(self, saved: dict) -> None:
        super().load(saved)
        for name in RECIPE_NUMBERS:
            setattr(self, name, saved["recipe"][name])
