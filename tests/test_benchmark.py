"""The benchmark: that it counts, compares and reports rightly. No test looks at how long things take."""

import contextlib
import io
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from processes import Together, call
from torch import nn

from bernoulli_diffusion.benchmark import __main__ as benchmark
from bernoulli_diffusion.benchmark import alone, measure, parts
from bernoulli_diffusion.benchmark import report as reports
from bernoulli_diffusion.bits.data import read_bit_strings
from bernoulli_diffusion.noise import Noise
from bernoulli_diffusion.reverse_model import ReverseModel
from bernoulli_diffusion.sampling import ancestral
from bernoulli_diffusion.system import command_line
from bernoulli_diffusion.system.errors import RunError, UserError

TINY, CPU = measure.SIZES["tiny"], torch.device("cpu")
NAMES = [part.__name__ for part in parts.PARTS]


class Report:
    """What one run of everything printed and wrote."""

    def __init__(self, folder: Path):
        self.picture = folder / "growth.png"
        streams = io.StringIO(), io.StringIO()
        options = ["--size", "tiny", "--device", "cpu", "--folder", folder]
        options += ["--json", folder / "report.json", "--plot", self.picture]
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            benchmark.main([str(option) for option in options])
        self.stdout, self.stderr = (stream.getvalue() for stream in streams)
        self.json = json.loads((folder / "report.json").read_text())
        self.left = sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """All parts, at the tiny size; what is done in processes of their own is done here instead."""

    def here(*arguments, processes: int = 1) -> dict:
        return {"seconds": 1.0} | alone.report_alone(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "alone", here)
        return Report(tmp_path_factory.mktemp("benchmark"))


# ---------------------------------------------------------------------------------------- the report


def test_every_part_has_rows_of_sound_numbers(report):
    assert list(report.json["parts"]) == NAMES
    may_be_zero = {"invalid_percent", "standard_error_percent", "over_imports_MB"}
    for name, rows in report.json["parts"].items():
        assert rows, name
        for row in rows:
            for key, value in row.items():
                if isinstance(value, (int, float)):
                    assert math.isfinite(value), (name, key)
                    assert value > 0 or key in may_be_zero, (name, key)
            if "ratio" in row:
                low, high = row["quartiles"]
                assert low <= row["ratio"] <= high


def test_the_machine_is_described(report):
    machine = report.json["machine"]
    assert machine["device"] == "cpu"
    assert 1 <= machine["cores"] <= os.cpu_count()
    assert machine["torch_threads"] == torch.get_num_threads()
    assert machine["torch"] == torch.__version__
    head = report.stdout.partition("###")[0]
    assert all(f": {value}\n" in head for value in machine.values())


