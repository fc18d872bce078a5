"""report.html, metrics.jsonl and --tensorboard: what a run tells those who look at it."""

import base64
import html
import html.parser
import json
import math
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from processes import call, make_run, mistake, only_results_dir, strike, train, without_timings
from results_folders import made_up, made_up_real, record_of, write_folder

from bernoulli_diffusion import compare
from bernoulli_diffusion import report_page as report_command
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.measures import (
    MAX_BITS,
    compare_bits,
    compare_pairs,
    correlations,
    count_ones,
    square,
)
from bernoulli_diffusion.bits.pictures import strings_picture
from bernoulli_diffusion.kinds import KINDS
from bernoulli_diffusion.results import comparison, record
from bernoulli_diffusion.results import page as report_page
from bernoulli_diffusion.results.pages import cells, grey_map, heat_map, network_name
from bernoulli_diffusion.results.runs import group, read_run
from bernoulli_diffusion.results.verdict import findings
from bernoulli_diffusion.training import checkpoint

MARKUP = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">\'"&amp;'


def claims(results: dict) -> list[str]:
    return [finding.claim for finding in findings(record_of(results))]


# ----------------------------------------------------------------------------- the verdict

GENERAL = (0.79, 0.20, 0.01)  # shares of samples that are what they should be


@pytest.mark.parametrize(
    ("results", "first"),
    [
        (made_up([8.0, 5.0, 4.0, 3.0, 2.5], shares=GENERAL), "Still improving."),
        (made_up([8.0, 3.0, 2.5, 2.5, 2.5], error=0.003, shares=GENERAL), "Converged."),
        (made_up([8.0, 3.0, 2.501, 2.499, 2.5], error=0.003, shares=GENERAL), "Converged."),
        (  # what would matter, 0.0125 bits, is not ruled out
            made_up([8.0, 3.0, 2.5, 2.5, 2.5], shares=GENERAL),
            "Cannot tell yet whether more training would help.",
        ),
        (  # flat at the end, where the learning rate is low, but not in the second half
            made_up([8.0, 3.0, 2.6, 2.5, 2.5], error=0.003, shares=GENERAL),
            "Cannot tell yet whether more training would help.",
        ),
        (
            made_up([8.0, 300.0, 500.0, 700.0, 5912.0], error=9.0, shares=(0.0, 0.0, 1.0)),
            "Diverged: worse than coin flips.",
        ),
        (made_up([8.0, 3.0, 2.8], shares=GENERAL), "Too early to say."),
        (made_up([8.0], shares=GENERAL), "Too early to say."),
        (made_up([], []), "Too early to say."),
        (
            made_up([8.0, 3.0, 2.5, 2.8, 3.2], [8.0, 2.9, 2.4, 2.3, 2.2], shares=GENERAL),
            "Overfitting since epoch 20.",
        ),
        (
            made_up(
                [8.0, 3.0, 2.5, 2.6, 2.7, 2.8, 2.9, 3.0],
                [8.0, 2.9, 2.4, 2.3, 2.2, 2.1, 2.0, 1.9],
                error=0.09,  # the last two are 3.1 and 3.9 errors of the difference away
                shares=GENERAL,
            ),
            "Overfitting since epoch 20.",
        ),
        (
            made_up([8.0, 3.0, 2.9, 2.9, 2.9], shares=(1.0, 0.0, 0.0)),
            "Memorising: neither new nor held-out strings appear.",
        ),
        (
            made_up([8.0, 3.0, 2.9, 2.9, 2.9], shares=(0.8, 0.2, 0.0)),
            "Held-out strings appear among the samples, and next to nothing else is new.",
        ),
        (
            made_up(None, [8.0, 3.0, 2.9, 2.9, 2.9], shares=(1.0, 0.0, 0.0)),
            "Nothing new appears among the samples.",
        ),
        (
            made_up([8.0, 7.6, 7.5, 7.5, 7.5], [8.0, 7.5, 7.45, 7.45, 7.45], shares=(0.1, 0, 0.9)),
            "Undertrained: near the independent-bits baseline.",
        ),
        (made_up([8.0, 3.0], status="failed: step 9: loss nan"), "The run failed."),
        (made_up([8.0, 3.0, 2.5, 2.9, 3.2], shares=GENERAL), "Getting worse."),  # on train too
    ],
)
def test_the_first_finding(results, first):
    assert claims(results)[0] == first


