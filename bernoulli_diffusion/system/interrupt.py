"""Signals as a request to stop: finish the step, save, then leave. A second Ctrl-C leaves at once."""

import contextlib
import os
import signal

# What asks a program to stop: Ctrl-C, kill, a terminal or ssh connection that closes, and SLURM
# before a job's time is up (--signal=USR1@90). Windows has the first two.
STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)
INSISTING = (signal.SIGINT, signal.SIGTERM)  # a person's, or a cluster's last word


class Interrupted(Exception):
    """A signal has asked the program to stop."""

    def __init__(self, number: int):
        self.exit_code = 128 + number
        super().__init__(number)

    def __str__(self) -> str:
        return signal.Signals(self.args[0]).name


def handle(handler) -> dict[int, object]:
    """Let handler answer the signals that ask to stop. Returns the handlers before, by signal.

    A signal that was ignored stays so: nohup ignores SIGHUP before it starts the program. Ctrl-C and
    kill are always answered. Does nothing outside the main thread, where Python allows no handlers.
    """
    previous = {}
    with contextlib.suppress(ValueError):  # not the main thread
        for number in STOPPING:
            if number in INSISTING or signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, handler)
    return previous


@contextlib.contextmanager
def ending_at_once():
    """While modules are imported and processes connect, signals end the program at once.

    There is nothing to save, and an exception raised by a handler would be swallowed, or leave half of a
    module behind, or wait until C++ code returns.
    """
    previous = handle(signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interrupt:
    """While active (a context manager), remembers the first signal that asks to stop.

    poll() raises Interrupted if there has been one. A second Ctrl-C or SIGTERM ends the program at once;
    a second SIGHUP does not (kernel and shell both send one when a terminal closes), nor does the
    SIGTERM that follows SIGUSR1 when a job's time is up. has_parent: the process was started by a
    launcher, which passes on what the terminal sends as well, so that a second signal says nothing
    new, also while the process is on its way out.
    """

    def __init__(self, has_parent: bool = False):
        self.number, self.has_parent = 0, has_parent
        self._previous = {}

    def __enter__(self) -> "Interrupt":
        self._previous = handle(self._handle)
        return self

    def __exit__(self, _kind, error: BaseException | None, _traceback) -> None:
        is_leaving = self.has_parent and isinstance(error, Interrupted)
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if is_leaving else handler)

    def _handle(self, number: int, _frame) -> None:
        if number in INSISTING and self.number in INSISTING and not self.has_parent:
            os._exit(128 + number)
        if number in INSISTING or not self.number:
            self.number = number

    def poll(self) -> None:
        if self.number:
            raise Interrupted(self.number)
