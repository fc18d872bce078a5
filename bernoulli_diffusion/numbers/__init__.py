"""What is particular to real numbers: its members are those of kinds.Kind."""

from pathlib import Path

import numpy as np
import torch

from ..config import Config
from ..results.pages import picture_file
from ..results.record import Results
from ..system.errors import UserError
from .batches import Batches
from .data import (
    Aside,
    RealVectors,
    parse_pattern,
    place_in_file,
    read_patterns,
    read_real_vectors,
    to_text,
)
from .measures import Measures, baseline_bits
from .process import GaussianDiffusionProcess, schedule_betas

__all__ = ["Batches", "Measures", "baseline_bits", "parse_pattern", "read_patterns", "to_text"]

NAME = "real numbers"
SAMPLES, UNITS = "samples", "numbers"
NEEDED, SEPARATOR = "one sample a line, numbers between spaces", " "
NETWORK = Path(__file__).parents[1] / "gaussian_reverse_model.py"
NETWORKS = ()
OPTIONS = frozenset({"noise-std"})
REPORT = "numbers_report.html"
NOISE_OPTION = "noise-std"
FEW_LINES = 10  # say nothing of what is in them
OFTEN = 0.005  # the share of numbers that makes a greatest one a limit
LEAST_SIGNAL = 1e-30  # of the variance at T; less could not be divided by


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
    if model.network:
        raise UserError(f"{source}: model.network: {model.network} is for bits; leave it out")
    least, most = config.data.minimum, config.data.maximum
    if least is not None and most is not None and least >= most:
        raise UserError(f"{source}: data.minimum: {least:g} is no less than data.maximum, {most:g}")
    if training.loss == "simple" and model.variance == "learned":
        raise UserError(
            f"{source}: training.loss: simple says nothing about variances, so model.variance cannot"
            " be learned; use beta or posterior, or training.loss: bound"
        )


def read(path: Path, config: Config, like: RealVectors | None = None) -> RealVectors:
    """The samples of a file, of as many numbers as those of like, and on their scale."""
    keep_aside = config.data.shape is None  # an image needs all its pixels
    samples = read_real_vectors(path, config.data.dequantize or 0.0, like, keep_aside=keep_aside)
    if like is not None and samples.length != like.length:
        raise UserError(
            f"{path}:1: {samples.length:,} numbers, but the samples of train.txt have"
            f" {like.length:,}; both files need as many"
        )
    return samples


def look_at(config: Config, train: RealVectors, train_txt: Path) -> list[str]:
    """Whole numbers need blurring, and counts have a range that their samples have to keep."""
    data, least, most = config.data, train.values.min(), train.values.max()
    for name, wrong in (
        ("minimum", data.minimum is not None and least < data.minimum),
        ("maximum", data.maximum is not None and most > data.maximum),
    ):
        if wrong:
            extreme = least if name == "minimum" else most
            raise UserError(
                f"data.{name}: {getattr(data, name):g}, but {train_txt} has {extreme:g}"
            )
    if not train.width:
        return _note_whole_numbers(train, train_txt)
    notes = []
    are_counts = least == 0 and (train.values % train.width == 0).all()
    if are_counts and data.minimum is None:
        data.minimum = 0.0
        notes.append("none is below 0, so no sample will be: data.minimum: 0")
    if are_counts and data.maximum is None and (train.values == most).mean() >= OFTEN:
        data.maximum = float(most)
        notes.append(
            f"many are {most:g} and none is more, so no sample will be: data.maximum: {most:g}"
        )
    return [f"{train_txt}: {note}" for note in notes]


def _note_whole_numbers(train: RealVectors, train_txt: Path) -> list[str]:
    """What to say if all numbers, or all of some columns, are whole, and not blurred."""
    whole = np.flatnonzero((train.values == np.round(train.values)).all(axis=0))
    if not len(whole) or len(train) < FEW_LINES:
        return []
    if len(whole) == train.length:
        return [
            f"{train_txt}: all numbers are whole (counts, grey levels): they have no density, and the"
            " bound means nothing, until they are blurred by data.dequantize: 1"
        ]
    more = f" and {len(whole) - 1:,} more" if len(whole) > 1 else ""
    column = place_in_file(whole[0], train.aside) + 1
    return [
        f"{train_txt}: column {column}{more} has whole numbers alone, which have no density: the"
        " bound means nothing; leave it out, or blur all columns by data.dequantize: 1"
    ]


