"""Toy data sets: what they hold, checked string by string, and the command that writes them."""

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pytest
from processes import ROOT, call

from bernoulli_diffusion import datasets
from bernoulli_diffusion.datasets import densities, forms
from bernoulli_diffusion.system.errors import UserError

Z_LIMIT = 4.5  # seeds are fixed: a failure is a change of the law, not bad luck


def as_set(strings: np.ndarray) -> set[str]:
    return {"".join(map(str, row)) for row in strings}


def command(arguments: list[str]) -> int:
    """The exit code of the same in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [datasets.__file__.replace("__init__", "__main__"), *arguments])
        return datasets.command()


# --- Heartbeat


def test_heartbeat_all_phases():
    train, val = datasets.heartbeat(length=7, period=3)
    assert as_set(train) == {"1001001", "0100100", "0010010"}
    assert train.shape == (3, 7)
    assert train.dtype == np.uint8
    assert val.shape == (0, 7)


def test_heartbeat_held_out_phases():
    train, val = datasets.heartbeat(length=7, period=3, held_out=[2, 0])
    assert as_set(train) == {"0100100"}
    assert as_set(val) == {"1001001", "0010010"}


# --- Repeating patterns


@pytest.mark.parametrize(("length", "period"), [(20, 10), (23, 10), (7, 3), (5, 5), (4, 1)])
def test_repeating_patterns_repeat(length, period):
    train, val = datasets.repeating_patterns(length, period)
    strings = as_set(train) | as_set(val)
    assert len(strings) == len(train) + len(val)
    patterns = map("".join, itertools.product("01", repeat=period))
    assert strings <= {(pattern * length)[:length] for pattern in patterns}


@pytest.mark.parametrize(
    ("period", "options", "counts"),
    [
        (10, {}, (972, 50)),
        (10, {"num_val": 100}, (924, 100)),
        (10, {"num_train": 1000}, (1000, 24)),
        (10, {"num_train": 3, "num_val": 2}, (3, 2)),
        (10, {"num_train": 1024}, (1024, 0)),
        (8, {}, (243, 13)),
        (8, {"num_val": 0}, (243, 0)),
        (1, {}, (1, 1)),
    ],
)
def test_repeating_patterns_counts(period, options, counts):
    train, val = datasets.repeating_patterns(20, period, **options)
    assert (len(train), len(val)) == counts


def test_repeating_patterns_are_shuffled():
    train, _ = datasets.repeating_patterns()
    numbers = train[:, :10] @ (1 << np.arange(9, -1, -1))
    # Adjacent rows of random order are uncorrelated; standard error of the correlation 1 / sqrt(N).
    z = np.corrcoef(numbers[:-1], numbers[1:])[0, 1] * np.sqrt(len(numbers))
    assert abs(z) < Z_LIMIT


# --- Multiples


def test_multiples_of_5_are_all_there():
    train, val = datasets.multiples()
    assert train.shape == (199_230, 20)
    assert val.shape == (10_485, 20)
    powers = 1 << np.arange(19, -1, -1)
    numbers = np.concatenate([train, val]) @ powers
    np.testing.assert_array_equal(np.sort(numbers), np.arange(5, 2**20, 5))
    # A random split: the mean of val's numbers is within Z_LIMIT of that of all.
    z = ((val @ powers).mean() - numbers.mean()) / (numbers.std() / np.sqrt(len(val)))
    assert abs(z) < Z_LIMIT


def test_multiples_of_a_large_divisor():
    train, val = datasets.multiples(bits=62, divisor=2**61 + 1, val_share=0)
    assert as_set(train) == {f"{2**61 + 1:062b}"}
    assert len(val) == 0


# --- Bars and stripes


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_bars_and_stripes_against_enumeration(size):
    train, val = datasets.bars_and_stripes(size, val_share=0.2)
    images = np.array(list(itertools.product([0, 1], repeat=size**2))).reshape(-1, size, size)
    constant_rows = (images == images[:, :, :1]).all(axis=(1, 2))
    constant_columns = (images == images[:, :1, :]).all(axis=(1, 2))
    expected = as_set(images[constant_rows | constant_columns].reshape(-1, size**2))
    assert len(train) + len(val) == len(expected) == 2 ** (size + 1) - 2
    assert as_set(train) | as_set(val) == expected
    assert len(val) == int(0.2 * len(expected))


# --- Ising


def energy_of(strings: np.ndarray, size: int) -> np.ndarray:
    """E(s) = -sum_i s_i (s_right(i) + s_down(i)), bond by bond: (N,)."""
    s = 2 * strings.reshape(-1, size, size).astype(int) - 1
    energy = np.zeros(len(s), dtype=int)
    for row, column in itertools.product(range(size), repeat=2):
        right, down = s[:, row, (column + 1) % size], s[:, (row + 1) % size, column]
        energy -= s[:, row, column] * (right + down)
    return energy


def assert_mean(values: np.ndarray, expected: float) -> None:
    """The mean of independent values is expected, within Z_LIMIT standard errors."""
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - expected) <= Z_LIMIT * error + 1e-12


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 2.27, 3.5, 1e6])
def test_ising_against_enumeration(size, temperature):
    num_samples = 12_000
    states = np.array(list(itertools.product([0, 1], repeat=size**2)), dtype=np.uint8)
    energies = energy_of(states, size)
    weights = np.exp(-(energies - energies.min()) / temperature)
    p = weights / weights.sum()  # (2^(n * n),)

    samples, val = datasets.ising(size, temperature, num_samples, 10, seed=1)
    assert samples.shape == (num_samples, size**2)
    assert val.shape == (10, size**2)
    sampled = energy_of(samples, size)
    for level in np.unique(energies):  # the distribution of the energy
        p_level = p[energies == level].sum()
        error = np.sqrt(p_level * (1 - p_level) / num_samples)
        # Counts of levels that are hardly ever seen are Poisson: allow a handful.
        assert abs((sampled == level).mean() - p_level) <= Z_LIMIT * error + 5 / num_samples
    assert_mean(sampled, p @ energies)
    magnetisation, sampled_magnetisation = (2.0 * x.mean(axis=1) - 1 for x in (states, samples))
    assert_mean(sampled_magnetisation, 0.0)  # both signs alike, also where one of them freezes in
    assert_mean(np.abs(sampled_magnetisation), p @ np.abs(magnetisation))
    # every state, not only its energy: z^2 summed over states is chi-squared with 2^(n * n) - 1
    index = samples @ (1 << np.arange(size**2 - 1, -1, -1))
    counts = np.bincount(index, minlength=len(states))
    often = p * num_samples > 5
    z2 = (counts - p * num_samples)[often] ** 2 / (p * num_samples)[often]
    assert abs(z2.sum() - len(z2)) < Z_LIMIT * np.sqrt(2 * len(z2))


@pytest.mark.parametrize("temperature", [1.8, 2.27])
def test_ising_energy_on_a_larger_lattice(temperature):
    """Mean energy at size 6 against the transfer matrix, Z = trace(M^n), E = -d log Z / d beta."""
    size = 6
    rows = 2.0 * np.array(list(itertools.product([0, 1], repeat=size))) - 1  # (2^n, n)
    within = (rows * np.roll(rows, -1, axis=1)).sum(axis=1)
    minus_energy = rows @ rows.T + (within[:, None] + within) / 2  # of one row and the next

    def log_z(beta: float) -> float:
        return np.log((np.linalg.eigvalsh(np.exp(beta * minus_energy)) ** size).sum())

    beta, step = 1 / temperature, 1e-4
    expected = -(log_z(beta + step) - log_z(beta - step)) / (2 * step)
    samples, _ = datasets.ising(size, temperature, num_train=4000, num_val=0, seed=2)
    energy = energy_of(samples, size)
    assert_mean(energy, expected)
    # Independent samples: no correlation from one line to the next.
    z = np.corrcoef(energy[:-1], energy[1:])[0, 1] * np.sqrt(len(energy))
    assert abs(z) < Z_LIMIT


@pytest.mark.parametrize("num_edges", [0, 20, 60, 120])
def test_components_against_depth_first_search(num_edges):
    rng = np.random.default_rng(num_edges)
    for _ in range(20):
        a, b = rng.integers(0, 100, (2, num_edges), dtype=np.int32)
        root = datasets.strings._components(100, a, b)
        neighbours = [np.concatenate([b[a == node], a[b == node]]) for node in range(100)]
        for start in range(100):
            reached, to_visit = {start}, [start]
            while to_visit:
                new = set(neighbours[to_visit.pop()].tolist()) - reached
                reached |= new
                to_visit += new
            assert set(np.flatnonzero(root == root[start]).tolist()) == reached


def test_ising_fills_every_block_of_chains():
    """More chains than are run at a time: none is left in the all-up state it starts from."""
    samples, _ = datasets.ising(20, 1e6, num_train=2 * (2**16 // 20**2) + 1, num_val=0)
    assert samples.mean(axis=1).max() < 0.7


# --- Digits


@pytest.mark.parametrize("name", densities.DENSITIES)
def test_planar_strings_are_the_points(name):
    """There and back to half a cell; and the density has its shape: mean, spread and correlation."""
    draw, end = densities.DENSITIES[name]
    points = draw(20_000, np.random.default_rng(1))
    strings = densities.to_strings(points, name)
    assert strings.shape == (20_000, 32)
    assert np.abs(densities.to_points(strings, name) - points).max() <= 0.5001 * end / 2**15
    reference = PLANAR_MOMENTS[name]
    moments = [*points.mean(axis=0), *points.std(axis=0), np.corrcoef(points.T)[0, 1]]
    assert moments == pytest.approx(reference, abs=0.06)


# Mean of x and y, their standard deviations and correlation, from a million points of the papers' code.
PLANAR_MOMENTS = {
    "2spirals": [0.0, 0.0, 1.613, 1.584, 0.232],
    "8gaussians": [-0.002, 0.0, 2.033, 2.031, 0.001],
    "circles": [0.0, 0.0, 1.694, 1.694, 0.0],
    "moons": [0.0, 0.3, 1.743, 1.008, -0.44],
    "pinwheel": [0.003, -0.002, 1.483, 1.483, 0.0],
    "swissroll": [0.4, 0.044, 1.34, 1.404, 0.091],
    "checkerboard": [0.001, 0.006, 2.309, 2.309, 0.187],
}


def test_gray_code_of_neighbours_differs_in_one_bit():
    cell = densities.DENSITIES["moons"][1] / 2**15
    x = (np.arange(-40, 40) + 0.5) * cell
    strings = densities.to_strings(np.stack([x, 0 * x], axis=1), "moons")
    assert (np.diff(strings.astype(int), axis=0) != 0).sum(axis=1).tolist() == [1] * 79


def test_planar_takes_its_name_before_the_folder(tmp_path, capsys):
    assert command(["planar", "moon", str(tmp_path / "x")]) == 2
    assert "invalid choice: 'moon'" in capsys.readouterr().err
    options = ["--num-train", "50", "--num-val", "7"]
    assert command(["planar", "moons", str(tmp_path / "x"), *options]) == 0
    lines = (tmp_path / "x" / "train.txt").read_text().split()
    assert len(lines) == 50
    assert {len(line) for line in lines} == {32}
    assert len((tmp_path / "x" / "val.txt").read_text().split()) == 7


def test_digits():
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn, not installed here")
    from sklearn.datasets import load_digits

    train, val = datasets.digits()
    assert len(train) + len(val) == 1797
    assert 290 <= len(val) <= 297
    assert not as_set(train) & as_set(val)
    expected = (load_digits().images >= 8).reshape(-1, 64).astype(np.uint8)
    both = np.concatenate([train, val])
    np.testing.assert_array_equal(np.sort(_keys(both)), np.sort(_keys(expected)))


def _keys(strings: np.ndarray) -> np.ndarray:
    return np.packbits(strings, axis=1).view(">u8")[:, 0]


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        datasets.digits()


# --- All of them


RANDOM_SETS = [
    (datasets.repeating_patterns, {}),
    (datasets.multiples, {"bits": 10, "divisor": 3}),
    (datasets.bars_and_stripes, {}),
    (datasets.ising, {"size": 4, "num_train": 100, "num_val": 50}),
    (datasets.digits, {}),
]


@pytest.mark.parametrize(("function", "options"), RANDOM_SETS)
def test_seed_decides(function, options):
    if function is datasets.digits:
        pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    first, again, other = (function(**options, seed=seed) for seed in (3, 3, 4))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert as_set(a) != as_set(c)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (datasets.heartbeat, {"length": 0}, "length is 0, expected at least 1"),
        (datasets.heartbeat, {"length": 10**7}, "too long"),
        (datasets.heartbeat, {"length": 10**6, "period": 10**6}, "too many"),
        (datasets.heartbeat, {"period": 21}, "period is 21, expected 1 to 20"),
        (datasets.heartbeat, {"held_out": [5]}, "held-out phase is 5, expected 0 to 4"),
        (datasets.heartbeat, {"period": 2, "held_out": [0, 1]}, "all 2 phases are held out"),
        (datasets.repeating_patterns, {"period": 0}, "expected 1 to 20"),
        (datasets.repeating_patterns, {"length": 60, "period": 60}, "too many"),
        (datasets.repeating_patterns, {"num_train": 0}, "num-train is 0, expected 1 to 1024"),
        (datasets.repeating_patterns, {"num_train": 1000, "num_val": 25}, "expected 0 to 24"),
        (datasets.repeating_patterns, {"seed": -1}, "seed is -1"),
        (datasets.multiples, {"bits": 63}, "bits is 63, expected 1 to 62"),
        (datasets.multiples, {"bits": 3, "divisor": 8}, "divisor is 8, expected 1 to 7"),
        (datasets.multiples, {"bits": 60}, "too many"),
        (datasets.multiples, {"bits": 8, "val_share": 1.0}, "val-share is 1.0"),
        (datasets.multiples, {"bits": 8, "val_share": float("nan")}, "val-share is nan"),
        (datasets.bars_and_stripes, {"size": 40}, "too many"),
        (datasets.ising, {"size": 1}, "size is 1, expected at least 2"),
        (datasets.ising, {"temperature": 0.0}, "temperature is 0.0"),
        (datasets.ising, {"temperature": float("nan")}, "temperature is nan"),
        (datasets.ising, {"num_val": -1}, "num-val is -1"),
        (datasets.digits, {"threshold": 17}, "threshold is 17, expected 1 to 16"),
    ],
)
def test_wrong_arguments(function, options, message):
    with pytest.raises(UserError, match=message):
        function(**options)


# --- The command


def test_command_writes_the_two_files(tmp_path):
    folder = tmp_path / "new" / "run"
    result = call("datasets", "heartbeat", folder, "--length", 6, "--period", 3, "--held-out", 1)
    assert result.stdout == f"{folder}\n"
    assert (folder / "train.txt").read_bytes() == b"100100\n001001\n"
    assert (folder / "val.txt").read_bytes() == b"010010\n"
    assert f"python train.py {folder}" in result.stderr
    assert sorted(os.listdir(folder)) == ["train.txt", "val.txt"]


def test_training_reads_what_was_written(tmp_path):
    from bernoulli_diffusion.bits import data  # here, because it imports torch

    train, val = datasets.repeating_patterns(length=11, period=4)
    datasets.write_split(tmp_path, datasets.to_text(train), datasets.to_text(val))
    for file, strings in (("train.txt", train), ("val.txt", val)):
        np.testing.assert_array_equal(data.read_bit_strings(tmp_path / file).bits(), strings)
    assert forms.MAX_LENGTH == data.MAX_LENGTH


def test_command_needs_no_torch():
    code = "import sys, bernoulli_diffusion.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["heartbeet", "RUN_DIR"],
        ["heartbeat"],
        ["heartbeat", "RUN_DIR", "--period", "five"],
        ["heartbeat", "RUN_DIR", "--period", "0"],
        ["heartbeat", "RUN_DIR", "--perio", "5"],
        ["ising", "RUN_DIR", "--temperature", "-1"],
    ],
)
def test_command_with_wrong_arguments(tmp_path, capsys, arguments):
    folder = tmp_path / "run"
    arguments = [str(folder) if argument == "RUN_DIR" else argument for argument in arguments]
    assert command(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert not folder.exists()


def test_no_overwrite_without_force(tmp_path, capsys):
    folder = str(tmp_path)
    (tmp_path / "val.txt").write_text("mine\n")
    assert command(["heartbeat", folder]) == 2
    assert "val.txt: already there" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["val.txt"]
    assert (tmp_path / "val.txt").read_text() == "mine\n"

    assert command(["heartbeat", folder, "--held-out", "4", "--force"]) == 0
    assert (tmp_path / "val.txt").read_text() == "00001000010000100001\n"
    # Nothing held out: the val.txt of the data set before must not stay behind.
    assert command(["heartbeat", folder, "--force"]) == 0
    assert os.listdir(tmp_path) == ["train.txt"]
    assert "no val.txt" in capsys.readouterr().err


def test_run_dir_that_is_a_file(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert command(["heartbeat", str(tmp_path / "run")]) == 2
    assert "RUN_DIR is a folder" in capsys.readouterr().err


def test_a_disk_that_fails_leaves_no_half_file(tmp_path, capsys, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    assert command(["heartbeat", str(tmp_path), "--held-out", "0"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_disk_that_is_full_in_the_middle_changes_nothing(tmp_path, capsys, monkeypatch, k):
    """Neither a new val.txt beside an old train.txt, nor one that stands in the next attempt's way."""
    written = iter(range(1, 10))

    def full_disk(_):
        if next(written) == k:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    run_dir = tmp_path / "run"
    assert command(["bars_and_stripes", str(run_dir)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert os.listdir(run_dir) == []
    for name in ("train.txt", "val.txt", "config.yaml"):
        (run_dir / name).write_text("old")
    written = iter(range(1, 10))
    assert command(["bars_and_stripes", str(run_dir), "--force"]) == 1
    assert [path.read_text() for path in run_dir.iterdir()] == ["old"] * 3


def test_a_new_data_set_is_a_new_function(tmp_path, monkeypatch):
    def constant(
        length: Annotated[int, "100% help"] = 3,
        bits: Annotated[Sequence[int], "one string each"] = (0,),
    ) -> forms.Split:
        """Strings of one bit."""
        strings = np.repeat(np.array(bits, dtype=np.uint8)[:, None], length, axis=1)
        return strings, strings[:0]

    monkeypatch.setattr(datasets.strings, "constant", constant, raising=False)
    assert command(["constant", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / "train.txt").read_text() == "000\n"
    options = ["--length", "2", "--bits", "1", "0", "--bits", "1"]
    assert command(["constant", str(tmp_path / "b"), *options]) == 0
    assert (tmp_path / "b" / "train.txt").read_text() == "11\n00\n11\n"


@pytest.mark.parametrize("name", [function.__name__ for function in datasets.data_sets()])
def test_help_names_every_option(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        command([name, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "RUN_DIR" in text
    assert "default: " in text


def test_shipped_heartbeats():
    for name, options in (
        ("heartbeat_len_20_per_5", {"held_out": [4]}),
        ("heartbeat_len_64_per_32", {"length": 64, "period": 32, "held_out": [3, 20]}),
    ):
        for file, strings in zip(("train", "val"), datasets.heartbeat(**options), strict=True):
            content = (ROOT / "runs" / name / f"{file}.txt").read_bytes()
            assert content == datasets.to_text(strings)


def test_shipped_repeating_patterns():
    folder = ROOT / "runs" / "repeating_patterns_len_20_per_10"
    train, val = ((folder / file).read_text().splitlines() for file in ("train.txt", "val.txt"))
    assert (len(train), len(val)) == (972, 50)
    assert len({*train, *val}) == 1022
    assert all(len(line) == 20 and line[:10] == line[10:] for line in train + val)
