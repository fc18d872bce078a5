"""Which device to compute on, and by how many threads."""

import contextlib
import functools
import os
import time
from collections.abc import Callable

import torch

from .errors import UserError


def choose_device(name: str) -> torch.device:
    """The device called cpu, cuda or mps; auto is the first there is of cuda, mps and cpu.

    Of several GPUs each process takes its own.
    Raises UserError if this machine has none of that name.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, here in available.items() if here)
    if not available[name]:
        raise UserError(f"--device {name}: torch finds no such device here; try --device auto")
    if name != "cuda":
        return torch.device(name)
    number, there_are = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    device = torch.device("cuda", number)
    wanted = max(device.index + 1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if wanted > there_are:
        raise UserError(
            f"--device cuda: {there_are} GPUs for {wanted} processes; lower torchrun's"
            " --nproc_per_node"
        )
    torch.cuda.set_device(device)
    return device


WORTHWHILE = 0.9  # of one thread's time: what all threads must stay below to be preferred
SECONDS_TO_MEASURE = 0.3  # for each number of threads
LONG = 1.0  # seconds of a first call, beside which the memory that it takes does not count


def better_threads(device: torch.device, work: Callable[[], object]) -> int | None:
    """The number of threads, one or all, by which torch does work sooner. Calls it a few times.

    What a network costs cannot be told from its size: the same parameters multiply once a row or once
    a bit, and small matrices are multiplied faster by one thread. None for GPUs, and where the user or
    torchrun has set the number (OMP_NUM_THREADS), which stays.
    """
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ or _torchs_own_number() == 1:
        return None
    seconds = {number: _seconds(work, number) for number in (1, _torchs_own_number())}
    one, most = seconds.values()
    return _torchs_own_number() if most < WORTHWHILE * one else 1


def _seconds(work: Callable[[], object], threads: int) -> float:
    """The shortest time that work takes by so many threads, but for a short first call's."""
    torch.set_num_threads(threads)
    found, begun = [], time.perf_counter()
    while len(found) < 10:
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
        enough = SECONDS_TO_MEASURE if len(found) > 1 else LONG
        if time.perf_counter() - begun > enough:
            break
    return min(found[1:] or found)


def use_threads(number: int | None) -> None:
    """Let torch use so many threads, as better_threads has found; None leaves it as it is."""
    if number and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(number, _torchs_own_number()))


@contextlib.contextmanager
def all_threads():
    """For work on many rows at once, in between: as many threads as there were before use_threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(_torchs_own_number())
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def _torchs_own_number() -> int:
    """Of threads, before the first use_threads: as many as there are cores."""
    return torch.get_num_threads()
