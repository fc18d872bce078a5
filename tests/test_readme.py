"""What README.md and the pages in docs/ say is so."""

import dataclasses
import re
from pathlib import Path

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
