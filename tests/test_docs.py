"""What README.md and the pages in docs/ say is so."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from bernoulli_diffusion.config import Config, parse_config
from bernoulli_diffusion.training.network import Source, build, try_out

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
KEYS = [
    (section.name, key)
    for section in dataclasses.fields(Config)
    for key in dataclasses.fields(section.default_factory)
]


@pytest.mark.parametrize(("section", "key"), KEYS, ids=lambda k: getattr(k, "name", k))
def test_settings_table_has_every_key_with_its_default_and_meaning(section, key):
    row = re.search(rf"^\| `{section}\.{key.name}` \| (.*?) \| (.*) \|$", SETTINGS, re.MULTILINE)
    assert row, "the key is not in the table of docs/settings.md"
    shown, meaning = row.groups()
    if shown == "—":
        default = None
    else:
        text = f"{section}: {{{key.name}: {shown}}}"
        default = getattr(getattr(parse_config(text, "settings.md"), section), key.name)
    expected = getattr(getattr(Config(), section), key.name)
    assert default == expected
    assert meaning == key.metadata["help"]


def test_settings_table_has_no_other_keys():
    listed = re.findall(r"^\| `(\w+)\.(\w+)` \|", SETTINGS, re.MULTILINE)
    assert listed == [(section, key.name) for section, key in KEYS]


def test_example_network_works():
    code = re.search(r"```python\n(class ReverseModel.*?)```", README, re.DOTALL)[1]
    source = Source("README.md", "import torch\nfrom torch import nn\n\n\n" + code)
    torch.manual_seed(0)
    model = build(source, 12, 50, {"hidden": 16})
    try_out(source, model, 12, 50)


def test_lines_of_python_work():
    code = re.search(r"## From Python\n.*?```python\n(.*?)```", README, re.DOTALL)[1]
    code = code.replace("max_minutes=5", "epochs=2, T=20").replace("1000", "7")
    X = np.random.default_rng(0).integers(0, 2, (60, 6)).astype(np.uint8)
    gaps = np.where(np.arange(6) < 3, X[:4].astype(float), np.nan)
    names = {"X": X, "X_val": X[:10], "X_test": X[:9], "X_with_gaps": gaps}
    code = code.replace('model.save("model.pt")', "")
    exec(compile(code, "README.md", "exec"), names)
    assert names["synthetic"].shape == (7, 6)
    assert names["log_density"].shape == (9,)
    assert names["filled"].shape == (20, 6)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.is_file(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            names = [re.sub(r"[^\w-]", "", t.lower().replace(" ", "-")) for t in titles]
            assert heading in names, target


@pytest.mark.parametrize("run_dir", re.findall(r"^\| `(runs/\w+)` \|", README, re.MULTILINE))
def test_run_folders_are_there(run_dir):
    assert (ROOT / run_dir / "config.yaml").is_file()


# ----------------------------------------------------------------------------- mathematics.md

MATHEMATICS = (ROOT / "docs" / "mathematics.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \d+ \| .+ \| (`[^|]+`.*) \| (`test_[^|]+`) \|$", MATHEMATICS, re.MULTILINE)
SHORT = dict(re.findall(r"`(\w+)` stands? for `([\w.]+)`", MATHEMATICS))


def test_the_table_of_formulas_is_there():
    assert len(ROWS) > 30


@pytest.mark.parametrize(
    "name", sorted({name for functions, _ in ROWS for name in re.findall(r"`([\w.]+)`", functions)})
)
def test_functions_in_the_table_of_formulas_exist(name):
    first, _, rest = name.partition(".")
    parts = [*SHORT.get(first, first).split("."), *filter(None, rest.split("."))]
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        for path in (f"bernoulli_diffusion.{module}", module):  # of the package, or of the tests
            try:
                found = importlib.import_module(path)
            except ModuleNotFoundError:
                continue
            for part in parts[count:]:
                if not hasattr(found, part):  # set in __init__
                    source = inspect.getsource(found)
                    assert re.search(rf"self\.{part}\b", source), f"{path} has no {part}"
                    return
                found = getattr(found, part)
            return
    raise AssertionError(f"no module for {name}")


def test_tests_in_the_table_of_formulas_exist():
    defined = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(
            re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        )
    named = {name for _, tests in ROWS for name in re.findall(r"`(test_\w+)`", tests)}
    assert not named - defined