def test_findings_are_cautious():
    noisy = made_up([8.0, 3.0, 2.5, 2.8, 2.8], [8.0, 2.9, 2.4, 2.3, 2.2], error=0.2, shares=GENERAL)
    assert claims(noisy) == ["Cannot tell yet whether more training would help."]  # 1.06 errors
    last_only = made_up([8.0, 3.0, 2.5, 2.5, 3.2], [8.0, 2.9, 2.4, 2.3, 2.2], shares=GENERAL)
    assert "Overfitting since epoch 20." not in claims(last_only)  # one value could be chance
    few = made_up([8.0, 3.0, 2.9, 2.9], shares=(1.0, 0.0, 0.0), num_val_samples=40)
    assert claims(few)[0] == "Nearly all samples are training strings."  # 8 were to be expected
    tiny = made_up([100.0, 100.2, 100.1, 100.1], [99.0, 99.1, 99.0, 98.9], shares=GENERAL)
    tiny["baselines"]["independent_train"] = 200.0
    assert "Still improving." not in claims(tiny)


@pytest.mark.parametrize("shift", [0.0, 1e-3])
def test_evidence_has_the_numbers(shift):
    results = made_up([8.0, 3.0, 2.5, 2.8, 3.2 + shift], [8.0, 2.9, 2.4, 2.3, 2.2], shares=GENERAL)
    evidence = findings(record_of(results))[0].evidence
    assert "2.500 ± 0.010 bits at epoch 20" in evidence
    assert f"{3.2 + shift:.3f} ± 0.010 bits now" in evidence


# ----------------------------------------------------------------------------- bits and pairs


@pytest.mark.parametrize("length", [4, 64, 65, 2000])
def test_counts(length):
    rng = np.random.default_rng(length)
    sets = [rng.integers(0, 2, (n, length)) for n in (50, 30)]
    counts = count_ones(*map(BitStrings.from_bits, sets))
    chosen = np.array(counts["bits_of_pairs"])
    assert len(chosen) == len(set(chosen)) == min(length, MAX_BITS)
    assert (chosen[0], chosen[-1]) == (0, length - 1)
    for name, bits in zip(("samples", "data"), sets, strict=True):
        assert counts[name]["strings"] == len(bits)
        assert counts[name]["ones"] == bits.sum(axis=0).tolist()
        both = bits[:, chosen].T @ bits[:, chosen]
        assert counts[name]["both"] == both[np.triu_indices(len(chosen), 1)].tolist()
        expected = np.cov(bits[:, chosen].T, bias=True)
        p = bits[:, chosen].mean(axis=0)
        scale = np.sqrt(np.outer(p * (1 - p), p * (1 - p)))
        assert correlations(counts, name) == pytest.approx(expected / scale)
    assert json.loads(json.dumps(counts)) == counts  # plain numbers


def test_differences_are_those_of_shares_and_covariances():
    rng = np.random.default_rng(0)
    sets = [rng.integers(0, 2, (n, 5)) for n in (40, 60)]
    counts = count_ones(*map(BitStrings.from_bits, sets))
    bits, pairs = compare_bits(counts), compare_pairs(counts)
    upper = np.triu_indices(5, 1)
    for got, got_pairs, x in (
        (bits.samples, pairs.samples, sets[0]),
        (bits.data, pairs.data, sets[1]),
    ):
        assert got == pytest.approx(x.mean(axis=0))
        assert got_pairs == pytest.approx(np.cov(x.T, bias=True)[upper])
    assert square(pairs.samples, 5)[upper] == pytest.approx(pairs.samples)


