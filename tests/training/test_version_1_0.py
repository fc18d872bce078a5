"""Runs of version 1.0, finished and stopped, serve every later version: tests/version_1_0."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bernoulli_diffusion import compare, evaluate, generate, report_page, train

RUNS = Path(__file__).parents[1] / "version_1_0"
EPOCHS = 40  # of the finished runs
BOUNDS = {"bits": "2.79 ± 0.18", "numbers": "5.30 ± 0.35"}  # as version 1.0 compared them


@pytest.fixture(params=["bits", "numbers"])
def run_dir(request, tmp_path, monkeypatch) -> Path:
    """A copy of the run folder, with its results in results/finished and results/stopped."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


@pytest.fixture
def call(call_here):
    def call(command, *arguments: object) -> str:
        """Standard output of a command that succeeds."""
        done = call_here(command, *arguments)
        assert done.code == 0, done.stderr
        return done.stdout

    return call


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_generate(run_dir, call):
    best = run_dir / "results" / "finished" / "checkpoints" / "model_best.pt"
    lines = call(generate, best, 100).splitlines()
    known = (run_dir / "train.txt").read_text().splitlines()
    assert len(lines) == 100
    if run_dir.name == "bits":
        assert sum(line in known for line in lines) > 60  # 84% of the last validation's 50
        given = "1" + "?" * (len(known[0]) - 1)
        assert all(line[0] == "1" for line in call(generate, best, 3, "--given", given).split())
        noise = "--flip-probability"
    else:
        data, drawn = (np.array([line.split() for line in x], float) for x in (known, lines))
        assert (abs(drawn - data.mean(0)) < 6 * data.std(0)).all()
        noise = "--noise-std"
    noisy = run_dir / "val.txt"
    count = len(noisy.read_text().splitlines())
    assert call(generate, best, 2, "--denoise", noisy, noise, 0.1).count("\n") == 2 * count


def test_evaluate(run_dir, call):
    finished = run_dir / "results" / "finished"
    best = finished / "checkpoints" / "model_best.pt"
    told = json.loads(call(evaluate, best, run_dir / "val.txt", "--precision", 0.02))["bound"]
    then = results_of(finished)["bound"]["val"][-1]
    assert told["bits"] == pytest.approx(then, abs=0.2 + 5 * told["bits_standard_error"])


@pytest.mark.usefixtures("no_pictures")
def test_a_stopped_run_goes_on(run_dir, call):
    stopped = run_dir / "results" / "stopped"
    before = results_of(stopped)
    path = max((stopped / "checkpoints").iterdir())
    epochs = int(path.stem.split("_")[2]) + 2
    asked = "--set", f"training.epochs={epochs}"
    assert call(train, run_dir, "--resume", "--quiet", *asked) == f"{stopped}\n"
    after = results_of(stopped)
    assert after["status"] == "finished"
    assert after["losses"][: len(before["losses"])] == before["losses"]
    assert len(after["losses"]) == epochs


@pytest.mark.usefixtures("no_pictures")
def test_a_finished_run_goes_on_if_it_is_asked_to(run_dir, call):
    finished = run_dir / "results" / "finished"
    before = results_of(finished)
    resume = run_dir, "--resume", finished, "--quiet"
    assert call(train, *resume) == f"{finished}\n"
    assert results_of(finished) == before
    assert call(train, *resume, "--set", f"training.epochs={EPOCHS + 2}") == f"{finished}\n"
    after = results_of(finished)
    assert after["losses"][:EPOCHS] == before["losses"]
    assert len(after["losses"]) == EPOCHS + 2


def test_compare_and_report_page(run_dir, call):
    finished, stopped = (run_dir / "results" / name for name in ("finished", "stopped"))
    table = call(compare, run_dir, "--html", "page.html")
    assert str(finished) in table
    assert str(stopped) in table
    assert BOUNDS[run_dir.name] in table
    assert call(report_page, finished, stopped).count("report.html") == 2
    assert BOUNDS[run_dir.name].split()[0] in (finished / "report.html").read_text()
