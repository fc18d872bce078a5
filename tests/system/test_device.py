"""Devices and threads."""

import pytest
import torch

from bernoulli_diffusion.system import device as device_module
from bernoulli_diffusion.system.device import all_threads, choose_device, use_threads
from bernoulli_diffusion.system.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def threads(monkeypatch) -> list[int]:
    """The numbers of threads that were set, on a machine with eight cores."""
    numbers = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device_module, "_torchs_own_number", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    return numbers


def test_small_steps_get_few_threads_and_large_ones_all(threads):
    for millions in (0, 1, 20, 33, 100, 10_000):
        use_threads(CPU, millions * 1_000_000)
    assert threads == [1, 1, 1, 2, 6, 8]


def test_all_threads_for_a_while(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with pytest.raises(KeyboardInterrupt), all_threads():
        raise KeyboardInterrupt
    assert threads == [8, 3]


def test_what_the_user_has_set_stays(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    use_threads(CPU, 1)
    use_threads(torch.device("cuda"), 1)
    assert threads == []


def test_a_device_that_is_not_there(monkeypatch):
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch finds no such device here"):
        choose_device("cuda")
