"""Measures of synthetic records on laws that are known."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from results_folders import made_up, write_folder

from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.kinds import KINDS
from bernoulli_diffusion.results import page, record
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables import quality
from bernoulli_diffusion.tables.likeness import add_to_report, compare
from bernoulli_diffusion.tables.planning import plan
from bernoulli_diffusion.tables.preparing import to_lines
from bernoulli_diffusion.tables.table import Table, values_of

N = 4000
RANDOM = np.random.default_rng(0)


def records(count, tied=True):
    a = RANDOM.integers(0, 4, count)
    b = np.where(tied, (a + RANDOM.integers(0, 2, count)) % 4, RANDOM.integers(0, 4, count))
    return np.stack([a, b, RANDOM.integers(0, 50, count), RANDOM.integers(0, 50, count)], axis=1)


def test_associations_are_one_of_copies_and_none_of_independent_columns():
    a = RANDOM.integers(0, 5, N)
    found = quality.associations(np.stack([a, 4 - a, RANDOM.integers(0, 7, N)], axis=1))
    assert found[0, 1] == pytest.approx(1, abs=1e-6)
    assert found[0, 2] < 0.05
    assert (found == found.T).all()


def test_associations_are_those_of_each_pair_by_itself():
    codes = np.concatenate([records(60), np.zeros((60, 1), int)], axis=1)
    found = quality.associations(codes)
    for a, b in itertools.combinations(range(5), 2):
        assert found[a, b] == pytest.approx(cramers_v(codes[:, a], codes[:, b]), abs=1e-12)


def cramers_v(x, y):
    """Bergsma 2013, by its formulas."""
    n, table = len(x), np.array([[((x == i) & (y == j)).sum() for j in set(y)] for i in set(x)])
    r, k = table.shape
    if min(r, k) == 1:
        return 0.0
    expected = table.sum(axis=1)[:, None] * table.sum(axis=0) / n
    phi = max(0.0, ((table - expected) ** 2 / expected).sum() / n - (r - 1) * (k - 1) / (n - 1))
    return (phi / (min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1)) ** 0.5


def test_copies_and_the_closest_row():
    train, other = records(500), records(500)
    assert quality.copies(train[:50], train) == (1.0, 0.0)
    known = {tuple(row) for row in train}
    found = quality.copies(other, train)
    share = np.mean([tuple(row) in known for row in other])
    assert found.value == pytest.approx(share)
    near = quality.closest(other, train, 0)
    by_hand = [min((row != t).sum() for t in train) for row in other]
    assert sorted(near) == sorted(by_hand)
    wide = RANDOM.integers(0, 2, (2, 3, 300))  # more differences than a byte can count
    wide[1] = 1 - wide[0, :1]
    assert quality.closest(wide[0], wide[1], 0).max() == 300


def test_boosted_trees_tell_what_is_broken_and_nothing_else():
    pytest.importorskip("sklearn")
    alike = quality.two_sample(records(700), records(700), 0)
    assert abs(alike.value - 0.5) < 4 * alike.error
    broken = quality.two_sample(records(700), records(700, tied=False), 0)
    assert broken.value > 0.65


def test_membership_is_the_share_of_pairs():
    train, val = RANDOM.normal(size=60), RANDOM.normal(1, 1, size=40)
    found = quality.membership(train, val)
    assert found.value == pytest.approx((train[:, None] < val).mean())
    assert found.error == pytest.approx((101 / (12 * 60 * 40)) ** 0.5)


class Nothing(torch.nn.Module):
    """Knows nothing: independent fair bits."""

    def forward(self, x_t, t):
        return torch.zeros_like(x_t)


def test_the_page_of_a_run(tmp_path):
    values = {
        "a": values_of(map(str, RANDOM.integers(0, 4, 300)), {""}),
        "b <&>": values_of(RANDOM.choice(["\u540d", "y$", ""], 300).tolist(), {""}),
        "c": values_of(["always"] * 300, {""}),
    }
    table = Table(values, "", {"separator": ",", "header": True})
    encoding = plan(table, np.ones(300, bool))
    bits = encoding.encode(table)
    (tmp_path / "train.txt").write_bytes(to_lines(bits[:200]))
    (tmp_path / "val.txt").write_bytes(to_lines(bits[200:]))
    diffusion = Diffusion(BernoulliDiffusionProcess(20), Nothing())
    found = compare(encoding.state(), diffusion, tmp_path, 250)
    numbers = found.numbers
    assert numbers["samples"] == 250
    assert 0 < numbers["column_distance"] < 0.5
    assert numbers["column_distance_val"] < 0.2
    assert numbers["copies_val"] == 1.0  # 12 different records: held-out rows stand in train too
    assert abs(numbers["membership_auc"] - 0.5) < 4 * numbers["membership_auc_standard_error"]
    folder = write_folder(tmp_path, made_up([8.0, 7.0]))
    before = (folder / "results.json").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of letters that the font lacks
        add_to_report(folder, found)
    text = (folder / page.FILE_NAME).read_text()
    for alt in page.QUALITY_PICTURES.values():
        assert f'alt="{alt}" src="data:image/png;base64,' in text
    assert "b &lt;&amp;&gt;" in text
    assert "Can they be told apart?" in text
    assert (folder / "results.json").read_bytes() == before


def test_rows_with_unknown_values_are_left_out(tmp_path):
    """An unknown value is no value of its column, neither the first one nor another."""
    table = Table(
        {"a": values_of(list("1223" * 10), {""}), "b": values_of(list("xy" * 20), {""})}, "", {}
    )
    encoding = plan(table, np.ones(40, bool))
    bits = encoding.encode(table)
    bits[::4, :2] = -1  # a, wherever it is 1
    diffusion = Diffusion(BernoulliDiffusionProcess(20), Nothing())
    (tmp_path / "train.txt").write_bytes(to_lines(bits))
    found = compare(encoding.state(), diffusion, tmp_path, 50)
    assert found.shown["num_train"] == 30
    bits[:, 2] = -1
    (tmp_path / "train.txt").write_bytes(to_lines(bits))
    with pytest.raises(UserError, match="every row has unknown values"):
        compare(encoding.state(), diffusion, tmp_path, 50)


def test_few_rows_are_compared_as_far_as_that_goes(tmp_path):
    table = Table(
        {"a": values_of(list("xyzxy"), {""}), "b": values_of(list("11211"), {""})}, "", {}
    )
    encoding = plan(table, np.ones(5, bool))
    bits = encoding.encode(table)
    (tmp_path / "train.txt").write_bytes(to_lines(bits[:3]))
    (tmp_path / "val.txt").write_bytes(to_lines(bits[3:]))
    found = compare(encoding.state(), Diffusion(BernoulliDiffusionProcess(20), Nothing()), tmp_path)
    assert found.numbers["two_sample_auc"] is None
    assert "5 rows of each kind" in found.shown["two_sample"]
    assert 0 <= found.numbers["copies_val"] <= 1


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        "no JSON",
        "[" * 100_000,
        '{"shown": {"tiles": 3}}',
        '{"shown": {"num_samples": "x"}}',
    ],
)
def test_a_page_says_that_quality_json_is_damaged(tmp_path, text):
    folder = write_folder(tmp_path, made_up([8.0, 7.0]))
    (folder / page.QUALITY).write_text(text)
    page.write(record.read(folder), KINDS["bernoulli"], folder)
    assert f"{page.QUALITY} is not as it was written" in (folder / page.FILE_NAME).read_text()
