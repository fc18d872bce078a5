"""A small U-Net, for images of bits or of numbers: strokes seen closely, and the whole from afar.

Idea: the string is laid out as rows x columns. Blocks of 3 x 3 convolutions, told the time, look at it at
full size, then at half and at a quarter of it with more channels each time, where attention joins all
places; on the way back up each level adds what it had seen on the way down. A map of its own for each
channel lets the network learn where it is.

Source: Ronneberger et al. 2015 (arXiv 1505.04597), as used by Ho et al. 2020 (arXiv 2006.11239). Levels
are added to each other and not laid side by side, which saves a third of the products on the way up.

Helps for images from about 12 x 12; convolution.py or the default do smaller ones. data.shape is its
shape, [rows, columns] or [rows, columns, 3], if no other is given; without one the string is a row.
Set in config.yaml, here for 28 x 28 on a CPU: `model: {reverse_model: {patch: 2, width: 64, levels: 2}}`,
and for real numbers `is_real: true` too.
Cost: about 40 L width^2 / patch^2 products a level and string with depth 1. Widths in
multiples of 16 suit CPUs and GPUs best.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
    scaled_dot_product_attention,
    silu,
)


class ReverseModel(nn.Module):
    """Blocks at each level on the way down and up again, and attention at the coarsest one.

    width: channels at the first level, doubled at each further one, where rows and columns are halved;
    depth: blocks at a level, each way; patch: pixels on a side that the first level takes together, 2 for
    a quarter of the cost.
    """

    def __init__(
        self,
        sequence_length: int,
        T: int,
        shape: list[int] | None = None,
        width: int = 32,
        depth: int = 1,
        levels: int = 3,
        patch: int = 1,
        dropout: float = 0.0,
        is_real: bool = False,
        learn_variance: bool = False,
    ):
        super().__init__()
        self.shape = [*(shape or [1, sequence_length]), 1][:3]  # rows, columns, channels of a pixel
        if math.prod(self.shape) != sequence_length:
            raise ValueError(f"shape: {shape} has not {sequence_length} cells")
        rows, columns, colours = self.shape
        if rows % patch or columns % patch:
            raise ValueError(f"shape: {shape} cannot be cut into patches of {patch} x {patch}")
        if width % 4:
            raise ValueError(f"width {width} is no multiple of 4")
        self.T, self.patch, self.is_real = T, patch, is_real
        outputs = 2 if learn_variance else 1  # numbers for each of x_0
        widths = [width * 2**level for level in range(levels)]
        self.register_buffer("frequencies", math.pi * torch.arange(16))
        self.time = nn.Sequential(nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
        self.read_in = nn.Conv2d(colours * patch**2, width, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(width, rows // patch, columns // patch))
        self.down, self.up = (
            nn.ModuleList(blocks(w, depth, dropout) for w in widths[:-1]) for _ in range(2)
        )
        pairs = list(itertools.pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.before, self.after = (blocks(widths[-1], depth, dropout) for _ in range(2))
        self.attention = Attention(widths[-1])
        self.norm = nn.GroupNorm(1, width)
        self.scale = nn.Linear(64, width)
        self.read_out = nn.Conv2d(width, outputs * colours * patch**2, 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs * sequence_length))
        self.short_cut = nn.Linear(64, 1) if is_real else None
        for parameter in (self.read_out.weight, *(self.short_cut.parameters() if is_real else ())):
            nn.init.zeros_(parameter)

    def prepare(self, x_0: Tensor) -> None:
        """Bits begin at the log-odds of their frequencies in x_0, strings of the training data (N, L)."""
        if self.is_real:
            return
        ones = (x_0.float().sum(dim=0) + 1) / (len(x_0) + 2)
        with torch.no_grad():
            self.bias.copy_(ones.logit())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1; of real numbers
        eps, with learn_variance (B, 2 L)."""
        time = self.time(torch.cos((t / self.T).sqrt()[:, None] * self.frequencies))  # (B, 64)
        h = (x_t if self.is_real else 2 * x_t - 1).view(-1, *self.shape).permute(0, 3, 1, 2)
        h = self.read_in(pixel_unshuffle(h, self.patch)) + self.place
        h = h.contiguous(memory_format=torch.channels_last)  # and so it stays: faster on a CPU
        levels = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            for block in level:
                h = block(h, time)  # (B, channels, rows, columns)
            levels.append(h)
            h = shrink(h)
        for block in self.before:
            h = block(h, time)
        h = self.attention(h)
        for block in self.after:
            h = block(h, time)
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            seen = levels.pop()
            h = seen + interpolate(grow(h), size=seen.shape[2:])
            for block in level:
                h = block(h, time)
        h = self.norm(h) * (1 + self.scale(time)[:, :, None, None])  # log-odds grow as t falls
        h = pixel_shuffle(self.read_out(silu(h)), self.patch)
        h = h.unflatten(1, (-1, self.shape[2]))  # eps, and maybe the variance
        out = h.permute(0, 1, 3, 4, 2).flatten(1) + self.bias  # (B, L) or (B, 2 L)
        if not self.is_real:
            return out
        share = (t / self.T).sqrt()[:, None] + self.short_cut(time)  # of x_t that is noise
        return out + nn.functional.pad(share * x_t, (0, out.shape[1] - x_t.shape[1]))


def blocks(width: int, depth: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList(Block(width, dropout) for _ in range(depth))


class Block(nn.Module):
    """h + two convolutions, the time scaling and shifting what is between them."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.into = nn.Conv2d(width, width, 3, padding=1)
        self.scale_and_shift = nn.Linear(64, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(time)[:, :, None, None].chunk(2, dim=1)
        hidden = silu(self.into(silu(self.norm(h))) * (1 + scale) + shift)
        return h + self.out(self.dropout(hidden))


class Attention(nn.Module):
    """h + what each place hears from all others."""

    def __init__(self, width: int, num_heads: int = 4):
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(1, width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        heads = self.query_key_value(self.norm(h)).flatten(2).unflatten(1, (3, self.num_heads, -1))
        query, key, value = heads.mT.unbind(1)  # (B, num_heads, places, width / num_heads)
        heard = scaled_dot_product_attention(query, key, value)
        return h + self.mix(heard.mT.reshape(h.shape))
