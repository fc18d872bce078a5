"""What is particular to bits: its members are those of kinds.Kind."""

from pathlib import Path

import numpy as np
import torch

from ..config import Config
from ..system.errors import UserError
from .batches import Batches
from .data import BitStrings, parse_pattern, read_bit_strings, read_patterns, to_text
from .measures import Measures, baseline_bits
from .process import BernoulliDiffusionProcess

__all__ = ["Batches", "Measures", "baseline_bits", "parse_pattern", "read_patterns", "to_text"]

NAME = "bits"
SAMPLES, UNITS = "strings", "bits"
NEEDED, SEPARATOR = "one string of 0 and 1 a line", ""
NETWORK = None  # the package's reverse_model.py
NETWORKS = ("hidden_tree", "tree_and_mlp", "mixture", "forest")
OPTIONS = frozenset({"flip-probability", "exact", "explain", "heatmap"})
REPORT = "bits_report.html"
NOISE_OPTION = "flip-probability"
LEAST_LOST, LEAST_SIGNAL = 1e-9, 1e-30  # in the first step, before the last: float32 needs as much


def check_config(config: Config, source: str) -> None:
    """Raises UserError for settings that only real numbers have; source names the file."""
    alpha = new_process(config, None, "cpu").alpha
    if (
        not (alpha.diff() < 0).all()
        or 1 - alpha[1] < LEAST_LOST
        or alpha[-2:-1].sum() < LEAST_SIGNAL
    ):
        raise UserError(
            f"{source}: model.schedule: {config.model.schedule} with this model.T, beta_min and beta_max"
            " leaves steps in which nothing is lost, or nothing is left to lose; take a larger beta_min,"
            " or a smaller beta_max or T"
        )
    default = Config()
    for section, key in (
        ("model", "variance"),
        ("training", "loss"),
        ("data", "dequantize"),
        ("data", "minimum"),
        ("data", "maximum"),
    ):
        value = getattr(getattr(config, section), key)
        if value != getattr(getattr(default, section), key):
            raise UserError(
                f"{source}: {section}.{key}: {value} is for real numbers (model.process: gaussian);"
                " leave it out"
            )


def read(path: Path, config: Config, like: BitStrings | None = None) -> BitStrings:
    """The strings of a file, which must be as long as those of like."""
    strings = read_bit_strings(path)
    if like and strings.length != like.length:
        raise UserError(
            f"{path}:1: {strings.length} characters, but the strings of train.txt have"
            f" {like.length}; both files need strings of one length"
        )
    if like and strings.unknown is not None and like.unknown is None:
        like.unknown = np.zeros_like(like.packed)  # so that the run knows that there may be some
    return strings


def values_in_file(state: dict, length: int) -> int:
    return length


def look_at(config: Config, train: BitStrings, train_txt: Path) -> list[str]:
    return []


def new_process(config: Config, train: BitStrings, device) -> BernoulliDiffusionProcess:
    model = config.model
    schedule = {"schedule": model.schedule, "beta_min": model.beta_min, "beta_max": model.beta_max}
    process = BernoulliDiffusionProcess(model.T, device, **schedule)
    process.may_be_unknown = train is not None and train.unknown is not None
    return process


def saved_process(config: Config, state: dict, length: int, device) -> BernoulliDiffusionProcess:
    if state:
        raise ValueError("process_state is not that of bits")
    return new_process(config, None, device)


def read_evaluated(path: Path, process: BernoulliDiffusionProcess, config: Config) -> BitStrings:
    """The strings that evaluate.py is asked about."""
    strings = read_bit_strings(path)
    process.may_be_unknown = strings.unknown is not None
    return strings


def network_options(config: Config) -> dict:
    return config.model.reverse_model


# ------------------------------------------------------------------------------- samples


def pack(values: np.ndarray) -> np.ndarray:
    """(n, L) uint8 as it is kept and sent to other processes."""
    return BitStrings.from_bits(values).packed


def join(parts: list[np.ndarray], length: int) -> BitStrings:
    return BitStrings(np.concatenate(parts), length)


# ------------------------------------------------------------------------------- pictures

DRAWING = ("most_drawn", "training_frames", "draw_model", "draw_trajectory", "report")


def __getattr__(name: str):
    """What draws is in pictures.py, whose import takes half a second, which is matplotlib's."""
    if name not in DRAWING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pictures

    return getattr(pictures, name)


# ------------------------------------------------------------------------------- questions


def are_known(patterns: torch.Tensor) -> torch.Tensor:
    """(M, L) bool: which bits of patterns are not asked for."""
    return patterns >= 0


def all_but_impossible(process: BernoulliDiffusionProcess, known: torch.Tensor) -> torch.Tensor:
    """From how many bits on the known ones, (M, L) bool, are out of the question for a model. (M,)"""
    return known.sum(dim=1) + 20.0


def mean_text(mean: torch.Tensor) -> bytes:
    """(n, L) probabilities -> n lines: the most probable bits, then the probabilities."""
    lines = []
    for row in mean.cpu().tolist():
        bits = "".join("1" if p > 0.5 else "0" for p in row)
        lines.append("\t".join([bits, *(f"{p:.6g}" for p in row)]) + "\n")
    return "".join(lines).encode()
