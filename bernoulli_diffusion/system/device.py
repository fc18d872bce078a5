"""Which device to compute on, and by how many threads."""

import contextlib
import functools
import os

import torch

from .errors import UserError


def local_rank() -> int:
    """The number of this process among those of its machine: which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", 0))


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
    device, there_are = torch.device("cuda", local_rank()), torch.cuda.device_count()
    wanted = max(device.index + 1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if wanted > there_are:
        raise UserError(
            f"--device cuda: {there_are} GPUs for {wanted} processes; lower torchrun's"
            " --nproc_per_node"
        )
    torch.cuda.set_device(device)
    return device


# In a training step; about a millisecond of a core. With less, threads wait for each other longer than
# they compute: on two cores a step of 20 million is faster by one thread, one of 33 million by two.
MULTIPLICATIONS_PER_THREAD = 16_000_000


def use_threads(device: torch.device, multiplications: int) -> None:
    """Let torch use as many threads as steps of so many multiplications keep busy.

    Leaves GPUs alone, and the number that the user or torchrun has set (OMP_NUM_THREADS).
    """
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        busy = max(1, multiplications // MULTIPLICATIONS_PER_THREAD)
        torch.set_num_threads(min(busy, _torchs_own_number()))


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