def test_noise_floor_is_that_of_two_drawings_of_one_distribution():
    """z has mean square 1; over 400 pairs of drawings it stays within 4 standard errors of it."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(16))  # a distribution on 4 bits
    states = np.arange(16)[:, None] >> np.arange(4) & 1
    squares = []
    for _ in range(400):
        draws = [states[rng.choice(16, n, p=table)] for n in (300, 150)]
        counts = count_ones(*map(BitStrings.from_bits, draws))
        squares.append([np.mean(c(counts).z ** 2) for c in (compare_bits, compare_pairs)])
    mean, error = np.mean(squares, axis=0), np.std(squares, axis=0) / math.sqrt(400)
    assert np.all(abs(mean - 1) < 4 * error + 0.02)  # 0.02: the normal approximation


def test_another_distribution_stands_out():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (1000, 8))
    copied = x.copy()
    copied[:, 4:] = copied[:, :4]  # the same single bits, other pairs
    counts = count_ones(*(BitStrings.from_bits(a) for a in (copied, rng.integers(0, 2, (900, 8)))))
    difference, noise = compare_bits(counts).rms()
    assert difference < 2 * noise
    difference, noise = compare_pairs(counts).rms()
    assert difference > 5 * noise


def test_constant_bits_have_no_noise_and_no_difference():
    counts = count_ones(*(BitStrings.from_bits(np.zeros((9, 3))) for _ in range(2)))
    for one in (compare_bits(counts), compare_pairs(counts)):
        assert one.rms() == (0, 0)
        assert not one.z.any()
    assert not correlations(counts, "data").any()


# ----------------------------------------------------------------------------- pieces of the page


def test_cells_are_a_picture_with_a_pixel_for_each():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 13, 3)).astype(np.uint8)
    found = cells(pixels, "caption", side=320)
    assert (found.width, found.height) == (13 * 24, 7 * 24)
    data = base64.b64decode(found.source.split(",", 1)[1])
    assert np.array_equal(iio.imread(data, extension=".png"), pixels)


def test_colours():
    low, middle, high, beyond = heat_map(np.array([[-2.0, 0.0, 2.0, 9.0]]), 2)[0].tolist()
    assert middle == [250, 250, 250]
    assert low[2] > 150 > low[0]  # blue
    assert high[0] > 150 > high[2]  # red
    assert beyond == high
    assert grey_map(np.array([[0.0, 1.0]]))[0, :, 0].tolist() == [255, 30]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ('class ReverseModel:\n    """Attention.\n\n    More."""', "Attention"),
        ('"""A file: of networks.\n"""\nclass ReverseModel: pass', "A file: of networks"),
        ("class ReverseModel: pass", "reverse_model.py"),
        ("class ReverseModel:\n    ''''''", "reverse_model.py"),
        ("no python at all", "reverse_model.py"),
        ("\0", "reverse_model.py"),
        ("(" * 100_000, "reverse_model.py"),
        ("import os\nos.abort()\nclass ReverseModel:\n    'x'", "x"),  # read, not run
    ],
)
def test_network_name(source, name):
    assert network_name(source) == name


def json_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def page(results: dict, folder: Path, shape=None) -> str:
    """The page of a run whose results.json says that."""
    found = record_of(results)
    return report_page.page(found, KINDS[found.process], folder, shape).decode()


def write_page(folder: Path) -> None:
    results = record.read(folder)
    report_page.write(results, KINDS[results.process], folder)


class Reader(html.parser.HTMLParser):
    """Collects all tags, with their attributes, and the text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def assert_self_contained(text: str) -> Reader:
    """Pictures inside that can be read, nothing that is loaded or run."""
    reader = Reader(text)
    assert not {"script", "iframe", "object", "base"} & {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "link":
            assert attributes == {"rel": "icon", "href": "data:,"}
        elif tag == "img":
            start, data = attributes["src"].split(",", 1)
            kind = re.fullmatch("data:image/(png|gif);base64", start)[1]
            assert iio.imread(base64.b64decode(data), extension=f".{kind}", index=0).size
        else:
            assert "src" not in attributes
        if tag == "a":
            assert attributes["href"].startswith("./")
    assert "url(" not in text
    return reader


def statistics(length: int) -> dict:
    rng = np.random.default_rng(0)
    return count_ones(*(BitStrings.from_bits(rng.integers(0, 2, (n, length))) for n in (40, 30)))


@pytest.mark.parametrize(
    ("length", "shape"),
    [(1, None), (4, [2, 2]), (8, [1, 8]), (64, [8, 8]), (300, None), (2000, None)],
)
def test_a_page_for_any_length(tmp_path, length, shape):
    strings = ["01" * (length // 2) + "1" * (length % 2)] * 3
    results = made_up([8.0, 3.0, 2.9, 2.8], length=length, statistics=statistics(length))
    results |= {"examples_per_epoch": [strings] * 4, "data_examples": strings[:2]}
    reader = assert_self_contained(page(results, write_folder(tmp_path, results), shape))
    assert ("64 evenly spaced bits" in reader.text) == (length > 64)
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    single_bits_as_images = shape in ([2, 2], [8, 8])
    assert len(images) == 2 + 3 * (length > 1) + 3 * single_bits_as_images
    assert all(int(attributes["width"]) <= 520 for attributes in images)


@pytest.mark.parametrize("results", [made_up([]), made_up(None, [8.0, 3.0]), made_up([8.0])])
def test_a_page_for_any_state(tmp_path, results):
    results["status"] = "running"
    assert_self_contained(page(results, write_folder(tmp_path, results)))


def test_a_page_of_real_numbers(tmp_path):
    results = made_up_real([8.0, -3.0, -3.1, -3.1, -3.1])
    folder = write_folder(tmp_path, results)
    for name in ("samples.png", "forward_process.png"):
        iio.imwrite(folder / name, np.zeros((3, 3, 3), np.uint8))
    reader = assert_self_contained(page(results, folder))
    assert "80 samples of 8 numbers" in reader.text
    assert "0.0200energy distance of the samples; 0.0100 by chance" in reader.text
    assert "3.600 bitsbaseline: Gaussian" in reader.text
    assert "Cannot tell yet" in reader.text
    assert sum(tag == "img" for tag, _ in reader.tags) == 2


def test_strings_as_pictures():
    def greys(*arguments):
        return strings_picture(*arguments)[:, :, 0].tolist()

    assert greys(["010", "111"], None) == [[255, 30, 255], [30, 30, 30]]
    gap = 200
    assert greys(["0110"], [2, 2]) == [[255, 30], [30, 255]]
    assert greys(["0110", "1001", "1111"], [2, 2]) == [
        [255, 30, gap, 30, 255, gap],
        [30, 255, gap, 255, 30, gap],
        [gap] * 6,
        [30, 30, gap, gap, gap, gap],
        [30, 30, gap, gap, gap, gap],
    ]


def hostile(tmp_path: Path) -> Path:
    """A results folder in which every text is markup."""
    results = made_up([8.0, 3.0, 2.9, 2.8], status=MARKUP, device=MARKUP)
    results["versions"] = {MARKUP: MARKUP}
    results["reverse_model_sha256"] = results["data"]["train"]["sha256"] = MARKUP
    results["examples_per_epoch"] = results["data_examples"] = [[MARKUP, MARKUP]] * 4
    results["data_examples"] = [MARKUP, MARKUP]
    folder = write_folder(
        tmp_path / MARKUP.replace("/", "|"), results, name=MARKUP.replace("/", "|")
    )
    (folder / "config.yaml").write_text(f"# {MARKUP}\n")
    (folder / "reverse_model.py").write_text(f'class ReverseModel:\n    """{MARKUP}"""\n')
    return folder


def test_nothing_from_a_run_folder_becomes_markup(tmp_path):
    folder = hostile(tmp_path)
    text = page(json_of(folder), folder)
    plain = write_folder(tmp_path, made_up([8.0, 3.0, 2.9, 2.8]))
    reader, usual = (
        assert_self_contained(text),
        Reader(page(made_up([8.0, 3.0, 2.9, 2.8]), plain)),
    )
    assert [tag for tag, _ in reader.tags] == [tag for tag, _ in usual.tags]
    assert reader.text.count(MARKUP) >= 5  # it is shown as what it is


def test_nothing_from_a_run_folder_becomes_markup_in_a_comparison(tmp_path, monkeypatch):
    folder = hostile(tmp_path)
    write_page(folder)
    write_folder(tmp_path / "other", "", name=MARKUP.replace("/", "|"))
    target = tmp_path / "compared.html"
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path), "--html", str(target)])
    assert compare.command() == 0
    reader = assert_self_contained(target.read_text())
    assert not {"b", "script"} & {tag for tag, _ in reader.tags}
    assert sum(tag == "img" for tag, _ in reader.tags) == 1  # the curves


