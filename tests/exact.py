"""The arithmetic that the tests check the package against: all 2^L strings, every step, in float64.

Nothing here is taken from the package; the formulas are written afresh, in the most literal form.
Strings are numbered as binary numbers, first bit highest. Kernels are matrices with one row for
each state that is known and one column for each state that is asked for: q(x_t | x_r) is
[x_r, x_t], and p(x_r | x_t) is [x_t, x_r].
"""

import itertools
import math

import torch
from torch import Tensor, nn

# --- Strings


def states(L: int) -> Tensor:
    """(2^L, L) float64, every string in the order of its number."""
    shifts = torch.arange(L - 1, -1, -1)
    return ((torch.arange(2**L)[:, None] >> shifts) & 1).double()


def index(x: Tensor) -> Tensor:
    """x: (..., L) bits. Returns (...), the strings' numbers."""
    values = 2 ** torch.arange(x.shape[-1] - 1, -1, -1)
    return (x.long() * values).sum(-1)


# --- The forward process, from its definition: keep with 1 - beta_t, else redraw fairly


def betas(T: int | list[float]) -> list[float]:
    """beta_0 .. beta_T, the paper's schedule; there is no step 0. A list in place of T is it itself."""
    return T if isinstance(T, list) else [0.0] + [1 / (T - t + 1) for t in range(1, T + 1)]


def cosine_betas(T: int) -> list[float]:
    """Another schedule: alpha_t is a squared cosine (Nichol & Dhariwal 2021, eq. 17), 0 at the end."""
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T)] + [0.0]
    return [0.0] + [1 - f[t] / f[t - 1] for t in range(1, T + 1)]


def linear_betas(T: int, first: float, last: float) -> list[float]:
    """alpha_t from steps that grow evenly, shifted and stretched to end at 0."""
    kept = [1.0]
    for t in range(T):
        kept.append(kept[-1] * (1 - first - (last - first) * t / (T - 1)))
    alpha = [(a - kept[-1]) / (1 - kept[-1]) for a in kept]
    return [0.0] + [1 - alpha[t] / alpha[t - 1] for t in range(1, T + 1)]


def alphas(T: int) -> Tensor:
    """(T + 1,) float64, alpha_t = prod_{r<=t} (1 - beta_r)."""
    return (1 - torch.tensor(betas(T), dtype=torch.float64)).cumprod(0)


def bit_kernel(T: int, r: int, t: int) -> Tensor:
    """q(x_t | x_r) of one bit, (2, 2): the product of the single steps r + 1 .. t."""
    kernel = torch.eye(2, dtype=torch.float64)
    for s in range(r + 1, t + 1):
        beta = betas(T)[s]
        step = (1 - beta) * torch.eye(2, dtype=torch.float64) + beta / 2
        kernel = kernel @ step
    return kernel


def forward_kernel(L: int, T: int, r: int, t: int) -> Tensor:
    """q(x_t | x_r) of strings, (2^L, 2^L)."""
    kernel = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(L):
        kernel = torch.kron(kernel, bit_kernel(T, r, t))
    return kernel


def bit_posterior(T: int, r: int, t: int) -> Tensor:
    """q(x_r | x_t, x_0) of one bit by Bayes' rule, (2, 2, 2): [x_0, x_t, x_r]."""
    joint = bit_kernel(T, 0, r)[:, None, :] * bit_kernel(T, r, t).T[None, :, :]
    return joint / joint.sum(dim=2, keepdim=True)


def posterior(L: int, T: int, r: int, t: int) -> Tensor:
    """q(x_r | x_t, x_0) of strings by Bayes' rule, (2^L, 2^L, 2^L): [x_0, x_t, x_r]."""
    joint = forward_kernel(L, T, 0, r)[:, None, :] * forward_kernel(L, T, r, t).T[None, :, :]
    return joint / joint.sum(dim=2, keepdim=True)


# --- The reverse chain of a network


def flip_probability(x_t: Tensor, logits: Tensor, T: int, t, r) -> Tensor:
    """f(c) = (beta/2) (1 - alpha_r c) / (1 + alpha_t c), c = s_t tanh(logits / 2), float64.

    x_t, logits: (..., L); t, r: numbers or (..., 1). For |logits| up to 15 or so: 1 - c cancels.
    """
    alpha_t, alpha_r = alphas(T)[t], alphas(T)[r]
    beta = 1 - alpha_t / alpha_r
    c = (2 * x_t.double() - 1) * torch.tanh(logits.double() / 2)
    return beta / 2 * (1 - alpha_r * c) / (1 + alpha_t * c)


class TableModel(nn.Module):
    """A reverse model with a number of its own for every time, string and bit: any function at all.

    logits: (T + 1, 2^L, L), float32.
    """

    def __init__(self, logits: Tensor, chain: list[float] | None = None):
        """chain: the betas of the forward process; by default the paper's."""
        super().__init__()
        self.logits = nn.Parameter(logits.float())
        self.T, self.L = len(logits) - 1, logits.shape[2]
        self.chain = chain or self.T
        self.rows_seen = 0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        assert x_t.shape == (len(t), self.L)
        assert ((t >= 1) & (t <= self.T)).all()
        assert ((x_t == 0) | (x_t == 1)).all()
        self.rows_seen += len(t)
        return self.logits[t, index(x_t)]


