"""Ctrl-C and SIGTERM as a request: finish the step, save, then leave. A second one leaves at once."""

import os
import signal


class Interrupted(Exception):
    """A signal has asked the program to stop."""

    def __init__(self, number: int):
        self.exit_code = 128 + number
        super().__init__(signal.Signals(number).name)


class Interrupt:
    """While active (a context manager), remembers the first SIGINT or SIGTERM.

    poll() raises Interrupted if there has been one.
    """

    def __init__(self):
        self.number: int | None = None
        self._previous = {}

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number

    def poll(self) -> None:
        if self.number is not None:
            raise Interrupted(self.number)
