"""What every command does alike: one-line errors, exit codes, quiet ends."""

import argparse
import contextlib
import ctypes
import difflib
import errno
import math
import os
import shlex
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from .. import __version__
from .errors import RunError, UserError, is_out_of_memory, printable
from .interrupt import handle

OUT_OF_MEMORY = (
    "out of memory; lower data.batch_size, model.num_sample_steps, training.val_batch_size or the"
    " network's options under model.reverse_model (generate.py: --batch-size)"
)

HELP_WIDTH = 78
SECONDS_TO_SPEAK = 3
SECONDS_OF_ONE_STOP = 1.0  # two signals within them are one request to stop
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk, or one's share of it
PACKAGE = __name__.partition(".")[0]


class ArgumentParser(argparse.ArgumentParser):
    """argparse, with wrong usage told in one line like every other mistake, and --version.

    meant: says what to type instead of an option that this command does not have, given its name without
    dashes, as other tools of the field have it; None if it does not know.
    """

    def __init__(
        self, prog: str | None = None, meant: Callable[[str], str | None] | None = None, **options
    ):
        if prog is None:
            words = called_as()
            prog = " ".join(words) if "-m" in words else Path(words[-1]).name
        if "\n" not in (description := options.get("description") or ""):
            options["description"] = textwrap.fill(
                description, HELP_WIDTH
            )  # beside lines as they are
        super().__init__(prog, **options)
        self.meant = meant or (lambda _: None)
        self.register("type", Path, path_of)  # of every argument with type=Path
        self.add_argument(
            "--version", action="version", version=f"bernoulli-diffusion {__version__}"
        )

    def add_shared(self, *names: str) -> None:
        """Declare arguments that several commands have alike, by their names in SHARED."""
        for name in names:
            self.add_argument(name, **SHARED[name])

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown[0])}")
        return arguments

    def _hint(self, option: str) -> str:
        """What may be meant by an option that does not exist, as the end of an error."""
        name = option.partition("=")[0]
        meant = self.meant(name.lstrip("-").replace("_", "-"))
        if name.startswith("-") and not meant:
            known = [word for word in self._option_string_actions if word.startswith("--")]
            meant = next(iter(difflib.get_close_matches(name.replace("_", "-"), known, n=1)), None)
        return f"; did you mean {meant}?" if meant else ""

    def error(self, message: str):
        raise UserError(f"{printable(message)}; see {self.prog} --help")


def called_as() -> list[str]:
    """How this program was called, without its arguments: the words that call it again.

    python train.py, bernoulli-train or python -m bernoulli_diffusion.train.
    """
    script = Path(sys.argv[0])
    module = script.parent if script.stem == "__main__" else script
    if module.parent.name == PACKAGE:
        return ["python", "-m", f"{PACKAGE}.{module.stem}"]
    return ["python", sys.argv[0]] if script.suffix == ".py" else [script.stem]


def this_call(*more: str) -> str:
    """This very call, with more words: what to type, for a shell."""
    return shlex.join([*called_as(), *sys.argv[1:], *more])


def trusting(arguments: argparse.Namespace) -> dict:
    """Whether --trust-code was given, and what to type for it: as checkpoint.restore asks."""
    return {"trust_code": bool(arguments.trust_code), "command": this_call("--trust-code")}


def count(text: str, least: int = 0) -> int:
    """A whole number >= least."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or number >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, found {text!r}")
    return number


def path_of(text: str) -> Path:
    """Path(text), but for '', which is a shell's variable that is not set and to Path this folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found ''")
    return Path(text)


def output_file(text: str, *endings: str) -> Path:
    """A path at which a file can be made or replaced; told before the work and not after it.

    endings: those that fit what will be written, such as .png; the path may also have none.
    """
    path = path_of(text)
    if path.is_dir():
        problem = "this is a folder, expected a file"
    elif endings and path.suffix and path.suffix.lower() not in endings:
        problem = f"what is written is {endings[0]}; call it {path.with_suffix(endings[0]).name}"
    elif not path.parent.is_dir():
        problem = f"there is no folder {path.parent}"
    elif path.exists() and not path.is_file():  # /dev/null must not be replaced
        problem = "not a regular file; redirect standard output instead"
    elif not os.access(path.parent, os.W_OK):
        problem = f"the folder {path.parent} may not be written to"
    else:
        return path
    raise argparse.ArgumentTypeError(f"{text}: {problem}")