def test_the_page_of_an_old_run_is_made_again(tmp_path, monkeypatch, capsys):
    folder = write_folder(tmp_path, made_up([8.0, 3.0, 2.9, 2.8]))
    strange = write_folder(tmp_path, "{}")
    monkeypatch.setattr(sys, "argv", ["report_page", str(folder)])
    assert report_command.command() == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert_self_contained((folder / "report.html").read_text())
    for path, reason in (
        (strange, "not the results of a run: status is missing"),
        (tmp_path / "nowhere", "no such folder"),
        (folder / "checkpoints", "no results folder there"),
    ):
        monkeypatch.setattr(sys, "argv", ["report_page", str(path)])
        assert report_command.command() == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert reason in told


# ----------------------------------------------------------------------------- of real runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The results folder of a small run."""
    run_dir = make_run(tmp_path_factory.mktemp("report") / "run")
    call("train.py", run_dir)
    return only_results_dir(run_dir)


def metrics_of(folder: Path) -> list[dict]:
    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_the_page_of_a_run_is_complete_and_quick(trained):
    reader = assert_self_contained((trained / "report.html").read_text())
    assert "finished" in reader.text
    assert "not drawn yet" not in reader.text
    assert "Not measured" not in reader.text
    # two curves, two GIFs, samples, data, three maps of pairs
    assert sum(tag == "img" for tag, _ in reader.tags) == 9
    results = record.read(trained)
    start = time.process_time()
    report_page.write(results, KINDS[results.process], trained)
    assert time.process_time() - start < 0.3


