"""The network, and the file to edit to try another one.

A run uses this file, or RUN_DIR/reverse_model.py if there is one. All that is asked of it: a class
ReverseModel with the two methods below. Options of __init__ beyond sequence_length and T are set in
config.yaml under model.reverse_model. Start the output layer at zero: zero log-odds are the uniform
model, whose bound is exactly L bits, and training falls from there.
"""

import math

import torch
from torch import Tensor, nn


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
        self.T = T
        self.read_in = nn.Linear(sequence_length, width)
        self.time = nn.Sequential(nn.Linear(32, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.read_out = nn.Linear(width, sequence_length)
        nn.init.zeros_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the other bits of x_t say about each bit of x_0.

        x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L): the log-odds that bit i of x_0 is 1.
        """
        # sqrt(t/T) spreads the times as they are drawn in training: densely near 0
        frequency = torch.arange(32, device=t.device)
        time = torch.cos(math.pi * frequency * (t / self.T).sqrt()[:, None])  # (B, 32)
        time = self.time(time)  # (B, width)
        h = self.read_in(2 * x_t - 1)  # (B, width)
        for block in self.blocks:
            h = block(h, time)
        return self.read_out(self.norm(h))  # (B, L)


class Block(nn.Module):
    """h + MLP(norm(h), time)."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, width)
        self.time = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time).chunk(2, dim=1)  # (B, width) each
        hidden = torch.nn.functional.silu(self.into(self.norm(h)) * (1 + scale) + shift)
        return h + self.out(self.dropout(hidden))
