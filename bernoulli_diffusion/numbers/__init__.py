"""What is particular to real numbers; bernoulli.py has the same names for bits (process.py).

Reading and writing samples, the process, what is measured of samples, and the pictures.
"""

import math
from pathlib import Path

import numpy as np
import torch

from ..config import Config
from ..noise import Noise, derive_seed
from ..results import page as report_page
from ..sampling import trajectory
from ..system.errors import UserError
from .data import (
    Batches,
    RealVectors,
    parse_pattern,
    read_patterns,
    read_real_vectors,
    rounded,
    to_text,
)
from .process import GaussianDiffusionProcess, schedule_betas

__all__ = ["Batches", "parse_pattern", "read_patterns", "to_text"]

NETWORK = Path(__file__).parents[1] / "gaussian_reverse_model.py"
SAMPLES, UNITS = "samples", "numbers"  # what a line is called, and what it is made of
MISSED = " is"  # without val.txt
NEEDED = "one sample a line, numbers between spaces"  # in train.txt
PICTURE_SAMPLES = 1000
PICTURE_NUMBERS = 500_000  # in all of these, or fewer samples are drawn
PICTURE_STEPS = 150  # network calls
IMAGES = 64
MOST_COMPARED = 4096  # samples on either side of an energy distance
MOST_KERNELS = 20_000  # training samples of the kernel density estimate
MOST_CORRELATED = 2_000  # numbers in a sample, for the fitted Gaussian
LEAST_SIGNAL = 1e-30  # of the variance at T; less could not be divided by
SPLITS = 40  # of val against itself
SPLIT = 21  # stream of random numbers, of the run's seed


def check_config(config: Config, source: str) -> None:
    """Raises UserError for settings that do not go together; source names the file."""
    model, training = config.model, config.training
    if model.schedule == "linear" and model.beta_min > model.beta_max:
        raise UserError(
            f"{source}: model.beta_min: {model.beta_min:g} is more than model.beta_max,"
            f" {model.beta_max:g}"
        )
    betas = schedule_betas(model.schedule, model.T, model.beta_min, model.beta_max)
    if (left := torch.log1p(-betas).sum().exp().item()) < LEAST_SIGNAL:
        raise UserError(
            f"{source}: model.T steps up to model.beta_max leave {left:.0e} of the data's variance, as"
            " good as nothing long before the last; lower one of the two"
        )
    if training.loss == "simple" and model.variance == "learned":
        raise UserError(
            f"{source}: training.loss: simple says nothing about variances, so model.variance cannot"
            " be learned; use beta or posterior, or training.loss: bound"
        )


def read(path: Path, config: Config, like: RealVectors | None = None) -> RealVectors:
    """The samples of a file, of as many numbers as those of like, and on their scale."""
    samples = read_real_vectors(path, config.data.dequantize or 0.0, like)
    if like is not None and samples.length != like.length:
        raise UserError(
            f"{path}:1: {samples.length:,} numbers, but the samples of train.txt have"
            f" {like.length:,}; both files need as many"
        )
    return samples


def new_process(config: Config, train: RealVectors, device) -> GaussianDiffusionProcess:
    mean, deviation = torch.from_numpy(train.mean), torch.from_numpy(train.deviation)
    return _process(config, mean, deviation, device)


def saved_process(config: Config, state: dict, length: int, device) -> GaussianDiffusionProcess:
    """The process of a checkpoint. Raises ValueError if state is not that of one."""
    if set(state) != {"mean", "deviation"}:
        raise ValueError("process_state is not a mean and a deviation")
    if any(v.shape != (length,) or v.dtype != torch.float64 for v in state.values()):
        raise ValueError("process_state does not fit sequence_length")
    if not (state["deviation"] > 0).all():
        raise ValueError("process_state holds a deviation that is not positive")
    return _process(config, state["mean"], state["deviation"], device)


def _process(config: Config, mean, deviation, device) -> GaussianDiffusionProcess:
    model = config.model
    return GaussianDiffusionProcess(
        model.T,
        device,
        mean,
        deviation,
        schedule=model.schedule,
        beta_min=model.beta_min,
        beta_max=model.beta_max,
        variance=model.variance,
        loss=config.training.loss,
        width=config.data.dequantize or 0.0,
    )


