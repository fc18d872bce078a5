"""The curves of a run, loss_curve.png and validation.png, and those of several side by side.

Drawn with matplotlib's Figure and its Agg canvas; pyplot would keep every figure alive and look for
a display. No function here draws random numbers or changes a global setting.
"""

import io
import itertools
import math
import os
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    StrMethodFormatter,
)

from ..config import Config
from ..system.files import write_atomically
from .frames import write_gif
from .record import Measure, Results, baseline_name

PANEL, LOW_PANEL = 5, 3.4  # inches, the height of the first one and of those below
ABOVE, BELOW = 0.85, 0.525  # inches, of the axes: the legend and the labels

# Okabe and Ito's palette: told apart by colour-blind readers too, and on dark backgrounds.
TRAIN, VAL, NEITHER, MUTED = "#0072B2", "#D55E00", "#009E73", "#767676"


# ---------------------------------------------------------------------------------------- curves


def loss_curve(results: Results, losses_in_bits: bool = True) -> Figure:
    """The bound on -log2 p(x) in bits per sample against epoch, with standard errors and baselines.

    The training losses are left out if they are not in bits; values that are not finite always are.
    """
    epochs = _floats(results.validated_epochs)  # (V,)
    bound = {name: _floats(values) for name, values in vars(results.bound).items()}  # (V,) or empty
    all_losses = _floats(results.losses if losses_in_bits else [])
    figure, [axes] = _figure(right=0.795)
    axes.set_ylabel("bits per sample, ± standard error")

    losses, block = _block_means(all_losses, most=500)
    if np.isfinite(losses).any():
        label = "training loss" if block == 1 else f"training loss, means of {block:,} epochs"
        middles = (np.arange(len(losses)) + 0.5) * block + 0.5  # the first epoch is 1
        style = {"color": TRAIN, "alpha": 0.35, "linewidth": 0.9, "label": label}
        axes.plot(middles, losses, marker="." if len(losses) == 1 else "", **style)

    for name, color in (("train", TRAIN), ("val", VAL)):
        mean, error = bound[name], bound[f"{name}_standard_error"]
        if len(mean) == 0:
            continue
        label = f"{name} bound {_with_error(mean[-1], error[-1])}"
        axes.fill_between(epochs, mean - error, mean + error, color=color, alpha=0.25, linewidth=0)
        axes.plot(epochs, mean, color=color, label=label, **_line(len(epochs)))

    if results.best_epoch is not None:
        best = results.best_epoch
        axes.axvline(best, color=MUTED, linewidth=0.8, zorder=0)
        judged_by = bound[results.judged_by]
        axes.plot(
            epochs[epochs == best],
            judged_by[epochs == best],
            marker="*",
            markersize=13,
            linestyle="none",
            color="#F0E442",
            markeredgecolor="black",
            markeredgewidth=0.7,
            zorder=4,
            label=f"best epoch {best:,}",
        )

    baselines = _baselines(results.baselines)
    # Single noisy losses may leave the picture; bounds and baselines may not.
    shown = np.concatenate([bound["train"], bound["val"], [bits for bits, _ in baselines]])
    finite_losses = losses[np.isfinite(losses)]
    if finite_losses.size:
        shown = np.append(shown, np.percentile(finite_losses, [1, 99]))
    _bits_axis(axes, shown[np.isfinite(shown)])
    _draw_baselines(axes, baselines)
    drawn = np.concatenate([bound["train"], bound["val"], losses])
    if not np.isfinite(drawn).any():
        _note(axes, "no finite value" if drawn.size else "nothing to show yet")
    _epochs_axis(axes, np.append(epochs, [1, len(all_losses)] if losses.size else []))
    _legend_above(axes, f"Variational bound on −log₂ p(x), {results.what_lines_are}")
    return figure


