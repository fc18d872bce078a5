"""python -m bernoulli_diffusion.compare on results folders with known numbers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest
from results_folders import made_up, made_up_real, write_folder

from bernoulli_diffusion import compare
from bernoulli_diffusion.results.runs import differences, find_results, marks, read_run
from bernoulli_diffusion.results.side_by_side import side_by_side

ROOT = Path(__file__).parent.parent


@pytest.fixture
def call(call_here):
    return lambda *arguments: call_here(compare, *arguments)


def rows(printed: str) -> list[list[str]]:
    """The cells of the table's rows, the mark and number first."""
    lines = [line for line in printed.splitlines() if re.match(r" *[*=~]?\d+  +-?\d+\.\d+ ±", line)]
    return [re.split(r"  +", line.strip()) for line in lines]


@pytest.fixture
def run_dir(tmp_path):
    """Three runs on one data set: 3.00, 3.01 (a tie: the errors are 0.01) and 3.10 bits."""
    folder = tmp_path / "some run"
    write_folder(folder, made_up([8.0, 4.0, 3.01]), "training.lr=0.002", width=64)
    write_folder(folder, made_up([8.0, 3.5, 3.10], num_parameters=57), "model.T=50", width=16)
    write_folder(folder, made_up([8.0, 3.00, 3.30], seconds=[0.0, 90.0, 7000.0]), width=32)
    return folder


def test_best_ties_and_gaps(run_dir, call):
    code, printed, told = call(run_dir)
    assert (code, told) == (0, "")
    assert [row[:3] for row in rows(printed)] == [
        ["*1", "3.000 ± 0.010", "0.100"],
        ["~2", "3.010 ± 0.010", "0.100"],
        ["3", "3.100 ± 0.010", "0.100"],
    ]
    assert rows(printed)[0][3:] == ["50.0/30.0/20.0", "20", "1.9 h", "4.32k", "12.3k"]
    assert "A network of 32 units; 4,321 parameters, source 01234567" in printed
    assert (
        "80 strings of 8 bits in train.txt, 20 in val.txt; the bound is the best on val" in printed
    )
    assert "no difference to the best beyond chance" in " ".join(printed.split())


def test_without_pairs_a_tie_is_within_two_errors_of_the_difference(tmp_path):
    at = {
        "best": made_up([3.0, 3.0]),
        "tie": made_up([3.0277, 3.0277]),  # 1.96 sqrt(2) 0.01 = 0.02772
        "behind": made_up([3.0278, 3.0278]),
    }
    runs = [read_run(write_folder(tmp_path, results, name=name)) for name, results in at.items()]
    assert marks(runs) == ["*", "~", ""]


def measured(blocks: list[float], lines: int = 64) -> dict:
    """Recommended weights with these blocks on val, of the last validation."""
    bits = sum(blocks) / len(blocks)
    bound = {"bits": bits, "standard_error": 0.5, "lines": lines, "blocks": blocks}
    bounds = {"train": bound, "val": bound}
    again = {"epoch": 10, "date": "", "checkpoint": "model_best.pt", "bounds": bounds}
    return made_up([8.0, bits], recommended=again, final_bound=bounds)


def test_with_pairs_small_differences_show(tmp_path):
    """The errors are 0.5 bits, and all blocks say that one is worse by 0.01."""
    common = [3 + 0.1 * k for k in range(8)]
    wiggles = [0.001 * (-1) ** k for k in range(8)]
    at = {
        "best": measured(common),
        "tie": measured([c + w + 1e-5 for c, w in zip(common, wiggles, strict=True)]),
        "behind": measured([c + w + 0.01 for c, w in zip(common, wiggles, strict=True)]),
        "of other lines": measured([c + 0.02 for c in common], lines=63),
    }
    runs = [read_run(write_folder(tmp_path, results, name=name)) for name, results in at.items()]
    assert marks(runs) == ["*", "=", "", "~"]
    other_draws = write_folder(tmp_path, at["behind"], "training.num_bound_draws=99", name="x")
    assert marks([runs[0], read_run(other_draws)]) == ["*", "~"]


def test_the_more_precise_final_bound_serves_if_the_last_validation_was_the_best(tmp_path):
    final = {"val": {"bits": 2.9, "standard_error": 0.001}}
    final["train"] = {"bits": 2.5, "standard_error": 0.001}
    last = read_run(write_folder(tmp_path, made_up([8.0, 3.0], final_bound=final)))
    assert (last.bound, last.error, last.gap) == (2.9, 0.001, pytest.approx(0.4))
    earlier = read_run(write_folder(tmp_path, made_up([8.0, 3.0, 3.2], final_bound=final)))
    assert (earlier.bound, earlier.error) == (3.0, 0.01)


