"""A mixture of products: kinds of strings, and in each kind bits that know nothing of each other.

Idea: a string is of one of num_components kinds, and each kind has its own probability for each bit.
Seen through noise, the other bits say how probable each kind is, and thereby what bit i is. That is
the exact posterior of the mixture in closed form. prepare() fits the mixture to the data in seconds;
if no number of kinds is given, some of the strings, held out, say how many there should be.
Logit i never sees bit i.

Source: latent class analysis (Lazarsfeld 1950); expectation maximisation (Dempster, Laird & Rubin 1977).

Helps where records fall into kinds (customers, species, votes), as a quick baseline, and in an ensemble
beside networks that err in other ways. No use for rules that join many bits.
Cost: 4 L num_components operations a string; products of matrices where all strings have one time.
"""

import torch
from torch import Tensor, nn

STEP = 10.0  # logits are parameters times this: they need longer steps than the weights of an MLP
AT_A_TIME = 1 << 18  # values of (strings, kinds, bits), which then stay in a core's own cache
BATCH, EM_STEPS, EM_PASSES = 4096, 200, 10  # strings a step; the least steps, and passes over all
KINDS, MOST_VALUES = (16, 64, 256, 512), 1 << 17  # that are tried; and kinds times bits, at most
LEAST_GAIN = 0.01  # nats a string: more kinds that gain less are not worth their time
HELD_OUT, MOST_HELD_OUT = 0.1, 10_000  # for that: the share and number of strings
LEAST = 1e-6  # that is divided by, times a probability; the product of four is a float32
NEVER = -1e30  # the log of the share of a kind that is not there


