"""What README.md says is so."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from bernoulli_diffusion.config import Config, parse_config
from bernoulli_diffusion.training.network import Source, build, try_out

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
KEYS = [
    (section.name, key)
    for section in dataclasses.fields(Config)
    for key in dataclasses.fields(section.default_factory)
]


@pytest.mark.parametrize(("section", "key"), KEYS, ids=lambda k: getattr(k, "name", k))
def test_settings_table_has_every_key_with_its_default_and_meaning(section, key):
    row = re.search(rf"^\| `{section}\.{key.name}` \| (.*?) \| (.*) \|$", README, re.MULTILINE)
    assert row, "the key is not in README.md's table"
    shown, meaning = row.groups()
    if shown == "—":
        default = None
    else:
        text = f"{section}: {{{key.name}: {shown}}}"
        default = getattr(getattr(parse_config(text, "README.md"), section), key.name)
    expected = getattr(getattr(Config(), section), key.name)
    assert default == expected
    assert meaning == key.metadata["help"]


def test_settings_table_has_no_other_keys():
    table = README[README.index("## Settings") :]
    listed = re.findall(r"^\| `(\w+)\.(\w+)` \|", table, re.MULTILINE)
    assert listed == [(section, key.name) for section, key in KEYS]


def test_example_network_works():
    code = re.search(r"```python\n(class ReverseModel.*?)```", README, re.DOTALL)[1]
    source = Source("README.md", "import torch\nfrom torch import nn\n\n\n" + code)
    torch.manual_seed(0)
    model = build(source, 12, 50, {"hidden": 16})
    try_out(source, model, 12, 50)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http|#)([^)]+)\)", README))
def test_links_lead_to_files(target):
    file, _, heading = target.partition("#")
    assert (ROOT / file).is_file()
    if heading:
        titles = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(), re.MULTILINE)
        assert heading in [re.sub(r"[^\w-]", "", t.lower().replace(" ", "-")) for t in titles]


@pytest.mark.parametrize("run_dir", re.findall(r"^\| `(runs/\w+)` \|", README, re.MULTILINE))
def test_run_folders_are_there(run_dir):
    assert (ROOT / run_dir / "config.yaml").is_file()
