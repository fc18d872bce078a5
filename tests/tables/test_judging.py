"""What a table's records cost, column by column."""

import numpy as np
import pytest
import torch

from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import bound_of_each, plan_bound
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables import judging
from bernoulli_diffusion.tables.planning import plan
from bernoulli_diffusion.tables.table import Table, values_of

N = 60
RANDOM = np.random.default_rng(0)
A = RANDOM.integers(0, 4, N)
B = [f"l{a}" if i else "l0" for i, a in enumerate(A)]


@pytest.fixture(scope="module")
def table():
    a = A.copy()
    a[0] = 3  # where b is l0: odd
    made = {"a": values_of(map(str, a), {""}), "b": values_of(B, {""})}
    return Table(made, "", {"separator": ",", "header": True})


class Together(torch.nn.Module):
    """Says of each bit of a and b what the other column's bits say: a is a ladder, b one-hot."""

    def forward(self, x_t, t):
        ladder, hot = x_t[:, :3], x_t[:, 3:]
        above = torch.stack([hot[:, k:].sum(dim=1) - hot[:, :k].sum(dim=1) for k in (1, 2, 3)], 1)
        level = ladder.sum(dim=1, keepdim=True)
        own = 1.5 - 2 * (level - torch.arange(4.0)).abs()
        return torch.cat([2 * above, 2 * own], dim=1)


def test_columns_add_up_to_the_bound_and_the_odd_one_stands_out(table):
    encoding = plan(table, np.ones(N, bool))
    assert encoding.length == 7
    diffusion = Diffusion(BernoulliDiffusionProcess(200), Together())
    strings = BitStrings.from_bits(encoding.encode(table))
    parts = np.concatenate(list(judging.bits_of_columns(encoding, diffusion, strings, 0)))
    assert parts.shape == (N, 2)
    effort = plan_bound(diffusion, strings, 0.01, 0)
    bound = torch.cat([b for b, _ in bound_of_each(diffusion, strings, effort, 0)]).numpy()
    error = parts.sum(axis=1).std() / N**0.5 + 0.02 * bound.mean()
    assert abs(parts.sum(axis=1).mean() - bound.mean()) < 4 * error
    lines = list(judging.explanation(encoding, iter([parts])))
    assert lines[0].split()[:4] == ["record", "odd_column", "bits_beyond_usual", "bits"]
    beyond = [float(line.split()[2]) for line in lines[1:]]
    assert int(np.argmax(beyond)) == 0


def test_what_has_no_probability_is_told(table, tmp_path, capfd):
    encoding = plan(table, np.ones(N, bool))
    path = tmp_path / "t.csv"
    path.write_text("b,a\nl0,0\nl9,1\n")
    with pytest.raises(UserError, match=r"record 2: b was never 'l9'"):
        judging.read_records(encoding, path)
    path.write_text("b,a\nl0,0\nl1,77\n")  # a number counts as the nearest
    assert judging.read_records(encoding, path).bits()[1, :3].tolist() == [1, 1, 1]
    assert "a: 1 of 2 rows hold a value not seen in training, such as 77;" in capfd.readouterr().err
    path.write_text("b,c\nl0,0\n")
    with pytest.raises(UserError, match="no column 'a'"):
        judging.read_records(encoding, path)
    path.write_text("b,a\nl0,\nl1,1\n")
    assert judging.read_records(encoding, path).known.tolist() == [1, 1, 1, 2, 2, 2, 2]
    path.write_text("b,a\nl0,0\nl1,1\n")
    assert judging.read_records(encoding, path).bits().tolist() == [
        [0, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 1, 0, 0],
    ]
