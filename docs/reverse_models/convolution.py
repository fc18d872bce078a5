"""Convolution, for strings that are images or other fields: neighbours matter, and alike everywhere.

Idea: the string is laid out as rows x columns; each block looks at a 3 x 3 neighbourhood, with the
same weights in all places, and the time scales and shifts what it sees. k blocks reach 2 k + 1 cells far.
A map of its own for each channel, which starts at zero, lets the network learn where it is.

Source: residual convolutions that are told the time, as in the U-net of Ho et al. 2020
(arXiv 2006.11239), without its changes of scale: fields of bits are small.

Helps for images, lattices and cellular automata (`periodic: true` joins opposite edges, as in the Ising
data). data.shape is its shape, if no other is given; without one the string is one row: sequences in
which neighbours matter.
Set in config.yaml, here for an 8 x 8 lattice: `model: {reverse_model: {shape: [8, 8], periodic: true}}`.
Cost: 18 L channels^2 products a block and string.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class ReverseModel(nn.Module):
    """A stack of residual 3 x 3 convolutions over the string laid out as a field."""

    def __init__(
        self,
        sequence_length: int,
        T: int,
        shape: list[int] | None = None,
        channels: int = 32,
        num_blocks: int = 3,
        periodic: bool = False,
    ):
        super().__init__()
        self.T, self.shape = T, shape or [1, sequence_length]
        if math.prod(self.shape) != sequence_length:
            raise ValueError(f"shape: {shape} has not {sequence_length} cells")
        self.register_buffer("frequencies", math.pi * torch.arange(16))
        self.time = nn.Linear(16, channels)
        self.place = nn.Parameter(torch.zeros(channels, *self.shape))
        self.read_in = convolution(1, channels, periodic)
        self.blocks = nn.ModuleList(Block(channels, periodic) for _ in range(num_blocks))
        self.read_out = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        time = silu(self.time(torch.cos((t / self.T).sqrt()[:, None] * self.frequencies)))
        h = self.read_in((2 * x_t - 1).view(-1, 1, *self.shape)) + self.place
        for block in self.blocks:
            h = block(h, time)  # (B, channels, rows, columns)
        return self.read_out(silu(h)).flatten(1)  # (B, L)


class Block(nn.Module):
    """h + two convolutions, the time scaling and shifting what is between them."""

    def __init__(self, channels: int, periodic: bool):
        super().__init__()
        self.into = convolution(channels, channels, periodic)
        self.scale_and_shift = nn.Linear(channels, 2 * channels)
        self.out = convolution(channels, channels, periodic)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(time)[:, :, None, None].chunk(2, dim=1)
        return h + self.out(silu(self.into(silu(h)) * (1 + scale) + shift))


def convolution(before: int, after: int, periodic: bool) -> nn.Conv2d:
    """3 x 3, size kept: beyond the edge are zeros or, if periodic, the opposite side."""
    return nn.Conv2d(before, after, 3, padding=1, padding_mode="circular" if periodic else "zeros")
