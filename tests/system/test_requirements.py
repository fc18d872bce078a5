"""What is not installed is said in one line, by every command, before anything is created."""

import importlib
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from bernoulli_diffusion.system import requirements

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(
    path.parent.name if path.name == "__main__.py" else path.stem
    for path in (ROOT / "bernoulli_diffusion").rglob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """A Python without any packages."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def ask(python: Path, *command: str, folder: Path, **environment: str) -> str:
    """What a command says on standard error; it must fail by exit code 2, and create nothing."""
    done = subprocess.run(
        [python, *command],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert not list(folder.iterdir())
    return done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_is_missing(bare_python, tmp_path, name):
    told = ask(bare_python, "-m", f"bernoulli_diffusion.{name}", folder=tmp_path)
    assert told.startswith("error: needed: torch>=2.10,<2.14 (here: none), numpy>=")
    assert told.count("\n") == 1
    assert f"{bare_python} -m pip install 'torch>=2.10,<2.14' 'numpy>=" in told


@pytest.mark.parametrize("script", ["train.py", "generate.py"])
def test_the_files_at_the_top_say_so_too(bare_python, tmp_path, script):
    told = ask(bare_python, str(ROOT / script), folder=tmp_path)
    assert told.startswith("error: needed: torch")
    assert told.count("\n") == 1


def test_an_old_torch(tmp_path):
    """As clusters have it."""
    old, empty = tmp_path / "old", tmp_path / "empty"
    empty.mkdir()
    (old / "torch-2.2.2+cpu.dist-info").mkdir(parents=True)
    path = f"{old}:{ROOT}"
    told = ask(sys.executable, str(ROOT / "train.py"), "run", folder=empty, PYTHONPATH=path)
    assert told.startswith("error: needed: torch>=2.10,<2.14 (here: 2.2.2+cpu); install with:")
    assert told.count("\n") == 1


def test_versions_are_compared_by_their_numbers(monkeypatch):
    here = dict.fromkeys(requirements.PACKAGES, "999") | {"torch": "2.10.0rc1+cpu", "numpy": "1.9"}
    monkeypatch.setattr(requirements, "installed", lambda: here)
    assert requirements.missing() == ["numpy>=1.26 (here: 1.9)"]


def test_an_old_python():
    text = (ROOT / "bernoulli_diffusion" / "__init__.py").read_text()
    code = "import sys; sys.version_info = (3, 9); sys.version = '3.9.1 (main)'\n" + text
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    expected = f"error: Python 3.10 or newer is needed; this is 3.9.1 ({sys.executable})\n"
    assert done.stderr == expected


def test_all_files_name_the_same_versions():
    wanted = {f"{name}{versions}" for name, (_, versions) in requirements.PACKAGES.items()}
    project = (ROOT / "pyproject.toml").read_text()
    assert set(re.findall(r'"([^"]+)"', re.search(r"\ndependencies = (.*)", project)[1])) == wanted
    assert set((ROOT / "requirements.txt").read_text().split()) == wanted
    assert 'requires-python = ">=3.10"' in project
    assert "Python 3.10 or newer" in (ROOT / "README.md").read_text()


def test_the_commands_that_pip_installs():
    project = (ROOT / "pyproject.toml").read_text()
    section = project.split("[project.scripts]")[1].split("\n\n")[0]
    scripts = dict(re.findall(r'bernoulli-(\w+) = "bernoulli_diffusion\.(\w+):command"', section))
    assert scripts == {name: name for name in scripts}
    assert set(COMMANDS) - set(scripts) == {"benchmark", "report_page"}  # python -m does
    for name in scripts:
        assert callable(importlib.import_module(f"bernoulli_diffusion.{name}").command)