class ReverseModel(nn.Module):
    """P(x) = sum over kinds k of P(k) prod_i P(x_i | k)."""

    def __init__(
        self,
        sequence_length: int,
        T: int,
        num_components: int | None = None,  # None: prepare chooses it
        em_steps: int | None = None,  # None: EM_STEPS, or more for many strings
    ):
        super().__init__()
        self.T, self.em_steps, self.choose_kinds = T, em_steps, num_components is None
        K = num_components or max(KINDS[0], min(KINDS[-1], MOST_VALUES // sequence_length))
        # log-weight of each kind
        self.share = nn.Parameter(torch.empty(K).uniform_(-1 / STEP, 1 / STEP))
        self.bit = nn.Parameter(torch.zeros(K, sequence_length))  # log-odds of a 1
        self.register_buffer("frequency", torch.full((sequence_length,), 0.5))  # of a 1 in the data
        self.register_buffer("confidence", torch.ones(()))  # chosen on val, after training
        self.num_kinds = K
        self.register_load_state_dict_post_hook(lambda model, _: model.count_kinds())

    def count_kinds(self) -> None:
        """num_kinds: those that are there, which are the first ones."""
        self.num_kinds = max(1, int((self.share > NEVER / STEP / 2).sum()))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        share, bit = STEP * self.share[: self.num_kinds], STEP * self.bit[: self.num_kinds]
        lean = torch.tanh(bit / 2).clamp(LEAST - 1, 1 - LEAST)  # (K, L)
        one, zero = bit.sigmoid(), (-bit).sigmoid()
        if len(t) == 1 or (len(t) and t.stride(0) == 0):  # one time for all strings, as on a grid
            logits = self.others_at_once(x_t, (1 - t[0] / self.T) * lean, one, zero, share)
        else:
            seen = (1 - t / self.T)[:, None] * (2 * x_t - 1)  # (B, L) s alpha_t, s = 1 or -1
            rows = max(1, AT_A_TIME // bit.numel())
            parts = (self.others(part, lean, one, zero, share) for part in seen.split(rows))
            logits = torch.cat(list(parts))
        return logits if self.training else self.frequency.logit().lerp(logits, self.confidence)

    def others(
        self, seen: Tensor, lean: Tensor, one: Tensor, zero: Tensor, share: Tensor
    ) -> Tensor:
        """What the other bits say about each bit. (b, L)

        seen: (b, L); for each kind and bit, (K, L): P(1) - P(0), P(1) and P(0); share: (K,) in logs.
        """
        # P(x_t,i | kind), but for a factor that is the same for all kinds
        own = torch.addcmul(lean.new_ones(()), lean, seen[:, None])  # (b, K, L)
        factors = own
        for _ in range(2):  # four to a product: logs take long
            half, rest = divmod(factors.shape[2], 2)
            pairs = factors[:, :, :half] * factors[:, :, half : 2 * half]
            factors = torch.cat([pairs, factors[:, :, -1:]], dim=2) if rest else pairs
        kind = (share + factors.log().sum(dim=2)).softmax(dim=1)  # (b, K)
        others = kind[:, :, None] / own  # (b, K, L), told by all bits but one
        odds = [(others * p).sum(dim=1).clamp_min(1e-30) for p in (one, zero)]  # (b, L) each
        return odds[0].log() - odds[1].log()

    def others_at_once(
        self, x_t: Tensor, lean: Tensor, one: Tensor, zero: Tensor, share: Tensor
    ) -> Tensor:
        """The same as others, of strings at one time. x_t: (B, L); lean: (K, L), times alpha_t."""
        own = 1 + lean, 1 - lean  # (K, L) of a 1, of a 0
        kind = (share + x_t @ own[0].log().T + (1 - x_t) @ own[1].log().T).softmax(dim=1)  # (B, K)
        odds = [
            torch.where(x_t > 0.5, kind @ (p / own[0]), kind @ (p / own[1])).clamp_min(1e-30)
            for p in (one, zero)
        ]
        return odds[0].log() - odds[1].log()

    @torch.no_grad()
    def prepare(self, x_0: Tensor) -> None:
        """Fit the mixture to x_0, (n, L) float 0/1, and 0.5 where a bit is unknown."""
        self.frequency.copy_(mean_of(x_0))
        K, em_steps = len(self.share), self.em_steps or max(EM_STEPS, EM_PASSES * len(x_0) // BATCH)
        if self.choose_kinds:
            K = choose(x_0, K, em_steps)
        share, bit = fit(x_0, K, em_steps)
        self.share.fill_(NEVER / STEP)
        self.bit.zero_()
        self.share[:K], self.bit[:K] = share / STEP, bit / STEP
        self.count_kinds()


def choose(x_0: Tensor, most: int, em_steps: int) -> int:
    """How many kinds, fitted to a part of x_0, give the rest of it the highest probability."""
    held_out = min(MOST_HELD_OUT, int(HELD_OUT * len(x_0)))
    order = torch.randperm(len(x_0))
    test, train = x_0[order[:held_out]], x_0[order[held_out:]]
    best, least = min(most, KINDS[0]), -torch.inf
    for K in sorted({min(most, k) for k in KINDS}) if held_out else ():
        law = log_law(test, *fit(train, K, em_steps)).mean().item()
        if law < least + LEAST_GAIN:  # and still more kinds would gain no more
            break
        best, least = K, law
    return best


def fit(x_0: Tensor, K: int, em_steps: int) -> tuple[Tensor, Tensor]:
    """Expectation maximisation, a batch at a time: log-shares (K,), log-odds of each kind's bits (K, L).

    x_0: (n, L) float 0/1, and 0.5 where a bit is unknown. Kinds begin half way between random strings
    and the mean of all (Cappe & Moulines 2009 for the batches).
    """
    n, mean = len(x_0), mean_of(x_0)
    batch = min(n, BATCH)
    share = torch.full((K,), 1 / K, device=x_0.device)
    known = share[:, None].expand(K, x_0.shape[1])  # (K, L) P(kind, x_i is known)
    ones = (x_0[torch.randint(n, (K,))] + mean) / 2 * known  # (K, L) P(kind, x_i = 1)
    for step in range(em_steps):
        p = shrunk(ones, known, n, mean)
        bit, none = p.logit(), (-p).log1p()  # (K, L)
        x = x_0[torch.randint(n, (batch,))] if batch < n else x_0
        one, is_known = (x == 1).float(), (x != 0.5).float()
        complete = bool(is_known.all())
        base = none.sum(dim=1) if complete else is_known @ none.T
        kind = (share.log() + one @ bit.T + base).softmax(dim=1)  # (B, K)
        weight = max(batch / n, (step + 1) ** -0.5)  # what was counted long ago is out of date
        now = kind.mean(dim=0)
        share = share.lerp(now, weight).clamp_min(1e-6 / K)
        ones = ones.lerp(kind.T @ one / len(x), weight)
        now = now[:, None].expand_as(ones) if complete else kind.T @ is_known / len(x)
        known = known.lerp(now, weight)
    return share.log(), bit


def log_law(x: Tensor, share: Tensor, bit: Tensor) -> Tensor:
    """(n,) log P(x) in nats; x: (n, L) float 0/1, and 0.5 where a bit is unknown."""
    one, is_known = (x == 1).float(), (x != 0.5).float()
    of_kind = one @ bit.T + is_known @ torch.nn.functional.logsigmoid(-bit).T
    return (share.log_softmax(dim=0) + of_kind).logsumexp(dim=1)


def mean_of(x_0: Tensor) -> Tensor:
    """(L,) how often each bit is 1, a little away from 0 and 1."""
    return (x_0.sum(dim=0) + 0.5) / (len(x_0) + 1)


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
