"""What a person sees of a run while it trains: a bar, or a line at each validation; warnings."""

import sys

from tqdm import tqdm

from ..estimate import text
from ..results.record import Results
from ..system.command_line import tell
from ..system.errors import printable
from .loop import Loop


class Progress:
    """Tells how far a loop is, on standard error; of several processes the first one's.

    quiet: warnings alone.
    """

    def __init__(self, loop: Loop, results: Results, quiet: bool):
        self.loop, self.results = loop, results
        self.is_first, self.quiet = loop.processes.is_first, quiet or not loop.processes.is_first
        self.bar = tqdm(disable=True)

    def opened(self) -> tqdm:
        """A bar on a terminal, to be closed; elsewhere nothing, and report prints lines."""
        self.bar = tqdm(
            total=self._total_steps(),
            initial=self.loop.step,
            disable=True if self.quiet else None,
            unit="step",
            desc=self._epoch_of_all(),
            dynamic_ncols=True,
        )
        return self.bar

    def advance(self) -> None:
        """Show on the bar how many steps are done."""
        self.bar.update(self.loop.step - self.bar.n)

    def show(self) -> None:
        """On the bar: steps, and the latest loss and validation."""
        self.advance()
        if self.loop.last_loss is not None:
            self.bar.total = self._total_steps()  # which a recipe may lower
            self.bar.set_description_str(self._epoch_of_all(), refresh=False)
            loss = f"loss {self.loop.last_loss:.3f} bits"
            self.bar.set_postfix_str(loss + self._last_validation())

    def report(self, seconds: float) -> None:
        """A line for the last validation, where there is no bar. seconds: since the start."""
        if self.bar.disable and not self.quiet:
            left = self.loop.plan.seconds_left(self.loop.step, seconds)
            time_left = f", about {left:.0f} s left" if left else ""
            self._print(f"{self._epoch_of_all()}{self._last_validation()}{time_left}")

    def warn(self, message: str) -> None:
        if self.is_first:
            self._print(f"warning: {printable(message)}")

    def _epoch_of_all(self) -> str:
        steps, total = self.loop.batches.steps_per_epoch, self._total_steps()
        of_all = f"/{-(-total // steps)}" if total else ""
        return f"epoch {self.loop.step // steps}{of_all}"

    def _total_steps(self) -> int | None:
        """None if time will end the run."""
        plan = self.loop.plan
        return None if plan.ends_by_time else plan.total_steps

    def _last_validation(self) -> str:
        """The latest bound and shares."""
        results, bound = self.results, self.results.bound
        if not results.validated_epochs:
            return ""
        told = f", bound {text(bound.train[-1], bound.train_standard_error[-1])} bits"
        if results.has_val:
            told += f" (val {text(bound.val[-1], bound.val_standard_error[-1])})"
        return told + results.last_on_one_line()

    def _print(self, line: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):  # above the bar
            tell(line)