def test_only_settings_that_differ_are_told(run_dir):
    runs = [read_run(folder) for folder in find_results(run_dir)]
    assert differences(runs) == [
        "model.T 2000, training.lr 0.002",
        "model.T 50, training.lr 0.001",
        "model.T 2000, training.lr 0.001",
    ]
    assert differences(runs[:1]) == [""]


def test_options_of_networks_and_how_files_are_kept(tmp_path):
    folders = [
        write_folder(tmp_path, made_up([3.0, 3.0]), *overrides)
        for overrides in (
            ["model.reverse_model.width=64", "training.keep_checkpoints=7"],
            ["model.reverse_model.heads=2"],
        )
    ]
    assert differences([read_run(folder) for folder in folders]) == [
        "model.reverse_model.width 64, model.reverse_model.heads left out",
        "model.reverse_model.heads 2, model.reverse_model.width left out",
    ]


def test_runs_on_other_data_stand_in_a_table_of_their_own(tmp_path, call):
    write_folder(tmp_path / "a", made_up([3.0, 3.0]))
    other = made_up([2.0, 2.0])
    other["data"]["val"]["sha256"] = "c" * 64
    write_folder(tmp_path / "b", other)
    write_folder(tmp_path / "c", made_up(None, [2.0, 2.5]))
    printed = call(tmp_path)[1]
    assert [row[0] for row in rows(printed)] == ["*1", "*2", "*3"]
    assert printed.count("the bound is the best on val") == 2
    assert "no val.txt; the bound is the best on train" in printed
    code, printed, told = call(tmp_path, "--picture", tmp_path / "p.png")
    assert (code, printed) == (2, "")
    assert "3 data sets, whose bounds cannot be compared" in told


def test_real_numbers_have_a_distance_in_place_of_shares(tmp_path, call):
    write_folder(tmp_path / "a", made_up([3.0, 3.0]))
    real = made_up_real([8.0, -3.0])
    real["data"]["train"]["sha256"] = "c" * 64
    write_folder(tmp_path / "b", real)
    printed = call(tmp_path, "--sort", "val")[1]
    assert "80 samples of 8 numbers in train.txt" in printed
    assert re.search("bound +gap +energy distance +epochs", printed)
    assert rows(printed)[1][:4] == ["*2", "-3.000 ± 0.010", "0.100", "0.0200"]


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("bound", ["3.000", "3.010", "3.100"]),
        ("parameters", ["3.100", "3.000", "3.010"]),
        ("time", ["3.010", "3.100", "3.000"]),
        ("network", ["3.100", "3.000", "3.010"]),
        ("folder", ["3.010", "3.100", "3.000"]),
    ],
)
def test_sort(run_dir, call, key, order):
    assert [row[1][:5] for row in rows(call(run_dir, "--sort", key)[1])] == order


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--sort", "bond"], "--sort bond: no such key; did you mean bound?"),
        (["--sort", "x"], "--sort x: no such key; known: bound, gap, "),
        (["/no/such/folder"], "/no/such/folder: no such folder"),
        (
            [__file__],
            "test_compare.py: this is a file; expected a run folder or one of its results",
        ),
        (["--html", "/no/folder/page.html"], "there is no folder /no/folder"),
        (["--diff", "a", "b"], "--diff A B goes alone"),
    ],
)
def test_mistakes(run_dir, call, arguments, hint):
    code, printed, told = call(run_dir, *arguments)
    assert (code, printed, told.count("\n")) == (2, "", 1)
    assert hint in told