def new_process(config: Config, train: RealVectors, device) -> GaussianDiffusionProcess:
    mean, deviation = torch.from_numpy(train.mean), torch.from_numpy(train.deviation)
    return _process(config, mean, deviation, device, train.aside)


def saved_process(config: Config, state: dict, length: int, device) -> GaussianDiffusionProcess:
    """The process of a checkpoint. Raises ValueError if state is not that of one."""
    state = dict(state)
    columns, values = state.pop("aside_columns", None), state.pop("aside_values", None)
    if set(state) != {"mean", "deviation"} or (columns is None) != (values is None):
        raise ValueError("process_state is not a mean and a deviation")
    if any(v.shape != (length,) or v.dtype != torch.float64 for v in state.values()):
        raise ValueError("process_state does not fit sequence_length")
    if not (state["deviation"] > 0).all():
        raise ValueError("process_state holds a deviation that is not positive")
    aside = None
    if columns is not None:
        k = len(columns) if columns.ndim == 1 else 0
        is_sound = columns.dtype == torch.int64 and values.dtype == torch.float64 and k
        is_sound = is_sound and values.shape == (k,) and (columns.diff() > 0).all()
        if not is_sound or columns[0] < 0 or columns[-1] >= length + k:
            raise ValueError("process_state holds columns aside that do not fit")
        aside = Aside(columns.numpy(), values.numpy())
    return _process(config, state["mean"], state["deviation"], device, aside)


def values_in_file(state: dict, length: int) -> int:
    return length + len(state.get("aside_columns", ()))


def _process(
    config: Config, mean, deviation, device, aside: Aside | None
) -> GaussianDiffusionProcess:
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
        bounds=(config.data.minimum, config.data.maximum),
        aside=aside,
    )


def read_evaluated(path: Path, process: GaussianDiffusionProcess, config: Config) -> RealVectors:
    """The samples that evaluate.py is asked about, on the scale of the training data."""
    mean, deviation = process.mean.numpy(), process.deviation.numpy()
    width = config.data.dequantize or 0.0
    like = RealVectors(mean[None], mean, deviation, width, process.aside)
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


# ------------------------------------------------------------------------------- pictures

DRAWING = ("most_drawn", "training_frames", "draw_model", "draw_trajectory")


def __getattr__(name: str):
    """What draws is in pictures.py, whose import takes half a second, which is matplotlib's."""
    if name not in DRAWING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pictures

    return getattr(pictures, name)


def report(results: Results, folder: Path, shape: list[int] | None) -> dict:
    return {
        "samples": picture_file(folder / "samples.png", "samples beside data"),
        "forward": picture_file(folder / "forward_process.png", "data on their way to noise"),
    }


# ------------------------------------------------------------------------------- questions


def are_known(patterns: torch.Tensor) -> torch.Tensor:
    """(M, D) bool: which numbers of patterns are not asked for."""
    return ~patterns.isnan()


def all_but_impossible(process: GaussianDiffusionProcess, known: torch.Tensor) -> torch.Tensor:
    """From how many bits on the known numbers, (M, D) bool, are out of the question for a model. (M,)

    With columns that are kept aside they may be (M, D + k); of these nothing is out of the question.

    20 bits a number and 20 more, of the density of standardised numbers.
    """
    if process.aside and known.shape[1] > len(process.mean):
        known = torch.from_numpy(process.aside.taken_off(known.cpu().numpy()))
    return 20 + known.double() @ (20 + process.deviation.log2())


def mean_text(mean: np.ndarray) -> bytes:
    """(n, D) means -> n lines."""
    return to_text(mean)
