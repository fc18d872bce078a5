"""AdamW against torch's class of that name, and clipping against torch's function."""

import copy

import pytest
import torch
from torch import nn

from bernoulli_diffusion.training.optimizer import MEMORY, UNUSUAL, AdamW, Clip


def gradient_steps(model: nn.Module, optimizer, count: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        model[0](torch.randn(7, 5, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(5, 3), nn.Linear(2, 2)])  # the second gets no gradient


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_are_those_of_torchs_class(model, weight_decay):
    twin = copy.deepcopy(model)
    settings = {"lr": 0.01, "weight_decay": weight_decay}
    ours = AdamW(model.parameters(), **settings)
    theirs = torch.optim.AdamW(twin.parameters(), **settings, fused=True)
    for lr in (0.01, 0.003):
        ours.lr = theirs.param_groups[0]["lr"] = lr
        gradient_steps(model, ours, 10)
        gradient_steps(twin, theirs, 10)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_goes_to_torchs_class_and_back(model):
    ours = AdamW(model.parameters(), 0.01, 0.0)
    gradient_steps(model, ours, 5)
    twin = copy.deepcopy(model)
    theirs = torch.optim.AdamW(twin.parameters(), fused=True)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    gradient_steps(twin, theirs, 5, seed=1)

    third = copy.deepcopy(model)
    again = AdamW(third.parameters(), 0.01, 0.0)
    again.load_state(copy.deepcopy(ours.state_dict()["state"]))
    gradient_steps(third, again, 5, seed=1)
    for a, b in zip(twin.parameters(), third.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_without_any_gradient_nothing_moves(model):
    before = copy.deepcopy(model.state_dict())
    AdamW(model.parameters(), 0.01, 0.3).step()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def clipped(clip: Clip, step: int, *values: float) -> tuple[float, list[float]]:
    """The norm that Clip returns for a gradient with these values, and what it leaves of them."""
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    unused = nn.Parameter(torch.zeros(2))
    return clip([parameter, unused], step).item(), parameter.grad.tolist()


def test_a_given_norm_clips_as_torch_does():
    for values in ([3.0, 4.0], [0.3, 0.4]):
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor(values)
        nn.utils.clip_grad_norm_([parameter], 1.0)
        norm, left = clipped(Clip(1.0), 0, *values)
        assert left == parameter.grad.tolist()
        assert norm == pytest.approx(10 * values[0] / 6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_only_what_is_unusual_is_clipped_whatever_the_scale(scale):
    """Norms of 1 to 2, and a spike of 100: what is let through is three times the usual 1.5."""
    clip, generator = Clip(None), torch.Generator().manual_seed(0)
    for step in range(500):
        value = scale * (1 + torch.rand((), generator=generator).item())
        assert clipped(clip, step, value)[1] == pytest.approx([value], rel=1e-6)
    usual = clip.usual.item()
    assert usual == pytest.approx(1.5 * scale, rel=0.1)
    norm, [left] = clipped(clip, 500, 100 * scale)
    assert norm == pytest.approx(100 * scale)
    assert left == pytest.approx(UNUSUAL * usual, rel=1e-2)
    assert clip.usual.item() < (1 + 2 * UNUSUAL * (1 - MEMORY)) * usual


def test_a_norm_that_grows_is_followed():
    """A gradient that has become ten times as large for good is let through before long."""
    clip = Clip(None)
    for step in range(200):
        clipped(clip, step, 1.0)
    last = [clipped(clip, step, 10.0)[1][0] for step in range(200, 400)]
    assert last[0] == pytest.approx(UNUSUAL, rel=1e-3)
    assert last[-1] == pytest.approx(10.0)


def test_without_any_gradient_nothing_is_clipped():
    clip = Clip(None)
    assert clip([nn.Parameter(torch.zeros(2))], 0).item() == 0
    assert clipped(clip, 1, 5.0)[1] == [5.0]