def test_standard_output_is_the_tables_and_nothing_else(report):
    sections = report.stdout.split("### ")[1:]
    assert [s.partition("\n")[0] for s in sections] == list(map(reports.title, parts.PARTS))
    for section, rows in zip(sections, report.json["parts"].values(), strict=True):
        lines = [line for line in section.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + len(rows)
        assert len({line.count("|") for line in lines}) == 1
    assert "measured in" in report.stderr
    assert report.left == ["growth.png", "report.json"]


def test_the_picture_has_a_panel_for_each_growth(report):
    figure = reports.growth_figure(report.json["parts"])
    assert [panel.get_xlabel() for panel in figure.axes] == ["L", "T", "lines", "batch"]
    rows = report.json["parts"]["growth_L"]
    curve = figure.axes[0].get_lines()[0]
    assert curve.get_xdata().tolist() == [row["L"] for row in rows]
    assert curve.get_ydata().tolist() == [row["training_step_ms"] for row in rows]
    assert iio.imread(report.picture).std() > 10


def test_matrix_products_are_counted(report):
    for row in report.json["parts"]["training_step"]:
        layers = ReverseModel(row["L"], TINY.T).named_modules()
        weights = {name: m.weight.numel() for name, m in layers if isinstance(m, nn.Linear)}
        # B times n times m multiplications and additions, three times: forwards, and backwards for
        # the weights and for the input. Nobody needs the last of the layers that x_t and t go into.
        products = 3 * sum(weights.values()) - weights["read_in"] - weights["time.layer"]
        # Pairs of bits: forwards, and backwards for their weights.
        products += 2 * row["L"] ** 2
        assert 1e9 * row["matrix_products_GFLOP"] == pytest.approx(2 * TINY.batch * products)


def test_network_calls_are_counted(report):
    rows = {row["sampler"]: row for row in report.json["parts"]["sampling"]}
    assert rows[measure.ANCESTRAL]["network_calls_per_sample"] == TINY.T
    assert rows["grid, K = 20"]["network_calls_per_sample"] == 20
    assert 1 <= rows[measure.THINNED]["network_calls_per_sample"] <= TINY.T


def test_half_of_the_strings_asked_for_are_members(report):
    for row in report.json["parts"]["membership"]:
        assert row["asked"] / 2 <= row["found"] < 0.51 * row["asked"]


def test_memory_is_compared_with_a_process_that_does_nothing(report):
    rows = report.json["parts"]["memory"]
    assert rows[0]["process"] == parts.NOTHING
    for row in rows[1:]:
        assert row["over_imports_MB"] == row["peak_MB"] - rows[0]["peak_MB"]


# ---------------------------------------------------------------------------------------- how it measures


def test_what_is_compared_runs_in_turn():
    order = []
    tasks = [(order.append, "A"), (order.append, "B"), (order.append, "C")]
    times = measure.time_in_turn(tasks, 4, 0.0, CPU)
    assert "".join(order) == "ABC" + 4 * "ABC"  # once to get warm
    assert [len(seconds) for seconds in times] == [4, 4, 4]


def test_a_round_lasts_the_seconds_asked_for(monkeypatch):
    now = 0.0

    def call(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now))
    assert measure.warm_up((call, 0.25), 4.0, CPU) == 16
    start = now
    fast, slow = measure.time_in_turn([(call, 0.25), (call, 8.0)], 3, 4.0, CPU)
    np.testing.assert_allclose(fast, 3 * [0.25])
    np.testing.assert_allclose(slow, 3 * [8.0])
    warm = (1 + 2 + 4 + 8 + 16) * 0.25 + 8  # until it lasts 4 seconds
    assert now - start == warm + 3 * (16 * 0.25 + 8)


def test_ratios_are_those_of_the_rounds():
    # the medians' ratio would be 20 / 10
    measured = measure.compare(np.array([10.0, 30.0, 20.0]), np.array([10.0, 10.0, 40.0]))
    assert measured == {"ratio": 1.0, "quartiles": [0.75, 2.0]}


@pytest.mark.parametrize("length", [20, 64, 65])
def test_random_strings_are_what_their_text_file_says(tmp_path, length):
    strings = measure.random_strings(1000, length)
    path = measure.text_file(tmp_path, 1000, length)
    assert np.array_equal(read_bit_strings(path).packed, strings.packed)
    ones = strings.bits().sum()
    deviation = (1000 * length / 4) ** 0.5
    assert abs(ones - 1000 * length / 2) < 4.5 * deviation  # z-limit 4.5, one fixed seed


def test_a_file_too_large_for_the_disk_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(measure.shutil, "disk_usage", lambda _: SimpleNamespace(free=40_000))
    with pytest.raises(RunError, match=r"needed for a file of 1,000 lines .* --folder"):
        measure.text_file(tmp_path, 1000, 20)
    assert list(tmp_path.iterdir()) == []


