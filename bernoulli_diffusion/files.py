"""Files that are complete or not there: nobody who reads a results folder sees half a file."""

import contextlib
import os
import secrets
from pathlib import Path

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


def remove_stray_temporaries(folder: str | os.PathLike) -> None:
    """Remove the temporary files that a killed process left in folder (not in its subfolders)."""
    for temporary in Path(folder).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # untidy, but no reason to stop
            temporary.unlink()
