"""The network, and the file to edit to try another one.

A run uses this file, or RUN_DIR/reverse_model.py if there is one. All that is asked of it: a class
ReverseModel with __init__ and forward as below. Options of __init__ beyond sequence_length and T are
set in config.yaml under model.reverse_model. A third method may be there or not: prepare looks at the
training data once, before the first step.

A buffer named confidence may be there or not: how much of what the network adds to independent bits is
believed, from 0 to 1; or of several parts of it, 1 in all, of which the first is what is trained. A run
chooses it on val, so that a network that has learnt more of train than holds for new strings is not led
astray by it.

Start the output layer at zero. This network then begins with independent bits, each as frequent as in
the data (with independent columns, where bits are one-hot codes); a network without prepare, with fair
coin flips: L bits a string.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from bernoulli_diffusion.networks import forest, hidden_tree, mixture

# The package's: editing their files changes what checkpoints of this network say.
COMPANIONS = {"mixture": mixture, "hidden_tree": hidden_tree, "forest": forest}
MOST_PAIRED = 1024  # bits: the pairwise weights of longer strings would outnumber the MLP's by far
BY_CHANCE = 15.0  # nats: chance must be that unlikely to let no two bits of a column be 1
LARGEST = 60.0  # log-odds, before their exponentials are added up
PARTNERS = 8  # for each bit on average, at most
DROPOUT, MOST_DROPOUT = 2.0, 0.5  # of a thousand strings of independent bits; less of more strings


class ReverseModel(nn.Module):
    """Log-odds of each bit by itself + weighted pairs of bits + a residual MLP that is told the time.

    Given, where bits are the one-hot code of a column, that no two of them are 1. In eval mode the mean
    of that and of what its companions say, networks that prepare fits to the data in seconds, with the
    shares that the confidence gives them.
    """

    def __init__(
        self,
        sequence_length: int,
        T: int,
        width: int = 256,
        num_blocks: int = 2,
        dropout: float | None = None,  # None: prepare chooses it
        companions: Sequence[str] = ("mixture", "hidden_tree"),  # names in COMPANIONS
    ):
        super().__init__()
        self.T, self.choose_dropout = T, dropout is None
        # What prepare finds in the data. Until then: nothing is known.
        self.register_buffer("frequency", torch.full((sequence_length,), 0.5))  # of a 1
        self.register_buffer("dropout", torch.tensor(dropout or 0.0))
        self.register_buffer("column", torch.arange(sequence_length))  # no two bits of one are 1
        self.register_buffer("log_odds", torch.zeros(sequence_length))  # of a 1 against none in it
        self.pairs = None
        if sequence_length <= MOST_PAIRED:
            self.register_buffer("is_pair", torch.ones(sequence_length, sequence_length))
            self.is_pair.fill_diagonal_(0)
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

        is_list = isinstance(companions, list | tuple)
        if not is_list or len(companions) != len(set(companions) & set(COMPANIONS)):
            known = ", ".join(COMPANIONS)
            raise ValueError(
                f"companions: expected a list of different names among {known}, found {companions!r}"
            )
        if sequence_length > MOST_PAIRED:
            companions = ()
        self.companions = nn.ModuleDict(
            {name: COMPANIONS[name].ReverseModel(sequence_length, T) for name in companions}
        ).requires_grad_(False)
        # in the log-odds above and in each companion; chosen on val
        self.register_buffer("confidence", torch.tensor([1.0] + [0.0] * len(companions)))

    @torch.no_grad()
    def prepare(self, x_0: Tensor) -> None:
        """Look at training strings: how often is each bit 1, and which pairs go together?

        x_0: (n, L) float 0/1, and 0.5 where a bit is unknown, which is not counted. A pair counts if
        its correlation is larger than the largest that chance is likely to produce among all pairs of
        independent bits, sqrt(2 log(number of pairs) / n), and only the strongest pairs, PARTNERS for
        each bit on average: the MLP is better at many weak ties. Dropout is for few strings, and less
        of it where single bits tell a lot about each other, which must be heard to be used. That no two
        bits of a column are 1 is known, and need not be learnt.
        """
        n, L = x_0.shape
        known = x_0 != 0.5
        self.frequency.copy_(((x_0 == 1).sum(dim=0) + 1) / (known.sum(dim=0) + 2))
        if self.pairs is not None:
            self.column.copy_(columns_of(x_0))
        any_one = torch.zeros(L).index_add_(0, self.column, self.frequency)[self.column]
        none = (1 - any_one).clamp_min(1 / (n + 2))
        self.log_odds.copy_(self.frequency.log() - none.log())
        z = known * (x_0 - self.frequency) / self.spread()
        some = torch.arange(0, L, -(-L // MOST_PAIRED))  # all of them, unless there are many
        correlation = z[:, some].T @ z / n  # (<= MOST_PAIRED, L)
        correlation[self.column[some][:, None] == self.column] = 0  # a bit's own is one of them
        if self.choose_dropout:
            variance = self.spread()[some].square()
            strongest = correlation.abs().amax(dim=1) @ variance / variance.sum()
            share = DROPOUT * (1000 / n) ** 0.8 * (1 - strongest) ** 2
            self.dropout.copy_(share.clamp(0, MOST_DROPOUT))
        if self.pairs is not None:
            by_chance = math.sqrt(2 * math.log(max(2, L * (L - 1) / 2)) / n)
            weakest = correlation.abs().flatten().topk(min(PARTNERS * L, L * L)).values[-1]
            self.is_pair.copy_(correlation.abs() >= weakest.clamp_min(by_chance))
        for companion in self.companions.values():
            companion.prepare(x_0)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the other bits of x_t say about each bit of x_0.

        x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L): the log-odds that bit i of x_0 is 1.
        """
        time = self.time(t)  # (B, 64)
        lambda_t = (2 * self.T / t - 1).log()[:, None]  # log-odds that a bit of x_t is right
        own = (2 * x_t - 1) * lambda_t  # what it says of itself
        seen = self.evidence(own)  # (B, L)
        h = self.read_in(seen)  # (B, width)
        for block in self.blocks:
            h = block(h, time, self.dropout)
        h = self.norm(h) * (1 + self.scale(time))  # log-odds grow as t falls
        logits = self.read_out(drop(h, self.dropout, self.training))
        if self.pairs is not None:
            logits = logits + seen @ (self.pairs * self.is_pair).T * (1 + self.pair_scale(time))
        logits = self.given_column(self.log_odds + logits, own)
        if self.training:
            return logits
        alone = self.given_column(self.log_odds, own)
        mean = alone + self.confidence[0] * (logits - alone)
        for companion, share in zip(self.companions.values(), self.confidence[1:], strict=True):
            if share.is_cuda or share:  # a GPU would have to be waited for
                mean = mean + share * (companion(x_t, t) - alone)
        return mean

    def evidence(self, own: Tensor) -> Tensor:
        """E[x_0 | x_t] if bits were independent, in standard deviations of x_0 from its mean. (B, L)

        A rare bit that is 1 in x_t is probably noise until t is small; here that is known.
        """
        return ((self.frequency.logit() + own).sigmoid() - self.frequency) / self.spread()

    def given_column(self, log_odds: Tensor, own: Tensor) -> Tensor:
        """Log-odds of each bit against no 1 in its column -> those of the bit, which others may exclude.

        log_odds: (L,) or (B, L); own: (B, L), what x_t says of each bit by itself, in log-odds too. What
        it says of the bit is not counted, what it says of the others is. (B, L); (L,) without columns
        """
        if self.pairs is None or not (own.is_cuda or (self.column.diff() == 0).any()):
            return log_odds
        is_other = (self.column[:, None] == self.column).float().fill_diagonal_(0)
        others = (log_odds + own).clamp_max(LARGEST).exp() @ is_other
        return log_odds - others.log1p()

    def spread(self) -> Tensor:
        """Standard deviation of each bit of x_0. (L,)"""
        return (self.frequency * (1 - self.frequency)).sqrt()


