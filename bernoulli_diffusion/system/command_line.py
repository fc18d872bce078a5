"""What every command does alike: one-line errors, exit codes, quiet ends."""

import argparse
import contextlib
import ctypes
import math
import os
import signal
import sys
import time
from pathlib import Path

from .errors import RunError, UserError, is_out_of_memory, printable

OUT_OF_MEMORY = (
    "out of memory; lower data.batch_size, model.num_sample_steps, training.val_batch_size or the"
    " network's options under model.reverse_model (generate.py: --batch-size)"
)

SECONDS_TO_SPEAK = 3


class ArgumentParser(argparse.ArgumentParser):
    """argparse, with wrong usage told in one line like every other mistake."""

    def error(self, message: str):
        raise UserError(f"{printable(message)}; see {self.prog} --help")


def count(text: str, least: int = 0) -> int:
    """A whole number >= least."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or number >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, found {text!r}")
    return number


def output_file(text: str) -> Path:
    """A path at which a file can be made or replaced; told before the work and not after it."""
    path = Path(text)
    if path.is_dir():
        problem = "this is a folder, expected a file"
    elif not path.parent.is_dir():
        problem = f"there is no folder {path.parent}"
    elif path.exists() and not path.is_file():  # /dev/null must not be replaced
        problem = "not a regular file; redirect standard output instead"
    elif not os.access(path.parent, os.W_OK):
        problem = f"the folder {path.parent} may not be written to"
    else:
        return path
    raise argparse.ArgumentTypeError(f"{text}: {problem}")


def positive(text: str) -> int:
    return count(text, least=1)


def positive_number(text: str) -> float:
    """A number > 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return number


def tune_process() -> None:
    """Settings of this process that make training faster; before torch is imported.

    Commands make them, imports do not: a library leaves its host's memory and threads alone.
    """
    # How long GNU OpenMP's threads wait for each other awake. Always asleep (PASSIVE) doubles the time
    # of a training step; as long as is the default, they take the core from whoever else needs it,
    # and all get slower still.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # A training step's memory serves the next one. By default the GNU C library gives it back to the
    # system after each step, which hands it out again zeroed, page by page: at L = 784 two thousand
    # pages, 6% of the time.
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        with contextlib.suppress(AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
            mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most there may be
            mallopt(M_TRIM_THRESHOLD, 256 << 20)


def run(main) -> int:
    """Run main() and return the exit code: 0 done, 1 failed, 2 the user's mistake, 130/143 signals.

    A mistake or a fault of the world is told in one line on standard error, without a traceback.
    """
    tune_process()
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGTERM, _terminate)
    try:
        with contextlib.suppress(AttributeError):  # stdout may be anything while testing
            sys.stdout.reconfigure(errors="surrogateescape")  # a path as the system gave it
        main()
        sys.stdout.flush()
        return 0
    except UserError as error:
        return _tell(error, 2)
    except RunError as error:
        return _tell(error, 1)
    except KeyboardInterrupt as stop:
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would flush stdout once more at exit.
        _discard(sys.stdout)
        return 0
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _tell(OUT_OF_MEMORY, 1, is_of_one=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _tell(f"{where}{error.strerror or error}", 1, is_of_one=True)


def _terminate(number: int, _frame) -> None:
    """SIGTERM ends a command as Ctrl-C does, so that temporary files go."""
    raise KeyboardInterrupt(number)


def tell(text: str) -> None:
    """Print on standard error. That nobody reads it any more (2>&1 | head) is no reason to stop."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _discard(sys.stderr)


def _discard(stream) -> None:
    """Let what is still to be written to the stream vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(error: object, code: int, is_of_one: bool = False) -> int:
    """Tell what is wrong. is_of_one: of torchrun's processes this one alone may know of it."""
    rank = os.environ.get("LOCAL_RANK", "0")
    who = "" if rank == "0" else f"process {rank}: "
    if is_of_one or rank == "0":
        for line in str(error).split("\n"):
            tell(f"error: {who}{printable(line)}")
    if rank != "0":
        # Of torchrun's processes on a machine the first speaks for all, and they end together: let
        # it speak first.
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(SECONDS_TO_SPEAK)
    return code
