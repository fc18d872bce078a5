"""How probable are given strings: the bound, by Monte Carlo, and the baselines beside it. In bits."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .diffusion import Diffusion
from .estimate import Estimate, of_lines, weighed
from .noise import Noise, derive_seed
from .system.errors import UserError

ELEMENTS_PER_BATCH = 1 << 19  # bits handed to the network at a time: large batches, bounded memory


class HollowDiffusion(Diffusion):
    """Diffusion by a network whose logit i does not depend on bit i of x_t: the same bound, less noise.

    Given the other bits, the logit of a bit is then a number, and its divergence can be averaged over
    both values that the forward process may have given that bit, instead of over the one it was dealt.
    With any other network the result is not a bound.
    """

    def divergence(self, x_0: Tensor, x_t: Tensor, logits: Tensor, t: Tensor) -> Tensor:
        """As Diffusion's, averaged over every bit's own noise. From the same network call."""
        right = self.process.step_divergence(x_0, x_0, logits, t, t - 1)
        wrong = self.process.step_divergence(x_0, 1 - x_0, logits, t, t - 1)
        return torch.lerp(right, wrong, ((1 - self.process.alpha[t]) / 2).to(right.dtype))


PILOT, DRAWS, TIMES, BLUR = range(4)  # streams of random numbers derived from one seed
PILOT_DRAWS = 1 << 13
MOST_DRAWS = 1 << 20  # of a line: they are in memory together
LEAST_DRAWS = 16  # of a line, for an error of its own that means something
BINS = 64  # of the unit interval from which times come; the mean over lines has a profile there
WIDTH = 8  # bins that have their shares of the controls in common
LEAST_FITTED = 16  # draws; from fewer, no shares are found
PARTS = 4  # of the lines that are drawn once; the controls of one use the answers in another
FOUR = (0, 1, 1, 0)  # strata of four draws: two in each, neighbours in a ring
GOLDEN_RATIO = (5**0.5 - 1) / 2


class Draws(NamedTuple):
    """Draws of the bound of n lines, R each, before the controls are taken off; float64 on the CPU."""

    terms: Tensor  # (n, R) bits, unbiased for the line's bound
    controls: Tensor  # (2, n, R) bits, of mean zero
    bins: Tensor  # (n, R) int64: in which part of the unit interval the time was drawn


class Effort(NamedTuple):
    """How the bound of each string of a file is to be estimated."""

    draws: int  # times t for each string, a multiple of four
    shares: Tensor  # (2, BINS // WIDTH) how much of the controls is taken off
    profile: Tensor  # (BINS,) what a draw costs more or less than others, by when it is


def draws_per_line(lines: int, num_draws: int) -> int:
    """How often each of so many lines is drawn, for at least num_draws draws in all: 1, 4, 8, 12 ...

    Of many lines each is drawn once: what the lines differ in is then most of the error, and more
    draws of fewer lines would only make it larger.
    """
    return 1 if lines >= num_draws else 4 * -(-num_draws // (4 * lines))


def estimate_bound(
    diffusion: Diffusion,
    strings,
    num_draws: int,
    seed: int,
    device: torch.device | str = "cpu",
    poll=lambda: None,
) -> Estimate:
    """The mean of the bound on -log2 p(x_0) over strings, from num_draws (string, time) draws or more.

    Strings that have weights count by these. poll is called between batches. The same strings,
    num_draws and seed give the same draws.
    """
    R = draws_per_line(len(strings), num_draws)
    draws = bound_draws(diffusion, strings, R, seed, device, poll=poll)
    return estimate_of(draws, strings.weights)


@torch.inference_mode()
def bound_draws(
    diffusion: Diffusion,
    strings,
    R: int,
    seed: int,
    device: torch.device | str = "cpu",
    lines: range | None = None,
    poll=lambda: None,
) -> Draws:
    """R draws (1, or a multiple of 4) of the bound of each line, or of a range of the lines.

    Times are strata of the unit interval: R / 2 of each line's own, two draws in each, and within
    these the times of neighbouring lines are a golden ratio apart, so that many lines together fill it
    evenly. A line's draws do not depend on which others are asked for.
    """
    lines = range(len(strings)) if lines is None else lines
    batch = max(4, ELEMENTS_PER_BATCH // strings.length)
    together = max(1, batch // R)
    found = []
    for first in range(lines.start, lines.stop, together):
        which = torch.arange(first, min(first + together, lines.stop))
        parts = []
        for k in range(0, R, batch - batch % 4):
            poll()
            positions = torch.arange(k, min(k + batch - batch % 4, R))
            parts.append(_draw(diffusion, strings, which, positions, R, seed, device))
        found.append(Draws(*(torch.cat(field, dim=-1) for field in zip(*parts, strict=True))))
    if not found:
        nothing = torch.zeros(2, 0, R, dtype=torch.float64)
        return Draws(nothing[0], nothing, nothing[0].long())
    return joined(found)


def joined(draws: list[Draws]) -> Draws:
    """Draws of some lines and of those after them."""
    terms, controls, bins = zip(*draws, strict=True)
    return Draws(torch.cat(terms), torch.cat(controls, dim=1), torch.cat(bins))


def _draw(diffusion, strings, lines, positions, R: int, seed: int, device) -> Draws:
    """The draws number `positions` of R of the given lines: one network call.

    Two controls know what wrong bits of x_t cost: one with log-odds of 0, one with what the network
    said in another draw, which does not depend on this draw's x_t: in the next of four draws of the
    line, or on average in other lines if each is drawn once. Draws stay uncorrelated.
    """
    process, (n, m) = diffusion.process, (len(lines), len(positions))
    number = (lines[:, None] * R + positions).flatten().to(device)  # (n * m,)
    u_x = Noise(derive_seed(seed, DRAWS), number, strings.length).uniform(0)
    stratum = 0 * positions
    if R > 1:
        stratum = 2 * (positions // 4) + torch.tensor(FOUR)[positions % 4]
    start = Noise(derive_seed(seed, TIMES), positions, 1).uniform(0)[:, 0].double()
    within = (lines[:, None] * GOLDEN_RATIO + start) % 1  # (n, m)
    u_t = ((stratum + within) / max(1, R // 2)).flatten()
    bins = (u_t * BINS).long().clamp_(max=BINS - 1)
    t, probability = process.times(u_t.to(device, process.alpha.dtype))
    blur = derive_seed(seed, BLUR) + positions.repeat(n)  # each draw has a noise of its own
    x_0 = strings.tensor(lines.repeat_interleave(m).numpy(), device, blur[:, None])
    x_t = process.sample_x_t(x_0, t, u_x)
    logits = diffusion.reverse_model(x_t, t).float()
    term, beside = diffusion.divergence(x_0, x_t, logits, t), process.beside_steps
    if beside is not None:
        term = term - beside.control(x_0, x_t, t)
    if R == 1:
        others = _said_in_others(logits, (bins // WIDTH).to(device), number % PARTS)
    else:
        others = logits.view(n, m // 4, 4, -1).roll(-1, dims=2).flatten(0, 2)
    controls = [process.control_variate(x_0, x_t, o, t) for o in (others, torch.zeros_like(others))]
    values = torch.stack([term, *controls]).double().cpu() / probability.double().cpu()
    if beside is not None:
        values[0] += (beside.control_total(x_0) + beside.fixed_terms(x_0)).double().cpu()
    values = values.view(3, n, m)
    return Draws(values[0], values[1:], bins.view(n, m))


def _said_in_others(logits: Tensor, bins: Tensor, part: Tensor) -> Tensor:
    """For each row the mean logits of the rows of another part in the same bin; 0 if there are none.

    logits: (B, L); bins, part: (B,). Returns (B, L).
    """
    group, groups = bins * PARTS + part, BINS // WIDTH * PARTS
    total = logits.new_zeros(groups, logits.shape[1]).index_add_(0, group, logits)
    count = torch.bincount(group, minlength=groups).clamp(min=1).to(logits.dtype)
    return (total / count[:, None])[bins * PARTS + (part + 1) % PARTS]


def estimate_of(draws: Draws, weights: np.ndarray | None = None) -> Estimate:
    """The mean bound of all lines, by their weights (n,) if these are given.

    Each half of the draws has the shares that the other half suggests, so nothing is
    fitted to the draws that it is applied to, and the estimate stays unbiased.
    """
    n, R = draws.terms.shape
    half = torch.arange(n)[:, None] % 2 if R == 1 else torch.arange(R) % 4 // 2
    half, coarse, coarsest = half.expand(n, R), draws.bins // WIDTH, BINS // WIDTH
    shares = _fitted_shares(draws, half * coarsest + coarse, 2 * coarsest)
    values = _without_controls(draws, shares[:, (1 - half) * coarsest + coarse])
    if weights is not None:
        values = torch.from_numpy(weighed(values.numpy(), weights))
    return of_lines(*values_of_lines(_without_profile(values, draws.bins)))


def _without_profile(values: Tensor, bins: Tensor) -> Tensor:
    """values less what those at about the same time have in common. Their mean stays what it is.

    Times fill the unit interval evenly, so that this part is no chance, and has no place in the error.
    values, bins: (n, R). Returns (n, R).
    """
    bins, count = _coarse_enough(bins)
    number = torch.bincount(bins.flatten(), minlength=count)
    common = _means(values.view(1, -1), bins.flatten(), count)[0, bins]
    # a mean of few draws takes a share of their variance away
    number = number[bins].double().clamp(min=2)
    return values.mean() + (values - common) * (number / (number - 1)).sqrt()


def _coarse_enough(bins: Tensor) -> tuple[Tensor, int]:
    """Fewer bins, if there are few draws in each, and how many they are."""
    count = min(BINS, max(1, bins.numel() // LEAST_FITTED))
    return bins * count // BINS, count


def _means(x: Tensor, group: Tensor, groups: int) -> Tensor:
    """The means of x (K, N) in each group (N,): (K, groups), 0 in empty ones."""
    count = torch.bincount(group, minlength=groups).clamp(min=1)
    return x.new_zeros(len(x), groups).index_add_(1, group, x) / count


def _fitted_shares(draws: Draws, group: Tensor, groups: int) -> Tensor:
    """Least squares of terms on controls in each group of draws: (2, groups). group: (n, R)."""
    group, (bins, count) = group.flatten(), _coarse_enough(draws.bins.flatten())
    x = torch.cat([draws.controls.flatten(1), draws.terms.view(1, -1)])  # (3, n * R)
    x = x - _means(x, bins, count)[:, bins]
    products = x.new_zeros(3, 3, groups).index_add_(2, group, x[:, None] * x)
    inverse = torch.linalg.pinv(products[:2, :2].permute(2, 0, 1), hermitian=True)
    shares = (inverse @ products[:2, 2].T[:, :, None])[:, :, 0].T  # (2, groups)
    return shares * (torch.bincount(group, minlength=groups) >= LEAST_FITTED)


def _without_controls(draws: Draws, shares: Tensor) -> Tensor:
    """(n, R) terms less the shares, (2, n, R), of the controls."""
    return draws.terms - (shares * draws.controls).sum(dim=0)


def values_of_lines(values: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Each line's bound, (n,), and its Monte Carlo variance, (n,), None if lines were drawn once.

    values: (n, R), without their profile over time. The variance is that of two draws in the same
    stratum of times.
    """
    n, R = values.shape
    if R == 1:
        return values[:, 0].numpy(), None
    four = values.view(n, R // 4, 4)
    apart = (four[..., 0] - four[..., 3]).square() + (four[..., 1] - four[..., 2]).square()
    return values.mean(dim=1).numpy(), (apart.sum(dim=1) / R**2).numpy()


def plan_bound(
    diffusion: Diffusion, strings, precision: float, seed: int, device: torch.device | str = "cpu"
) -> Effort:
    """The effort for a Monte Carlo error of precision times the mean bound, from a few thousand draws.

    These draws choose the shares of the controls and the profile over time too, and serve nothing
    else, so that the estimate stays unbiased. Raises UserError for a precision out of reach.
    """
    n = len(strings)
    lines = np.random.default_rng(seed).permutation(n)[: PILOT_DRAWS // LEAST_DRAWS]
    R = max(LEAST_DRAWS, PILOT_DRAWS // (4 * len(lines)) * 4)
    draws = bound_draws(diffusion, strings.part(lines), R, derive_seed(seed, PILOT), device)
    coarse = draws.bins // WIDTH
    shares = _fitted_shares(draws, coarse, BINS // WIDTH)
    values = _without_controls(draws, shares[:, coarse])
    profile = _means(values.view(1, -1), draws.bins.flatten(), BINS)[0]
    profile -= profile.mean()
    bits, variance = values_of_lines(values - profile[draws.bins])
    least = max(1e-9, diffusion.process.least_bits * strings.length)
    target = (precision * max(bits.mean(), least)) ** 2
    # A tenth more, because the pilot's variance is itself an estimate. No fewer draws of a line than the
    # pilot has: with fewer strata the variance grows faster than their number falls.
    draws = 1.1 * R * variance.mean() / (n * target)
    if draws > MOST_DRAWS:
        possible = precision * math.sqrt(draws / MOST_DRAWS)
        raise UserError(
            f"--precision {precision:g}: takes {draws:.1g} draws of each line; ask for"
            f" {1.1 * possible:.1g} or more"
        )
    return Effort(max(R, 4 * math.ceil(draws / 4)), shares, profile)


def bound_of_each(
    diffusion: Diffusion, strings, effort: Effort, seed: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """The bound on -log2 p(x_0) of every string and its standard error, both (n,), block by block.

    Each string has its own strata of times and its own random numbers. float64 on the CPU.
    """
    for block in blocks_of_lines(strings, effort.draws):
        bits, variance = values_of_lines(
            line_values(diffusion, strings, effort, seed, device, block)
        )
        yield torch.from_numpy(bits), torch.from_numpy(variance).sqrt()


def blocks_of_lines(strings, draws: int) -> Iterator[range]:
    """All lines, in blocks that are drawn together so many times each."""
    lines = max(1, ELEMENTS_PER_BATCH // (strings.length * draws))
    for first in range(0, len(strings), lines):
        yield range(first, min(first + lines, len(strings)))


def line_values(
    diffusion: Diffusion,
    strings,
    effort: Effort,
    seed: int,
    device: torch.device | str,
    lines: range,
) -> Tensor:
    """Draws of the bounds of some lines, (n, R), as little noisy as effort can make them.

    The same seed, lines and effort.draws give any model the same times and noise, so that two models can
    be subtracted draw by draw.
    """
    draws = bound_draws(diffusion, strings, effort.draws, seed, device, lines)
    values = _without_controls(draws, effort.shares[:, draws.bins // WIDTH])
    return values - effort.profile[draws.bins]


@torch.inference_mode()
def exact_law(diffusion: Diffusion, length: int, device: torch.device | str = "cpu") -> Tensor:
    """p(x_0) of all 2^L strings, by carrying the whole law through every step. (2^L,) float64.

    Strings are numbered as binary numbers, first bit highest. About T 4^L operations: L <= 12.
    """
    shifts = torch.arange(length - 1, -1, -1, device=device)
    x = ((torch.arange(2**length, device=device)[:, None] >> shifts) & 1).float()  # (2^L, L)
    law = torch.full((len(x),), 0.5**length, dtype=torch.float64)
    for step in range(diffusion.T, 0, -1):
        t = torch.full((len(x),), step, device=device)
        f = diffusion.process.flips.flip_probability(x, diffusion.reverse_model(x, t), t, t - 1)
        one = torch.where(x == 1, 1 - f.double(), f.double()).cpu()  # P(x_{t-1,i} = 1 | x_t)
        kernel = torch.ones(len(x), 1, dtype=torch.float64)
        for p in one.T[:, :, None]:
            kernel = torch.stack([kernel * (1 - p), kernel * p], dim=2).flatten(1)
        law = law @ kernel
    return law
