"""Sample weights: what a weight says is what copies of the line would say."""

import json

import exact
import numpy as np
import pytest
import torch
from processes import assert_identical, call, make_run, mistake, outcome, train, without_trees

from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.measures import Measures, independent_bits
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.config import Config, DataConfig, ModelConfig, TrainingConfig
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.estimate import of_lines
from bernoulli_diffusion.kinds import KINDS
from bernoulli_diffusion.likelihood import estimate_bound, exact_law
from bernoulli_diffusion.numbers.data import RealVectors
from bernoulli_diffusion.training.loop import fit
from bernoulli_diffusion.training.network import live_source, new_diffusion
from bernoulli_diffusion.training.shares import Draws
from bernoulli_diffusion.weights import InProportion, effective_size, represented

X = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]], np.uint8)
W = np.array([0.5, 1.5, 6.0, 0.0])
SHARES = W / W.sum()
ROUGH = "--precision", "0.05"
Z = 4  # standard errors; chance exceeds it once in 16,000 times


def strings(bits=X, weights=W) -> BitStrings:
    return BitStrings(np.packbits(bits, axis=1), bits.shape[1], weights=weights)


# --- Rows in proportion


@pytest.mark.parametrize("N", [4, 40])
def test_each_pass_has_a_row_as_often_as_its_weight_says(N):
    weights = np.resize(W, N)
    drawn, K = InProportion(weights), 64
    wanted = N * weights / weights.sum()
    counts = np.zeros(N)
    for k in range(K):
        found = np.bincount(drawn.rows(np.arange(N), (k + 0.5) / K), minlength=N)
        assert (np.abs(found - wanted) < 1).all()
        counts += found
    assert counts / K == pytest.approx(wanted)  # over u, the mean is exact


def test_equal_weights_give_each_row_once():
    assert sorted(InProportion(np.full(9, 0.3)).rows(np.arange(9), 0.5)) == list(range(9))


def test_rounding_never_ends_on_a_weight_of_zero():
    for zeros in range(1, 20):
        drawn = InProportion(np.array([0.1, 0.7] + [0.0] * zeros))
        rows = drawn.rows(np.array([0, zeros + 1]), np.array([0.0, np.nextafter(1, 0)]))
        assert set(rows) == {0, 1}


