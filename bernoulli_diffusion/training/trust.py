"""Which networks run without a question: the package's, and those trained with on this machine.

A network is a program, and a folder that comes by mail may hold any. So a checkpoint's network runs only
if its text ships with the package, if this user has trained with the same text here, or if the user
says --trust-code. What was trained with is noted by its hash in the user's state folder.
"""

import contextlib
import os
from pathlib import Path

from .network import Source

FILE = Path("bernoulli-diffusion", "networks_trained_with")


def _file() -> Path | None:
    """Where the hashes are, by the XDG Base Directory Specification; None if there is no home."""
    with contextlib.suppress(RuntimeError):  # no home
        home = os.environ.get("XDG_STATE_HOME", "")
        return (Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state") / FILE
    return None


def remember(source: Source) -> None:
    """Note that the user trains with this network. Where nothing can be noted, --trust-code remains."""
    file = _file()
    if file is None or is_known(source):
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(file, "a") as stream:  # a short line goes whole: several runs may begin at once
            stream.write(f"{source.sha256}\n")


def is_known(source: Source) -> bool:
    """Whether the user has trained with a network of the same text on this machine."""
    file = _file()
    with contextlib.suppress(OSError, ValueError):
        return file is not None and source.sha256 in file.read_text().split()
    return False
