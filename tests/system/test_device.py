"""Devices and threads."""

import pytest
import torch

from bernoulli_diffusion.system import device as device_module
from bernoulli_diffusion.system.device import (
    all_threads,
    better_threads,
    choose_device,
    use_threads,
)
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


@pytest.mark.parametrize(("one", "eight", "better"), [(2, 1, 8), (1, 2, 1), (1, 0.95, 1)])
def test_what_is_done_sooner_decides(threads, monkeypatch, one, eight, better):
    """By a clear margin: two threads that gain nothing take a core from others."""
    clock, costs, calls = [0.0], {1: one, 8: eight}, []
    monkeypatch.setattr(device_module.time, "perf_counter", lambda: clock[0])

    def work() -> None:
        calls.append(threads[-1])
        clock[0] += costs[threads[-1]]

    assert better_threads(CPU, work) == better
    expected = [1] * (1 if one > 1 else 2) + [8] * (1 if eight > 1 else 2)
    assert calls == expected  # long ones are not repeated
    use_threads(better)
    use_threads(None)
    use_threads(64)  # a checkpoint from a larger machine
    assert threads == [1, 8, better, 8]


def test_all_threads_for_a_while(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with pytest.raises(KeyboardInterrupt), all_threads():
        raise KeyboardInterrupt
    assert threads == [8, 3]


def test_what_the_user_has_set_stays(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert better_threads(CPU, pytest.fail) is None
    assert better_threads(torch.device("cuda"), pytest.fail) is None
    use_threads(1)
    assert threads == []


def test_a_device_that_is_not_there(monkeypatch):
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch finds no such device here"):
        choose_device("cuda")