def ending(*endings: str) -> Callable[[str], Path]:
    """output_file for arguments that end so."""
    return lambda text: output_file(text, *endings)


gif_file, png_file = ending(".gif"), ending(".png")
html_file, tsv_file = ending(".html", ".htm"), ending(".tsv", ".tab", ".txt")
checkpoint_file = ending(".pt", ".pth", ".ckpt")


def positive(text: str) -> int:
    return count(text, least=1)


def number(text: str, is_right: Callable[[float], bool], expected: str) -> float:
    """A number that is right. expected: what such ones are called."""
    with contextlib.suppress(ValueError):
        if is_right(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"expected a number {expected}, found {text!r}")


def positive_number(text: str) -> float:
    return number(text, lambda x: 0 < x < math.inf, "above 0")


SHARED = {  # what several commands have alike, as add_argument takes it
    "checkpoint": {
        "metavar": "CHECKPOINT",
        "type": Path,
        "help": "results/.../checkpoints/model_best.pt, or the folder of a run",
    },
    "--seed": {"type": count, "default": 0, "metavar": "S", "help": "default: 0"},
    "--device": {
        "choices": ("auto", "cpu", "cuda", "mps"),
        "default": "auto",
        "help": "default: auto",
    },
    "--weights": {
        "choices": ("averaged", "raw"),
        "default": "averaged",
        "help": "the averaged weights (default, those that were validated) or the last step's",
    },
    "--trust-code": {
        "action": "store_true",
        "help": "run the network kept inside a checkpoint, though it is none of this program's and"
        " nothing was trained with it on this machine",
    },
}


def given_options(arguments: argparse.Namespace) -> set[str]:
    """The names of the options that were given, as they are typed: {"noise-std", "steps"}."""
    return {
        name.replace("_", "-")
        for name, value in vars(arguments).items()
        if value is not None and value is not False
    }


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
    """Run main() and return the exit code: 0 done, 1 failed, 2 the user's mistake, 128 + n signal n.

    A mistake or a fault of the world is told in one line on standard error, without a traceback.
    """
    tune_process()
    _open_closed_streams()
    handle(_ending())
    try:
        with contextlib.suppress(AttributeError):  # stdout may be anything while testing
            sys.stdout.reconfigure(errors="surrogateescape")  # a path as the system gave it
        main()
        sys.stdout.flush()
        return 0
    except (UserError, RunError) as error:
        return _tell(error, error.exit_code)
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
    finally:
        _flush(sys.stdout)
        _flush(sys.stderr)


def _flush(stream) -> None:
    """Write what is left; what cannot be written vanishes, or it would change the exit code."""
    try:
        stream.flush()
    except (OSError, ValueError):
        _discard(stream)


def _ending() -> Callable:
    """A handler by which a signal ends a command as Ctrl-C does, so that temporary files go.

    Not a second one at nearly the same time: timeout and some shells tell a command and then its group.
    """
    stopped_at = -math.inf

    def end(number: int, _frame) -> None:
        nonlocal stopped_at
        if time.monotonic() - stopped_at > SECONDS_OF_ONE_STOP:
            stopped_at = time.monotonic()
            raise KeyboardInterrupt(number)

    return end


def _open_closed_streams() -> None:
    """Give a standard stream that was closed (>&-, some daemons) a place where all vanishes.

    Otherwise the next file that is opened takes its number, and what is meant for the stream goes
    into the file; and Python has None in its place.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        mode = "w" if number else "r"
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            _closed.add(name)
        setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


_closed: set[str] = set()  # names of the standard streams that nobody has


def require_standard_output(cure: str) -> None:
    """Raises UserError if standard output was closed when the program started."""
    if "stdout" in _closed:
        raise UserError(f"standard output is closed; {cure}")


def tell(text: str) -> None:
    """Print on standard error. That it cannot be read or written there is no reason to stop."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno not in FULL:  # later there may be room again
            _discard(sys.stderr)
    except ValueError:  # closed since
        pass


def put_out(text: object) -> None:
    """Print a result on standard output or, where nobody can read it there, on standard error."""
    if "stdout" in _closed:
        tell(str(text))
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _discard(sys.stdout)
        tell(str(text))
    except OSError:
        _discard(sys.stdout)
        tell(str(text))
        raise


def _discard(stream) -> None:
    """Let what is still to be written to the stream vanish."""
    with (
        contextlib.suppress(OSError, ValueError, AttributeError),
        open(os.devnull, "wb") as nowhere,
    ):
        os.dup2(nowhere.fileno(), stream.fileno())


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
