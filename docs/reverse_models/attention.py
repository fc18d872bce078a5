"""Bits as tokens with attention: every bit looks at every other and chooses what to heed.

Idea: each bit becomes a vector that says what it is (0 or 1), where it stands and what time it is; in
each block all bits exchange what they know by attention, then each thinks for itself. Weights are
shared by all bits, so that a relation learnt in one place is more easily found in another.

Source: Vaswani et al. 2017 (arXiv 1706.03762), with the normalisation in front (Xiong et al. 2020,
arXiv 2002.04745).

Helps where which bits matter depends on the string, where distant bits go together (copies, pairs),
and with much data. With little data, or relations that are fixed, the MLP gets as far sooner.
Cost: per block 12 L width^2 + 2 L^2 width products a string: hundreds of times those of the MLP of the
same width. Keep width small on a CPU; on a GPU it costs less than it seems.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu


class ReverseModel(nn.Module):
    """An encoder-only transformer over the bits of x_t."""

    def __init__(
        self,
        sequence_length: int,
        T: int,
        width: int = 64,
        num_blocks: int = 2,
        num_heads: int = 4,
    ):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is no multiple of num_heads {num_heads}")
        self.T = T
        self.register_buffer("frequencies", math.pi * torch.arange(16))
        self.time = nn.Linear(16, width)
        self.bit = nn.Parameter(torch.randn(width))
        self.place = nn.Parameter(torch.randn(sequence_length, width))
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.read_out = nn.Linear(width, 1)
        nn.init.zeros_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        time = silu(self.time(torch.cos((t / self.T).sqrt()[:, None] * self.frequencies)))
        h = (2 * x_t - 1)[:, :, None] * self.bit + self.place + time[:, None]  # (B, L, width)
        for block in self.blocks:
            h = block(h)
        return self.read_out(self.norm(h))[:, :, 0]  # (B, L)


class Block(nn.Module):
    """h + attention(norm(h)), then h + MLP(norm(h)), the MLP on every bit alone."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        B, L, width = h.shape
        heads = self.query_key_value(self.norm_1(h)).view(B, L, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, num_heads, L, width / num_heads)
        heard = scaled_dot_product_attention(query, key, value)
        h = h + self.mix(heard.transpose(1, 2).reshape(B, L, width))
        return h + self.mlp(self.norm_2(h))
