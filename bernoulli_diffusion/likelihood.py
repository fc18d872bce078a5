"""How probable are given strings: the bound, by Monte Carlo, and the baselines beside it. In bits."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .diffusion import Diffusion
from .noise import Noise, derive_seed

ELEMENTS_PER_BATCH = 1 << 19  # bits handed to the network at a time: large batches, bounded memory


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error, in bits per sample."""

    bits: float
    standard_error: float


@torch.inference_mode()
def estimate_bound(
    diffusion: Diffusion,
    strings,
    num_draws: int,
    seed: int,
    device: torch.device | str = "cpu",
    poll=lambda: None,
) -> Estimate:
    """The mean of -log2 p(x_0) <= bound over strings, from num_draws (string, time) draws or more.

    Every string is drawn equally often. The times are strata of one draw, and the standard error is
    taken from neighbouring strata (half the mean square of successive differences), so it does not
    count the spread over t that stratification has removed. poll is called between batches.
    """
    n = len(strings)
    repeats = -(-num_draws // n)
    total = n * repeats
    generator = torch.Generator().manual_seed(seed)
    row = torch.randperm(total, generator=generator) % n  # a random string for each stratum
    stratum = torch.arange(total, dtype=torch.float64)  # float32 counts to 2^24 only
    u_t = (stratum + torch.rand(total, generator=generator)) / total
    batch = max(1, ELEMENTS_PER_BATCH // strings.length)
    terms = []
    for first in range(0, total, batch):
        poll()
        part = slice(first, first + batch)
        x_0 = strings.tensor(row[part].numpy(), device)
        u_x = torch.rand(x_0.shape, generator=generator).to(device)
        terms.append(diffusion.one_t_estimate(x_0, u_t[part].float().to(device), u_x))
    values = torch.cat(terms).double().cpu()
    variance = values.diff().square().mean() / 2 if total > 1 else torch.tensor(math.nan)
    return Estimate(values.mean().item(), math.sqrt(variance / total))


class HollowDiffusion(Diffusion):
    """Diffusion by a network whose logit i does not depend on bit i of x_t: the same bound, less noise.

    Given the other bits, the logit of a bit is then a number, and its divergence can be averaged over
    both values that the forward process may have given that bit, instead of over the one it was dealt.
    With any other network the result is not a bound.
    """

    def bound_term(self, x_0: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """As Diffusion's, averaged over every bit's own noise. From one network call."""
        logits = self.reverse_model(self.process.sample_x_t(x_0, t, u), t).float()
        right = self.process.step_divergence(x_0, x_0, logits, t, t - 1)
        wrong = self.process.step_divergence(x_0, 1 - x_0, logits, t, t - 1)
        return torch.lerp(right, wrong, ((1 - self.process.alpha[t]) / 2).to(right.dtype))


class Effort(NamedTuple):
    """How the bound of each string of a file is to be estimated."""

    draws: int  # times t for each string
    shares: Tensor  # (2, REFERENCES) how much of the controls is taken off, by stratum of times


PILOT, DRAWS = range(2)  # streams of random numbers derived from one seed
PILOT_DRAWS = 1 << 13
MIN_DRAWS = 16  # fewer would say little about their own standard error
REFERENCES = 8  # times at which the network is asked about x_0 itself, for the control variate


@torch.inference_mode()
def plan_bound(
    diffusion: Diffusion,
    strings,
    precision: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> Effort:
    """The effort for a standard error of precision times the mean bound, from a few thousand draws.

    These draws choose the shares of the control variate too, and serve nothing else, so that the
    estimate stays unbiased.
    """
    n, draws = len(strings), 32
    lines = np.random.default_rng(seed).permutation(n)[: PILOT_DRAWS // draws]
    draws = REFERENCES * max(draws // REFERENCES, PILOT_DRAWS // (REFERENCES * len(lines)))
    x_0 = strings.tensor(lines, device)
    references = _references(diffusion, x_0)
    stream = derive_seed(seed, PILOT)
    terms, controls = _bound_draws(diffusion, x_0, references, 0, range(draws), draws, stream)
    # Differences of neighbours within a stratum of REFERENCES: the spread over t is not there.
    y = terms.view(len(lines), REFERENCES, -1).diff(dim=2).transpose(0, 1).flatten(1)
    c = controls.view(2, len(lines), REFERENCES, -1).diff(dim=3).permute(2, 0, 1, 3).flatten(2)
    inverse = torch.linalg.pinv(c @ c.mT, hermitian=True)  # (REFERENCES, 2, 2)
    shares = inverse @ (c @ y[:, :, None])  # least squares, (REFERENCES, 2, 1)
    variance = (y - (shares * c).sum(dim=1)).square().mean().item() / 2
    least = max(1e-9, diffusion.process.least_bits * strings.length)
    target = (precision * max(terms.mean().item(), least)) ** 2
    # a tenth more, because the pilot's variance is itself an estimate
    return Effort(max(MIN_DRAWS, math.ceil(1.1 * variance / (n * target))), shares[:, :, 0].T)


@torch.inference_mode()
def bound_of_each(
    diffusion: Diffusion,
    strings,
    effort: Effort,
    seed: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """The bound on -log2 p(x_0) of every string and its standard error, both (n,), block by block.

    Each string has its own strata of times and its own random numbers. float64 on the CPU.
    """
    R, seed = effort.draws, derive_seed(seed, DRAWS)
    batch = max(1, ELEMENTS_PER_BATCH // strings.length)
    lines = max(1, batch // R)
    for first in range(0, len(strings), lines):
        x_0 = strings.tensor(slice(first, first + lines), device)
        references = _references(diffusion, x_0)
        parts = []
        for k in range(0, R, batch):
            strata = range(k, min(k + batch, R))
            y, c = _bound_draws(diffusion, x_0, references, first, strata, R, seed)
            shares = effort.shares[:, torch.arange(strata.start, strata.stop) * REFERENCES // R]
            parts.append(y - (shares[:, None] * c).sum(dim=0))
        values = torch.cat(parts, dim=1)  # (n, R)
        variance = values.diff(dim=1).square().mean(dim=1) / 2
        mean, beside = values.mean(dim=1), diffusion.process.beside_steps
        if beside is not None:
            mean += beside.fixed_terms(x_0).double().cpu()
        yield mean, (variance / R).sqrt()


def _references(diffusion: Diffusion, x_0: Tensor) -> Tensor:
    """(n, REFERENCES, L): what the network says of x_0 itself, at the middle of each stratum of times."""
    n, device = len(x_0), x_0.device
    u = (torch.arange(REFERENCES, device=device) + 0.5) / REFERENCES
    t, _ = diffusion.process.times(u.repeat(n))
    logits = diffusion.reverse_model(x_0.repeat_interleave(REFERENCES, dim=0), t)
    return logits.view(n, REFERENCES, -1)


def _bound_draws(
    diffusion, x_0, references, first: int, strata: range, R: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Terms of the bound at strata of R, for strings number first and on, and two control variates.

    One has the log-odds that the network gave for x_0 itself, the other has none.
    x_0: (n, L). Returns (n, len(strata)) and (2, n, len(strata)) float64 on the CPU, in bits,
    weighted by 1 / P(t).
    """
    (n, L), process, device = x_0.shape, diffusion.process, x_0.device
    strata = torch.arange(strata.start, strata.stop, device=device)
    number = (first + torch.arange(n, device=device))[:, None] * R + strata  # (n, len(strata))
    u = Noise(seed, number.flatten(), L + 1).uniform(0)
    u_t = (strata.repeat(n) + u[:, 0].to(process.alpha.dtype)) / R
    t, probability = process.times(u_t)
    x_0 = x_0.repeat_interleave(len(strata), dim=0)
    x_t = process.sample_x_t(x_0, t, u[:, 1:].contiguous())
    term = process.step_divergence(x_0, x_t, diffusion.reverse_model(x_t, t), t, t - 1)
    constant = references[:, strata * REFERENCES // R].flatten(0, 1)
    logits = constant, torch.zeros_like(constant)
    controls = [process.control_variate(x_0, x_t, each, t) for each in logits]
    weight = 1 / probability.double().cpu()
    values = torch.stack([term, *controls]).double().cpu() * weight
    term, *controls = values.view(3, n, -1)
    return term, torch.stack(controls)


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
