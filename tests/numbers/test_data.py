"""Real numbers in text files: what is read, what is refused, and how batches are made."""

import math

import numpy as np
import pytest
import torch
from test_datasets import command

from bernoulli_diffusion import datasets, numbers
from bernoulli_diffusion.config import parse_config
from bernoulli_diffusion.numbers import measures as measures_file
from bernoulli_diffusion.numbers.batches import Batches
from bernoulli_diffusion.numbers.data import (
    RealVectors,
    parse_pattern,
    read_patterns,
    read_real_vectors,
    to_text,
)
from bernoulli_diffusion.system.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "1 2.5\n-3 4e1\n",
        "1\t2.5\r\n-3\t4e1\r\n",
        "1,2.5\n-3 , 40",
        "\ufeff 1   2.5 \n -3.0  +40. \n\n\n",
        "1.0, 2.50\n-.3e1 40\n",
    ],
)
def test_accepted_forms(tmp_path, text):
    (tmp_path / "x.txt").write_bytes(text.encode())
    vectors = read_real_vectors(tmp_path / "x.txt")
    assert vectors.values.tolist() == [[1, 2.5], [-3, 40]]
    assert vectors.mean.tolist() == [-1, 21.25]
    assert vectors.deviation.tolist() == [2, 18.75]
    assert vectors.tensor(slice(None)).tolist() == [[1, -1], [-1, 1]]


MISTAKES = {
    "1 2\n3 x\n": "x.txt:2:2: expected a number, found 'x'",
    "1 2\n3 nan\n": "x.txt:2:2: expected a number, found 'nan'; leave out lines with missing",
    "1 2\n-inf 3\n": "x.txt:2:1: expected a number, found '-inf'; leave out lines with missing",
    "1 2\n3 4\n5\n": "x.txt:3: 1 numbers, but the lines above have 2",
    "1 2\n3 4 5\n": "x.txt:2: 3 numbers, but the lines above have 2",
    "1 2\n\n3 4\n": "x.txt:2: an empty line among the samples; remove it",
    "1,2\n3,,4\n": "x.txt:2:2: expected a number, found nothing between two commas",
    "1,2\n3,4,\n": "x.txt:2: a comma at the end of the line; remove it",
    "1,5 2,5\n3,5 4,5\n": "x.txt:1: both commas and spaces between digits",
    "x,y\n1,2\n": "x.txt:1:1: expected a number, found 'x'; if this line is a header, remove it",
    "1;2\n3;4\n": "x.txt:1:1: expected a number, found '1;2'; put spaces, tabs or commas between",
    "1e-300\n2e-300\n": "x.txt: column 1 hardly varies around 1.5e-300; multiply it by a large number",
    "1 2\n3 1_0\n": "x.txt:2:2: expected a number, found '1_0'",
    "1 2\n0x1 3\n": "x.txt:2:1: expected a number, found '0x1'",
    "1 2\n1e99 3\n": "x.txt:2:1: 1e99 is too large",
    "1 2\n1 2\n": "x.txt: column 1 is 1 in every line (and 1 more such columns)",
    "1 2\n": "x.txt: column 1 is 1 in every line (and 1 more such columns)",
    "1e9 1\n1000000000.0001 2\n": "x.txt: column 1 hardly varies around 1e+09; subtract that",
    "": "x.txt: the file is empty; expected one sample a line",
    "\n\n": "x.txt: the file is empty; expected one sample a line",
    "1 " * 10_001: "x.txt:1: more than 10,000 numbers in one line",
    "1 2\n3 \x1b[0m\n": "x.txt:2:2: expected a number, found '\\x1b[0m'",
}


@pytest.mark.parametrize("text", MISTAKES, ids=lambda t: MISTAKES[t][:40])
def test_mistakes_are_told_in_a_line(tmp_path, text):
    (tmp_path / "x.txt").write_bytes(text.encode())
    with pytest.raises(UserError) as caught:
        read_real_vectors(tmp_path / "x.txt")
    assert str(caught.value).startswith(f"{tmp_path}/{MISTAKES[text]}")
    assert "\n" not in str(caught.value)


def test_mistakes_beyond_the_first_block_have_their_line(tmp_path):
    lines = ["1 2", "3 4"] * 3000
    lines[5000] = "1 two"
    (tmp_path / "x.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"x\.txt:5001:2: expected a number, found 'two'"):
        read_real_vectors(tmp_path / "x.txt")


def test_text_round_trip(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 3)) * 10.0 ** np.arange(-5, 10, 5)
    (tmp_path / "x.txt").write_bytes(to_text(values))
    assert np.allclose(read_real_vectors(tmp_path / "x.txt").values, values, rtol=1e-5)


