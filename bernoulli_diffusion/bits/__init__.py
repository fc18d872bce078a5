"""What is particular to bits; gaussian.py has the same names for real numbers (process.py).

Reading and writing strings, the process, what is measured of samples, and the pictures.
"""

from pathlib import Path

import numpy as np
import torch

from ..config import Config
from ..noise import Noise
from ..results import page as report_page
from ..results.marginals import count_ones
from ..sampling import trajectory
from ..system.errors import UserError
from .data import (
    Batches,
    BitStrings,
    Membership,
    count_distinct,
    parse_pattern,
    read_bit_strings,
    read_patterns,
    to_text,
)
from .process import BernoulliDiffusionProcess

__all__ = ["Batches", "parse_pattern", "read_patterns", "to_text"]

NETWORK = None  # the package's reverse_model.py
SAMPLES, UNITS = "strings", "bits"  # what a line is called, and what it is made of
MISSED = " and the val share are"  # without val.txt
NEEDED = "one string of 0 and 1 a line"  # in train.txt
PICTURE_SAMPLES = 36
PICTURE_STEPS = 60  # network calls
COUNTED_BYTES = 1 << 24  # of packed strings; more would take long to count the distinct ones among


def check_config(config: Config, source: str) -> None:
    """Raises UserError for settings that only real numbers have; source names the file."""
    default = Config()
    for section, key in (
        ("model", "schedule"),
        ("model", "variance"),
        ("training", "loss"),
        ("data", "dequantize"),
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
    return strings


def new_process(config: Config, train: BitStrings, device) -> BernoulliDiffusionProcess:
    return BernoulliDiffusionProcess(config.model.T, device)


def saved_process(config: Config, state: dict, length: int, device) -> BernoulliDiffusionProcess:
    """The process of a checkpoint. Raises ValueError if state is not that of one."""
    if state:
        raise ValueError("process_state is not that of bits")
    return BernoulliDiffusionProcess(config.model.T, device)


def read_evaluated(path: Path, process: BernoulliDiffusionProcess, config: Config) -> BitStrings:
    """The strings that evaluate.py is asked about."""
    return read_bit_strings(path)


def network_options(config: Config) -> dict:
    """The keyword arguments of ReverseModel."""
    return config.model.reverse_model


# ------------------------------------------------------------------------------- samples


def pack(values: np.ndarray) -> np.ndarray:
    """(n, L) uint8 as it is kept and sent to other processes."""
    return BitStrings.from_bits(values).packed


def join(parts: list[np.ndarray], length: int) -> BitStrings:
    return BitStrings(np.concatenate(parts), length)


class Measures:
    """How samples compare with the data: the shares found in train, in val and in neither."""

    def __init__(
        self, train: BitStrings, val: BitStrings | None, config: Config, shown: BitStrings
    ):
        """shown: strings of val, of train without val.txt, that samples are compared with."""
        self.train, self.length, self.has_val, self.shown = train, train.length, bool(val), shown
        self.num_examples = config.training.num_examples
        self.train_members = Membership(train)
        self.val_members = Membership(val) if val else None
        self.val_lines_in_train = int(self.train_members.contains(val).sum()) if val else 0
        self.baselines = {
            "uniform": float(train.length),
            "independent_train": independent_bits(train, train),
            "independent_val": independent_bits(train, val) if val else None,
        }
        self.about_data = {"val_lines_in_train": self.val_lines_in_train}

    @staticmethod
    def empty() -> dict:
        """The lists in results.json to which every validation adds what `of` says."""
        return {"proportions": {"train": [], "val": [], "other": []}, "distinct": []}

    def last(self, samples: BitStrings | None) -> dict:
        """What results.json says of the last validation alone: how often bits and pairs are 1."""
        return {
            "data_examples": self.data_examples(),
            "statistics": samples and count_ones(samples, self.shown),  # see marginals.py
        }

    def data_examples(self) -> list:
        """As many strings of the data as samples are shown, from all over them."""
        count = min(len(self.shown), self.num_examples)
        rows = np.linspace(0, len(self.shown) - 1, count).round().astype(int)
        return self.examples(self.shown.part(rows), count)

    def of(self, samples: BitStrings) -> dict:
        """Shares of samples in train, in val (and not in train), in neither; and of distinct ones."""
        in_train = self.train_members.contains(samples)
        in_val = self.val_members.contains(samples) if self.val_members else np.zeros_like(in_train)
        in_val &= ~in_train
        shares = {
            "train": float(in_train.mean()),
            "val": float(in_val.mean()),
            "other": float((~in_train & ~in_val).mean()),
        }
        return {"proportions": shares, "distinct": count_distinct(samples) / len(samples)}

    @staticmethod
    def examples(samples: BitStrings, count: int) -> list:
        """The first samples, as results.json keeps them."""
        return ["".join(map(str, row)) for row in samples.bits(slice(count)).tolist()]

    def is_example(self, example) -> bool:
        return type(example) is str and len(example) == self.length and set(example) <= {"0", "1"}

    @staticmethod
    def in_short(results: dict) -> str:
        """The latest measures, for the progress bar."""
        shares = [100 * results["proportions"][k][-1] for k in ("train", "val", "other")]
        return ", train/val/other {:.1f}/{:.1f}/{:.1f}%".format(*shares)

    def data_in_short(self) -> str:
        """What there is to say of train.txt beside its size."""
        if self.train.nbytes > COUNTED_BYTES:
            return ""
        return f" ({count_distinct(self.train):,} distinct)"

    def baselines_in_short(self) -> str:
        independent = f"{self.baselines['independent_train']:.3f} on train"
        if self.has_val:
            independent += f", {self.baselines['independent_val']:.3f} on val"
        return f"uniform {self.length} bits; independent bits {independent}"

    @staticmethod
    def outcome(results: dict) -> list[str]:
        """Lines for the end of a run."""
        shares = results["proportions"]
        meanings = (("train", "in train"), ("val", "in val"), ("other", "in neither"))
        text = ", ".join(f"{100 * shares[key][-1]:.1f}% {meaning}" for key, meaning in meanings)
        return [f"samples    {text}"]


# ------------------------------------------------------------------------------- pictures


def draw_progress(results: dict, config: Config, train: BitStrings, folder: Path) -> None:
    """The curves of results.json, and the samples through training."""
    from ..results import plots  # here, because importing matplotlib takes half a second

    plots.write_figure(plots.loss_curve(results), folder / "loss_curve.png")
    plots.write_figure(plots.validation(results), folder / "validation.png")
    frames = plots.sample_frames(
        _bits(results["examples_per_epoch"]),
        [f"epoch {epoch}" for epoch in results["validated_epochs"]],
        "samples while training",
        config.data.shape,
    )
    plots.write_gif(frames, folder / "sample_evolution_throughout_training.gif")


def draw_frame(results: dict, config: Config, train: BitStrings) -> np.ndarray:
    """(H, W) uint8: the samples of the last validation."""
    from ..results import plots

    label = f"epoch {results['validated_epochs'][-1]}"
    bits = _bits(results["examples_per_epoch"][-1:])
    [frame] = plots.sample_frames(bits, [label], "samples while training", config.data.shape)
    return frame


def write_report(results: dict, config: Config, folder: Path) -> None:
    """report.html: the run on one page."""
    report_page.write(results, folder, config.data.shape)


def data_warnings(measures: Measures, train_txt: Path, val_lines: int) -> list[str]:
    """Things about the data that change how the results are to be read."""
    if not measures.val_lines_in_train:
        return []
    return [
        f"{train_txt.with_name('val.txt')}: {measures.val_lines_in_train:,} of its {val_lines:,} lines"
        " also stand in train.txt; generated copies of them count as train"
    ]


def draw_model(diffusion, config: Config, train: BitStrings, seed: int, folder: Path, poll) -> None:
    """reverse_process.gif: samples from noise to data, a frame for each of their steps."""
    numbers = torch.arange(most_drawn(train.length), device=diffusion.process.alpha.device)
    noise = Noise(seed, numbers, train.length)
    gif = folder / "reverse_process.gif"
    draw_trajectory(diffusion, noise, config, gif, steps=PICTURE_STEPS, poll=poll)


def most_drawn(length: int) -> int:
    """Samples on their way from noise that a picture shows."""
    return PICTURE_SAMPLES


def draw_trajectory(diffusion, noise: Noise, config: Config, path: Path, **how) -> None:
    """A GIF of samples on their way from noise. how: as in sampling.trajectory."""
    from ..results import plots

    times, states = trajectory(diffusion, noise, **how)
    labels = [f"t = {t}" for t in times]
    frames = plots.sample_frames(states, labels, "from noise to samples", config.data.shape)
    plots.write_gif(frames, path)


def _bits(strings_per_frame: list[list[str]]) -> np.ndarray:
    """Lists of strings of 0 and 1 -> (frames, strings, L) uint8."""
    text = "".join(s for strings in strings_per_frame for s in strings).encode()
    bits = np.frombuffer(text, np.uint8) - ord("0")
    return bits.reshape(len(strings_per_frame), len(strings_per_frame[0]), -1)


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


def refuse_options(arguments) -> None:
    """Raises UserError for what generate.py does for real numbers alone."""
    for option in ("noise_std", "deterministic"):
        if getattr(arguments, option):
            name = option.replace("_", "-")
            raise UserError(f"--{name}: for models of real numbers; this one is of bits")


def refuse_questions(arguments) -> None:
    """Raises UserError for what evaluate.py cannot say of such data: nothing."""


def baseline_bits(train: BitStrings, strings: BitStrings, frequencies_of: str) -> dict:
    """Bits a string without a model, by the frequencies of train."""
    return {
        "uniform_bits": float(strings.length),
        "independent_bits": independent_bits(train, strings),
        "independent_bits_frequencies_of": frequencies_of,
    }


def independent_bits(train: BitStrings, strings: BitStrings) -> float:
    """Mean -log2 of strings under independent bits with the frequencies of train (plus one each)."""
    ones = (train.ones + 1) / (len(train) + 2)  # (L,)
    share = strings.ones / len(strings)
    return float(-(share * np.log2(ones) + (1 - share) * np.log2(1 - ones)).sum())