def test_the_papers_gradient_is_that_of_the_sum_of_all_terms():
    trainer = measure.make_trainer(measure.random_strings(8, 20), TINY, CPU)
    measure.train(trainer, 3)  # away from a network that says nothing
    model, x_0 = trainer.loop.diffusion.reverse_model, trainer.loop.batches.batch(0)
    model.eval()  # no dropout: the same network for all terms
    trainer.loop.optimizer.zero_grad()
    torch.manual_seed(0)
    measure.add_papers_gradient(trainer, x_0, range(1, TINY.T + 1))
    parameters = [p for p in model.parameters() if p.requires_grad]
    summed = [p.grad.clone() for p in parameters]
    torch.manual_seed(0)
    noise = [torch.rand_like(x_0) for _ in range(TINY.T)]
    bound = sum(
        trainer.loop.diffusion.bound_term(x_0, torch.full((len(x_0),), t), u)
        for t, u in enumerate(noise, start=1)
    )  # (B,)
    expected = torch.autograd.grad(bound.mean(), parameters)
    for ours, theirs in zip(summed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert any(gradient.abs().max() > 1e-3 for gradient in summed)


def test_the_bare_step_trains_a_copy():
    trainer = measure.make_trainer(measure.random_strings(8, 20), TINY, CPU)
    measure.train(trainer, 3)
    before = {k: v.clone() for k, v in trainer.loop.diffusion.reverse_model.state_dict().items()}
    step = measure.bare_step(trainer)
    step()
    after = trainer.loop.diffusion.reverse_model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_samplers_are_the_programs_own():
    trainer = measure.make_trainer(measure.random_strings(8, 20), TINY, CPU)
    draw = measure.samplers(trainer.averaged, 20, CPU)
    *_, (_, expected) = ancestral(trainer.averaged, Noise(0, torch.arange(5), 20))
    assert torch.equal(draw[measure.ANCESTRAL](5), expected)
    assert all(function(5).shape == (5, 20) for function in draw.values())


def test_a_wrong_membership_is_no_fast_one(tmp_path, monkeypatch):
    class Yes:
        def __init__(self, _strings):
            pass

        def contains(self, strings):
            return np.ones(len(strings), bool)

    monkeypatch.setattr(parts, "Membership", Yes)
    with pytest.raises(RunError, match="wrong about strings of 20 bits"):
        parts.membership(TINY, CPU, tmp_path)


MOMENT = """
import numpy as np
from bernoulli_diffusion.benchmark.alone import peak_megabytes

size = int(1e6 * peak_megabytes()) + 10**8
np.ones(size, np.uint8)
print(peak_megabytes() > size / 1e6)
"""


def test_peak_memory_counts_what_was_held_for_a_moment(tmp_path):
    (tmp_path / "moment.py").write_text(MOMENT)
    assert call(tmp_path / "moment.py").stdout == "True\n"


def test_a_process_of_its_own_starts_from_nothing(tmp_path):
    np.ones(4 * 10**8, np.uint8)  # the peak of this process is not that of its children
    measured = parts.alone("reading", TINY, CPU, tmp_path)
    assert 0 < measured["seconds"] < 60
    assert 20 < measured["peak_MB"] < alone.peak_megabytes() - 100
    assert measured["device_peak_MB"] is None


SHORTER = """
from bernoulli_diffusion.benchmark import __main__ as benchmark
from bernoulli_diffusion.benchmark import alone, measure

alone.random_strings = lambda _count, _length: measure.random_strings(100, 20)
benchmark.main()
"""


def test_two_processes_train_together_and_one_alone(tmp_path):
    options = ["--size", "tiny", "--device", "cpu", "--folder", tmp_path]
    (tmp_path / "shorter.py").write_text(SHORTER)
    words = tmp_path / "shorter.py", *options, "--alone", parts.SHARED_STEPS
    codes, out, err = Together(tmp_path, *words).finish()
    assert codes == [0, 0], err
    measured = json.loads(out)
    assert [row["batch"] for row in measured["rows"]] == list(TINY.shared_batches)
    for row in measured["rows"]:
        assert row["one_process_ms"] > 0
        assert row["two_processes_ms"] > 0


# ---------------------------------------------------------------------------------------- printing


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001234, "0.00123"),
        (0.0, "0"),
        (1.0, "1"),
        (99.94, "99.9"),
        (1234.5, "1,234"),
        (10_000_000, "10,000,000"),
        ([0.98, 1.0249], "0.98 to 1.02"),
        ("at most 6", "at most 6"),
        (None, ""),
    ],
)
def test_numbers_are_printed_with_three_digits(value, text):
    assert reports.cell(value) == text


# ---------------------------------------------------------------------------------------- command line


def test_command(tmp_path):
    options = ["--size", "tiny", "--device", "cpu", "--parts", "limits", "--json", "limits.json"]
    outcome = call("benchmark", *options, cwd=tmp_path)
    assert outcome.stdout.startswith("- date: ")
    assert "| smallest operation |" in outcome.stdout
    assert "Limits of the machine ...\nmeasured in" in outcome.stderr
    assert list(json.loads((tmp_path / "limits.json").read_text())["parts"]) == ["limits"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "nowhere/report.json"], "there is no folder nowhere"),
        (["--folder", "nowhere"], "nowhere: no such folder"),
        (["--parts", "speed"], "invalid choice: 'speed'"),
        (["--parts", "limits", "--plot", "growth.png"], "--plot draws the parts growth_"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_usage_is_told_in_one_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_line.run(lambda: benchmark.main(options)) == UserError.exit_code
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert message in stderr
    assert stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
