"""Training batches of real numbers, in an order that the seed gives."""

import numpy as np
import torch
from torch import Tensor

from ..noise import Permutation, derive_seed
from .data import RealVectors


class Batches:
    """The endless stream of training batches, one permutation of the samples after another.

    As bits.Batches: batch number k is a pure function of (seed, k), always full, and shared out to
    the processes by shard = (rank, world). Each pass has its own dequantizing noise.
    """

    def __init__(
        self,
        vectors: RealVectors,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ):
        self.vectors, self.batch_size, self.seed = vectors, batch_size, seed
        self.device, self.shard = torch.device(device), shard
        self._permutations: dict[int, np.ndarray] = {}
        self._whole = None if vectors.width else vectors.tensor(slice(None), device)  # (N, D)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.vectors) // self.batch_size)

    def batch(self, k: int) -> Tensor:
        """x_0 of batch k: (B, D), standardised, on the device; B is batch_size, or the shard's part."""
        n, (rank, world) = len(self.vectors), self.shard
        positions = np.arange(k * self.batch_size + rank, (k + 1) * self.batch_size, world)
        passes, places = np.divmod(positions, n)
        rows = np.empty_like(places)
        for number in np.unique(passes).tolist():
            here = passes == number
            rows[here] = self._permutation(number)(places[here])
        rows = torch.from_numpy(rows)
        if self._whole is None:
            return self.vectors.tensor(rows, self.device, draw=k + 1)
        return self._whole[rows.to(self.device)]

    def _permutation(self, number: int) -> Permutation:
        if number not in self._permutations:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, number))
            self._permutations = {number: Permutation(len(self.vectors), generator)}
        return self._permutations[number]
