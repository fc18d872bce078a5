"""Which device to compute on."""

import torch

from .distributed import local_rank
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
    device = torch.device("cuda", local_rank())
    if device.index >= torch.cuda.device_count():
        raise UserError(
            f"--device cuda: there are {torch.cuda.device_count()} GPUs for more processes;"
            " lower torchrun's --nproc_per_node"
        )
    torch.cuda.set_device(device)
    return device
