"""The network for tables knows what the bits of a column may be, and its sampler draws them together."""

import itertools

import numpy as np
import pytest
import torch

from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import estimate_bound
from bernoulli_diffusion.networks.columns import Columns, ReverseModel
from bernoulli_diffusion.reverse_model import ReverseModel as AnyBits
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables.generating import sample_records
from bernoulli_diffusion.tables.planning import plan
from bernoulli_diffusion.tables.preparing import prepare
from bernoulli_diffusion.tables.table import Table, Values
from bernoulli_diffusion.tables.valid import Groups
from bernoulli_diffusion.training.network import FOR_TABLES, PACKAGE_FILE, build, named_source
from bernoulli_diffusion.training.run_folder import read_run_folder

N, T = 3000, 50
Z_LIMIT = 4.5  # two-sided 7e-6; seeds are fixed
LAYOUT = ["one-hot 4", "thermometer 6", "thermometer 3 gap", "one-hot 3 gap", "thermometer 1"]
LAYOUT += ["thermometer 0 gap", "thermometer 1 gap"]


def column(values: str, gaps: float, r) -> Values:
    codes = np.minimum(r.geometric(0.4, N) - 1, len(values) - 1)
    return Values(list(values), np.where(r.random(N) < gaps, -1, codes))


@pytest.fixture(scope="module")
def table():
    r = np.random.default_rng(0)
    kinds = {"a": ("wxyz", 0), "b": ("0123456", 0), "c": ("1234", 0.3), "d": ("pqr", 0.2)}
    kinds |= {"e": ("yn", 0), "f": ("5", 0.1), "g": ("yn", 0.5)}
    return Table(
        {name: column(*how, r) for name, how in kinds.items()}, "a table", {"separator": ","}
    )


@pytest.fixture(scope="module")
def encoding(table):
    return plan(table, np.ones(N))


def prepared_for(encoding, table, T: int) -> Diffusion:
    """Untrained, but it has seen the table. Its columns are independent, so it knows all there is."""
    torch.manual_seed(0)
    model = ReverseModel(encoding.length, T, encoding.layout())
    model.prepare(torch.from_numpy(encoding.encode(table)).float())
    return Diffusion(BernoulliDiffusionProcess(T), model.eval())


@pytest.fixture(scope="module")
def prepared(encoding, table):
    return prepared_for(encoding, table, T)


def values_of(text: str) -> torch.Tensor:
    """(values, bits) of a column, written out."""
    kind, size, *gap = text.split()
    size = int(size)
    if kind == "one-hot":
        return torch.eye(size + len(gap))
    rows = [[i < c for i in range(size)] + [False] * len(gap) for c in range(size + 1)]
    return torch.tensor(rows + [[False] * size + [True]] * len(gap)).float()


def test_an_encoding_says_what_its_bits_are(encoding):
    assert encoding.layout() == LAYOUT


def test_only_valid_columns_count():
    """Against the sum over all values of every column."""
    torch.manual_seed(0)
    columns = Columns(LAYOUT)
    logits = 4 * torch.randn(50, len(columns.column))
    found, first = columns.given_valid(logits), 0
    for text in LAYOUT:
        values = values_of(text)
        own = slice(first, first + values.shape[1])
        weights = (logits[:, own] @ values.T).double().softmax(dim=1)
        one, zero = weights @ values.double(), weights @ (1 - values).double()
        wanted = one.log() - zero.log()
        assert torch.allclose(found[:, own].double(), wanted, atol=1e-4)
        first = own.stop


def test_what_is_all_but_impossible_stays_finite():
    columns = Columns(LAYOUT)
    logits = (torch.tensor([[-1e4], [1e4]]) * torch.ones(len(columns.column))).requires_grad_()
    columns.given_valid(logits).sum().backward()
    assert columns.given_valid(logits).isfinite().all()
    assert logits.grad.isfinite().all()


def test_prepared_it_is_independent_columns(table, encoding):
    """Its bound is their cross-entropy, as far as a step flips few bits: nothing is left to train."""
    prepared = prepared_for(encoding, table, 4000)
    data = BitStrings.from_bits(encoding.encode(table))
    bound = estimate_bound(prepared, data, 60_000, seed=3)
    codes = encoding.codes(table)
    shares = [np.bincount(c) / N for c in codes.T]
    expected = -sum((p[p > 0] * np.log2(p[p > 0])).sum() for p in shares)
    assert abs(bound.bits - expected) < Z_LIMIT * bound.standard_error + 0.01  # its half a count
    assert bound.standard_error < 0.02 * expected


