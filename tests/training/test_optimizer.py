"""AdamW against torch's class of that name."""

import copy

import pytest
import torch
from torch import nn

from bernoulli_diffusion.training.optimizer import AdamW


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
