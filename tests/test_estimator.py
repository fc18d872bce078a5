"""BernoulliDiffusion, as it is used from Python."""

import copy
import itertools
import math
import pickle
from pathlib import Path

import exact
import numpy as np
import pytest
import torch
from processes import call

from bernoulli_diffusion import BernoulliDiffusion
from bernoulli_diffusion.likelihood import exact_law
from bernoulli_diffusion.system.errors import UserError

TINY = {
    "epochs": 150,
    "T": 60,
    "lr": 0.005,
    "settings": {"model.reverse_model": "{width: 48, num_blocks: 1}"},
}
RANDOM = np.random.default_rng(0)
X = np.repeat(RANDOM.integers(0, 2, (600, 2)), 3, axis=1)  # two free bits, each written three times


@pytest.fixture(scope="module")
def model():
    return BernoulliDiffusion(**TINY).fit(X, X_val=X[:100])


def test_score_is_a_log_density_in_nats(model):
    scores = model.score_samples(X[:50])
    assert scores.shape == (50,)
    assert model.score(X[:50]) == pytest.approx(scores.mean())
    entropy = -2 * math.log(2)  # the best that can be
    assert entropy - 0.6 < model.score(X) < entropy + 0.05
    assert model.score(1 - X[:, ::-1]) > model.score(RANDOM.integers(0, 2, X.shape)) + 1


def test_samples_are_of_the_form_of_the_data(model):
    samples = model.sample(300, random_state=1)
    assert samples.shape == (300, 6)
    assert samples.dtype == X.dtype
    assert (samples == model.sample(300, random_state=1)).all()
    assert (samples[:, 0] == samples[:, 1]).mean() > 0.85


def test_gaps_are_filled(model):
    gaps = X[:4].astype(float)
    gaps[:, [0, 4]] = np.nan
    filled = model.conditional(gaps, n=20, random_state=0)
    assert filled.shape == (80, 6)
    known = ~np.isnan(gaps)
    assert (filled[:, known[0]] == np.repeat(X[:4], 20, axis=0)[:, known[0]]).all()
    assert (filled == np.repeat(X[:4], 20, axis=0)).mean() > 0.93


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    model.save(tmp_path / "m.pt")
    again = BernoulliDiffusion.load(tmp_path / "m.pt")
    assert (again.score_samples(X[:9]) == model.score_samples(X[:9])).all()
    assert (again.sample(5) == model.sample(5)).all()
    drawn = call("generate.py", tmp_path / "m.pt", 3).stdout.split()
    assert [len(line) for line in drawn] == [6, 6, 6]


def test_a_sample_weight_counts_as_copies():
    rows = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]], np.uint8)
    weights = np.array([1, 2, 5, 0])
    how = {"training.warmup_steps": 5, "training.ema_decay": 0.98}
    how["model.reverse_model"] = "{width: 16, num_blocks: 1}"
    model = BernoulliDiffusion(T=30, epochs=300, lr=0.02, batch_size=64, settings=how)
    model.fit(np.tile(rows, (16, 1)), sample_weight=np.tile(weights, 16))
    law = exact_law(model.diffusion_, 3)[exact.index(torch.from_numpy(rows))].numpy()
    assert law == pytest.approx(weights / 8, abs=0.03)


def test_a_table_with_sample_weights_is_encoded_as_with_copies():
    random = np.random.default_rng(1)
    numbers = random.normal(size=(120, 2)).round(1) + 0.0  # no -0.0
    weights = random.integers(0, 4, 120)
    weighted, repeated = (BernoulliDiffusion(**{**TINY, "epochs": 1}) for _ in range(2))
    weighted.fit(numbers, sample_weight=weights)
    repeated.fit(np.repeat(numbers, weights, axis=0))
    for one, other in zip(weighted.encoding_.columns, repeated.encoding_.columns, strict=True):
        shares = []
        for column in (one, other):
            texts, counts = (itertools.chain(*of) for of in (column.texts, column.counts))
            count = dict(zip(texts, counts, strict=True))
            shares.append({t: n / sum(count.values()) for t, n in count.items()})
        for text, share in shares[1].items():
            assert shares[0][text] == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(5), r"shape \(5,\); expected \(600,\)"),
        (np.full(600, -1.0), "sample_weight of row 0: a weight is a number that is not negative"),
        (np.zeros(600), "weights are zero"),
    ],
)
def test_wrong_sample_weights(weights, words):
    with pytest.raises(ValueError, match=words):
        BernoulliDiffusion(**TINY).fit(X, sample_weight=weights)