@pytest.mark.parametrize("batch_size", [3, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_in_proportion_and_shards_are_their_parts(kind, batch_size):
    numbers = RealVectors(np.arange(4.0)[:, None])
    data = strings() if kind == "bernoulli" else numbers
    data.weights = W
    stream = [KINDS[kind].Batches(data, batch_size, 5, shard=s) for s in ((0, 1), (0, 2), (1, 2))]
    known = data.tensor(np.arange(4))
    counts = torch.zeros(4)
    K = 400
    for k in range(K):
        whole, *parts = (batches.batch(k) for batches in stream)
        counts += (whole[:, None] == known).all(dim=2).sum(dim=0)
        assert whole[::2].equal(parts[0])
        assert whole[1::2].equal(parts[1])
        if k % 50 == 0:
            assert whole.equal(KINDS[kind].Batches(data, batch_size, 5).batch(k))
    p, n = SHARES, K * batch_size
    assert counts[3] == 0
    z = (counts.numpy() - n * p)[:3] / np.sqrt(n * p * (1 - p))[:3]
    assert np.abs(z).max() < Z  # of independent draws; these vary less


def test_the_expected_loss_is_that_of_a_file_with_the_lines_repeated():
    weights = np.array([1.0, 3.0, 12.0, 0.0])
    loss = exact.bound(exact.random_model(3, 4, seed=1))  # of every string
    per_line = loss[exact.index(torch.from_numpy(X))].numpy()
    repeated = per_line.repeat(weights.astype(int)).mean()
    drawn, K = InProportion(weights), 4 * int(weights.sum())
    found = [per_line[drawn.rows(np.arange(4), (k + 0.5) / K)].mean() for k in range(K)]
    assert np.mean(found) == pytest.approx(repeated)


# --- Means by weight


def test_a_mean_by_weights_and_its_error():
    r = np.random.default_rng(0)
    w, v = r.exponential(size=4000), r.normal(size=4000)
    found = of_lines(v, np.full(4000, 0.04), w)
    assert found.bits == pytest.approx((w * v).sum() / w.sum())
    assert found.monte_carlo_error == pytest.approx(0.2 / effective_size(w) ** 0.5)
    # from 64 blocks, so known to 9%
    assert found.standard_error == pytest.approx(1 / effective_size(w) ** 0.5, rel=0.4)


@pytest.mark.parametrize("draws", [2_000, 80_000])
def test_the_bound_by_weights_is_that_of_repeated_lines(draws):
    model = exact.random_model(3, 4, seed=2)
    diffusion = Diffusion(BernoulliDiffusionProcess(4), model)
    bits, weights = np.tile(X, (500, 1)), np.tile(W, 500)
    found = estimate_bound(diffusion, strings(bits, weights), draws, seed=3)
    truth = exact.bound(model)[exact.index(torch.from_numpy(X))].detach().numpy() @ SHARES
    assert abs(found.bits - truth) < Z * found.standard_error
    plain = estimate_bound(diffusion, strings(bits, None), draws, seed=3)
    assert abs(plain.bits - truth) > Z * plain.standard_error


def test_looks_draw_in_proportion():
    draws = Draws(BernoulliDiffusionProcess(4), strings(), seed=0, num_draws=4000)
    number = exact.index(draws.x_0)
    counts = np.bincount(number.numpy(), minlength=8)[exact.index(torch.from_numpy(X)).numpy()]
    assert np.abs(counts - 4000 * SHARES).max() < 30


def test_measures_and_baselines_count_by_weight():
    few = strings(np.tile(X, (100, 1)), np.tile(W, 100))  # in an order that repeats itself
    repeated = strings(X.repeat((W * 100).astype(int), axis=0), None)
    assert represented(few).weights is None
    p, q = (represented(s).ones / len(represented(s)) for s in (few, repeated))
    assert p == pytest.approx(q, abs=0.01)
    config = Config()
    measures = Measures(few, few, config, few)
    wanted = independent_bits(repeated, repeated)
    assert measures.baselines["independent_val"] == pytest.approx(wanted, abs=0.05)
    assert measures.of(strings(X[3:], None))["share_train"] == 1  # also what counts for nothing


def test_what_a_network_finds_in_the_data_counts_by_weight():
    data = strings(np.tile(X, (200, 1)), np.tile(W, 200))
    diffusion = new_diffusion(live_source(None), data, Config(ModelConfig(T=20)), "cpu")
    wanted = SHARES @ X
    assert diffusion.reverse_model.frequency.numpy() == pytest.approx(wanted, abs=0.01)


def test_a_model_learns_the_weights():
    model = ModelConfig(T=30, reverse_model={"width": 16, "num_blocks": 1})
    training = TrainingConfig(epochs=200, lr=0.03, warmup_steps=5, ema_decay=0.98)
    config = Config(model, training, DataConfig(batch_size=64))
    data = strings(np.tile(X, (16, 1)), np.tile(W, 16))
    law = exact_law(fit(data, config), 3)[exact.index(torch.from_numpy(X))]
    assert law.numpy() == pytest.approx(SHARES, abs=0.03)


# --- The commands


@pytest.fixture
def weighted(tmp_path):
    run_dir = make_run(tmp_path / "run")
    (run_dir / "weights.txt").write_text("".join(f"{0.5 + i % 3}\n" for i in range(16)))
    (run_dir / "val_weights.txt").write_text("1\n2.5\n0\n")
    return run_dir


def test_a_run_with_weights_is_told_resumed_and_refused_if_they_changed(weighted, tmp_path):
    done = call("train.py", weighted, "--check")
    assert "16 sample weights; the largest is 5 times the least" in done.stderr
    whole = outcome(train(weighted))
    other = make_run(tmp_path / "other")
    for name in ("weights.txt", "val_weights.txt"):
        (other / name).write_bytes((weighted / name).read_bytes())
    results = train(other, "--set", "training.epochs=6", "--set", "training.max_minutes=0.0001")
    train(other, "--resume", "--set", "training.max_minutes=null")
    for name in ("model_best.pt", "model_epoch_6.pt"):
        a, b = (x[name]["averaged_weights"] for x in (whole, outcome(results)))
        assert_identical(a, b)
    (other / "weights.txt").write_text("".join(f"{1 + i % 2}\n" for i in range(16)))
    error = mistake("train.py", other, "--resume", results, "--epochs", "9")
    assert "train.txt: changed since" in error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n" * 15, "15 weights, but train.txt has 16 samples"),
        ("1\n-2\n" * 8, "weights.txt:2: a weight is a number that is not negative, found '-2'"),
        ("1\nnan\n" * 8, "weights.txt:2: a weight is a number"),
        ("1\ninf\n" * 8, "weights.txt:2: a weight is a number"),
        (
            "1\n\n" * 7 + "1\n1\n",
            "weights.txt:2: a weight is a number that is not negative, found n",
        ),
        ("0\n" * 16, "all weights are zero"),
    ],
)
def test_wrong_weights_are_told_in_one_line(text, words, weighted):
    (weighted / "weights.txt").write_text(text)
    assert words in mistake("train.py", weighted)
    assert not (weighted / "results").exists()


