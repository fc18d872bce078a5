"""Files that are complete or not there: nobody who reads a results folder sees half a file."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from .errors import RunError, UserError, cannot_open, printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PREFIX = ".tmp-"


@contextlib.contextmanager
def open_atomically(path: str | os.PathLike):
    """A binary file to write, which becomes path when the block ends well, even after a power cut.

    The data goes to a temporary file in the same folder (a rename is atomic only within one file
    system), reaches the disk, and then takes the name. On any exception the temporary file is
    removed, the old file stays as it was, and the exception (OSError for a full disk) goes on.
    """
    path = Path(path)
    temporary = path.with_name(f"{PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # a failing write does not say to which file
        raise
    # The new name is in the folder's own data. Windows cannot open a folder; nothing is lost there.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write data to path such that path is the old file or the new one; see open_atomically."""
    with open_atomically(path) as file:
        file.write(data)


def read_text(path: str | os.PathLike, what: str = "text file", most: int = 1 << 26) -> str:
    """What a person wrote into a file. Raises UserError if it is no UTF-8, or has more bytes."""
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise UserError(f"{printable(path)}: larger than {most:,} bytes; is this a {what}?")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise cannot_open(path, error) from None
    except UnicodeDecodeError as error:
        place = f"{printable(path)}:{data.count(10, 0, error.start) + 1}"
        raise UserError(f"{place}: not UTF-8 text; save the file as UTF-8") from None


def require_writable(folder: Path, cure: str) -> None:
    """Raises RunError unless files can be made in folder or, if it is not there, where it would be."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        tempfile.TemporaryDirectory(prefix=PREFIX, dir=there).cleanup()
    except OSError as error:
        raise RunError(
            f"{folder}: nothing can be written there: {error.strerror}; {cure}"
        ) from None


@contextlib.contextmanager
def lock(folder: str | os.PathLike):
    """Keeps other processes from writing into folder; ends with the process, however that ends.

    Raises RunError if another one has it. Does nothing where the system has no such locks.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have none
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{folder}: another process is training there") from None
        yield
    finally:
        os.close(descriptor)


def remove_stray_temporaries(folder: str | os.PathLike) -> None:
    """Remove the temporary files that a killed process left in folder (not in its subfolders)."""
    for temporary in Path(folder).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # untidy, but no reason to stop
            temporary.unlink()
