"""docs/tour.ipynb, ten lines of Python, and a new user's way to a better network."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from processes import CONFIG, ROOT, call, make_run, only_results_dir, train

NOTEBOOK = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
GENERATING = (ROOT / "docs" / "generating.md").read_text(encoding="utf-8")
GALLERY = sorted((ROOT / "docs" / "reverse_models").glob("*.py"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with docs/ and a trained runs/tiny, as in a checkout."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "docs").mkdir()
    train(make_run(root / "runs" / "tiny"))
    return root


def test_the_notebook_runs(trained, monkeypatch, capsys):
    """All cells, in their order and one namespace, as Jupyter would run them."""
    monkeypatch.chdir(trained / "docs")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    names: dict = {}
    for number, code in enumerate(CODE, start=1):
        exec(compile(code, f"cell {number}", "exec"), names)
    assert names["path"].parts[1:3] == ("runs", "tiny")
    assert names["x_0"].shape == (36, 8)
    assert names["answer"].samples[:, :3].tolist() == [[1, 0, 1]] * 4
    assert 0 < names["bound"].bits < 16
    assert names["frames"].ndim == 3
    printed = capsys.readouterr().out
    assert "bits a string; uniform 8" in printed
    assert "effective sample size" in printed


def test_the_notebook_is_short_and_has_what_it_printed():
    assert NOTEBOOK["nbformat"] == 4
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            assert sum(bool(line.strip()) for line in cell["source"]) <= 14
            assert cell["execution_count"] is not None
            assert not [o for o in cell["outputs"] if o["output_type"] == "error"]
    assert len(json.dumps(NOTEBOOK)) < 100_000
    assert str(Path.home()) not in json.dumps(NOTEBOOK)


def test_ten_lines_of_python(trained, monkeypatch):
    code = re.search(r"## From Python\n.*?```python\n(.*?)```", GENERATING, re.DOTALL)[1]
    lines = [line for line in code.splitlines() if line.strip() and "import" not in line]
    assert len(lines) <= 10
    best = only_results_dir(trained / "runs" / "tiny") / "checkpoints" / "model_best.pt"
    code = re.sub(r'"[^"]*/model_best.pt"', repr(str(best)), code)
    code = re.sub(r'"runs/\w+/val.txt"', repr(str(trained / "runs" / "tiny" / "val.txt")), code)
    monkeypatch.chdir(trained)
    names: dict = {}
    exec(compile(code, "generating.md", "exec"), names)
    assert names["x_0"].shape == (36, 8)
    assert names["answer"].samples.shape == (8, 8)
    assert names["bound"].standard_error > 0
    assert (trained / "samples.gif").read_bytes().startswith(b"GIF89a")


@pytest.mark.skipif(not GALLERY, reason="no gallery of reverse models here")
def test_a_new_users_way(tmp_path):
    """Train, take another network, train again, generate, compare, look at the page."""
    run_dir, network = make_run(tmp_path / "mine", val=["00000001", "11111110"]), GALLERY[0]
    options = "model: {T: 20, reverse_model: {width: 8, num_blocks: 1, dropout: 0.1}}"
    assert options in CONFIG  # those of the default network: a new one has its own
    (run_dir / "config.yaml").write_text(CONFIG.replace(options, "model: {T: 20}"))
    first = train("mine", "--quiet", cwd=tmp_path)
    shutil.copy(network, run_dir / "reverse_model.py")
    second = train("mine", "--quiet", cwd=tmp_path)
    assert (tmp_path / second / "reverse_model.py").read_text() == network.read_text()
    strings = call("generate.py", second, 5, cwd=tmp_path).stdout.split()
    assert [len(s) for s in strings] == [8] * 5
    table = call("compare", "mine", "--html", "mine/compare.html", cwd=tmp_path).stdout
    page = (run_dir / "compare.html").read_text()
    for results in (first, second):
        assert f"{results} (finished)" in table
        assert f'href="./{results.relative_to("mine")}/report.html"' in page
        assert (tmp_path / results / "report.html").is_file()
    assert "weighted pairs of bits" in " ".join(table.split())
    assert len(re.findall(r"^ *[*=]?\d  ", table, re.MULTILINE)) >= 2
