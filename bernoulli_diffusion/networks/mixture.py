"""A mixture of products: kinds of strings, and in each kind bits that know nothing of each other.

Idea: a string is of one of num_components kinds, and each kind has its own probability for each bit.
Seen through noise, the other bits say how probable each kind is, and thereby what bit i is. That is
the exact posterior of the mixture in closed form. prepare() fits the mixture to the data in seconds.
Logit i never sees bit i.

Source: latent class analysis (Lazarsfeld 1950); expectation maximisation (Dempster, Laird & Rubin 1977).

Helps where records fall into kinds (customers, species, votes), as a quick baseline, and in an ensemble
beside networks that err in other ways. No use for rules that join many bits.
Cost: 4 L num_components operations a string.
"""

import torch
from torch import Tensor, nn

STEP = 10.0  # logits are parameters times this: they need longer steps than the weights of an MLP
AT_A_TIME = 1 << 18  # values of (strings, kinds, bits), which then stay in a core's own cache


class ReverseModel(nn.Module):
    """P(x) = sum over kinds k of P(k) prod_i P(x_i | k)."""

    def __init__(self, sequence_length: int, T: int, num_components: int = 64, em_steps: int = 200):
        super().__init__()
        self.T, self.em_steps = T, em_steps
        self.share = nn.Parameter(torch.randn(num_components) / STEP)  # log-weight of each kind
        self.bit = nn.Parameter(torch.zeros(num_components, sequence_length))  # log-odds of a 1
        self.register_buffer("frequency", torch.full((sequence_length,), 0.5))  # of a 1 in the data
        self.register_buffer("confidence", torch.ones(()))  # chosen on val, after training

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        seen = (1 - t / self.T)[:, None] * (2 * x_t - 1)  # (B, L) s alpha_t, s = 1 or -1
        bit = STEP * self.bit  # (K, L)
        lean, one, zero = torch.tanh(bit / 2), bit.sigmoid(), (-bit).sigmoid()
        rows = max(1, AT_A_TIME // bit.numel())
        logits = torch.cat([self.others(part, lean, one, zero) for part in seen.split(rows)])
        return logits if self.training else self.frequency.logit().lerp(logits, self.confidence)

    def others(self, seen: Tensor, lean: Tensor, one: Tensor, zero: Tensor) -> Tensor:
        """What the other bits say about each bit. (b, L)

        seen: (b, L); for each kind and bit, (K, L): P(1) - P(0), P(1) and P(0).
        """
        # P(x_t,i | kind), but for a factor that is the same for all kinds
        own = (1 + lean * seen[:, None]).clamp_min(1e-6)  # (b, K, L)
        kind = (STEP * self.share + own.log().sum(dim=2)).softmax(dim=1)  # (b, K)
        others = kind[:, :, None] / own  # (b, K, L), told by all bits but one
        odds = [(others * p).sum(dim=1).clamp_min(1e-30) for p in (one, zero)]  # (b, L) each
        return odds[0].log() - odds[1].log()

    @torch.no_grad()
    def prepare(self, x_0: Tensor) -> None:
        """Fit the mixture to x_0 by expectation maximisation, a batch at a time.

        x_0: (n, L) float 0/1, and 0.5 where a bit is unknown. Kinds begin half way between random strings
        and the mean of all (Cappe & Moulines 2009 for the batches).
        """
        n, K = len(x_0), len(self.share)
        mean = (x_0.sum(dim=0) + 0.5) / (n + 1)  # (L,)
        self.frequency.copy_(mean)
        batch = min(n, 4096)
        share = torch.full((K,), 1 / K, device=x_0.device)
        known = share[:, None].expand_as(self.bit)  # (K, L) P(kind, x_i is known)
        ones = (x_0[torch.randint(n, (K,))] + mean) / 2 * known  # (K, L) P(kind, x_i = 1)
        for step in range(self.em_steps):
            p = shrunk(ones, known, n, mean)
            log_p, log_q = p.log(), (-p).log1p()
            x = x_0[torch.randint(n, (batch,))] if batch < n else x_0
            zero, one = (x == 0).float(), (x == 1).float()
            kind = (share.log() + one @ log_p.T + zero @ log_q.T).softmax(dim=1)  # (B, K)
            weight = max(batch / n, (step + 1) ** -0.5)  # what was counted long ago is out of date
            share = share.lerp(kind.mean(dim=0), weight).clamp_min(1e-6 / K)
            ones = ones.lerp(kind.T @ one / len(x), weight)
            known = known.lerp(kind.T @ (zero + one) / len(x), weight)
        self.share.copy_(share.log() / STEP)
        self.bit.copy_((log_p - log_q) / STEP)


def shrunk(ones: Tensor, known: Tensor, n: int, mean: Tensor) -> Tensor:
    """Each kind's probability of each bit, by what all kinds say of that bit. (K, L)

    ones, known: (K, L) shares of n strings. A bit's probabilities in the kinds are taken as draws from a
    beta distribution, whose variance is that between kinds less what chance makes of it (empirical Bayes:
    Robbins 1956; by moments). So a bit that is the same in all kinds does not look different in some.
    """
    p = ones / known.clamp_min(1e-12)
    weight = known / known.sum(dim=0)
    between = (weight * (p - mean).square()).sum(dim=0)
    by_chance = (p * (1 - p)).sum(dim=0) / (n * known.sum(dim=0))
    variance = mean * (1 - mean)
    strings = (variance / (between - by_chance).clamp_min(1e-9) - 1).clamp(0.02, 1e6)  # (L,)
    p = (n * ones + strings * mean) / (n * known + strings)
    return p.clamp(1e-6, 1 - 1e-6)