def test_patterns(tmp_path):
    assert np.array_equal(parse_pattern(b"0.3 ?, -2e0", 3, "p"), [0.3, np.nan, -2], equal_nan=True)
    for text, message in (
        (b"0.3 ?", "p: 2 numbers and \\?, but the model's samples have 3"),
        (b"0.3 ? y", "p:3: expected a number or \\?, found 'y'"),
        (b"0.3 ? inf", "p:3: expected a number or \\?, found 'inf'"),
    ):
        with pytest.raises(UserError, match=message):
            parse_pattern(text, 3, "p")
    (tmp_path / "p.txt").write_text("1 ?\n? 2\n")
    assert np.isnan(read_patterns(tmp_path / "p.txt", 2)).tolist() == [[False, True], [True, False]]


def test_dequantized_numbers_are_uniform_and_counted_in_the_scale(tmp_path):
    vectors = RealVectors(np.tile(np.arange(4.0), 5000)[:, None], width=1.0)
    assert vectors.mean == pytest.approx([2.0])
    assert vectors.deviation**2 == pytest.approx([16 / 12])
    x = vectors.dequantized()
    rest = x - vectors.values
    assert rest.min() >= 0
    assert rest.max() <= 1
    assert abs(np.histogram(rest, 10, (0, 1))[0] - 2000).max() < 4.5 * 43
    assert np.array_equal(x[7:9], vectors.dequantized(slice(7, 9)))
    assert np.array_equal(x[[9, 3]], vectors.dequantized(torch.tensor([9, 3])))
    assert not np.array_equal(x, vectors.dequantized(draw=1))
    (tmp_path / "x.txt").write_text("1 0\n2 0\n")
    assert read_real_vectors(tmp_path / "x.txt", 1.0).deviation[1] == pytest.approx(12**-0.5)


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (3, 8), (7, 7)])
@pytest.mark.parametrize("width", [0.0, 1e-9])
def test_batches_are_permutations_and_shards_are_their_parts(n, batch_size, width):
    vectors = RealVectors(np.arange(n, dtype=float)[:, None], np.zeros(1), np.ones(1), width)
    batches = Batches(vectors, batch_size, seed=3)
    assert batches.steps_per_epoch == -(-n // batch_size)
    stream = torch.cat([batches.batch(k) for k in range(3 * n)]).flatten().round().int()
    for first in range(0, 3 * n * batch_size - n + 1, n):
        assert sorted(stream[first : first + n].tolist()) == list(range(n))
    shards = [Batches(vectors, batch_size, 3, shard=(rank, 2)) for rank in (0, 1)]
    for k in (5, 0, 2):
        whole = batches.batch(k).round()
        for rank in (0, 1):
            assert torch.equal(shards[rank].batch(k).round(), whole[rank::2])


# ------------------------------------------------------------------------------- baselines


def vectors(x, like=None):
    return RealVectors(x) if like is None else RealVectors(x, like.mean, like.deviation)


def test_gaussian_baselines():
    rng = np.random.default_rng(0)
    factor = np.array([[2.0, 0], [1.5, 0.5]])
    train = vectors(rng.normal(size=(20_000, 2)) @ factor.T + 3)
    entropy = math.log2(2 * math.pi * math.e) + math.log2(np.linalg.det(factor))
    assert measures_file.gaussian_bits(train, train) == pytest.approx(entropy, abs=0.02)
    variance = (4 + 1.5**2 + 0.5**2) / 2
    isotropic = math.log2(2 * math.pi * math.e * variance)
    assert measures_file.isotropic_bits(train, train) == pytest.approx(isotropic, abs=0.02)
    assert measures_file.gaussian_bits(vectors(rng.normal(size=(3, 5))), train) is None


def test_kernel_density_is_the_mean_of_its_kernels():
    rng = np.random.default_rng(0)
    train = vectors(rng.normal(size=(300, 2)) * [1, 5])
    val = vectors(rng.normal(size=(50, 2)) * [1, 5], like=train)
    bits, bandwidth = measures_file.kernel_density_bits(train, val)
    width = bandwidth * train.deviation
    z = (val.values[:, None] - train.values) / width
    density = (np.exp(-(z**2).sum(axis=2) / 2) / (2 * math.pi * width.prod())).mean(axis=1)
    assert bits == pytest.approx(-np.log2(density).mean(), abs=1e-3)
    assert 0.1 < bandwidth < 1


def test_copies_of_train_in_val_are_counted_unless_numbers_are_whole():
    config = parse_config("", "x")
    values = np.random.default_rng(0).normal(size=(50, 2))
    train = vectors(values)
    val = vectors(np.concatenate([values[7:10], values[7:10, ::-1]]), like=train)
    assert measures_file.Measures(train, val, config, val).facts["val_copies"] == 3
    assert measures_file.Measures(train, None, config, train).facts["val_copies"] == 0
    counts = RealVectors(np.round(values), width=1.0)
    assert measures_file.Measures(counts, counts, config, counts).facts["val_copies"] == 0


def test_energy_distance_is_at_its_floor_for_the_same_law_and_above_for_another():
    rng = np.random.default_rng(0)
    train, val = vectors(rng.normal(size=(1000, 2))), None
    config = parse_config("training: {num_val_samples: 800}", "x")
    floors = []
    for _ in range(2):
        val = vectors(rng.normal(size=(600, 2)), like=train)
        measures = measures_file.Measures(train, val, config, val)
        floors.append(measures.facts["energy_floor"])
    same = [measures.of(rng.normal(size=(800, 2)))["energy_distance"] for _ in range(20)]
    assert np.mean(same) == pytest.approx(floors[-1], rel=0.35)
    assert np.mean(np.array(same) > measures.facts["energy_floor_high"]) <= 0.2
    shifted = measures.of(rng.normal(size=(800, 2)) + np.array([0.3, 0.0]))["energy_distance"]
    assert shifted > 2 * measures.facts["energy_floor_high"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {schedule: linear, beta_min: 0.1, beta_max: 0.01}", "model.beta_min: 0.1 is more"),
        ("model: {schedule: linear, T: 1000, beta_max: 0.4}", "leave .* of the data's variance"),
        ("{model: {variance: learned}, training: {loss: simple}}", "training.loss: simple says"),
    ],
)
def test_settings_that_do_not_go_together(text, message):
    with pytest.raises(UserError, match=message):
        numbers.check_config(parse_config(text, "config.yaml"), "config.yaml")


