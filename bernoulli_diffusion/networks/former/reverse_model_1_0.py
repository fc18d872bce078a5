"""The network, and the file to edit to try another one.

A run uses this file, or RUN_DIR/reverse_model.py if there is one. All that is asked of it: a class
ReverseModel with the two methods below. Options of __init__ beyond sequence_length and T are set in
config.yaml under model.reverse_model. Start the output layer at zero: zero log-odds are the uniform
model, whose bound is exactly L bits, and training falls from there.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class ReverseModel(nn.Module):
    """A residual MLP that is told the time in every block."""

    def __init__(
        self,
        sequence_length: int,
        T: int,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.time = Time(T, features=64)
        self.read_in = nn.Linear(sequence_length, width)
        self.blocks = nn.ModuleList(Block(width, 64, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.scale = nn.Linear(64, width)
        self.read_out = nn.Linear(width, sequence_length)
        nn.init.zeros_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the other bits of x_t say about each bit of x_0.

        x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L): the log-odds that bit i of x_0 is 1.
        """
        time = self.time(t)  # (B, 64)
        h = self.read_in(2 * x_t - 1)  # (B, width)
        for block in self.blocks:
            h = block(h, time)
        h = self.norm(h) * (1 + self.scale(time))  # log-odds grow as t falls
        return self.read_out(h)  # (B, L)


class Time(nn.Module):
    """t as features: cosines of sqrt(t/T), the scale on which training draws its times, and a layer."""

    def __init__(self, T: int, features: int, num_frequencies: int = 16):
        super().__init__()
        self.T = T
        self.register_buffer(
            "frequencies", torch.tensor([math.pi * k for k in range(num_frequencies)])
        )
        self.layer = nn.Linear(num_frequencies, features)

    def forward(self, t: Tensor) -> Tensor:
        u = (t / self.T).sqrt()[:, None]  # (B, 1)
        return silu(self.layer(torch.cos(self.frequencies * u)))  # (B, features)


class Block(nn.Module):
    """h + MLP(norm(h), time): the time scales and shifts the hidden layer."""

    def __init__(self, width: int, time_features: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, width)
        self.scale_and_shift = nn.Linear(time_features, 2 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(time).chunk(2, dim=1)  # (B, width) each
        hidden = silu(self.into(self.norm(h)) * (1 + scale) + shift)
        return h + self.out(self.dropout(hidden))