def test_tensors_and_bools():
    options = {**TINY, "epochs": 2}
    as_tensor = BernoulliDiffusion(**options).fit(torch.from_numpy(X))
    assert isinstance(as_tensor.sample(3), torch.Tensor)
    as_bool = BernoulliDiffusion(**options).fit(X.astype(bool))
    assert as_bool.sample(3).dtype == bool
    assert (as_tensor.sample(3).numpy() == as_bool.sample(3)).all()


def test_an_array_of_numbers_is_a_table():
    numbers = np.stack([RANDOM.integers(0, 4, 300), RANDOM.integers(0, 9, 300) * 0.5], axis=1)
    samples = BernoulliDiffusion(**{**TINY, "epochs": 3}).fit(numbers).sample(50)
    assert samples.dtype == numbers.dtype
    assert all(set(samples[:, i]) <= set(numbers[:, i]) for i in range(2))


def test_a_data_frame_of_which_some_is_held_out_and_some_left_out():
    pandas = pytest.importorskip("pandas")
    count = np.arange(60)
    frame = pandas.DataFrame(
        {"key": [f"k{i}" for i in count], "n": count % 3, "t": np.where(count % 3, "a", "b")}
    )
    rare = frame.iloc[:4].assign(n=7, t=["a", "c", None, "a"])  # values that train has not
    model = BernoulliDiffusion(epochs=1, T=20).fit(frame.iloc[4:], X_val=rare)
    assert np.isfinite(model.score_samples(rare)).all()
    gaps = frame.iloc[:4].set_index(pandas.Index([5, 5, 6, 7]))
    gaps.iloc[0, 1] = None
    filled = model.conditional(gaps, n=2)
    assert filled["key"].tolist() == ["k0", "k0", "k1", "k1", "k2", "k2", "k3", "k3"]
    assert filled["n"].dtype == frame["n"].dtype
    assert filled["n"].tolist()[2:] == [1, 1, 2, 2, 0, 0]
    assert list(model.conditional(gaps.drop(columns="t")).columns) == ["key", "n", "t"]
    with pytest.raises(ValueError, match="X has no column 'n'"):
        model.score(frame.rename(columns={"n": "m"}))


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ({"n": "nr"}, r"types\['n'\]: 'nr' is no type"),
        ({"m": "number"}, "there is no column 'm'"),
        ({"n": "weight"}, "sample_weight"),
    ],
)
def test_wrong_types_of_columns(types, words):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2, 3], "t": ["a", "b", "a"]})
    with pytest.raises(ValueError, match=words):
        BernoulliDiffusion(types=types).fit(frame)


def test_a_data_frame_comes_back_with_its_types():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"a": RANDOM.choice(["x", "y", "z"], 300), "n": RANDOM.integers(0, 5, 300)}
    )
    frame["same"] = frame.a.map({"x": 1.5, "y": None, "z": 2.5})
    frame["c"] = pandas.Categorical(np.where(frame.n > 2, "hi", "lo"), ["lo", "hi"], ordered=True)
    model = BernoulliDiffusion(**{**TINY, "epochs": 5}).fit(frame)
    samples = model.sample(40)
    assert (samples.dtypes == frame.dtypes).all()
    known = frame.drop_duplicates()[["a", "same"]].drop_duplicates()
    assert len(samples[["a", "same"]].merge(known)) == 40
    gaps = frame.head(4).copy()
    gaps.loc[0, "a"] = None
    filled = model.conditional(gaps, 2)
    assert len(filled) == 8
    assert filled.a.notna().all()
    assert (filled.n == gaps.n.repeat(2).reset_index(drop=True)).all()


def test_what_follows_from_what_is_known_is_computed_and_not_drawn():
    pandas = pytest.importorskip("pandas")
    r = np.random.default_rng(0)
    a, b, c, zip_code = r.integers(1, 90, (4, 300))  # in bins
    frame = pandas.DataFrame({7: a, "b": b, "c": c, "total": a + b + c, "zip": zip_code})
    frame["region"] = np.where(frame["zip"] % 2, "odd", "even")
    model = BernoulliDiffusion(epochs=1, T=20).fit(frame)
    gaps = frame[:6].astype({"total": float, "b": float})
    gaps.loc[:3, ["total", "region"]] = None
    gaps.loc[4, "b"] = None
    filled = model.conditional(gaps, n=2)
    assert list(filled) == list(frame)
    assert (filled.dtypes == frame.dtypes).all()
    assert (filled == frame.loc[np.repeat(range(6), 2)].reset_index(drop=True)).all(axis=None)
    numbers = frame[["b", "c", "total"]].assign(a=a).to_numpy(float)
    model = BernoulliDiffusion(epochs=1, T=20).fit(numbers)
    gaps = numbers[:4].copy()
    gaps[:2, 2] = gaps[2:, 0] = np.nan
    assert (model.conditional(gaps) == numbers[:4]).all()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((3, 0)), "0 feature"),
        (np.zeros(5), "Expected 2D"),
        (np.array([[0, 1], [np.nan, 1]]), "contains NaN"),
        (np.array([[0.5, np.inf], [1, 2]]), "infinity"),
        (np.array([["a", "b"], ["c", "d"]]), "could not convert|expected numbers"),
    ],
)
def test_what_is_no_table(bad, words):
    with pytest.raises(ValueError, match=words):
        BernoulliDiffusion(**TINY).fit(bad)


