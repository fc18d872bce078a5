"""Which device to compute on."""

import torch

from .errors import UserError


def choose_device(name: str) -> torch.device:
    """The device called cpu, cuda or mps; auto is the first there is of cuda, mps and cpu.

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
    return torch.device(name)