def read_evaluated(path: Path, process: GaussianDiffusionProcess, config: Config) -> RealVectors:
    """The samples that evaluate.py is asked about, on the scale of the training data."""
    mean, deviation = process.mean.numpy(), process.deviation.numpy()
    like = RealVectors(mean[None], mean, deviation, config.data.dequantize or 0.0)
    return read_real_vectors(path, like=like)


def network_options(config: Config) -> dict:
    """The keyword arguments of ReverseModel: with learned variances it is told so."""
    learned = {"learn_variance": True} if config.model.variance == "learned" else {}
    return config.model.reverse_model | learned


# ------------------------------------------------------------------------------- samples


def pack(values: np.ndarray) -> np.ndarray:
    """(n, D) as it is kept and sent to other processes."""
    return values


def join(parts: list[np.ndarray], length: int) -> np.ndarray:
    return np.concatenate(parts)


class Measures:
    """How samples compare with the data: the energy distance to val (to train without val.txt).

    Székely & Rizzo 2013, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, of standardised numbers. By chance alone
    it is not zero: the noise floor is what two drawings of val's own law would show, as large as
    the samples and val, found from random halves of val.
    """

    def __init__(
        self, train: RealVectors, val: RealVectors | None, config: Config, shown: RealVectors
    ):
        self.train, self.length, self.has_val = train, train.length, val is not None
        self.data = train if val is None else val
        rng = np.random.default_rng(derive_seed(config.training.seed, SPLIT))
        order = rng.permutation(len(self.data))[:MOST_COMPARED]
        self._compared = self._scaled(self.data.dequantized(order))  # (m, D)
        self._within = _mean_distance(self._compared, self._compared)
        samples = min(config.training.num_val_samples, MOST_COMPARED)
        floor, high = noise_floor(self._compared, samples, rng)
        self.about_data = {"energy_floor": floor, "energy_floor_high": high}
        self.baselines = {"isotropic_train": isotropic_bits(train, train)}
        self.baselines["isotropic_val"] = isotropic_bits(train, val) if val else None
        self.baselines["gaussian_train"] = gaussian_bits(train, train)
        self.baselines["gaussian_val"] = gaussian_bits(train, val) if val else None
        self.baselines["kernel_density_val"] = kernel_density_bits(train, val)[0] if val else None

    def _scaled(self, values: np.ndarray) -> torch.Tensor:
        scaled = (values - self.train.mean) / self.train.deviation
        return torch.from_numpy(scaled.astype(np.float32))

    @staticmethod
    def empty() -> dict:
        """The lists in results.json to which every validation adds what `of` says."""
        return {"energy_distance": []}

    def last(self, samples: np.ndarray | None) -> dict:
        """What results.json says of the last validation alone: nothing."""
        return {}

    def of(self, samples: np.ndarray) -> dict:
        x = self._scaled(samples[:MOST_COMPARED])
        across = _mean_distance(x, self._compared)
        return {"energy_distance": 2 * across - _mean_distance(x, x) - self._within}

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

    @staticmethod
    def in_short(results: dict) -> str:
        """The latest measures, for the progress bar."""
        floor = results["data"]["energy_floor"]
        return f", energy distance {results['energy_distance'][-1]:.4f} (noise {floor:.4f})"

    def data_in_short(self) -> str:
        """What there is to say of train.txt beside its size."""
        return f", blurred by {self.train.width:g}" if self.train.width else ""

    def baselines_in_short(self) -> str:
        names = {
            "isotropic": "isotropic Gaussian",
            "gaussian": "fitted Gaussian",
            "kernel_density": "kernel density",
        }
        on = "val" if self.has_val else "train"
        known = ((label, self.baselines.get(f"{name}_{on}")) for name, label in names.items())
        return ", ".join(f"{label} {bits:.3f}" for label, bits in known if bits is not None) + (
            f" bits on {on}"
        )

    @staticmethod
    def outcome(results: dict) -> list[str]:
        """Lines for the end of a run."""
        on = "val" if results["has_val"] else "train"
        bits = results["final_bound"][on]["bits"]
        gains = [
            _better_or_worse(results["baselines"][f"{name}_{on}"] - bits, label)
            for name, label in (
                ("isotropic", "an isotropic Gaussian"),
                ("gaussian", "a fitted Gaussian"),
                ("kernel_density", "the best kernel density estimate"),
            )
            if results["baselines"].get(f"{name}_{on}") is not None
        ]
        data, distance = results["data"], results["energy_distance"][-1]
        return [
            f"compared   {', '.join(gains)}: bits per sample on {on}",
            f"samples    energy distance {distance:.4f} to {on}; {on} against itself"
            f" {data['energy_floor']:.4f}, by chance up to {data['energy_floor_high']:.4f}",
        ]