@pytest.mark.parametrize("steps", [1, 4, None])
def test_within_a_column_the_law_is_exact_however_large_the_steps_are(
    steps, encoding, table, prepared
):
    codes = np.concatenate(
        [r.codes for r in sample_records(encoding, prepared, range(4000), 1, steps)]
    )
    for g, column in enumerate(encoding.coded):
        p = np.bincount(encoding.codes(table)[:, g], minlength=column.num_codes) / N
        found = np.bincount(codes[:, g], minlength=column.num_codes) / len(codes)
        error = np.sqrt(p * (1 - p) / len(codes))
        assert (np.abs(found - p) < Z_LIMIT * error + 1e-3).all()


def test_bits_of_a_column_are_drawn_as_one_of_its_codes(encoding):
    groups, r = Groups(encoding), torch.Generator().manual_seed(0)
    p = torch.cat([v.mean(dim=0) for v in map(values_of, LAYOUT)]).expand(5000, -1)
    x = groups.draw_bits(p, torch.rand(5000, len(LAYOUT), generator=r))
    codes = encoding.codes_of_bits(x.numpy().astype(np.uint8))
    assert (codes >= 0).all()
    for g, text in enumerate(LAYOUT):
        k = len(values_of(text))
        found = np.bincount(codes[:, g], minlength=k) / 5000
        assert np.abs(found - 1 / k).max() < Z_LIMIT * (0.25 / 5000) ** 0.5


def test_no_record_is_invalid_whatever_the_network_says(encoding):
    torch.manual_seed(0)
    model = AnyBits(encoding.length, T)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.5 * torch.randn_like(p)
    diffusion = Diffusion(BernoulliDiffusionProcess(T), model.eval())
    [records] = sample_records(encoding, diffusion, range(500), 0, 3)
    assert (records.codes >= 0).all()
    assert (records.codes < [c.num_codes for c in encoding.coded]).all()


def test_the_posterior_step_is_bayes_rule():
    """Of one bit, against q(x_r | x_0) q(x_t | x_r) / q(x_t | x_0)."""
    process, r, t = BernoulliDiffusionProcess(T), 11, 30
    alpha, u = process.alpha, torch.arange(100_000) / 100_000

    def same(kept, a, b):
        return (1 + kept) / 2 if a == b else (1 - kept) / 2

    for x_0, x_t in itertools.product([0.0, 1.0], repeat=2):
        ways = [same(alpha[r], x_0, x) * same(alpha[t] / alpha[r], x, x_t) for x in (0.0, 1.0)]
        full = [torch.full((len(u), 1), v) for v in (x_t, x_0)]
        times = [torch.full((len(u),), v) for v in (t, r)]
        share = process.posterior_step(*full, *times, u[:, None]).mean()
        assert share == pytest.approx(float(ways[1] / sum(ways)), abs=2e-5)


@pytest.mark.parametrize(
    ("columns", "words"),
    [(["one-hot 3"], "3 bits in all, but a string has 5"), (["two 5"], 'expected "one-hot 5" or')],
)
def test_a_layout_that_does_not_fit(columns, words):
    with pytest.raises(UserError, match=words):
        build(named_source("columns"), 5, T, {"columns": columns})


def test_a_table_is_trained_with_it_unless_another_one_is_asked_for(tmp_path):
    rows = "".join(f"{'xyz'[i % 3]},{i % 7 % 3}\n" for i in range(60))
    (tmp_path / "t.csv").write_text("a,b\n" + rows)
    prepare(tmp_path / "t.csv", tmp_path / "run", command="")
    folder = read_run_folder(tmp_path / "run")
    assert folder.source.path == FOR_TABLES
    assert folder.config.model.reverse_model == {"columns": ["one-hot 3", "thermometer 2"]}
    assert read_run_folder(tmp_path / "run", ["model.schedule=cosine"]).source.path == PACKAGE_FILE
    (tmp_path / "run" / "reverse_model.py").write_bytes(PACKAGE_FILE.read_bytes())
    assert read_run_folder(tmp_path / "run").config.model.reverse_model == {}
    assert read_run_folder(tmp_path / "run", network="default").source.path == FOR_TABLES