def test_statistics_and_examples_are_those_of_the_data(trained):
    results = json_of(trained)
    val = (trained.parents[1] / "val.txt").read_text().split()
    assert results["data_examples"] == val
    ones = [sum(line[i] == "1" for line in val) for i in range(8)]
    assert results["statistics"]["data"]["ones"] == ones
    assert results["statistics"]["samples"]["strings"] == results["num_val_samples"]
    assert results["samples_per_second"] > 0


def test_metrics_have_a_line_for_each_validation(trained):
    results, metrics = json_of(trained), metrics_of(trained)
    assert [row["epoch"] for row in metrics] == results["validated_epochs"] == [0, 2, 4, 6]
    assert [row["bound_val"] for row in metrics] == results["bound"]["val"]
    assert [row["share_other"] for row in metrics] == results["proportions"]["other"]
    assert [row["seconds"] for row in metrics] == results["seconds"]
    assert [row["loss"] for row in metrics] == [None, *results["losses"][1::2]]


def test_a_sudden_death(trained, tmp_path):
    """Killed after more validations than its last checkpoint has, in the middle of a line."""
    run_dir = make_run(tmp_path / "run")
    blow = "v", 3, signal.SIGKILL
    call("train.py", run_dir, prepare=strike, given=blow, code=-signal.SIGKILL)
    folder = only_results_dir(run_dir)
    assert len(metrics_of(folder)) == 2
    page_text = (folder / "report.html").read_text()
    assert "running · epoch 2" in assert_self_contained(page_text).text
    for path in (folder / "checkpoints").glob("model_epoch_[23]*.pt"):
        path.unlink()  # as if it had been slower: the validation at epoch 2 is to come again
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "bound_tr')
    train(run_dir, "--resume")
    assert without_timings(metrics_of(folder)) == without_timings(metrics_of(trained))
    assert "finished · epoch 6" in Reader((folder / "report.html").read_text()).text