def _better_or_worse(gain: float, label: str) -> str:
    return f"{abs(gain):.3f} {'better' if gain >= 0 else 'worse'} than {label}"


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


# ------------------------------------------------------------------------------- pictures


def draw_progress(results: dict, config: Config, train: RealVectors, folder: Path) -> None:
    """The curves of results.json, and the samples through training."""
    from ..results import plots
    from . import (
        pictures as gaussian_plots,  # here, because importing matplotlib takes half a second
    )

    curve = gaussian_plots.loss_curve(results, config.training.loss == "simple")
    plots.write_figure(curve, folder / "loss_curve.png")
    plots.write_figure(gaussian_plots.energy_curve(results), folder / "validation.png")
    frames = gaussian_plots.sample_frames(
        np.array(results["examples_per_epoch"]),
        [f"epoch {epoch}" for epoch in results["validated_epochs"]],
        "samples while training",
        _shown(train),
        config.data.shape,
    )
    plots.write_gif(frames, folder / "sample_evolution_throughout_training.gif")


def draw_frame(results: dict, config: Config, train: RealVectors) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8: the samples of the last validation."""
    from . import pictures as gaussian_plots

    last = np.array(results["examples_per_epoch"][-1:])
    label, shape = f"epoch {results['validated_epochs'][-1]}", config.data.shape
    title = "samples while training"
    [frame] = gaussian_plots.sample_frames(last, [label], title, _shown(train), shape)
    return frame


def write_report(results: dict, config: Config, folder: Path) -> None:
    """report.html: the run on one page."""
    report_page.write(results, folder, config.data.shape)


def data_warnings(measures: Measures, train_txt: Path, val_lines: int) -> list[str]:
    """Things about the data that change how the results are to be read: none."""
    return []


def draw_model(
    diffusion, config: Config, train: RealVectors, seed: int, folder: Path, poll
) -> None:
    """Pictures of the trained model: the way from data to noise and back, and samples beside data."""
    from ..results import plots
    from . import pictures as gaussian_plots

    process, shape = diffusion.process, config.data.shape
    data = _shown(train)
    count = most_drawn(train.length)
    if gaussian_plots.as_images(train.length, shape):
        count = min(count, IMAGES)
    numbers = torch.arange(count, device=process.alpha.device)
    noise = Noise(seed, numbers, train.length)
    gif, steps = folder / "reverse_process.gif", min(process.T, PICTURE_STEPS)
    drawn = draw_trajectory(diffusion, noise, config, gif, data, steps=steps, poll=poll)

    rows = torch.arange(min(count, len(train)))
    x_0 = train.tensor(rows, process.alpha.device)
    u = Noise(seed, rows.to(x_0.device), train.length).uniform(0)
    six = gaussian_plots.forward_times(process.T)
    forward = [process.to_data(process.sample_x_t(x_0, torch.full_like(rows, t), u)) for t in six]
    figure = gaussian_plots.forward_process(forward, six, shape)
    plots.write_figure(figure, folder / "forward_process.png")

    density = None
    if train.length <= 2:
        poll()
        grid = gaussian_plots.density_grid(data)
        density = 2.0 ** -bound_on_grid(diffusion, grid, poll)
    figure = gaussian_plots.samples(drawn, data, density, shape)
    plots.write_figure(figure, folder / "samples.png")


def draw_trajectory(
    diffusion, noise: Noise, config: Config, path: Path, data: np.ndarray | None = None, **how
) -> np.ndarray:
    """A GIF of samples on their way from noise, in front of data. how: as in sampling.trajectory.

    Returns the samples.
    """
    from ..results import plots
    from . import pictures as gaussian_plots

    times, states = trajectory(diffusion, noise, **how, most=gaussian_plots.FRAMES)
    labels, shape = [f"t = {t}" for t in times], config.data.shape
    frames = gaussian_plots.sample_frames(states, labels, "from noise to samples", data, shape)
    plots.write_gif(frames, path)
    return states[-1]


def most_drawn(length: int) -> int:
    """Samples of so many numbers that a picture shows: their states are all in memory at once."""
    return min(PICTURE_SAMPLES, max(36, PICTURE_NUMBERS // length))


def _shown(train: RealVectors) -> np.ndarray:
    """As many of the training samples as are drawn beside the model's."""
    return train.dequantized(slice(4 * most_drawn(train.length)))