def comparison(lines: list[tuple[str, list[tuple], list[float]]], title: str) -> Figure:
    """Bounds of several runs, once against epochs and once against seconds, on one scale of bits.

    lines: for each run its name, (epoch, bits, standard error) of each validation, and its seconds.
    """
    figure = Figure(figsize=(11, 4.4 + 0.19 * len(lines)), dpi=110)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    height = figure.get_figheight()
    figure.subplots_adjust(
        left=0.065, right=0.985, bottom=0.5 / height, top=1 - (0.6 + 0.19 * len(lines)) / height,
        wspace=0.05,
    )  # fmt: skip
    palette = (TRAIN, VAL, NEITHER, "#CC79A7", "#E69F00", "#56B4E9", "black", MUTED)
    for number, (name, points, seconds) in enumerate(lines):
        epochs, bits, errors = _floats(points).T
        color = palette[number % len(palette)]
        style = {"color": color, "linestyle": ("-", "--", ":", "-.")[number // len(palette) % 4]}
        for axes, x in ((left, epochs), (right, _floats(seconds))):
            if len(lines) <= 6:  # more bands would hide each other
                band = {"color": color, "alpha": 0.2, "linewidth": 0}
                axes.fill_between(x, bits - errors, bits + errors, **band)
            axes.plot(x, bits, label=name, **_line(len(x)) | style)
    for axes, unit in ((left, "epoch"), (right, "seconds")):
        axes.set_xlabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    shown = np.concatenate([_floats(points)[:, 1] for _, points, _ in lines])
    _bits_axis(left, shown[np.isfinite(shown)])
    _legend(left, title, (0.01, 0.995), size=12, ncols=1)
    return figure


def validation(results: Results) -> Figure:
    """What was measured of generated samples against epoch, one panel for each unit."""
    panels = [list(group) for _, group in groupby(results.measures, lambda m: m.unit or m.name)]
    figure, axes = _figure(right=0.965, panels=len(panels))
    for one, measures in zip(axes, panels, strict=True):
        if measures[0].unit == "share":
            _draw_shares(one, measures, results)
        else:
            _draw_distance(one, measures[0], results)
        if not results.validated_epochs:
            _note(one, "no validation yet")
        _epochs_axis(one, _floats(results.validated_epochs))
    return figure


def _draw_shares(axes: Axes, measures: list[Measure], results: Results) -> None:
    epochs = _floats(results.validated_epochs)
    for measure, color in zip(measures, itertools.cycle((TRAIN, VAL, NEITHER, MUTED))):
        share = _floats(measure.values)
        if not len(share) or (measure.name == "share_val" and not results.has_val):
            continue
        style = _line(len(epochs))
        if not measure.short:  # beside the point
            style |= {"linewidth": 1.0, "linestyle": "--", "markersize": 2}
        label = f"{measure.label} {_percent(share[-1])}"
        axes.plot(epochs, 100 * share, color=color, label=label, **style)
    axes.set_ylabel(f"share of generated {results.samples}")
    axes.set_ylim(-3, 103)  # lines at 0 % and 100 % stay clear of the frame
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    title = f"Generated {results.samples}, {results.num_val_samples:,} per validation"
    _legend_above(axes, title if results.has_val else f"{title} (no val.txt)")


def _draw_distance(axes: Axes, measure: Measure, results: Results) -> None:
    """A measure that is 0 where samples are as the data, and what chance alone would show."""
    epochs, values = _floats(results.validated_epochs), _floats(measure.values)
    if len(values):
        label = f"samples to {results.shown_beside}.txt: {measure.text(values[-1])}"
        axes.plot(epochs, values, color=TRAIN, label=label, **_line(len(epochs)))
    shown = values[values > 0]
    if measure.floor is not None:
        label = f"by chance: {measure.text(measure.floor)}"
        if measure.floor_high is not None:
            label += f", up to {measure.text(measure.floor_high)}"
            axes.axhspan(0, measure.floor_high, color=VAL, alpha=0.15, linewidth=0)
        axes.axhline(measure.floor, color=VAL, linewidth=1.2, linestyle="--", label=label)
        shown = np.append(shown, measure.floor)
    if shown.size and shown.min() > 0:
        least = max(shown.min(), 1e-4 * shown.max())
        axes.set_yscale("log")
        axes.set_ylim(least / 2, 1.5 * max(shown.max(), measure.floor_high or 0))
        _log_ticks(axes, shown.max() / least)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylabel("distance" if len(measure.label) > 24 else measure.label)
    _legend_above(
        axes, f"{measure.label.capitalize()} between samples and {results.shown_beside}.txt"
    )


def _figure(right: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Panels one below the other, up to `right` of the width, with room for a legend above each."""
    # Fixed margins: a layout engine would draw everything twice, at every validation of a run.
    heights = [PANEL] + [LOW_PANEL] * (panels - 1)
    figure = Figure(figsize=(8.4, sum(heights)), dpi=120)
    FigureCanvasAgg(figure)
    axes, below = [], sum(heights)
    for height in heights[:panels]:
        below -= height
        share = 1 / sum(heights)
        room = height - ABOVE - BELOW
        one = figure.add_axes((0.095, share * (below + BELOW), right - 0.095, share * room))
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="y", alpha=0.3, linewidth=0.6)
        one.set_xlabel("epoch")
        axes.append(one)
    return figure, axes


def _line(points: int) -> dict:
    """How a curve of this many points is drawn: dots only while they can be told apart."""
    few = points <= 60
    return {"linewidth": 1.8 if few else 1.2, "marker": "o" if few else "", "markersize": 3.5}


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=MUTED, fontsize=13)


def _legend_above(axes: Axes, title: str) -> None:
    """A legend above the axes, where it hides nothing."""
    top = axes.get_position().y1 + (ABOVE - 0.025) / axes.figure.get_figheight()
    letters = sum(map(len, axes.get_legend_handles_labels()[1]))
    _legend(axes, title, (0.018, top), size=13, ncols=4 if letters <= 88 else 2)


def _legend(axes: Axes, title: str, corner: tuple, size: int, ncols: int) -> None:
    """The title and below it the curves' names; corner: the upper left one, in the figure."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        title=title,
        title_fontproperties={"size": size, "weight": "bold"},
        alignment="left",
        loc="upper left",
        bbox_to_anchor=corner,
        borderaxespad=0,
        ncols=ncols,
        frameon=False,
        fontsize=9,
    )


def _epochs_axis(axes: Axes, epochs: np.ndarray) -> None:
    """Whole epochs, with room for a single one."""
    first, last = (epochs.min(), epochs.max()) if epochs.size else (0, 1)
    margin = max(0.02 * (last - first), 0.5 if first == last else 0.05)
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=9, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _log_ticks(axes: Axes, ratio: float) -> None:
    """1, 2 and 5 of each power of ten; the powers alone where the largest is 1,000 times the least."""
    steps = (1, 2, 5) if ratio < 1000 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _bits_axis(axes: Axes, bits: np.ndarray) -> None:
    """Limits around bits (finite); logarithmic when they span a factor of eight or more."""
    bits = bits if bits.size else np.array([1.0])
    low, high = bits.min(), bits.max()
    if low > 0 and high / low >= 8:
        axes.set_yscale("log")
        margin = (high / low) ** 0.05
        axes.set_ylim(low / margin, high * margin)
        _log_ticks(axes, high / low)
    else:
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _baselines(baselines: dict) -> list[tuple[float, str]]:
    """(bits, label) of what is reached without a network, in ascending order."""
    named = [(bits, baseline_name(key)) for key, bits in baselines.items()]
    known = [(float(bits), name) for bits, name in named if bits is not None and np.isfinite(bits)]
    for (bits, name_train), (bits_val, name) in itertools.pairwise(list(known)):
        if name == f"{name_train}, val" and math.isclose(bits, bits_val, rel_tol=0.02):
            known.remove((bits_val, name))  # one line for both, as nobody could tell them apart
    return sorted(known)


def _draw_baselines(axes: Axes, baselines: list[tuple[float, str]]) -> None:
    """Dotted lines, named in the right margin; labels that would collide are moved apart."""
    height = -math.inf
    to_fraction = axes.transData + axes.transAxes.inverted()
    for bits, name in baselines:
        axes.axhline(bits, color=MUTED, linewidth=1.1, linestyle=":", zorder=1)
        height = max(to_fraction.transform((0, bits))[1], height + 0.047)
        axes.text(
            1.01,
            height,
            f"{name}: {_number(bits)} bits",
            transform=axes.transAxes,
            va="center",
            fontsize=8.5,
            color=MUTED,
        )


def _block_means(values: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """Means of consecutive blocks, at most `most` of them, and the block's length.

    values that are not finite are left out of their block's mean; a block without any is NaN.
    """
    block = max(1, math.ceil(len(values) / most))
    padded = np.full(math.ceil(len(values) / block) * block, np.nan)
    padded[: len(values)] = values
    padded = padded.reshape(-1, block)
    known = np.isfinite(padded)
    count = known.sum(axis=1)
    return np.where(known, padded, 0).sum(axis=1) / np.where(count, count, np.nan), block


def _floats(values: list) -> np.ndarray:
    """values as floats; None, infinities and the like become NaN, which matplotlib leaves out."""
    array = np.array(values, dtype=float)
    return np.where(np.abs(array) < 1e30, array, np.nan)  # an axis up to 1e300 would overflow


def _number(bits: float) -> str:
    """Four digits, or all before the point: 14.4386 -> 14.44, 20.0 -> 20, 12345.6 -> 12,346."""
    return f"{bits:,.0f}" if 1e3 <= bits < 1e6 else f"{bits:.4g}"


def _with_error(mean: float, error: float) -> str:
    """2.3312, 0.0123 -> 2.33 ± 0.01 bits: the decimals that the standard error can vouch for."""
    if not np.isfinite(mean):
        return "not finite"
    if abs(mean) >= 1e6:
        return f"{mean:.3g} bits"
    if not np.isfinite(error):
        return f"{mean:,.2f} bits"
    decimals = min(max(-math.floor(math.log10(error)), 0), 4) if error > 0 else 2
    return f"{mean:,.{decimals}f} ± {error:,.{decimals}f} bits"


def _percent(share: float) -> str:
    """One decimal, but 0 % and 100 % only where it is none and all."""
    if not np.isfinite(share):
        return "unknown"
    if share in (0, 1):
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    if share > 0.999:
        return ">99.9%"
    return f"{100 * share:.1f}%"


# ---------------------------------------------------------------------------------------- files


def write_figure(figure: Figure, path: str | os.PathLike) -> None:
    """figure as a PNG file; path is the old file or the complete new one. Raises OSError."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())


def draw_progress(results: Results, kind, config: Config, train, folder: Path) -> None:
    """The curves of results.json, and the samples through training. kind: as in kinds.Kind."""
    curve = loss_curve(results, losses_in_bits=config.training.loss == "bound")
    write_figure(curve, folder / "loss_curve.png")
    write_figure(validation(results), folder / "validation.png")
    frames = kind.training_frames(
        results.examples_per_epoch, results.validated_epochs, config, train
    )
    write_gif(frames, folder / "sample_evolution_throughout_training.gif")
