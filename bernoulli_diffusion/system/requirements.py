"""What must be installed. Commands import this first: it ends them in one line if something is missing.

So nothing has been created by then, and no traceback comes out of the middle of a step. It knows no
other module, and __init__.py has found out whether this Python is new enough.
"""

import contextlib
import os
import re
import sys

# The same as in pyproject.toml and requirements.txt. Only what is too old is refused: whether a torch
# that is newer than tried works is for its user to see.
PACKAGES = {  # name for pip: (name for import, versions)
    "torch": ("torch", ">=2.10,<2.14"),
    "numpy": ("numpy", ">=1.26"),
    "pyyaml": ("yaml", ">=6.0.1"),
    "matplotlib": ("matplotlib", ">=3.8"),
    "imageio": ("imageio", ">=2.34"),
    "tqdm": ("tqdm", ">=4.66"),
}


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3]]


def installed() -> dict[str, str]:
    """The version of each installed package, by the folders NAME-VERSION.dist-info on sys.path.

    What importlib.metadata would say, without the tenth of a second that it takes to import.
    """
    versions = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if found := re.fullmatch(r"([\w.]+)-([^-]+)(-.*)?\.(dist|egg)-info", name):
                    versions.setdefault(found[1].lower(), found[2])
    return versions


def missing() -> list[str]:
    """What is not there or too old, each with what was found: "torch>=2.10,<2.14 (here: 2.2.2)"."""
    found, versions = [], installed()
    for name, (module, wanted) in PACKAGES.items():
        version = versions.get(name)
        if version is None:
            from importlib.util import find_spec

            if find_spec(module) is None:  # it may be installed in an unusual way
                found.append(f"{name}{wanted} (here: none)")
        elif _numbers(version) < _numbers(re.search(r">=([0-9.]+)", wanted)[1]):
            found.append(f"{name}{wanted} (here: {version})")
    return found


def check() -> None:
    """Ends the program with one line and exit code 2 if a package is missing or too old."""
    if wanted := missing():
        names = " ".join(f"'{text.split(' ')[0]}'" for text in wanted)
        print(
            f"error: needed: {', '.join(wanted)}; install with: {sys.executable} -m pip install {names}",
            file=sys.stderr,
        )
        sys.exit(2)


check()