def test_pickled_and_deep_copied_it_is_the_same(model):
    again = copy.deepcopy(pickle.loads(pickle.dumps(model)))
    assert (again.sample(5, random_state=2) == model.sample(5, random_state=2)).all()
    assert pickle.loads(pickle.dumps(BernoulliDiffusion(epochs=3))).epochs == 3


def test_a_frame_is_asked_about_by_its_names(tmp_path):
    """A number that was not in training counts as the nearest; what was left out may be missing."""
    pandas = pytest.importorskip("pandas")
    r = np.random.default_rng(0)
    frame = pandas.DataFrame({"age": r.integers(20, 40, 90), "town": r.choice(["a", "b", "c"], 90)})
    frame["name"] = [f"n{i}" for i in r.permutation(90)]
    model = BernoulliDiffusion(epochs=1, T=20).fit(frame)
    rows = frame[["town", "age"]].head(2)
    expected = model.score_samples(rows.assign(age=39))
    assert (model.score_samples(rows.assign(age=50)) == expected).all()
    with pytest.raises(ValueError, match="no column 'age'"):
        model.score_samples(frame[["town", "name"]])
    model.save(tmp_path / "model.pt")
    assert list(BernoulliDiffusion.load(tmp_path / "model.pt").feature_names_in_) == list(frame)


def test_wrong_settings_are_value_errors():
    with pytest.raises(ValueError, match="device='cuda:77'"):
        BernoulliDiffusion(device="cuda:77").fit(X)
    with pytest.raises(ValueError, match="read the file first"):
        BernoulliDiffusion().fit("survey.csv")
    with pytest.raises(ValueError, match="no column 'a'; there are column_1"):
        BernoulliDiffusion(types={"a": "number"}).fit(X)
    with pytest.raises(ValueError, match="epochs"):
        BernoulliDiffusion(epochs=-1).fit(X)
    with pytest.raises(ValueError, match="fit first"):
        BernoulliDiffusion().sample(1)


def test_what_a_model_cannot_be_asked(model):
    for gaps in (X[:2, :4], [[1, 0, 1]]):
        with pytest.raises(ValueError, match="expecting 6 features"):
            model.conditional(gaps)
    with pytest.raises(ValueError, match="other values than 0 and 1"):
        model.conditional(X[:2] + 0.5)
    with pytest.raises(ValueError, match="n_samples: expected at least 1, found 0"):
        model.sample(0)
    with pytest.raises(TypeError, match=r"n_samples: expected a whole number, found 2\.5"):
        model.sample(2.5)


def test_models_of_real_numbers_are_refused():
    numbers = Path(__file__).parent / "version_1_0" / "numbers" / "results"
    with pytest.raises(UserError, match=r"gaussian; BernoulliDiffusion is for bits and tables"):
        BernoulliDiffusion.load(next(numbers.rglob("model_best.pt")))
    with pytest.raises(ValueError, match=r"settings: model\.process: gaussian"):
        BernoulliDiffusion(settings={"model.process": "gaussian"}).fit(X)


# Scores are estimates whose noise is drawn by the number of the row.
EXPECTED = {
    "check_methods_sample_order_invariance": "the noise of an estimate goes with the row's number",
    "check_methods_subset_invariance": "the noise of an estimate goes with the row's number",
}


def test_scikit_learns_own_checks():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    if not hasattr(checks, "estimator_checks_generator"):
        pytest.skip("needs scikit-learn 1.6")
    tiny = {"model.reverse_model": "{width: 8, num_blocks: 1}"}
    model = BernoulliDiffusion(epochs=1, T=5, steps=5, settings=tiny)
    found = checks.check_estimator(
        model, on_fail=None, on_skip=None, expected_failed_checks=EXPECTED
    )
    failed = {r["check_name"]: r["exception"] for r in found if r["status"] == "failed"}
    assert not failed
