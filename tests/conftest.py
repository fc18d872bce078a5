"""One thread a process: the tests run side by side, and so small are their networks that threads
would only wait for each other. Set before torch is imported; commands started by tests inherit it.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
# What was trained with is noted here, not in the home of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

# A suite started by nohup ignores SIGHUP, and so would every command that it starts.
for _number in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(_number, signal.SIG_DFL)


@pytest.fixture
def call_here(monkeypatch, capsys):
    """Call a command, a module of the package, in this process; script: by what name."""
    from processes import Outcome  # imports torch

    def call(module, *arguments: object, script=None) -> Outcome:
        monkeypatch.setattr(sys, "argv", [str(script or module.__file__), *map(str, arguments)])
        capsys.readouterr()
        try:
            code = module.command()
        except SystemExit as end:
            code = end.code
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Pictures take longer than these trainings."""
    from processes import without_pictures  # imports torch

    without_pictures(monkeypatch.setattr)
