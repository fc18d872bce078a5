"""The two ways in which a command ends early, and how each is told to a person."""

import errno


class UserError(Exception):
    """A mistake in what the user gave: one line that names the place and the cure; exit code 2."""

    exit_code = 2


class RunError(Exception):
    """Something went wrong while running (a full disk, a NaN): one line; exit code 1."""

    exit_code = 1


def printable(text: object) -> str:
    """text on one line, with control characters escaped so that no file can drive the terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in str(text)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether error says that memory could not be had. torch says so with a RuntimeError."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("alloc" in text or "out of memory" in text)
    )


def cannot_open(path: object, error: OSError, cure: str = "") -> UserError:
    """The UserError for a file that the user named and that cannot be opened."""
    reasons = {
        errno.ENOENT: "no such file",
        errno.EACCES: "permission denied",
        errno.EISDIR: "this is a folder, expected a file",
    }
    reason = reasons.get(error.errno, error.strerror or str(error))
    return UserError(f"{printable(path)}: {reason}" + (f"; {cure}" if cure else ""))
