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
SHIPPED_BEFORE = (  # sha256 of networks that earlier versions of the package had
    "caf61aa4a0aa7a41454b64e20b314b5eaeaf59f5d68dcfaeecfb9ff08d36b4f5",  # 1.0, bits
    "c89babeda0ff1aea41320b6e7e9020fbe430db6ec46d1b07e40c8d35c527f09d",  # 1.0, numbers
)


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
        with open(file, "a") as stream:
            stream.write(
                f"{source.sha256}\n"
            )  # whole, as it is short: several runs may begin at once


def is_known(source: Source) -> bool:
    """Whether the text is an earlier version's, or the user has trained with it on this machine."""
    if source.sha256 in SHIPPED_BEFORE:
        return True
    file = _file()
    with contextlib.suppress(OSError, ValueError):
        return file is not None and source.sha256 in file.read_text().split()
    return False
