"""Models whose bound, and law, are known exactly for every line, of either kind of data.

A string is BLOCKS blocks of 4 bits, each with a table of log-odds of its own, so that the bound of a
string is a sum of numbers that exact.py enumerates. A sample is D numbers that the network takes one by
one, so that its bound is a sum of integrals over a normal variable, found by Gauss and Hermite's rule.
"""

import math
from dataclasses import dataclass

import exact
import numpy as np
import torch
from torch import Tensor, nn

from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.numbers.data import RealVectors
from bernoulli_diffusion.numbers.process import GaussianDiffusionProcess

WIDE_SHARE = 0.15  # of the lines of a heterogeneous file that are unlike the others


class BlockModel(nn.Module):
    """The same table of log-odds for each block of bits."""

    def __init__(self, table: exact.TableModel):
        super().__init__()
        self.table = table
        values = 2 ** torch.arange(table.L - 1, -1, -1)
        self.register_buffer("values", values.float())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        number = (x_t.view(len(t), -1, self.table.L) @ self.values).long()  # (B, blocks)
        return self.table.logits[t[:, None], number].flatten(1)


def ideal_logits(p: Tensor, b: int, T: int) -> Tensor:
    """(T + 1, 2^b, b): what a perfect network says of blocks with the law p (2^b,)."""
    x, alpha = exact.states(b), exact.alphas(T)
    same = x[:, None, :] == x[None, :, :]  # (x_t, x_0, b)
    logits = torch.zeros(T + 1, 2**b, b)
    for t in range(1, T + 1):
        log_q = torch.where(same, (1 + alpha[t]) / 2, (1 - alpha[t]) / 2).log()
        others = p.log() + (log_q.sum(dim=2) - log_q.permute(2, 0, 1))  # (b, x_t, x_0)
        one = x.T[:, None, :] == 1
        odds = others.masked_fill(~one, -math.inf).logsumexp(2) - others.masked_fill(
            one, -math.inf
        ).logsumexp(2)
        logits[t] = odds.T
    return logits


class Oracle:
    """What is true of files whose lines are a number of parts, each drawn by the law p.

    Of a heterogeneous file's lines a share has parts drawn by the law wide. bound_of and cost_of say what
    each value of a part adds to the bound of a line, and to -log2 p(x_0) under the model's own law.
    """

    parts: int
    p: np.ndarray
    bound_of: np.ndarray
    cost_of: np.ndarray

    @property
    def wide(self) -> np.ndarray:
        return np.full(len(self.p), 1 / len(self.p))

    def draw(self, n: int, heterogeneous: bool, rng: np.random.Generator) -> np.ndarray:
        """The parts of n lines, (n, parts)."""
        number = rng.choice(len(self.p), (n, self.parts), p=self.p)
        if heterogeneous:
            wide = rng.random(n) < WIDE_SHARE
            number[wide] = rng.integers(0, len(self.p), (wide.sum(), self.parts))
        return number

    def bounds(self, number: np.ndarray) -> np.ndarray:
        return self.bound_of[number].sum(axis=1)

    def costs(self, number: np.ndarray) -> np.ndarray:
        """-log2 p(x_0) under the model's own law."""
        return self.cost_of[number].sum(axis=1)

    def _mean(self, of_part: np.ndarray, heterogeneous: bool) -> float:
        share = WIDE_SHARE * heterogeneous
        return self.parts * float(((1 - share) * self.p + share * self.wide) @ of_part)

    def law_bound(self, heterogeneous: bool) -> float:
        return self._mean(self.bound_of, heterogeneous)

    def law_cost(self, heterogeneous: bool) -> float:
        return self._mean(self.cost_of, heterogeneous)


@dataclass
class BitsOracle(Oracle):
    """Files of strings of blocks of bits, and a network.

    noise: how far the log-odds are off the perfect ones; mirrored: everything with 0 and 1 exchanged,
    a network as good as the first one for a law that is symmetric, though not for any one string.
    """

    noise: float = 0.4
    mirrored: bool = False
    parts: int = 3
    T: int = 20
    b: int = 4
    is_symmetric: bool = False

    def __post_init__(self):
        generator = torch.Generator().manual_seed(5)
        p = torch.rand(2**self.b, generator=generator).double().pow(6) + 1e-3
        p = p + p.flip(0) if self.is_symmetric else p
        p = p / p.sum()
        self.p = p.numpy()
        logits = ideal_logits(p, self.b, self.T)
        logits += self.noise * torch.randn(logits.shape, generator=generator)
        if self.mirrored:  # string number k is the mirror image of number 2^b - 1 - k
            logits = -logits.flip(1)
        table = exact.TableModel(logits)
        self.diffusion = Diffusion(BernoulliDiffusionProcess(self.T), BlockModel(table))
        self.bound_of = exact.bound(table).numpy()  # bits
        self.cost_of = -exact.law(table).log2().numpy()

    def file(self, n: int, heterogeneous: bool, rng: np.random.Generator):
        """n lines from the law, and their block numbers (n, blocks)."""
        number = self.draw(n, heterogeneous, rng)
        bits = exact.states(self.b).numpy()[number].reshape(n, -1)
        return BitStrings.from_bits(bits), number


