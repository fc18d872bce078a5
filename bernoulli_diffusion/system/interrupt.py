"""Ctrl-C and SIGTERM as a request: finish the step, save, then leave. A second one leaves at once."""

import contextlib
import os
import signal


class Interrupted(Exception):
    """A signal has asked the program to stop."""

    def __init__(self, number: int):
        self.exit_code = 128 + number
        super().__init__(number)

    def __str__(self) -> str:
        return signal.Signals(self.args[0]).name


@contextlib.contextmanager
def ending_at_once():
    """While modules are imported and processes connect, SIGINT and SIGTERM end the program at once.

    There is nothing to save, and an exception raised by a handler would be swallowed, or leave half of a
    module behind, or wait until C++ code returns.
    """
    previous = {}
    with contextlib.suppress(ValueError):  # only the main thread may
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interrupt:
    """While active (a context manager), remembers the first SIGINT or SIGTERM.

    poll() raises Interrupted if there has been one. has_parent: the process was started by a launcher,
    which passes on what the terminal sends as well, so that a second signal says nothing new, also
    while the process is on its way out.
    """

    def __init__(self, has_parent: bool = False):
        self.number, self.has_parent = 0, has_parent
        self._previous = {}

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, _kind, error: BaseException | None, _traceback) -> None:
        is_leaving = self.has_parent and isinstance(error, Interrupted)
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if is_leaving else handler)

    def _handle(self, number: int, _frame) -> None:
        if self.number and not self.has_parent:
            os._exit(128 + number)
        self.number = number

    def poll(self) -> None:
        if self.number:
            raise Interrupted(self.number)