TABLE = "colour,pay,w\n" + "".join(
    f"{('red', 'blue', 'green')[i % 3]},{i % 7},{(0.25, 2, 4.5)[i % 3]}\n" for i in range(120)
)


def test_a_column_of_weights(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    run_dir = tmp_path / "run"
    call("prepare", tmp_path / "t.csv", run_dir, "--weights", "w", "--val", "0.2")
    assert "type: weight" in (run_dir / "columns.yaml").read_text()
    lengths = {}
    for name in ("train", "val"):
        lines = (run_dir / f"{name}.txt").read_text().split()
        file = "weights.txt" if name == "train" else "val_weights.txt"
        weights = (run_dir / file).read_text().split()
        assert len(lines) == len(weights)
        # blue, green, red: a bit each, first
        wanted = {"001": 0.25, "100": 2.0, "010": 4.5}
        assert [wanted[line[:3]] for line in lines] == [float(w) for w in weights]
        lengths[name] = len(lines)
    assert lengths == {"train": 96, "val": 24}
    call("prepare", tmp_path / "t.csv", run_dir, "--val", "0.2")  # columns.yaml still says so
    assert (run_dir / "weights.txt").exists()
    call("prepare", tmp_path / "t.csv", run_dir, "--val", "0.2", "--drop", "w")
    assert not (run_dir / "weights.txt").exists()


def test_records_of_a_weighted_table_and_their_mean_by_weight(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    run_dir = tmp_path / "run"
    call("prepare", tmp_path / "t.csv", run_dir, "--weights", "w", "--val", "0.2")
    (run_dir / "config.yaml").write_text(
        "model: {T: 40, reverse_model: {width: 16, num_blocks: 1}}\n"
        "training: {epochs: 40, lr: 0.03, warmup_steps: 5, num_val_samples: 20, num_bound_draws: 64}\n"
        "data: {batch_size: 32}\n"
    )
    results = train(run_dir, prepare=without_trees)
    made = call("generate.py", results, 1000).stdout.splitlines()
    assert made[0] == "colour,pay"
    share = np.mean([line.startswith("green") for line in made[1:]])
    assert share == pytest.approx(4.5 / 6.75, abs=0.06)  # a third without weights
    lines = tmp_path / "lines.tsv"
    report = call("evaluate", results, tmp_path / "t.csv", "--per-line", lines, *ROUGH).stdout
    w = np.array([float(line.split(",")[2]) for line in TABLE.splitlines()[1:]])
    bits = np.loadtxt(lines, skiprows=1, usecols=1)
    wanted = (w @ bits) / w.sum()
    assert abs(wanted - bits.mean()) > 0.3  # rare colours cost more
    assert json.loads(report)["bound"]["bits"] == pytest.approx(wanted, abs=0.001)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("-1", "w of row 8: a weight is a number that is not negative, found '-1'"),
        ("", "w of row 8: a weight is a number that is not negative, found nothing"),
        ("many", "w of row 8: a weight is a number that is not negative, found 'many'"),
    ],
)
def test_a_column_that_is_no_weight(column, words, tmp_path):
    lines = TABLE.splitlines()
    lines[8] = lines[8].rpartition(",")[0] + f",{column}"
    (tmp_path / "t.csv").write_text("\n".join(lines))
    done = call("prepare", tmp_path / "t.csv", tmp_path / "run", "--weights", "w", code=2)
    assert words in done.stderr
    assert not (tmp_path / "run").exists()
    done = call("prepare", tmp_path / "t.csv", tmp_path / "run", "--weights", "wieght", code=2)
    assert "there is no column 'wieght'" in done.stderr


def test_weights_are_part_of_what_a_run_is_recognised_by():
    assert strings(weights=None).sha256() != strings().sha256()