class ElementwiseModel(nn.Module):
    """eps as a function of each number by itself; bend 0 makes it linear, and the model Gaussian."""

    def __init__(self, process: GaussianDiffusionProcess, gain: float, bend: float):
        super().__init__()
        self.process, self.gain, self.bend = process, gain, bend

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        root = self.process.lost[t].sqrt().float()[:, None]
        return root * x_t * (self.gain + self.bend * torch.tanh(2 * x_t))


@dataclass
class NumbersOracle(Oracle):
    """Samples of whole numbers, blurred over their cells; otherwise as BitsOracle."""

    gain: float = 0.9
    bend: float = 0.25
    mirrored: bool = False
    parts: int = 3  # numbers of a sample
    T: int = 20
    width: float = 1.0
    is_symmetric: bool = True
    centre: float = 15.0
    deviation: float = 3.0
    most: int = 30  # values are 0 .. most

    def __post_init__(self):
        mean = torch.full((self.parts,), self.centre + self.width / 2).double()
        deviation = torch.full((self.parts,), self.deviation).double()
        self.process = GaussianDiffusionProcess(self.T, "cpu", mean, deviation, width=self.width)
        bend = -self.bend if self.mirrored else self.bend
        model = ElementwiseModel(self.process, self.gain, bend)
        self.diffusion = Diffusion(self.process, model)
        values = np.arange(self.most + 1)
        p = np.exp(-(((values - self.centre) / self.deviation) ** 2) / 2)
        self.p = p / p.sum()
        self.bound_of = np.array([self._bound(v) for v in values])
        self.cost_of = np.array([self._cost(v) for v in values])

    @torch.inference_mode()
    def _bound(self, value: float) -> float:
        """The bound of one number, averaged over its cell and over the noise by quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(48)
        cell, cell_weights = np.polynomial.legendre.leggauss(12 if self.width else 1)
        x = value + self.width * (cell + 1) / 2 - self.centre - self.width / 2
        x_0 = torch.from_numpy(x / self.deviation).float()
        eps = torch.from_numpy(nodes).float()
        weight = np.outer(cell_weights / cell_weights.sum(), weights / weights.sum())
        weight = torch.from_numpy(weight).flatten()
        x_0 = x_0.repeat_interleave(len(eps))[:, None]
        eps = eps.repeat(len(cell))[:, None]
        process, total = self.process, 0.0
        for step in range(1, self.T + 1):
            t = torch.full((len(x_0),), step)
            signal, noise = process.alpha[t].sqrt().float(), process.lost[t].sqrt().float()
            x_t = signal[:, None] * x_0 + noise[:, None] * eps
            output = self.diffusion.reverse_model(x_t, t)
            divergence = process.step_divergence(x_0, x_t, output, t, t - 1).double()
            total += float(weight @ divergence)
        fixed = process.beside_steps.fixed_terms(x_0).double() - process.log2_deviations
        return total + float(weight @ fixed) + math.log2(self.deviation)

    def _cost(self, value: float) -> float:
        """-log2 of a number's mean density over its cell; of linear models alone, which are Gaussian."""
        if self.bend:
            return math.nan
        mean, variance = 0.0, 1.0
        process = self.process
        for step in range(self.T, 0, -1):
            t = torch.tensor([step])
            one = torch.ones(1, 1)
            output = self.diffusion.reverse_model(one, t)
            factor = process.reverse_mean(one, output, t, t - 1).item()
            added = process.log_reverse_variance(one, output, t, t - 1).exp().item()
            mean, variance = factor * mean, factor**2 * variance + added
        z = (value - self.centre - self.width / 2) / self.deviation, self.width / self.deviation
        scale = math.sqrt(2 * variance)
        if not self.width:
            nats = z[0] ** 2 / (2 * variance) + math.log(2 * math.pi * variance) / 2
            return (nats + math.log(self.deviation)) / math.log(2)
        share = (math.erf((z[0] + z[1]) / scale) - math.erf(z[0] / scale)) / 2
        return -math.log2(share / self.width)

    def file(self, n: int, heterogeneous: bool, rng: np.random.Generator):
        number = self.draw(n, heterogeneous, rng)
        mean, deviation = self.process.mean.numpy(), self.process.deviation.numpy()
        return RealVectors(number.astype(float), mean, deviation, self.width), number
