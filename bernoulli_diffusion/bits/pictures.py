"""The pictures of bits: samples while training, on their way from noise, and what is surprising in them.

Importing it takes half a second, which is matplotlib's; so the face of bits imports it where it draws.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..config import Config
from ..noise import Noise
from ..results import plots
from ..results.frames import sample_frames, write_gif
from ..sampling import trajectory
from . import most_drawn
from .data import BitStrings

STEPS = 60  # network calls for reverse_process.gif


def draw_progress(results: dict, config: Config, train: BitStrings, folder: Path) -> None:
    """The curves of results.json, and the samples through training."""
    plots.write_figure(plots.loss_curve(results), folder / "loss_curve.png")
    plots.write_figure(plots.validation(results), folder / "validation.png")
    frames = sample_frames(
        _bits(results["examples_per_epoch"]),
        [f"epoch {epoch}" for epoch in results["validated_epochs"]],
        "samples while training",
        config.data.shape,
    )
    write_gif(frames, folder / "sample_evolution_throughout_training.gif")


def draw_frame(results: dict, config: Config, train: BitStrings) -> np.ndarray:
    """(H, W) uint8: the samples of the last validation."""
    label = f"epoch {results['validated_epochs'][-1]}"
    bits = _bits(results["examples_per_epoch"][-1:])
    [frame] = sample_frames(bits, [label], "samples while training", config.data.shape)
    return frame


def draw_model(diffusion, config: Config, train: BitStrings, seed: int, folder: Path, poll) -> None:
    """reverse_process.gif: samples from noise to data, a frame for each of their steps."""
    numbers = torch.arange(most_drawn(train.length), device=diffusion.process.alpha.device)
    noise = Noise(seed, numbers, train.length)
    gif = folder / "reverse_process.gif"
    draw_trajectory(diffusion, noise, config, gif, steps=STEPS, poll=poll)


def draw_trajectory(diffusion, noise: Noise, config: Config, path: Path, **how) -> None:
    """A GIF of samples on their way from noise. how: as in sampling.trajectory."""
    times, states = trajectory(diffusion, noise, **how)
    labels = [f"t = {t}" for t in times]
    frames = sample_frames(states, labels, "from noise to samples", config.data.shape)
    write_gif(frames, path)


def _bits(strings_per_frame: list[list[str]]) -> np.ndarray:
    """Lists of strings of 0 and 1 -> (frames, strings, L) uint8."""
    text = "".join(s for strings in strings_per_frame for s in strings).encode()
    bits = np.frombuffer(text, np.uint8) - ord("0")
    return bits.reshape(len(strings_per_frame), len(strings_per_frame[0]), -1)


def surprise_map(
    bits: np.ndarray, p: np.ndarray, total: int, shape: Sequence[int] | None = None
) -> Figure:
    """How surprising each bit is given the others of its string, -log2 p bits, as a heat map.

    bits: (N, L) of 0 and 1; p: (N, L) leave-one-out probabilities of their values; total: strings
    in the file, of which N are shown; shape: (rows, columns) draws each string as an image, the
    colours of a pixel beside each other, None as a row. A dot marks a 1. The colour scale ends at
    10 bits, one in a thousand.
    """
    N, L = bits.shape
    surprise = -np.log2(np.clip(p, 2.0**-10, 1))
    as_image = shape is not None and min(shape) > 1
    rows, columns = (shape[0], L // shape[0]) if as_image else (1, L)
    across = math.ceil(math.sqrt(N)) if as_image else 1
    down = math.ceil(N / across)
    cell = min(0.24, 12 / (across * (columns + 1)))  # inches
    width, height = across * (columns + 1) * cell, down * (rows + as_image) * cell
    figure = Figure(figsize=(max(width, 4) + 1.9, max(height, 1) + 1.1), dpi=120)
    FigureCanvasAgg(figure)
    gap = int(as_image)
    picture = np.full((down * (rows + gap) - gap, across * (columns + gap) - gap), np.nan)
    dots = []
    for k in range(N):
        top, left = k // across * (rows + gap), k % across * (columns + gap)
        picture[top : top + rows, left : left + columns] = surprise[k].reshape(rows, columns)
        dots += [(left + x, top + y) for y, x in np.argwhere(bits[k].reshape(rows, columns))]
    axes = figure.subplots()
    figure.subplots_adjust(
        left=0.06, right=0.94, top=1 - 0.55 / figure.get_figheight(), bottom=0.09
    )
    image = axes.imshow(picture, cmap="magma_r", vmin=0, vmax=10, interpolation="nearest")
    if cell > 0.06 and dots:
        x, y = zip(*dots, strict=True)
        axes.scatter(x, y, s=(22 * cell) ** 2, color=plots.VAL, linewidths=0)
    axes.set_xticks([])
    axes.set_yticks([] if as_image else range(0, N, max(1, N // 10)))
    if not as_image:
        axes.set_yticklabels(range(1, N + 1, max(1, N // 10)))
    axes.spines[:].set_visible(False)
    strings = f"{N:,} strings" if total == N else f"the first {N:,} of {total:,} strings"
    axes.set_title(f"Surprise at each bit given the others · {strings}", loc="left", fontsize=10)
    figure.colorbar(image, ax=axes, label="bits", shrink=0.8, extend="max")
    return figure