def test_a_folder_without_results(tmp_path, call):
    code, printed, told = call(tmp_path)
    assert (code, printed) == (2, "")
    assert "no results folder there" in told


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not JSON"),
        ("[" * 5000, "not JSON"),
        ("[]", "not the results of a run"),
        ("{}", "not the results of a run: status is missing"),
        (json.dumps(made_up([])), "no validation yet (status: finished)"),
        (json.dumps(made_up([3.0, 3.0], num_parameters="many")), "not the results of a run"),
        (json.dumps(made_up([float("nan"), 3.0, float("nan")])), "a number is not finite"),
        (json.dumps(made_up([3.0], data=[])), "not the results of a run"),
        (
            json.dumps(made_up([3.0, 2.0], seconds=["\x1b[2J", "\x1b[2J"])),
            "not the results of a run",
        ),
    ],
)
def test_unreadable_and_unfinished_folders_are_listed(run_dir, call, content, reason):
    write_folder(run_dir, content, name="strange")
    (run_dir / "results" / "nothing yet").mkdir()
    code, printed, told = call(run_dir)
    assert (code, told) == (0, "")
    assert len(rows(printed)) == 3
    listed = [line for line in printed.splitlines() if line.startswith("left out: ")]
    assert [name in line for name, line in zip(("nothing yet", "strange"), listed, strict=True)]
    assert reason in listed[1]
    assert "\x1b" not in printed


def test_results_of_older_versions_are_listed(tmp_path, call):
    old = made_up([8.0, 3.0])
    for key in ("samples_per_second", "statistics", "data_examples", "final_bound"):
        del old[key]
    folder = write_folder(tmp_path, old)
    (folder / "config.yaml").write_text("model: {forgotten_key: 3}\n")
    assert rows(call(tmp_path)[1])[0][1] == "3.000 ± 0.010"


def test_the_table_fits_eighty_characters_and_the_rest_a_hundred(run_dir, call):
    lines = call(run_dir)[1].splitlines()
    assert max(len(line) for line in lines if " ± " in line) <= 80
    assert max(len(line) for line in lines if str(run_dir) not in line) <= 100


def test_a_name_cannot_drive_the_terminal(tmp_path, call):
    folder = write_folder(tmp_path / "a\x1b[2Jb", made_up([8.0, 3.0], status="finished\x1b[2J"))
    (folder / "reverse_model.py").write_text('"""\\x1b[2J"""')
    assert "\x1b" not in call(tmp_path)[1]


def test_diff(run_dir, call):
    first, second, _ = find_results(run_dir)
    code, printed, told = call("--diff", first, second)
    assert (code, told) == (0, "")
    changed = [re.sub(" +", " ", line) for line in printed.splitlines() if " | " in line]
    assert changed == [
        " T: 2000 | T: 50",
        " lr: 0.002 | lr: 0.001",
        ' """A network of 64 units.""" | """A network of 16 units."""',
    ]
    assert "--- config.yaml" in printed
    assert "--- reverse_model.py" in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert call("--diff", first, run_dir)[1].count("A network of 32") == 1  # the run's latest


def test_side_by_side():
    a = "".join(f"{k}\n" for k in range(20))
    b = a.replace("10\n", "").replace("15\n", "15\nnew\n").replace("17\n", "other\n")
    lines = [" ".join(line.split()) for line in side_by_side(a, b, 60, context=1)]
    assert lines == [
        "... 9 equal lines",
        "9 9",
        "10 <",
        "11 11",
        "... 3 equal lines",
        "15 15",
        "> new",
        "16 16",
        "17 | other",
        "18 18",
        "... 1 equal lines",
    ]
    assert side_by_side(a, a, 60) == ["the same"]


def test_html_and_picture(run_dir, call, tmp_path):
    page, picture = tmp_path / "page.html", tmp_path / "curves.png"
    (find_results(run_dir)[0] / "report.html").write_text("")
    write_folder(run_dir, "", name="strange <b>")
    code, _, told = call(run_dir, "--html", page, "--picture", picture)
    assert (code, told) == (0, "")
    text = page.read_text()
    assert text.count('src="data:image/png;base64,') == 1
    assert 'href="./some%20run/results/' in text
    assert "strange &lt;b&gt;" in text
    assert "<b>" not in text
    height, width, _ = iio.imread(picture).shape
    assert 1000 < width < 1600
    assert 300 < height < 900


def test_fifty_folders_within_three_seconds_and_without_torch(tmp_path):
    results = made_up([8.0 - 0.1 * k for k in range(40)], shares=(0.9, 0.05, 0.05))
    for number in range(50):
        write_folder(tmp_path / f"run{number}", results, f"training.seed={number}", name="r")
    program = (
        "import sys; from bernoulli_diffusion import compare;"
        "code = compare.command(); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    start = os.times()
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    end = os.times()  # of the processor: others may be at work on this machine
    seconds = end.children_user + end.children_system - start.children_user - start.children_system
    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows(done.stdout)) == 50
    assert seconds < 3
