"""The network for real numbers (model.process: gaussian), and the file to edit to try another one.

A run uses this file, or RUN_DIR/reverse_model.py if there is one. All that is asked of it: a class
ReverseModel with the two methods below. Options of __init__ beyond sequence_length and T are set in
config.yaml under model.reverse_model; learn_variance comes from model.variance: learned. The data
are standardised. For standard normal data the best prediction is x_t times the share of noise in it;
the network starts close to that, and learns what is different.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class ReverseModel(nn.Module):
    """A residual MLP that is told the time in every block, beside a short cut from x_t."""

    def __init__(
        self,
        sequence_length: int,
        T: int,
        width: int = 128,
        num_blocks: int = 3,
        dropout: float = 0.0,
        num_frequencies: int = 0,
        learn_variance: bool = False,
    ):
        super().__init__()
        D, outputs = sequence_length, 2 if learn_variance else 1
        self.T, self.num_outputs = T, outputs * D
        self.time = Time(T, features=64)
        # sines and cosines of each number: what is sharp in few dimensions is learnt sooner
        self.register_buffer("frequencies", 2.0 ** torch.arange(num_frequencies))
        self.read_in = nn.Linear(D * (1 + 2 * num_frequencies), width)
        self.blocks = nn.ModuleList(Block(width, 64, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.scale = nn.Linear(64, width)
        self.read_out = nn.Linear(width, self.num_outputs)
        self.short_cut = nn.Linear(64, 1)
        for layer in (self.read_out, self.short_cut):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t, and how wide the reverse step is between its two fixed choices.

        x_t: (B, D) float; t: (B,) int in 1..T. Returns (B, D): eps in x_t = sqrt(alpha_t) x_0 +
        sqrt(1 - alpha_t) eps; with learn_variance (B, 2 D).
        """
        time = self.time(t)  # (B, 64)
        waves = (x_t[:, :, None] * self.frequencies).flatten(1)  # (B, D * num_frequencies)
        h = self.read_in(torch.cat([x_t, waves.sin(), waves.cos()], dim=1))  # (B, width)
        for block in self.blocks:
            h = block(h, time)
        h = self.norm(h) * (1 + self.scale(time))
        share = (t / self.T).sqrt()[:, None] + self.short_cut(time)  # (B, 1)
        eps = nn.functional.pad(share * x_t, (0, self.num_outputs - x_t.shape[1]))
        return eps + self.read_out(h)  # (B, D) or (B, 2 D)


class Time(nn.Module):
    """t as features: cosines of sqrt(t/T) and a layer."""

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
