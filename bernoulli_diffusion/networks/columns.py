"""For tables: the default network's log-odds, given that the bits of each column are a value.

Idea: a column is one-hot bits, of which just one is 1, or a thermometer, 1s and then 0s. Independent bits
know nothing of it and an MLP must learn it. Here bits are independent given that each column is valid:
P(column's value c | x_t) is proportional to prod_i P_i(bit i of c), over the column's values alone. What
x_t says of the column's own bits is among the P_i, so its noise is taken out by Bayes' rule and not by
training; all that is left to learn is what the other columns say. For the harmonic schedule, in which
alpha_t = 1 - t/T.

Source: a product of experts (Hinton 2002) whose last expert is "this is a value"; its sum over the values
of a column is short, unlike that over all strings.

Helps with tables, and with other one-hot or thermometer bits if `columns` says so: less to learn, less to
overfit.
Cost: some sums over the values of each column beside the MLP.

Complete in itself, as it is what checkpoints of tables keep: editing reverse_model.py does not change it.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

MOST_PAIRED = 1024  # bits: the pairwise weights of longer strings would outnumber the MLP's by far
PARTNERS = 8  # for each bit on average, at most
DROPOUT, MOST_DROPOUT = 12.0, 0.5  # of one string; fewer for more strings
NEVER = -1e30  # the log of a probability that is none
LEAST = -60.0  # the least that is told from it; less than that is slow to compute with


class ReverseModel(nn.Module):
    """Log-odds of each bit, by itself, by pairs and by a residual MLP; then only valid columns count.

    columns: what the bits of each are, in order: "one-hot 5", "thermometer 4", or "thermometer 4 gap"
    with one more bit, which says that there is no value. Default: each bit is a column of its own.
    """

    def __init__(
        self,
        sequence_length: int,
        T: int,
        columns: list | None = None,
        width: int = 128,
        num_blocks: int = 2,
        dropout: float | None = None,  # None: prepare chooses it
    ):
        super().__init__()
        self.T, self.choose_dropout = T, dropout is None
        self.columns = Columns(columns or ["thermometer 1"] * sequence_length)
        bits = len(self.columns.column)
        if bits != sequence_length:
            raise ValueError(f"columns: {bits} bits in all, but a string has {sequence_length}")
        # What prepare finds in the data. Until then: nothing is known.
        self.register_buffer("frequency", torch.full((sequence_length,), 0.5))  # of a 1
        self.register_buffer(
            "log_odds", torch.zeros(sequence_length)
        )  # of a 1, given a valid column
        self.register_buffer("dropout", torch.tensor(dropout or 0.0))
        self.pairs = None
        if sequence_length <= MOST_PAIRED:
            self.register_buffer("is_pair", torch.ones(sequence_length, sequence_length))
            self.pairs = nn.Parameter(torch.zeros(sequence_length, sequence_length))

        self.time = Time(T, features=64)
        self.read_in = nn.Linear(sequence_length, width)
        self.blocks = nn.ModuleList(Block(width, 64) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.scale = nn.Linear(64, width)
        self.read_out = nn.Linear(width, sequence_length)
        self.pair_scale = nn.Linear(64, 1)
        for layer in (self.read_out, self.pair_scale):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def prepare(self, x_0: Tensor) -> None:
        """Look at training strings: how often does each value occur, and which bits go together?

        x_0: (n, L) float 0/1, and 0.5 where a bit is unknown, which is not counted. Pairs are chosen as
        by the default network, but of bits of different columns: what one column's bits say about each
        other is known.
        """
        n, L = x_0.shape
        known = x_0 != 0.5
        self.frequency.copy_(((x_0 == 1).sum(dim=0) + 1) / (known.sum(dim=0) + 2))
        self.log_odds.copy_(self.columns.log_odds_of(x_0))
        if self.choose_dropout:
            self.dropout.fill_(min(DROPOUT / math.sqrt(n), MOST_DROPOUT))
        if self.pairs is not None:
            z = known * (x_0 - self.frequency) / self.spread()
            is_own = self.columns.column[:, None] == self.columns.column
            strength = (z.T @ z / n).abs().masked_fill(is_own, 0)  # (L, L)
            by_chance = math.sqrt(2 * math.log(max(2, L * (L - 1) / 2)) / n)
            weakest = strength.flatten().topk(min(PARTNERS * L, L * L)).values[-1]
            self.is_pair.copy_(strength >= weakest.clamp_min(by_chance))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the other bits of x_t say about each bit of x_0.

        x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L): the log-odds that bit i of x_0 is 1.
        """
        if len(t) > 1 and t.stride(0) == 0:
            t = t[:1]  # one time for all rows, as where samples are drawn
        time = self.time(t)  # (B, 64)
        seen = self.evidence(x_t, t)  # (B, L)
        h = self.read_in(seen)  # (B, width)
        for block in self.blocks:
            h = block(h, time, self.dropout)
        h = self.norm(h) * (1 + self.scale(time))  # log-odds grow as t falls
        logits = self.log_odds + self.read_out(drop(h, self.dropout, self.training))
        if self.pairs is not None:
            logits = logits + seen @ (self.pairs * self.is_pair).T * (1 + self.pair_scale(time))
        alpha = 1 - t / self.T
        own = (2 * x_t - 1) * (alpha.log1p() - (-alpha).log1p())[
            :, None
        ]  # what a bit says of itself
        return self.columns.given_valid(logits + own) - own

    def evidence(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] if bits were independent, in standard deviations of x_0 from its mean. (B, L)

        A rare bit that is 1 in x_t is probably noise until t is small; here that is known.
        """
        # Bayes' rule for x_0 with the frequency f, seen as s = 2 x_t - 1 through a channel that keeps a
        # share alpha: E = f (1 + s alpha) / (1 + s alpha (2 f - 1)).
        kept = (2 * x_t - 1) * (1 - t / self.T)[:, None]  # s alpha
        return 2 * self.spread() * kept / (1 + kept * (2 * self.frequency - 1))

    def spread(self) -> Tensor:
        """Standard deviation of each bit of x_0. (L,)"""
        return (self.frequency * (1 - self.frequency)).sqrt()


class Columns(nn.Module):
    """The columns of a string, in order; those of about the same width are computed together."""

    def __init__(self, columns: list):
        super().__init__()
        parsed = [_parsed(text) for text in columns]
        widths = [size + gap for _, size, gap in parsed]
        column = torch.from_numpy(np.repeat(np.arange(len(widths)), widths))
        by_width: dict[int, list] = {}
        for (kind, size, gap), end, width in zip(parsed, np.cumsum(widths), widths, strict=True):
            by_width.setdefault(width.bit_length(), []).append((kind, size, gap, end - width))
        self.alike = nn.ModuleList(Alike(by_width[key]) for key in sorted(by_width))
        order = torch.cat([alike.bits for alike in self.alike]).argsort()
        self.register_buffer("column", column, persistent=False)  # (L,) of each bit
        self.register_buffer("order", order, persistent=False)  # (L,) of each bit, in alike

    def given_valid(self, logits: Tensor) -> Tensor:
        """Log-odds (B, L) of independent bits -> those of each bit given that all columns are valid."""
        with torch.autocast(logits.device.type, enabled=False):  # sums of many that nearly cancel
            # (.., B) throughout: what is next to each other in memory is handled at once
            logits = torch.cat([logits.float().T, logits.new_zeros(1, len(logits))])
            return torch.cat([alike.given_valid(logits) for alike in self.alike])[self.order].T

    def log_odds_of(self, x_0: Tensor) -> Tensor:
        """(L,) of independent bits that, given valid columns, have the frequencies of values in x_0.

        x_0: (n, L) of valid columns; unknown bits, 0.5, are not counted.
        """
        known = (x_0 != 0.5).sum(dim=0)
        share = (x_0 == 1).sum(dim=0) / known.clamp_min(1)
        both = torch.cat([torch.stack([share, known], dim=1), share.new_zeros(1, 2)])  # (L + 1, 2)
        return torch.cat([alike.log_odds_of(*both.T) for alike in self.alike])[self.order]


class Alike(nn.Module):
    """G columns of at most K bits. A column's value number c is that whose last 1 is bit c; one-hot bits
    have no other value, and a thermometer that of no 1 at all."""

    def __init__(self, columns: list):
        super().__init__()
        G, K = len(columns), max(size + gap for _, size, gap, _ in columns)
        bit = np.full((G, K), -1)  # -1: there is none
        ones = np.zeros((G, K, K), np.float32)  # ones[g, c]: the bits of value c
        never, no_one = np.full((G, K, 1), NEVER, np.float32), np.zeros((G, 1, 1), np.float32)
        for g, (kind, size, gap, first) in enumerate(columns):
            width = size + gap
            bit[g, :width] = first + np.arange(width)
            ones[g, :width, :width] = np.eye(width)
            never[g, :width] = 0
            if kind == "thermometer":
                ones[g, :size, :size] = np.tri(size)
            else:
                no_one[g] = NEVER
        place = np.flatnonzero(bit >= 0)
        arrays = {"bit": bit, "ones": ones, "never": never, "no_one": no_one, "place": place}
        for name, array in (arrays | {"bits": bit.reshape(-1)[place]}).items():
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def given_valid(self, logits: Tensor) -> Tensor:
        """(L + 1, B), the last of them 0 -> those of these bits, given that the columns are valid."""
        scores = torch.baddbmm(self.never, self.ones, logits[self.bit])  # (G, K, B)
        most = torch.maximum(scores.detach().amax(dim=1, keepdim=True), self.no_one)
        p = _exp(scores - most)  # of the values, but for a factor
        one, zero = self.ones.mT @ p, (1 - self.ones).mT @ p + _exp(self.no_one - most)
        one, zero = (x.flatten(0, 1)[self.place].log() for x in (one, zero))
        return one - zero

    def log_odds_of(self, share: Tensor, known: Tensor) -> Tensor:
        """share, known: (L + 1,) of a 1, and of how many strings. Those of these bits."""
        n = known[self.bit].amax(dim=1)[:, None, None]
        ones = self.ones + torch.diag_embed((self.never[:, :, 0] < 0).float())
        of_value = torch.linalg.solve(ones.mT, share[self.bit][:, :, None]).clamp_min(0)
        without = (1 - of_value.sum(dim=1, keepdim=True)).clamp_min(0)
        base = torch.where(self.no_one < 0, 0, (n * without + 0.5).log())
        log_odds = torch.linalg.solve(ones, (n * of_value + 0.5).log() - base)
        return log_odds.flatten()[self.place]


def _exp(log_p: Tensor) -> Tensor:
    return log_p.clamp_min(LEAST).exp()


def _parsed(text: object) -> tuple[str, int, bool]:
    """one-hot or thermometer, its bits, and whether there is one more for a gap. Raises ValueError."""
    kind, size, *rest = [*str(text).split(), "", ""][:4]
    if kind not in ("one-hot", "thermometer") or not size.isdecimal() or rest[0] not in ("", "gap"):
        raise ValueError(f'columns: expected "one-hot 5" or "thermometer 4 gap", found {text!r}')
    return kind, int(size), rest[0] == "gap"


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

    def __init__(self, width: int, time_features: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, width)
        self.scale = nn.Linear(time_features, width)
        self.shift = nn.Linear(time_features, width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, time: Tensor, dropout: Tensor) -> Tensor:
        hidden = self.into(self.norm(h)) * (1 + self.scale(time)) + self.shift(time)  # (B, width)
        return h + self.out(drop(silu(hidden), dropout, self.training))


def drop(h: Tensor, share: Tensor, training: bool) -> Tensor:
    """Dropout by a share that is a tensor, so that a checkpoint keeps what prepare chose."""
    if not training or not (share.is_cuda or share):  # a GPU would have to be waited for
        return h
    return h * (torch.rand_like(h) >= share) / (1 - share)
