"""Training batches of bits: unpacked a batch at a time, in an order that the seed gives."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from ..noise import Passes
from .data import IN_MEMORY_BYTES, UNKNOWN, BitStrings


class Batches(Passes):
    """The endless stream of training batches, of which a file shorter than a batch fills each."""

    def __init__(
        self,
        strings: BitStrings,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ):
        super().__init__(len(strings.packed), batch_size, seed, shard, strings.weights)
        self.length, self.device = strings.length, torch.device(device)
        self.packed = torch.from_numpy(strings.packed)  # (N, ceil(L / 8)) uint8
        self.unknown = None if strings.unknown is None else torch.from_numpy(strings.unknown)
        if _fits(strings, self.device):
            self.packed = self.packed.to(self.device)
            self.unknown = None if self.unknown is None else self.unknown.to(self.device)
        self._bits_of_byte = (torch.arange(256)[:, None] >> torch.arange(7, -1, -1)) & 1  # (256, 8)
        self._bits_of_byte = self._bits_of_byte.float().to(self.device)

    def rows(self, k: int) -> np.ndarray:
        n, (rank, world) = self.n, self.shard
        if n > self.batch_size:
            return super().rows(k)
        # whole passes, and a random part of one more
        generator = self.generator(k)
        keys = torch.rand(-(-self.batch_size // n), n, generator=generator)
        rows = keys.argsort(dim=1).numpy()  # each pass in random order
        if self.weighted:
            u = torch.rand(len(rows), 1, generator=generator, dtype=torch.float64)
            rows = self.weighted.rows(rows, u.numpy())
        return rows.flatten()[rank : self.batch_size : world]

    def batch(self, k: int) -> Tensor:
        """x_0 of batch k: (B, L) float bits on the device; B is batch_size, or the shard's part.

        Where a bit is unknown, UNKNOWN.
        """
        rows = _send(torch.from_numpy(self.rows(k)), self.packed.device)
        x_0 = self._unpack(self.packed[rows])
        return x_0 if self.unknown is None else x_0 + UNKNOWN * self._unpack(self.unknown[rows])

    def _unpack(self, packed: Tensor) -> Tensor:
        """(B, ceil(L / 8)) uint8 -> (B, L) float bits on the device."""
        packed = _send(packed, self.device)
        bits = embedding(packed.int(), self._bits_of_byte)  # (B, ceil(L / 8), 8)
        return bits.flatten(1)[:, : self.length].contiguous()


def _fits(strings: BitStrings, device: torch.device) -> bool:
    """Whether strings may live on the device: a quarter of its free memory at most."""
    if device.type == "cuda":
        return strings.packed.nbytes <= torch.cuda.mem_get_info(device)[0] // 4
    return strings.packed.nbytes <= IN_MEMORY_BYTES


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """tensor on the device; a GPU is not waited for."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