@torch.inference_mode()
def bound_on_grid(diffusion, points: np.ndarray, poll) -> np.ndarray:
    """The bound at every point (n, D), D <= 2: (n,) bits. Times and noise are the same for all.

    They are those of a low-discrepancy sequence (Roberts 2018: multiples of powers of the golden
    ratio, or of its sibling for two dimensions), so that few of them will do.
    """
    process, (n, D) = diffusion.process, points.shape
    device, draws = process.alpha.device, max(64, 250_000 // n)
    mean, deviation = process.mean.numpy(), process.deviation.numpy()
    x_0 = torch.from_numpy(((points - mean) / deviation).astype(np.float32)).to(device)
    k = torch.arange(draws, device=device)[:, None] + 0.5
    times, probability = process.times(k[:, 0] / draws)
    u = (k * torch.tensor(((0.6180340,), (0.7548777, 0.5698403))[D - 1], device=device)) % 1
    total = (process.fixed_terms(x_0) + process.control_total(x_0)).double()
    together = max(1, 2**14 // n)  # draws for all points in one network call
    for part in torch.arange(draws, device=device).split(together):
        poll()
        t, p = times[part].repeat_interleave(n), probability[part].repeat_interleave(n)
        term = diffusion.bound_term(x_0.repeat(len(part), 1), t, u[part].repeat_interleave(n, 0))
        total += (term.double() / (p * draws)).view(len(part), n).sum(dim=0)
    return total.cpu().numpy()


# ------------------------------------------------------------------------------- questions


def are_known(patterns: torch.Tensor) -> torch.Tensor:
    """(M, D) bool: which numbers of patterns are not asked for."""
    return ~patterns.isnan()


def all_but_impossible(process: GaussianDiffusionProcess, known: torch.Tensor) -> torch.Tensor:
    """From how many bits on the known numbers, (M, D) bool, are out of the question for a model. (M,)

    20 bits a number and 20 more, of the density of standardised numbers.
    """
    return 20 + known.double() @ (20 + process.deviation.log2())


def mean_text(mean: np.ndarray) -> bytes:
    """(n, D) means -> n lines."""
    return to_text(mean)


def refuse_options(arguments) -> None:
    """Raises UserError for what generate.py does for bits alone."""
    if arguments.flip_probability is not None:
        raise UserError(
            "--flip-probability: for models of bits; this one is of real numbers: --noise-std"
        )


def refuse_questions(arguments) -> None:
    """Raises UserError for what evaluate.py cannot say of real numbers."""
    for option in ("exact", "explain", "heatmap"):
        if getattr(arguments, option):
            raise UserError(f"--{option}: for models of bits; this one is of real numbers")


def baseline_bits(train: RealVectors, samples: RealVectors, fitted_to: str) -> dict:
    """Bits a sample without a model: Gaussians fitted to train."""
    return {
        "isotropic_gaussian_bits": isotropic_bits(train, samples),
        "gaussian_bits": gaussian_bits(train, samples),
        "gaussians_fitted_to": fitted_to,
    }
