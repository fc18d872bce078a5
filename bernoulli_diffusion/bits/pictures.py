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
from ..estimate import evenly_spaced
from ..noise import Noise
from ..results import plots
from ..results.frames import sample_frames, write_gif
from ..results.pages import BLACK, WHITE, cells, grey_map, heat_map
from ..results.record import Results
from ..sampling import trajectory
from .data import BitStrings
from .measures import Comparison, compare_bits, compare_pairs, correlations, square

SAMPLES = 36  # on their way from noise
STEPS = 60  # network calls for reverse_process.gif
MAX_LINE = 128  # bits on a page; longer strings take several lines
MAX_SHOWN = 100  # strings on a page
MAX_DOTS = 2000  # bits in the picture of single bits
GAP = (200, 205, 210)  # between strings


def training_frames(
    examples: list[list[str]], epochs: list[float], config: Config, train: BitStrings
) -> np.ndarray:
    """(F, H, W) uint8: the samples of each validation."""
    labels = [f"epoch {epoch}" for epoch in epochs]
    return sample_frames(_bits(examples), labels, "samples while training", config.data.shape)


def draw_model(diffusion, config: Config, train: BitStrings, seed: int, folder: Path, poll) -> None:
    """reverse_process.gif: samples from noise to data, a frame for each of their steps."""
    numbers = torch.arange(most_drawn(train.length), device=diffusion.process.alpha.device)
    noise = Noise(seed, numbers, train.length)
    gif = folder / "reverse_process.gif"
    draw_trajectory(diffusion, noise, config, gif, steps=STEPS, poll=poll)


def most_drawn(length: int) -> int:
    """Samples on their way from noise that a picture shows."""
    return SAMPLES


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


# ---------------------------------------------------------------------------------------- report.html


def report(results: Results, folder: Path, shape: list[int] | None) -> dict:
    """What templates/bits_report.html shows."""
    examples, counts = results.examples_per_epoch, results.statistics
    source = f"{results.shown_beside}.txt"
    legend = "in colour" if shape and len(shape) == 3 else "black is 1"
    samples = examples[-1] if examples else [], "samples of the last validation"
    if results.recommended:
        samples = results.recommended.examples, "samples of the recommended weights"
    strings = (samples, (results.data_examples, f"strings of {source}"))
    shown = {
        "strings": [
            (s and cells(strings_picture(s, shape), f"{caption}; {legend}", side=480), caption)
            for s, caption in strings
        ],
        "counts": counts,
    }
    return shown | (_statistics(counts, source, shape) if counts else {})


def strings_picture(strings: list[str], shape: list[int] | None) -> np.ndarray:
    """Strings of 0 and 1 as (H, W, 3) cells: images of that shape, or else a line each."""
    bits = np.array([[c == "1" for c in s] for s in strings[:MAX_SHOWN]], np.int8)  # (N, L)
    if is_image(shape, bits.shape[1]) and len(shape) == 3:
        colours = [_sheet(bits[:, colour::3], shape[:2]) for colour in range(3)]
        bright = [np.array([0, 255, gap], np.uint8) for gap in GAP]
        return np.stack(
            [levels[sheet] for levels, sheet in zip(bright, colours, strict=True)], axis=-1
        )
    return np.array([WHITE, BLACK, GAP], np.uint8)[_sheet(bits, shape)]


def is_image(shape: list[int] | None, length: int) -> bool:
    """Whether strings of so many bits are drawn as images of this shape."""
    return bool(shape) and min(shape) > 1 and math.prod(shape) == length