def columns_of(x_0: Tensor) -> Tensor:
    """The number of each bit's column: neighbouring bits of which no two are ever 1. (L,)

    Such is a one-hot code, which can be told without a heading: chance would not make it.
    x_0: (n, L) of 0 and 1, and 0.5 where a bit is unknown: all of a column are, in a string, or none.
    """
    L, is_one, is_known = x_0.shape[1], (x_0 == 1).float(), (x_0 != 0.5).float()
    ones, known = is_one.sum(dim=0).tolist(), is_known.sum(dim=0).tolist()
    # the last bit before each that it cannot share a column with; -1: none
    excluded = is_one.T @ is_one
    if min(known) < len(x_0):
        alone = is_known.T @ (1 - is_known)  # strings in which one of two bits is known
        excluded = excluded + alone + alone.T
    last = (((excluded > 0).tril(-1) * torch.arange(1, L + 1)).amax(dim=1) - 1).tolist()
    limit = BY_CHANCE + 2 * math.log(L)  # nats, for all the places where a column may begin and end
    column = torch.arange(L)
    start = 0
    while start < L:
        end, by_chance, n = start + 1, 0.0, known[start]
        count = ones[start]  # of strings with a 1 so far
        for bit in range(start + 1, L):
            if last[bit] >= start or count == n:
                break
            one = -ones[bit] * math.log1p(-count / n)  # of never 1 together, were they independent
            by_chance += one
            count += ones[bit]
            if one > limit or (by_chance > limit and ones[bit] and count == n):
                end = bit + 1
        column[start:end] = start
        start = end
    return column


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
