"""What every command does alike: one-line errors, exit codes, quiet ends."""

import argparse
import os
import sys

from .errors import RunError, UserError, printable

OUT_OF_MEMORY = (
    "out of memory; lower data.batch_size, model.num_sample_steps, training.val_batch_size or the"
    " network's options under model.reverse_model (generate.py: --batch-size)"
)


class ArgumentParser(argparse.ArgumentParser):
    """argparse, with wrong usage told in one line like every other mistake."""

    def error(self, message: str):
        raise UserError(f"{message}; see {self.prog} --help")


def run(main) -> int:
    """Run main() and return the exit code: 0 done, 1 failed, 2 the user's mistake, 130/143 signals.

    A mistake or a fault of the world is told in one line on standard error, without a traceback.
    """
    try:
        main()
        sys.stdout.flush()
        return 0
    except UserError as error:
        return _tell(error, 2)
    except RunError as error:
        return _tell(error, 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would flush stdout once more at exit.
        _discard(sys.stdout)
        return 0
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if isinstance(error, RuntimeError) and "alloc" not in text and "out of memory" not in text:
            raise
        return _tell(OUT_OF_MEMORY, 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _tell(f"{where}{error.strerror or error}", 1)


def tell(text: str) -> None:
    """Print on standard error. That nobody reads it any more (2>&1 | head) is no reason to stop."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _discard(sys.stderr)


def _discard(stream) -> None:
    """Let what is still to be written to the stream vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(error: object, code: int) -> int:
    for line in str(error).split("\n"):
        tell(f"error: {printable(line)}")
    return code
