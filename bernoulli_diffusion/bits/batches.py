"""Training batches of bits: unpacked a batch at a time, in an order that the seed gives."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from ..noise import Permutation, derive_seed
from .data import IN_MEMORY_BYTES, UNKNOWN, BitStrings


class Batches:
    """The endless stream of training batches: one permutation of the strings after another.

    Every batch is full. A file shorter than a batch is repeated to fill it, and the last batch of a
    pass takes its missing rows from the next pass. Batch number k is a pure function of (seed, k).

    shard: (rank, world), for one of several processes: of each batch, the rows rank, rank + world,
    rank + 2 world ... alone. All shards together are the batch.
    """

    def __init__(
        self,
        strings: BitStrings,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ):
        self.length, self.batch_size, self.seed = strings.length, batch_size, seed
        self.device, self.shard = torch.device(device), shard
        self.packed = torch.from_numpy(strings.packed)  # (N, ceil(L / 8)) uint8
        self.unknown = None if strings.unknown is None else torch.from_numpy(strings.unknown)
        if _fits(strings, self.device):
            self.packed = self.packed.to(self.device)
            self.unknown = None if self.unknown is None else self.unknown.to(self.device)
        self._bits_of_byte = (torch.arange(256)[:, None] >> torch.arange(7, -1, -1)) & 1  # (256, 8)
        self._bits_of_byte = self._bits_of_byte.float().to(self.device)
        self._pass_number, self._permutation = None, None

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.packed) // self.batch_size)

    def _row_numbers(self, k: int) -> Tensor:
        """The rows of this shard of batch k."""
        n, (rank, world) = len(self.packed), self.shard
        first, end = k * self.batch_size, (k + 1) * self.batch_size
        if n <= self.batch_size:  # whole passes, and a random part of one more
            keys = torch.rand(-(-self.batch_size // n), n, generator=self._generator(k))
            rows = keys.argsort(dim=1).flatten()  # each pass in random order
            return rows[rank : self.batch_size : world]
        positions = np.arange(first + rank, end, world)
        parts = []
        for pass_number in range(first // n, (end - 1) // n + 1):
            here = positions[positions // n == pass_number] - pass_number * n
            parts.append(self._permute(pass_number)(here))
        return torch.from_numpy(np.concatenate(parts))

    def _permute(self, pass_number: int) -> Permutation:
        if pass_number != self._pass_number:
            self._permutation = Permutation(len(self.packed), self._generator(pass_number))
            self._pass_number = pass_number
        return self._permutation

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, number))

    def batch(self, k: int) -> Tensor:
        """x_0 of batch k: (B, L) float bits on the device; B is batch_size, or the shard's part.

        Where a bit is unknown, UNKNOWN.
        """
        rows = _send(self._row_numbers(k), self.packed.device)
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
