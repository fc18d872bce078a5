"""What every command does alike: one-line errors, exit codes, quiet ends."""

import argparse
import os
import sys

from .errors import RunError, UserError, printable


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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _tell("out of memory; lower data.batch_size or the size of the network", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _tell(f"{where}{error.strerror or error}", 1)


def _tell(error: object, code: int) -> int:
    for line in str(error).split("\n"):
        print(f"error: {printable(line)}", file=sys.stderr)
    return code
