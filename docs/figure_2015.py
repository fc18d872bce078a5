"""The 2015 paper's figure from a checkpoint: python -m docs.figure_2015 CHECKPOINT FILE PICTURE

Samples; images of FILE of which the left half is given and the right half drawn; images seen through
noise and restored. Beside PICTURE, with the ending .gif, the reverse process from noise to samples. For
bits and for real numbers; run it from the top of the checkout. Options: --steps K (default 100), --noise
(a bit's flip probability, 0.15, or a deviation in units of the data's own, 0.5), --particles P (256),
--replace R (right halves by replacement, R times a step, without particles: approximate).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bernoulli_diffusion.conditioning import conditional_samples, denoised, replaced
from bernoulli_diffusion.kinds import kind_of
from bernoulli_diffusion.noise import Noise
from bernoulli_diffusion.results.plots import write_figure
from bernoulli_diffusion.sampling import sample
from bernoulli_diffusion.system.command_line import run
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training import checkpoint as checkpoints

SAMPLES, EXAMPLES, DRAWS = 48, 6, 6


def halves(diffusion, x: torch.Tensor, shape, particles: int, steps: int, repeats=None) -> tuple:
    """x (n, L) in the data's units. Returns what is known of each, its draws, and the sample sizes.

    repeats: of replacement, in place of particles; then there are no sizes.
    """
    known = x.clone().view(len(x), shape[0], -1)
    half = known.shape[2] // 2
    known[:, :, half:] = -1 if diffusion.process.flips else torch.nan
    known = known.flatten(1)
    to_data, evidence = diffusion.process.to_data, diffusion.process.evidence_of(known)
    if repeats:
        rows = torch.arange(len(x) * DRAWS)
        each = evidence[rows // DRAWS]
        with torch.inference_mode():
            drawn = replaced(diffusion, each, Noise(0, rows, x.shape[1]), repeats, steps)
        known = known.numpy()[:, None]
        drawn = to_data(drawn).reshape(len(x), DRAWS, -1)
        is_open = known == -1 if diffusion.process.flips else np.isnan(known)
        return known[:, 0], np.where(is_open, drawn, known), []
    found = list(conditional_samples(diffusion, evidence, DRAWS, 0, particles, steps=steps))
    drawn = [to_data(one.samples) for one in found]
    return known.numpy(), np.stack(drawn), [one.effective_sample_size for one in found]


def restored(diffusion, x: torch.Tensor, noise: float, particles: int, steps: int) -> tuple:
    """x (n, L) in the data's units, seen through noise; and what it was, drawn DRAWS times each."""
    process, dice = diffusion.process, torch.Generator().manual_seed(1)
    if process.flips:
        y = (x - (torch.rand(x.shape, generator=dice) < noise).float()).abs()
        rows = torch.arange(len(x) * DRAWS)
        each = y.repeat_interleave(DRAWS, dim=0)
        drawn = denoised(diffusion, each, noise, Noise(2, rows, x.shape[1]), steps)
        return y.numpy(), process.to_data(drawn).reshape(len(x), DRAWS, -1)
    deviation = noise * process.deviation.mean().item()
    y = x + deviation * torch.randn(x.shape, generator=dice)
    evidence = process.evidence_of(y, deviation)
    found = conditional_samples(diffusion, evidence, DRAWS, 0, particles, steps=steps)
    return y.numpy(), np.stack([process.to_data(one.samples) for one in found])


def tiles(images: np.ndarray, shape, across: int) -> np.ndarray:
    """(n, L) -> one picture, with gaps of NaN, in rows of `across` images; colours as in the data."""
    rows, columns, colours = [*shape, 1][:3]
    down = -(-len(images) // across)
    sheet = np.full((down * across, rows + 2, columns + 2, colours), np.nan)
    sheet[: len(images), :rows, :columns] = images.reshape(-1, rows, columns, colours)
    sheet = sheet.reshape(down, across, rows + 2, columns + 2, colours).swapaxes(1, 2)
    return sheet.reshape(down * (rows + 2), across * (columns + 2), colours)[:-2, :-2]


def figure(panels: list[tuple[str, np.ndarray, int]], shape, low: float, high: float) -> Figure:
    """panels: a title, images (n, L), and how many stand side by side."""
    result = Figure(figsize=(5.2 * len(panels), 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(result)
    for axes, (title, images, across) in zip(
        result.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        picture = np.clip((tiles(images, shape, across) - low) / (high - low), 0, 1)
        is_grey = picture.shape[2] == 1
        picture = 1 - picture if is_grey else picture  # ink is dark
        picture = np.repeat(picture, 3, axis=2) if is_grey else picture
        gap = np.isnan(picture).all(axis=2)
        picture[gap] = (0.80, 0.84, 0.90)
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--noise", type=float)
    parser.add_argument("--particles", type=int, default=256)
    parser.add_argument("--replace", type=int, metavar="R")
    parser.add_argument("--trust-code", action="store_true", help="as generate.py's")
    arguments = parser.parse_args()
    path = checkpoints.find(arguments.checkpoint)
    saved = checkpoints.load(path)
    config, length = checkpoints.config_of(saved, path), saved["sequence_length"]
    diffusion = checkpoints.restore(saved, path, trust_code=arguments.trust_code)
    kind, process, shape = kind_of(config), diffusion.process, config.data.shape
    if shape is None:
        raise UserError(f"{path}: was trained without data.shape, so its samples are no images")
    steps, noise = arguments.steps, arguments.noise
    if noise is None:
        noise = 0.15 if process.flips else 0.5
    data = kind.read_evaluated(arguments.file, process, config)
    if data.length != length:
        raise UserError(
            f"{arguments.file}: images of {data.length} values, but the model's have {length}"
        )
    rows = np.linspace(0, len(data) - 1, EXAMPLES).round().astype(int)
    x = torch.from_numpy(process.to_data(data.tensor(rows))).float()
    low, high = (0.0, 1.0) if process.flips else np.percentile(x, [0.5, 99.5])

    drawn = torch.cat(list(sample(diffusion, length, range(SAMPLES), 0, steps)))
    how = arguments.particles, steps, arguments.replace
    known, completed, sizes = halves(diffusion, x, shape, *how)
    seen, cleaned = restored(diffusion, x, noise, arguments.particles, steps)
    left = np.concatenate([x.numpy()[:, None], known[:, None], completed], axis=1)
    left = np.where(left == -1, np.nan, left) if process.flips else left
    right = np.concatenate([x.numpy()[:, None], seen[:, None], cleaned], axis=1)
    panels = [
        ("samples", process.to_data(drawn), 8),
        ("data, left half given, right half drawn", left.reshape(-1, length), 2 + DRAWS),
        ("data, seen through noise, restored", right.reshape(-1, length), 2 + DRAWS),
    ]
    write_figure(figure(panels, shape, low, high), arguments.picture)
    numbers = torch.arange(min(36, kind.most_drawn(length)))
    gif = arguments.picture.with_suffix(".gif")
    kind.draw_trajectory(diffusion, Noise(0, numbers, length), config, gif, steps=60)
    if sizes:
        size = f"median {np.median(sizes):.0f} of {arguments.particles}"
        print(f"effective sample size with half given: {size}")


if __name__ == "__main__":
    sys.exit(run(main))