def random_model(
    L: int, T: int, seed: int, scale: float = 1.5, chain: list[float] | None = None
) -> TableModel:
    """A network that says something arbitrary everywhere: normal log-odds of this scale."""
    generator = torch.Generator().manual_seed(seed)
    return TableModel(scale * torch.randn(T + 1, 2**L, L, generator=generator), chain)


def reverse_kernel(model: TableModel, t: int, r: int) -> Tensor:
    """p(x_r | x_t), (2^L, 2^L): bits move independently, each with its own flip probability."""
    x = states(model.L)
    f = flip_probability(x, model.logits[t].detach(), model.chain, t, r)  # (x_t, L)
    moved = x[:, None, :] != x[None, :, :]  # (x_t, x_r, L)
    return torch.where(moved, f[:, None, :], 1 - f[:, None, :]).prod(dim=2)


def laws(model: TableModel, times: list[int] | None = None) -> dict[int, Tensor]:
    """The chain's exact law at each of its times: {t: (2^L,)}. All times by default."""
    times = times or list(range(model.T, -1, -1))
    p = torch.full((2**model.L,), 0.5**model.L, dtype=torch.float64)
    result = {times[0]: p}
    for t, r in itertools.pairwise(times):
        p = p @ reverse_kernel(model, t, r)
        result[r] = p
    return result


def law(model: TableModel, times: list[int] | None = None) -> Tensor:
    """The exact p(x_0), (2^L,)."""
    return laws(model, times)[0]


def bound_terms(model: TableModel) -> Tensor:
    """(T, 2^L) bits: E_{x_t ~ q(.|x_0)} KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) ), t = 1..T.

    Whole strings against whole strings: that bits are independent within a step is not used.
    """
    terms = []
    for t in range(1, model.T + 1):
        q = posterior(model.L, model.chain, t - 1, t)
        p = reverse_kernel(model, t, t - 1)[None]
        divergence = (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(dim=2)  # (x_0, x_t)
        terms.append((forward_kernel(model.L, model.chain, 0, t) * divergence).sum(dim=1))
    return torch.stack(terms) / math.log(2)


def bound(model: TableModel) -> Tensor:
    """(2^L,) the exact bound on -log2 p(x_0) for every string, in bits."""
    return bound_terms(model).sum(dim=0)


# --- The best network for a data set


class IdealModel(nn.Module):
    """What a perfect network would say for data that is uniform on the given strings.

    l_i = log sum_{x: x_i = 1} prod_{j != i} q(x_t,j | x_j)  -  the same with x_i = 0. A bit that
    has one value in the whole data set has infinite log-odds; they are cut at +-LIMIT.
    """

    LIMIT = 100.0

    def __init__(self, data: Tensor, T: int):
        super().__init__()
        self.data, self.alpha = data.bool(), alphas(T)  # (N, L)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha = self.alpha[t][:, None, None]  # (B, 1, 1)
        agree = x_t.bool()[:, None] == self.data  # (B, N, L)
        log_q = torch.where(agree, ((1 + alpha) / 2).log(), ((1 - alpha) / 2).log())
        others = log_q.sum(dim=2, keepdim=True) - log_q  # (B, N, L), all bits but one
        for_one = others.masked_fill(~self.data, -math.inf).logsumexp(dim=1)  # (B, L)
        for_zero = others.masked_fill(self.data, -math.inf).logsumexp(dim=1)
        return (for_one - for_zero).clamp(-self.LIMIT, self.LIMIT).to(x_t.dtype)


# --- Samples against an exact law


def chi_square_z(numbers: Tensor, p: Tensor) -> float:
    """How far samples are from a law: Pearson's chi-square as a standard normal number.

    numbers: (N,) which outcome each sample is; p: (K,) the law. Outcomes that are expected fewer
    than five times are pooled. The chi-square is made normal by Wilson and Hilferty's cube root.
    """
    p = p.flatten().double()
    assert abs(p.sum().item() - 1) < 1e-9
    counts = torch.bincount(numbers.flatten(), minlength=len(p)).double()
    assert len(counts) == len(p)
    assert counts[p == 0].sum() == 0
    expected = p * counts.sum()
    rare = expected < 5
    counts, expected = counts[~rare], expected[~rare]
    left_out = len(numbers.flatten()) - counts.sum(), len(numbers.flatten()) - expected.sum()
    if left_out[1] >= 5:
        counts = torch.cat([counts, left_out[0][None]])
        expected = torch.cat([expected, left_out[1][None]])
    df = len(counts) - 1
    chi_square = ((counts - expected).square() / expected).sum().item()
    spread = 2 / (9 * df)
    return ((chi_square / df) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
