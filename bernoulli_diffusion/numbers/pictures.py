"""The pictures of real numbers: histograms for one, scatter plots for two, images with data.shape.

Of samples of more numbers without a shape, the first two are drawn. As in plots.py, no function here
draws random numbers or changes a global setting.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from ..config import Config
from ..estimate import evenly_spaced
from ..noise import Noise
from ..results import frames, plots
from ..results.frames import write_gif
from ..results.plots import MUTED, TRAIN, VAL
from ..sampling import trajectory
from .data import RealVectors

BINS = 60
GRID = 400, 80  # points along an axis of a density: of one number, of two
MAX_IMAGES = 64
FRAMES = 32  # of a GIF
SAMPLES = 1000  # on their way from noise
NUMBERS = 500_000  # in all of these, or fewer samples are drawn
STEPS = 150  # network calls for reverse_process.gif
IMAGES = 64  # in it


def as_images(length: int, shape) -> bool:
    """Whether samples are drawn as pictures."""
    return shape is not None and min(shape) > 1 and length > 2


# ---------------------------------------------------------------------------------------- samples


def samples_beside_data(
    x: np.ndarray, data: np.ndarray, density: np.ndarray | None, shape=None
) -> Figure:
    """Samples of a model beside data, and its density where a sample is one number or two.

    x: (N, D); data: (M, D); density: at the points of density_grid(data), or None.
    """
    D = data.shape[1]
    if D == 1:
        return _histogram(x[:, 0], data[:, 0], density)
    panels = [("data", data), ("samples", x)]
    figure, axes = _panels(len(panels) + (D == 2))
    for one, (title, values) in zip(axes, panels, strict=False):
        _show(one, values[: max(len(x), 1)], data, shape)
        one.set_title(title, fontsize=11)
    if D == 2:
        extent = _limits(data).T.flatten().tolist()
        image = density.reshape(GRID[1], GRID[1])
        axes[2].imshow(
            image, origin="lower", extent=extent, cmap="magma", aspect="auto",
            vmax=np.percentile(image, 99.5),
        )  # fmt: skip
        axes[2].set_title("density of the model, 2^(−bound)", fontsize=11)
        axes[2].set_aspect(_aspect(data))
    return figure


def _histogram(x: np.ndarray, data: np.ndarray, density: np.ndarray) -> Figure:
    figure, [axes] = _panels(1, width=6.6, height=4.2)
    points = density_grid(data[:, None])[:, 0]
    bins = np.linspace(points[0], points[-1], BINS + 1)
    style = {"bins": bins, "density": True}
    axes.hist(data, color=MUTED, alpha=0.45, label=f"{len(data):,} data", **style)
    axes.hist(x, color=TRAIN, histtype="step", linewidth=1.3, label=f"{len(x):,} samples", **style)
    axes.plot(points, _smoothed(points, data), color="black", linewidth=1, label="data, smoothed")
    axes.plot(points, density, color=VAL, linewidth=1.6, label="model, 2^(−bound)")
    axes.set_xlabel("value")
    axes.set_ylabel("density")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _smoothed(points: np.ndarray, data: np.ndarray) -> np.ndarray:
    """A kernel density estimate of data (n,) at points, with a narrow Gaussian kernel."""
    width = 0.5 * data.std() * len(data) ** -0.2
    kernels = np.exp(-0.5 * ((points[:, None] - data) / width) ** 2)
    return kernels.mean(axis=1) / (width * np.sqrt(2 * np.pi))


def density_grid(data: np.ndarray) -> np.ndarray:
    """(n, D) points that cover data of one number (GRID[0] of them) or two (GRID[1] squared)."""
    low, high = _limits(data)
    if data.shape[1] == 1:
        return np.linspace(low, high, GRID[0])
    x, y = np.linspace(low, high, GRID[1]).T
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def forward_times(T: int) -> list[int]:
    """Six times from 0 to T, denser near 0."""
    return [round(T * (k / 5) ** 2) for k in range(6)]


def forward_process(states: list[np.ndarray], times: list[int], shape=None) -> Figure:
    """Data on their way into noise. states: (N, D) at each of the times."""
    figure, axes = _panels(len(states), width=2.6, height=2.9)
    around = np.concatenate([states[0], states[-1]])
    for one, x, t in zip(axes, states, times, strict=True):
        _show(one, x, around, shape, most=25, small=True)
        one.set_title(f"t = {t}", fontsize=11)
    return figure


def _panels(count: int, width: float = 4.4, height: float = 4.6) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count, height), dpi=100, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # inches
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _limits(data: np.ndarray) -> np.ndarray:
    """(2, D): the least and the greatest of each number, or of two the same span, and a margin."""
    low, high = data.min(axis=0), data.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    half = np.where(half > 0, half, np.maximum(np.abs(middle), 1) / 2)  # of a single sample
    if data.shape[1] == 2 and _aspect(data) == "equal":
        half = half.max()
    low, high = middle - half, middle + half
    return np.stack([low, high]) + 0.12 * (high - low) * np.array([[-1], [1]])


def _aspect(data: np.ndarray) -> str:
    """Of a scatter plot of the first two numbers: one scale if their spans are not too different."""
    spans = np.ptp(data[:, :2], axis=0)
    return "equal" if spans.max() <= 5 * spans.min() else "auto"


def _show(axes: Axes, x: np.ndarray, data: np.ndarray, shape, most=MAX_IMAGES, small=False) -> None:
    """x (N, D) as a histogram, a scatter plot or images; data say what range is drawn."""
    D = x.shape[1]
    if as_images(D, shape):
        picture = _tiles(_levels(x[:most], data), shape)
        axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
    elif D == 1:
        _bars(axes, x, data)
        axes.set_yticks([])
    else:
        _scatter(axes, x, 3 if small else 5)
        _set_range(axes, data)


def _bars(axes: Axes, x: np.ndarray, data: np.ndarray) -> StepPatch:
    """A histogram of x (N, 1) over the range of data."""
    return axes.stairs(*_density_of(x, data), fill=True, color=TRAIN, alpha=0.8)


def _density_of(x: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights and edges of a histogram over the range of data of x (N, 1), some of it maybe outside."""
    counts, edges = np.histogram(x, np.linspace(*_limits(data)[:, 0], BINS + 1))
    return counts / (len(x) * np.diff(edges)), edges