def _sheet(bits: np.ndarray, shape: list[int] | None) -> np.ndarray:
    """(N, L) bits side by side on one sheet, (H, W): 0 and 1, and -1 between them."""
    N, L = bits.shape
    if is_image(shape, L):
        rows, columns = shape
        across = int(np.ceil(np.sqrt(N * (rows + 1) / (columns + 1))))
    else:
        rows, columns, across = -(-L // MAX_LINE), min(L, MAX_LINE), 1
    gap = int(rows > 1)
    down = -(-N // across)
    sheet = np.full((across * down, rows + gap, columns + (across > 1)), -1, np.int8)
    padded = np.full((N, rows * columns), -1, np.int8)
    padded[:, :L] = bits
    sheet[:N, :rows, :columns] = padded.reshape(N, rows, columns)
    _, height, width = sheet.shape
    sheet = sheet.reshape(down, across, height, width).swapaxes(1, 2)
    return sheet.reshape(down * height, across * width)[: down * height - gap]


def _statistics(counts: dict, source: str, shape: list[int] | None) -> dict:
    """Single bits and pairs of bits in samples and in data, as measures.count_ones has them."""
    L, chosen = len(counts["data"]["ones"]), counts["bits_of_pairs"]
    bits = compare_bits(counts)
    differences = [_difference("share of ones at a bit", bits, "%")]
    single = chart = pairs = None
    if is_image(shape, L):
        shape = shape[0], L // shape[0]  # the colours of a pixel beside each other
        single = [
            cells(grey_map(values.reshape(shape)), caption, side=256)
            for values, caption in (
                (bits.data, f"share of ones in {source}; black is 100%"),
                (bits.samples, "in samples"),
            )
        ]
        caption = "difference in standard errors, from −4 (blue) to 4 (red)"
        single.append(cells(heat_map(bits.z.reshape(shape), 4), caption, side=256))
    else:
        chart = bits_chart(bits)
    if len(chosen) > 1:
        compared = compare_pairs(counts)
        differences.append(_difference("covariance of two bits", compared, ""))
        maps = (
            (heat_map(correlations(counts, "data"), 1), f"in {source}: from −1 (blue) to 1 (red)"),
            (heat_map(correlations(counts, "samples"), 1), "in samples"),
            (
                heat_map(square(compared.z, len(chosen)), 4),
                "difference of the covariances in standard errors, from −4 to 4",
            ),
        )
        pairs = [cells(pixels, caption, side=256) for pixels, caption in maps]
    few = f"{len(chosen)} evenly spaced bits of {L:,}"
    return {
        "differences": differences,
        "single": single,
        "chart": chart,
        "pairs": pairs,
        "which_pairs": "all bits" if len(chosen) == L else few,
    }


def _difference(name: str, comparison: Comparison, sign: str) -> tuple[str, str, str, str]:
    """A row: what is compared, the difference, its noise, and what that says."""
    difference, noise = comparison.rms()
    if noise == 0:
        says = "the same" if difference == 0 else "differs"
    else:
        ratio = difference / noise
        says = "no more than noise" if ratio <= 1.5 else f"{ratio:.1f} times the noise"
    unit = 100 if sign == "%" else 1
    return name, f"{unit * difference:.3g}{sign}", f"{unit * noise:.3g}{sign}", says


def bits_chart(bits: Comparison) -> dict:
    """The share of ones at each bit: a line with its noise for the data, dots for the samples.

    Places in an SVG picture, as the template draws it.
    """
    left, width, height = 42, 720, 180
    L = len(bits.data)
    chosen = evenly_spaced(L, MAX_DOTS)
    x = left + (chosen + 0.5) / L * (width - left)

    def y(share: np.ndarray) -> np.ndarray:
        return 8 + (1 - np.clip(share, 0, 1)) * (height - 16)

    def points(x, y) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    data, noise = bits.data[chosen], 2 * bits.noise[chosen]
    return {
        "left": left,
        "width": width,
        "height": height,
        "grid": [(f"{100 * share:.0f}%", y(share)) for share in (0, 0.5, 1)],
        "band": points([*x, *x[::-1]], [*y(data + noise), *y(data - noise)[::-1]]),
        "data": points(x, y(data)),
        "dots": zip(x.round(1).tolist(), y(bits.samples[chosen]).round(1).tolist(), strict=True),
        "radius": round(min(3.5, max(1.0, 250 / L)), 1),
    }
