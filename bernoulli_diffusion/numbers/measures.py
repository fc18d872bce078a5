"""What is measured of samples of real numbers, and what these cost without a model."""

import math

import numpy as np
import torch

from ..config import Config
from ..noise import derive_seed
from ..results.record import Measure
from ..weights import represented
from .data import RealVectors, rounded

MOST_COMPARED = 4096  # samples on either side of an energy distance
MOST_KERNELS = 20_000  # training samples of the kernel density estimate
MOST_CORRELATED = 2_000  # numbers in a sample, for the fitted Gaussian
SPLITS = 40  # of val against itself
SPLIT = 21  # stream of random numbers, of the run's seed


class Measures:
    """How samples compare with the data: the energy distance to val (to train without val.txt).

    Székely & Rizzo 2013, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, of standardised numbers. By chance alone
    it is not zero: the noise floor is what two drawings of val's own law would show, as large as
    the samples and val, found from random halves of val.
    """

    def __init__(
        self, train: RealVectors, val: RealVectors | None, config: Config, shown: RealVectors
    ):
        is_blurred = bool(train.width)  # whole numbers do come again
        copies = 0 if val is None or is_blurred else copies_among(val.values, train.values)
        train, val = represented(train), val and represented(val)
        self.train, self.length, self.has_val = train, train.length, val is not None
        self.data = train if val is None else val
        rng = np.random.default_rng(derive_seed(config.training.seed, SPLIT))
        order = rng.permutation(len(self.data))[:MOST_COMPARED]
        self._compared = self._scaled(self.data.dequantized(order))  # (m, D)
        self._within = _mean_distance(self._compared, self._compared)
        samples = min(config.training.num_val_samples, MOST_COMPARED)
        floor, high = noise_floor(self._compared, samples, rng)
        self.facts = {"energy_floor": floor, "energy_floor_high": high, "val_copies": copies}
        self.baselines = {"isotropic_train": isotropic_bits(train, train)}
        self.baselines["isotropic_val"] = isotropic_bits(train, val) if val else None
        self.baselines["gaussian_train"] = gaussian_bits(train, train)
        self.baselines["gaussian_val"] = gaussian_bits(train, val) if val else None
        self.baselines["kernel_density_val"] = kernel_density_bits(train, val)[0] if val else None

    def _scaled(self, values: np.ndarray) -> torch.Tensor:
        scaled = (values - self.train.mean) / self.train.deviation
        return torch.from_numpy(scaled.astype(np.float32))

    def described(self) -> list[Measure]:
        floors = {
            "floor": self.facts["energy_floor"],
            "floor_high": self.facts["energy_floor_high"],
        }
        name = "energy distance"
        return [Measure("energy_distance", name, name, "", "lower", digits=4, **floors)]

    def of(self, samples: np.ndarray) -> dict[str, float]:
        x = self._scaled(samples[:MOST_COMPARED])
        across = _mean_distance(x, self._compared)
        return {"energy_distance": 2 * across - _mean_distance(x, x) - self._within}

    def statistics(self, samples: np.ndarray) -> None:
        """Nothing more than that."""

    def data_examples(self) -> list:
        """None: samples are shown in front of the data, or beside them."""
        return []

    def examples(self, samples: np.ndarray, count: int) -> list:
        """The first samples, as results.json keeps them: to five digits of the data's deviation."""
        values = rounded(samples[:count], self.train.deviation, digits=5).tolist()
        return [[float(f"{v:.15g}") for v in row] for row in values]

    def is_example(self, example) -> bool:
        return (
            type(example) is list
            and len(example) == self.length
            and all(type(v) is float and math.isfinite(v) for v in example)
        )

    def data_in_short(self) -> str:
        """What there is to say of train.txt beside its size."""
        text = f", blurred by {self.train.width:g}" if self.train.width else ""
        if aside := self.train.aside:
            text += f", {len(aside.columns):,} columns aside that never vary"
        return text


def copies_among(rows: np.ndarray, others: np.ndarray) -> int:
    """How many of rows (n, D) also stand among others (m, D), to the last digit."""
    line = np.dtype((np.void, rows.itemsize * rows.shape[1]))
    a, b = (np.ascontiguousarray(x).view(line)[:, 0] for x in (rows, others))
    return int(np.isin(a, b).sum())


