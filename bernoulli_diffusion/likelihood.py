"""How probable are given strings: the bound, by Monte Carlo, and the baselines beside it. In bits."""

import math
from typing import NamedTuple

import numpy as np
import torch

from .data import BitStrings
from .diffusion import Diffusion

ELEMENTS_PER_BATCH = 1 << 19  # bits handed to the network at a time: large batches, bounded memory


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error, in bits per sample."""

    bits: float
    standard_error: float


@torch.inference_mode()
def estimate_bound(
    diffusion: Diffusion,
    strings: BitStrings,
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
        x_0 = torch.from_numpy(strings.bits(row[part].numpy())).to(device).float()
        u_x = torch.rand(x_0.shape, generator=generator).to(device)
        terms.append(diffusion.one_t_estimate(x_0, u_t[part].float().to(device), u_x))
    values = torch.cat(terms).double().cpu()
    variance = values.diff().square().mean() / 2 if total > 1 else torch.tensor(math.nan)
    return Estimate(values.mean().item(), math.sqrt(variance / total))


def independent_bits(train: BitStrings, strings: BitStrings) -> float:
    """Mean -log2 of strings under independent bits with the frequencies of train (plus one each)."""
    ones = (train.ones + 1) / (len(train) + 2)  # (L,)
    share = strings.ones / len(strings)
    return float(-(share * np.log2(ones) + (1 - share) * np.log2(1 - ones)).sum())
