"""Training batches of real numbers, in an order that the seed gives."""

import torch
from torch import Tensor

from ..noise import Passes
from .data import RealVectors


class Batches(Passes):
    """The endless stream of training batches. Each has its own dequantizing noise."""

    def __init__(
        self,
        vectors: RealVectors,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ):
        super().__init__(len(vectors), batch_size, seed, shard, vectors.weights)
        self.vectors, self.device = vectors, torch.device(device)
        self._whole = None if vectors.width else vectors.tensor(slice(None), device)  # (N, D)

    def batch(self, k: int) -> Tensor:
        """x_0 of batch k: (B, D), standardised, on the device; B is batch_size, or the shard's part."""
        rows = torch.from_numpy(self.rows(k))
        if self._whole is None:
            return self.vectors.tensor(rows, self.device, draw=k + 1)
        return self._whole[rows.to(self.device)]