def test_commands_on_the_page_work(trained):
    """Those below "the same run once more" give the same numbers."""
    page_text = (trained / "report.html").read_text()
    commands = html.unescape(re.search(r'<pre class="commands">(.*?)</pre>', page_text, re.S)[1])
    lines = [line for line in commands.splitlines() if line and not line.startswith("#")]
    assert [line.split()[0] for line in lines] == ["python"] * 3 + ["mkdir", "cp", "python"]
    best = trained / "checkpoints" / "model_best.pt"
    run_dir = trained.parents[1]
    assert lines[:3] == [
        f"python generate.py {best} 10",
        f"python -m bernoulli_diffusion.evaluate {best} {run_dir / 'val.txt'}",
        f"python train.py {run_dir} --resume {trained}",
    ]
    again = Path(f"{run_dir}_again")
    assert lines[3] == f"mkdir {again}"
    again.mkdir()
    *files, target = lines[4].split()[1:]
    for file in files:
        shutil.copy(file, target)
    assert lines[5] == f"python train.py {again}"
    first, second = (json_of(f) for f in (trained, train(again)))
    for results in (first, second):
        del results["config_sha256"]  # the second has every setting spelt out
    assert without_timings(second) == without_timings(first)


# ----------------------------------------------------------------------------- TensorBoard


def hide_tensorboard() -> None:
    for name in [n for n in sys.modules if n.startswith("torch.utils.tensorboard")]:
        del sys.modules[name]
    sys.modules["tensorboard"] = None  # importing it fails


def test_tensorboard_is_not_installed(tmp_path):
    run_dir = make_run(tmp_path / "run")
    told = mistake("train.py", run_dir, "--tensorboard", prepare=hide_tensorboard)
    assert told.startswith("error: --tensorboard: the package tensorboard is not installed")
    assert not (run_dir / "results").exists()


def test_tensorboard(trained, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_dir = make_run(tmp_path / "run")
    blow = "v", 4, signal.SIGTERM
    call("train.py", run_dir, "--tensorboard", prepare=strike, given=blow, code=143)
    train(run_dir, "--tensorboard", "--resume")
    folder = only_results_dir(run_dir)
    events = EventAccumulator(str(folder / "tensorboard"), {"images": 0, "histograms": 0})
    events.Reload()
    for name in ("train", "val"):
        shown = [e.value for e in events.Scalars(f"bound/{name}")]
        assert shown == pytest.approx(vars(record.read(folder).bound)[name])
    assert [e.step for e in events.Scalars("share/val")] == [0, 8, 16, 24]
    assert len(events.Images("samples")) == 4
    histograms = [tag for tag in events.Tags()["histograms"] if tag.startswith("parameters/")]
    assert len(histograms) == len(list(torch_parameters(folder)))


def torch_parameters(folder: Path) -> list[str]:
    path = folder / "checkpoints" / "model_best.pt"
    model = checkpoint.restore(checkpoint.load(path), path).reverse_model
    return [name for name, _ in model.named_parameters()]


# ----------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, from Debian's packages chromium and chromium-driver."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser: chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory) -> dict[str, Path]:
    """A real run's page, a hostile one, and a comparison of both."""
    folder = tmp_path_factory.mktemp("pages")
    bad = hostile(folder)
    write_page(bad)
    runs = [read_run(path) for path in (trained, bad)]
    compared = folder / "compared.html"
    compared.write_bytes(comparison.page(group(runs, "bound"), [MARKUP * 3], folder))
    return {"run": trained / "report.html", "hostile": bad / "report.html", "compared": compared}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["run", "hostile", "compared"])
def test_in_a_browser(browser, pages, name, width, scheme):
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(pages[name].as_uri())
    assert browser.get_log("browser") == []
    run = browser.execute_script
    assert run("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert run("return document.images.length") > 0
    assert run("return document.documentElement.scrollWidth") <= width  # nothing sticks out
    assert run("return [document.scripts.length, typeof window.hacked]") == [0, "undefined"]
    text_size = run("return parseFloat(getComputedStyle(document.querySelector('p')).fontSize)")
    assert text_size >= 14
    ink, paper = run(
        "const s = getComputedStyle(document.body);"
        "return [s.color, s.backgroundColor].map(c => c.match(/[0-9]+/g).slice(0, 3).map(Number))"
    )
    assert (np.mean(ink) > 200 > 60 > np.mean(paper)) == (scheme == "dark")
    assert abs(np.mean(ink) - np.mean(paper)) > 150