# ------------------------------------------------------------------------------- data sets


def test_gaussian_mixture_has_its_mean_and_variance():
    train, val = datasets.gaussian_mixture()
    assert (train.shape, val.shape) == ((10_000, 1), (2_000, 1))
    assert train.mean() == pytest.approx(0.2, abs=4.5 * 0.5 / 100)
    assert train.var() == pytest.approx(0.04 + 0.21, abs=0.01)


def test_ramp_is_the_minimum_of_two_uniforms():
    train, _ = datasets.ramp(dimensions=3)
    share = (train < 0.25).mean(axis=0)
    assert share == pytest.approx(np.full(3, 1 - 0.75**2), abs=4.5 * 0.005)


def test_spirals_lie_on_their_curves():
    train, _ = datasets.spiral()
    radius = np.hypot(*train.T)
    assert radius.min() >= 0.25
    assert radius.max() <= 1.05
    angle = np.arctan2(train[:, 1], train[:, 0]) % (2 * np.pi)
    u = np.stack([(angle + 2 * np.pi * turn) / (3 * np.pi) for turn in (0, 1)])
    v = (radius - 0.25 - 0.65 * u) / 0.15
    assert ((v >= -1e-9) & (v <= 1 + 1e-9) & (u <= 1)).any(axis=0).all()
    train, _ = datasets.swiss_roll()
    radius, angle = 10 * np.hypot(*train.T), np.arctan2(train[:, 1], train[:, 0])
    off = np.abs((radius - angle + np.pi) % (2 * np.pi) - np.pi)  # noise 0.1 along the radius
    assert np.sqrt((off**2).mean()) == pytest.approx(0.1, abs=0.01)


def test_n_gaussians_are_on_the_circle():
    train, _ = datasets.n_gaussians(clusters=5, deviation=0.01)
    assert np.hypot(*train.T).mean() == pytest.approx(1, abs=0.01)
    angles = np.round(np.arctan2(train[:, 1], train[:, 0]) % (2 * np.pi) / (2 * np.pi / 5)) % 5
    assert abs(np.bincount(angles.astype(int)) - 2000).max() < 4.5 * 40


def test_numbers_are_written_so_that_they_can_be_read(tmp_path, capsys):
    assert command(["ramp", str(tmp_path / "r"), "--dimensions", "2", "--num-train", "9"]) == 0
    assert "model.process: gaussian" in capsys.readouterr().err
    assert read_real_vectors(tmp_path / "r" / "train.txt").values.shape == (9, 2)
    assert command(["n_gaussians", str(tmp_path / "n"), "--deviation", "-1"]) == 2