def _mean_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """The mean of |x_i - y_j|. x: (n, D), y: (m, D)."""
    parts = (torch.cdist(part, y).double().sum().item() for part in x.split(512))
    return sum(parts) / (len(x) * len(y))


def noise_floor(x: torch.Tensor, count: int, rng: np.random.Generator) -> tuple[float, float]:
    """The energy distance between two drawings of one law, of len(x) and of count; its mean and high.

    From SPLITS random halvings of x (m, D), scaled by 1/n + 1/m, to which it is proportional. high is
    the second largest of 40, which chance exceeds once in 20 times.
    """
    m = len(x)
    if m < 4:
        return 0.0, 0.0
    half = m // 2
    found = []
    distances = torch.cdist(x, x).double()
    for _ in range(SPLITS):
        side = torch.full((m,), -1 / (m - half), dtype=torch.float64)
        side[torch.from_numpy(rng.permutation(m)[:half])] = 1 / half
        found.append(-(side @ distances @ side).item())
    scale = (1 / m + 1 / count) / (1 / half + 1 / (m - half))
    return scale * float(np.mean(found)), scale * sorted(found)[-2]


# ------------------------------------------------------------------------------- baselines


def isotropic_bits(train: RealVectors, samples: RealVectors) -> float:
    """Mean -log2 density of samples under N(mean, v I), fitted to train."""
    variance = (train.deviation**2).mean()
    squared = ((samples.dequantized() - train.mean) ** 2).sum(axis=1).mean()
    nats = train.length * math.log(2 * math.pi * variance) + squared / variance
    return float(nats / (2 * math.log(2)))


def gaussian_bits(train: RealVectors, samples: RealVectors) -> float | None:
    """Mean -log2 density of samples under the Gaussian fitted to train; None if it is singular.

    None for single numbers too, where it is the isotropic one.
    """
    D = train.length
    if D == 1 or D > MOST_CORRELATED or len(train) <= D:
        return None
    x = (train.dequantized() - train.mean) / train.deviation
    covariance = x.T @ x / len(x)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return None
    if np.diag(factor).min() < 1e-6:
        return None
    y = np.linalg.solve(factor, ((samples.dequantized() - train.mean) / train.deviation).T)
    log_volume = np.log(np.diag(factor) * train.deviation).sum()
    nats = D * math.log(2 * math.pi) / 2 + log_volume + (y**2).sum(axis=0).mean() / 2
    return float(nats / math.log(2))


def kernel_density_bits(train: RealVectors, val: RealVectors) -> tuple[float, float]:
    """Mean -log2 density of val under Gaussian kernels on train, and the bandwidth chosen on val.

    Kernels are round in standardised numbers; the bandwidth is in their deviations. No other one
    would do better on val, so a model that does has not been flattered.
    """
    rng = np.random.default_rng(derive_seed(SPLIT))
    centres = train.tensor(rng.permutation(len(train))[:MOST_KERNELS])
    points = val.tensor(rng.permutation(len(val))[:MOST_COMPARED])

    def bits(bandwidths: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        log_p = torch.zeros(len(bandwidths), dtype=torch.float64)
        for part in points.split(max(1, (1 << 22) // len(centres))):
            squared = torch.cdist(part, centres).square_()
            for k, h in enumerate(bandwidths.tolist()):
                log_p[k] += (squared / (-2 * h * h)).logsumexp(dim=1).double().sum()
        D = train.length
        nats = -log_p / len(points) + math.log(len(centres))
        nats += D * (bandwidths.log() + math.log(2 * math.pi) / 2)
        return (nats + np.log(train.deviation).sum()) / math.log(2)

    coarse = torch.logspace(-3, 0.5, 15, dtype=torch.float64)
    best = coarse[bits(coarse, points[:300]).argmin()]
    fine = best * torch.logspace(-0.25, 0.25, 9, dtype=torch.float64)
    found = bits(fine, points)
    return found.min().item(), fine[found.argmin()].item()


def baseline_bits(train: RealVectors, samples: RealVectors, fitted_to: str) -> dict:
    """Bits a sample without a model: Gaussians fitted to train."""
    return {
        "isotropic_gaussian_bits": isotropic_bits(train, samples),
        "gaussian_bits": gaussian_bits(train, samples),
        "gaussians_fitted_to": fitted_to,
    }
