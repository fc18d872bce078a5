"""Unknown bits: read, fair at every t, never counted; the bound of the known ones by enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch

from bernoulli_diffusion.bits.batches import Batches
from bernoulli_diffusion.bits.data import UNKNOWN, BitStrings, read_bit_strings
from bernoulli_diffusion.bits.measures import independent_bits, uniform_bits
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import bound_of_each, plan_bound
from bernoulli_diffusion.system.errors import UserError

T = 4
STATES = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))


class Network(torch.nn.Module):
    """Some log-odds that depend on everything."""

    def forward(self, x_t, t):
        weights = torch.tensor([[0.0, 1.5, -2.0], [0.7, 0.0, 1.1], [-1.3, 0.4, 0.0]])
        return (2 * x_t - 1) @ weights + 0.3 * t[:, None] - 0.5


@pytest.fixture
def diffusion():
    process = BernoulliDiffusionProcess(T)
    process.may_be_unknown = True
    return Diffusion(process, Network())


def law_of_known(diffusion) -> torch.Tensor:
    """(2, 2): the law of bits 0 and 1 where bit 2 is a fresh fair coin before every step."""
    law = torch.full((4,), 0.25, dtype=torch.float64)
    for step in range(T, 0, -1):
        t = torch.full((8,), step)
        f = diffusion.process.flip_probability(STATES, diffusion.reverse_model(STATES, t), t, t - 1)
        one = torch.where(STATES == 1, 1 - f, f).double()  # (8, 3) P(x_{t-1,i} = 1 | x_t)
        p = torch.stack([1 - one, one], dim=2)
        kernel = (p[:, 0, :, None] * p[:, 1, None, :]).view(4, 2, 4).mean(dim=1)
        law = law @ kernel
    return law.view(2, 2)


def exact_bound(diffusion, x_0) -> float:
    """The sum over all t and all x_t of q(x_t | x_0) times the step's divergence, in bits."""
    total = 0.0
    for step in range(1, T + 1):
        t = torch.full((8,), step)
        stay = float((1 + diffusion.process.alpha[step]) / 2)
        same = torch.where(x_0 == STATES, stay, 1 - stay)
        q = torch.where(x_0 == UNKNOWN, 0.5, same).prod(dim=1)
        logits = diffusion.reverse_model(STATES, t)
        terms = diffusion.process.step_divergence(x_0.expand(8, 3), STATES, logits, t, t - 1)
        total += float((q * terms).sum())
    return total


@pytest.mark.parametrize("known", list(itertools.product((0.0, 1.0), repeat=2)))
def test_the_bound_of_known_bits_bounds_the_chain_with_fair_unknown_ones(diffusion, known):
    x_0 = torch.tensor([*known, UNKNOWN])
    cost = -math.log2(law_of_known(diffusion)[int(known[0]), int(known[1])])
    bound = exact_bound(diffusion, x_0)
    assert cost <= bound < cost + 1.5
    strings = BitStrings.from_bits(np.array([[*known, -1]] * 40, dtype=np.int8))
    effort = plan_bound(diffusion, strings, 0.005, 0)
    bits, errors = (
        torch.cat(v) for v in zip(*bound_of_each(diffusion, strings, effort, 0), strict=True)
    )
    error = float(errors.square().sum().sqrt() / 40)
    assert abs(float(bits.mean()) - bound) < 4 * error


def test_known_bits_cost_what_they_cost_alone(diffusion):
    logits = 3 * torch.randn(8, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    x_0 = torch.tensor([1.0, 0.0, UNKNOWN]).expand(8, 3)
    t = torch.full((8,), 3)
    found = diffusion.process.step_divergence(x_0, STATES, logits, t, t - 1)
    alone = diffusion.process.step_divergence(x_0[:, :2], STATES[:, :2], logits[:, :2], t, t - 1)
    assert torch.allclose(found, alone)
    [gradient] = torch.autograd.grad(found.sum(), logits)
    assert (gradient[:, 2] == 0).all()
    assert (gradient[:, :2] != 0).all()


def test_an_unknown_bit_is_fair_at_every_time(diffusion):
    u = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    x_0 = torch.tensor([1.0, UNKNOWN]).expand(20_000, 2)
    for step in (0, 2, T):
        x_t = diffusion.process.sample_x_t(x_0, torch.full((20_000,), step), u)
        share = x_t.mean(dim=0)
        assert abs(share[1] - 0.5) < 4 * 0.5 / 20_000**0.5
        assert (
            abs(share[0] - (1 + float(diffusion.process.alpha[step])) / 2) < 4 * 0.5 / 20_000**0.5
        )


def test_files_with_unknown_bits(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"01?1\r\n?10?\r\n1111\r\n")
    strings = read_bit_strings(path)
    assert strings.tensor(slice(None)).tolist() == [
        [0, 1, UNKNOWN, 1],
        [UNKNOWN, 1, 0, UNKNOWN],
        [1, 1, 1, 1],
    ]
    assert strings.known.tolist() == [2, 3, 2, 2]
    assert strings.part([1]).tensor(slice(None)).tolist() == [[UNKNOWN, 1, 0, UNKNOWN]]
    batch = Batches(strings, 3, seed=0).batch(0)
    assert sorted(batch.tolist()) == sorted(strings.tensor(slice(None)).tolist())
    plain = BitStrings(strings.packed, 4)
    assert strings.sha256() != plain.sha256()
    ones = (np.array([1, 3, 1, 2]) + 1) / (strings.known + 2)
    cost = -sum(
        n * np.log2(p) + (k - n) * np.log2(1 - p)
        for n, k, p in zip([1, 3, 1, 2], strings.known, ones, strict=True)
    )
    assert independent_bits(strings, strings) == pytest.approx(cost / 3)
    assert uniform_bits(strings) == pytest.approx(9 / 3)


@pytest.mark.parametrize("text", ["01?\n0\n", "0?x\n", "?1\n\n01\n"])
def test_mistakes_in_files_with_unknown_bits_are_told(text, tmp_path):
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(UserError, match=r"train.txt:\d"):
        read_bit_strings(tmp_path / "train.txt")