def _scatter(axes: Axes, x: np.ndarray, size: float = 5) -> PathCollection:
    return axes.scatter(x[:, 0], x[:, 1], s=size, color=TRAIN, alpha=0.6, linewidths=0)


def _set_range(axes: Axes, data: np.ndarray) -> None:
    """What a scatter plot shows, and what of it where there are more numbers than two."""
    limits = _limits(data[:, :2])
    axes.set_xlim(limits[:, 0])
    axes.set_ylim(limits[:, 1])
    axes.set_aspect(_aspect(data))
    if data.shape[1] > 2:
        axes.set_xlabel(f"number 1 of {data.shape[1]:,}")
        axes.set_ylabel("number 2")


def _levels(x: np.ndarray, data: np.ndarray) -> np.ndarray:
    """x as grey levels from 0 to 1, between the darkest and the lightest of data."""
    low, high = np.percentile(data, [0.5, 99.5])
    if high <= low:  # all but a few are equal
        low, high = data.min(), data.max()
    if high <= low:
        return np.full(x.shape, 0.5)
    return np.clip((x - low) / (high - low), 0, 1)


def _tiles(levels: np.ndarray, shape) -> np.ndarray:
    """Images (N, D) side by side in a square, with white lines between them: (H, W), or (H, W, 3)."""
    if len(shape) == 3:
        return np.stack([1 - _tiles(1 - levels[:, c::3], shape[:2]) for c in range(3)], axis=-1)
    rows, columns = shape
    across = int(np.ceil(np.sqrt(len(levels))))
    down = -(-len(levels) // across)
    tiles = np.zeros((down * across, rows + 1, columns + 1))
    tiles[: len(levels), :rows, :columns] = levels.reshape(-1, rows, columns)
    tiles = tiles.reshape(down, across, rows + 1, columns + 1).swapaxes(1, 2)
    return tiles.reshape(down * (rows + 1), across * (columns + 1))[:-1, :-1]


# ---------------------------------------------------------------------------------------- frames


def sample_frames(
    states: np.ndarray, labels: list[str], title: str, data: np.ndarray | None, shape=None
) -> np.ndarray:
    """Frames of samples, one for each step of their evolution. states: (F, N, D); labels: F names.

    data (M, D), if given, say what range is drawn, and lie behind the samples.
    Returns (at most FRAMES, H, W) greys or (.., H, W, 3) colours, uint8.
    """
    steps = evenly_spaced(len(states), FRAMES)
    states, labels = np.asarray(states)[steps], [labels[i] for i in steps]
    around = states[-1] if data is None else data
    if as_images(states.shape[2], shape):
        levels = np.round(_levels(states, around) * 15) / 15
        return frames.sample_frames(levels, labels, title, shape, "dark is large", "sample")
    figure, [axes] = _panels(1, width=4.8, height=4.8)
    _behind(axes, around, data is not None)
    moving = _scatter(axes, states[0]) if states.shape[2] > 1 else _bars(axes, states[0], around)
    title_text = axes.set_title(
        max((f"{title} · {label}" for label in labels), key=len), fontsize=11
    )
    for artist in (moving, title_text):
        artist.set_animated(True)  # not part of the background, which is drawn once
    figure.canvas.draw()
    background = figure.canvas.copy_from_bbox(figure.bbox)
    drawn = []
    for x, label in zip(states, labels, strict=True):
        figure.canvas.restore_region(background)
        title_text.set_text(f"{title} · {label}")
        if states.shape[2] > 1:
            moving.set_offsets(x[:, :2])
        else:
            moving.set_data(_density_of(x, around)[0])
        for artist in (moving, title_text):
            axes.draw_artist(artist)
        drawn.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    return np.stack(drawn)


def _behind(axes: Axes, data: np.ndarray, is_drawn: bool) -> None:
    """The range of data, and data themselves in grey if they are to be seen."""
    if data.shape[1] == 1:
        height, edges = _density_of(data, data)
        axes.set_ylim(0, 1.6 * height.max())
        axes.set_yticks([])
        if is_drawn:
            axes.stairs(height, edges, fill=True, color=MUTED, alpha=0.4)
        return
    _set_range(axes, data)
    if is_drawn:
        axes.scatter(data[:, 0], data[:, 1], s=3, color=MUTED, alpha=0.25, linewidths=0)


# ---------------------------------------------------------------------------------------- files


def training_frames(
    examples: list[list], epochs: list[float], config: Config, train: RealVectors
) -> np.ndarray:
    """(F, H, W) or (F, H, W, 3) uint8: the samples of each validation."""
    labels, data = [f"epoch {epoch}" for epoch in epochs], _shown(train)
    title = "samples while training"
    return sample_frames(np.array(examples), labels, title, data, config.data.shape)


def draw_model(
    diffusion, config: Config, train: RealVectors, seed: int, folder: Path, poll
) -> None:
    """Pictures of the trained model: the way from data to noise and back, and samples beside data."""
    process, shape = diffusion.process, config.data.shape
    data = _shown(train)
    count = most_drawn(train.length)
    if as_images(train.length, shape):
        count = min(count, IMAGES)
    numbers = torch.arange(count, device=process.alpha.device)
    noise = Noise(seed, numbers, train.length)
    gif, steps = folder / "reverse_process.gif", min(process.T, STEPS)
    drawn = draw_trajectory(diffusion, noise, config, gif, data, steps=steps, poll=poll)

    rows = torch.arange(min(count, len(train)))
    x_0 = train.tensor(rows, process.alpha.device)
    u = Noise(seed, rows.to(x_0.device), train.length).uniform(0)
    six = forward_times(process.T)
    forward = [process.to_data(process.sample_x_t(x_0, torch.full_like(rows, t), u)) for t in six]
    figure = forward_process(forward, six, shape)
    plots.write_figure(figure, folder / "forward_process.png")

    density = None
    if train.length <= 2:
        poll()
        grid = density_grid(data)
        density = 2.0 ** -bound_on_grid(diffusion, grid, poll)
    figure = samples_beside_data(drawn, data, density, shape)
    plots.write_figure(figure, folder / "samples.png")


def most_drawn(length: int) -> int:
    """Samples of so many numbers that a picture shows: their states are all in memory at once."""
    return min(SAMPLES, max(36, NUMBERS // length))


def draw_trajectory(
    diffusion, noise: Noise, config: Config, path: Path, data: np.ndarray | None = None, **how
) -> np.ndarray:
    """A GIF of samples on their way from noise, in front of data. how: as in sampling.trajectory.

    Returns the samples.
    """
    times, states = trajectory(diffusion, noise, **how, most=FRAMES)
    labels, shape = [f"t = {t}" for t in times], config.data.shape
    frames = sample_frames(states, labels, "from noise to samples", data, shape)
    write_gif(frames, path)
    return states[-1]


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
