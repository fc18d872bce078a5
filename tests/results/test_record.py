"""results.json: it is read as it was written, in all versions; measures describe themselves."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import make_run, only_results_dir
from results_folders import made_up, made_up_real, record_of

from bernoulli_diffusion import bits, compare, train
from bernoulli_diffusion.bits import measures
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.config import Config
from bernoulli_diffusion.kinds import KINDS
from bernoulli_diffusion.results import metrics, page, record
from bernoulli_diffusion.results.record import Measure, from_text, to_text

OLD = sorted((Path(__file__).parents[1] / "version_1_0").glob("*/results/*"))


@pytest.mark.parametrize("folder", OLD, ids=lambda f: f"{f.parts[-3]}-{f.name}")
def test_files_of_1_0_are_read_and_keep_their_keys(folder):
    plain = json.loads((folder / "results.json").read_text())
    results = record.read(folder)
    assert results.has_val == plain["has_val"]
    assert results.data.train.sha256 == plain["data"]["train"]["sha256"]
    again = json.loads(to_text(results))
    final, kept = plain.pop("final_bound"), again.pop("final_bound")
    for name, bound in (final or {}).items():
        assert bound.items() <= kept[name].items()  # later versions say more of it
    for key, value in plain.items():
        assert again[key] == value
    assert from_text(to_text(results)) == results
    line = json.loads(metrics.line(results, 0))
    assert line == json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 3}, "format 3 is that of a later version"),
        ({"losses": [1.0, "2"]}, r"losses\[1\]: expected float, found str"),
        ({"losses": [1.0, True]}, r"losses\[1\]: expected float, found bool"),
        ({"data": {"val": None}}, "data.train is missing|data.train: expected a mapping"),
        ({"bound": None}, "bound: expected a mapping, found null"),
        ({"seconds": []}, "seconds: 0 entries for 2 validations"),
        ({"proportions": {"train": [], "val": [], "other": []}}, "share_train: 0 entries for 2"),
        ({"status": 3}, "status: expected str, found int"),
    ],
)
def test_what_is_wrong_is_told(change, reason):
    with pytest.raises(ValueError, match=reason):
        record_of(made_up([8.0, 3.0]) | change)


def test_shown_in_short():
    bits = record_of(made_up([8.0, 3.0]))
    assert bits.last_on_one_line() == ", train/val/neither 50.0/30.0/20.0%"
    numbers = record_of(made_up_real([8.0, 3.0]))
    assert numbers.last_on_one_line() == ", energy distance 0.0200 (0.0100 by chance)"
    words = "energy distance 0.0200 (0.0100 by chance, up to 0.0200)"
    assert [m.in_words(m.values[-1]) for m in numbers.measures] == [words]
    assert bits.known_baselines() == {"uniform": 8.0, "independent": 7.6}
    assert numbers.known_baselines() == {"Gaussian": 3.6}


# ----------------------------------------------------------------------------- pairs of bits


def strings(rng, count: int, p) -> BitStrings:
    return BitStrings.from_bits(rng.random((count, len(p))) < p)


def test_pair_difference_is_what_it_says():
    rng = np.random.default_rng(0)
    data, samples = strings(rng, 30, [0.5] * 5), strings(rng, 20, [0.5] * 5)
    by_hand = []
    for i in range(5):
        for j in range(i):
            shares = [(s.bits()[:, i] & s.bits()[:, j]).mean() for s in (data, samples)]
            by_hand.append(abs(shares[0] - shares[1]))
    pairs = measures.PairFrequencies(data, 20)
    assert pairs.difference(samples) == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert pairs.difference(data) == 0


def test_pair_difference_is_at_its_floor_for_the_same_law():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.95, 40)
    pairs = measures.PairFrequencies(strings(rng, 1500, p), 800)
    same = [pairs.difference(strings(rng, 800, p)) for _ in range(20)]
    # the floor itself is an estimate, and all 20 are compared with the same 1,500 strings
    assert np.mean(same) == pytest.approx(pairs.floor, rel=0.12)
    other = pairs.difference(strings(rng, 800, np.roll(p, 1)))
    assert other > 3 * pairs.floor


@pytest.mark.parametrize("length", [1, 2, 2000, 5000])
def test_pair_difference_of_any_length(length):
    data = strings(np.random.default_rng(2), 50, [0.5] * length)
    found = measures.Measures(data, None, Config(), data)
    values = found.of(data)
    assert values["pair_difference"] == 0
    assert {m.name for m in found.described()} <= values.keys()


# ----------------------------------------------------------------------------- a new measure


class WithOnes(measures.Measures):
    """Bits, with one more measure: everything that it takes."""

    def described(self):
        return [*super().described(), Measure("ones", "share of ones", "ones", "share")]

    def of(self, samples):
        return super().of(samples) | {"ones": float(samples.bits().mean())}


def test_a_new_measure_is_added_in_one_place(tmp_path, monkeypatch, capsys):
    run_dir = make_run(tmp_path / "run")
    monkeypatch.setattr(bits, "Measures", WithOnes)
    monkeypatch.setattr(sys, "argv", ["train.py", str(run_dir), "--device", "cpu"])
    assert train.command() == 0
    told = capsys.readouterr().err
    assert re.search(r"pairs 0\.\d{4} \(0\.\d{4} by chance\), ones \d+\.\d%", told)
    folder = only_results_dir(run_dir)
    results = record.read(folder)
    plain = json.loads((folder / "results.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert plain["ones"] == results.measure("ones").values == [line["ones"] for line in lines]
    assert results.measure("ones").tag == "share/ones"
    text = page.page(results, KINDS[results.process], folder).decode()
    assert "ones of the samples" in text
    monkeypatch.setattr(sys, "argv", ["compare", str(run_dir), "--sort", "ones"])
    assert compare.command() == 0
    assert "ones" in capsys.readouterr().out
