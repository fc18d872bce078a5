"""The two kinds of data, and what a kind must offer: nothing outside asks which one it serves.

Kind describes the face of a package (bits/__init__.py, numbers/__init__.py), Process its forward
process, Measures what is measured of its samples. A third kind is a third such package and a line in
KINDS (and its name among the choices of model.process in config.py).

Shapes: B rows, each of L values (bits or numbers), each row with its own time t. x_0 are data as the
network sees them, float32; r < t are any two times, not only neighbours.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from . import bits, numbers
from .config import Config
from .noise import Noise
from .results.record import Measure, Results
from .system.errors import UserError


class Samples(Protocol):
    """A data set, or samples that came back as one. len() is the number of rows."""

    length: int  # L, values in a row
    nbytes: int  # of memory
    weights: np.ndarray | None  # (N,) float64, how much each row counts; None: all the same

    def __len__(self) -> int: ...

    def tensor(self, rows, device: torch.device | str = "cpu") -> Tensor:
        """(n, L) float32, the rows as x_0."""

    def part(self, rows) -> "Samples":
        """Those of the rows: a range, or indices."""

    def sha256(self) -> str:
        """A hash of the values in their order, however the file writes them."""


class Batches(Protocol):
    """The endless stream of training batches; batch k is a function of the seed and k alone."""

    batch_size: int
    steps_per_epoch: int

    def batch(self, k: int) -> Tensor:
        """x_0 of batch k, (B, L), on the device."""


class Process(Protocol):
    """A forward process, and what it says of the way back. Members at the end may be None."""

    T: int  # steps
    alpha: Tensor  # (T + 1,) float64 (float32 on MPS) the signal that is left, 1 at t = 0, falling
    signal_to_noise: list[float]  # of x_t at t = 0..T, in power; infinite at 0
    least_bits: float  # per value: a bound is never taken for smaller when a precision is asked for
    output_name: str  # what the network returns, for error messages
    input_name: str  # what x_T is, for error messages

    def output_width(self, length: int) -> int:
        """Numbers that the network returns for a row of L values."""

    def state(self) -> dict:
        """Tensors that a checkpoint must keep beside the config; saved_process takes them back."""

    # --- values

    def to_data(self, x: Tensor) -> np.ndarray:
        """x (..., L) in the data's own units, as the pictures and measures take it."""

    def as_written(self, x: Tensor) -> np.ndarray:
        """The same as the data's file would have it."""

    def mean_as_written(self, mean: Tensor) -> Tensor | np.ndarray:
        """Means of x_0 (..., L) in the data's own units, as Kind.mean_text takes them."""

    # --- forwards and backwards

    def sample_prior(self, u: Tensor) -> Tensor:
        """x_T (B, L) from uniform u (B, L)."""

    def sample_x_t(self, x_0: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """Draws q(x_t | x_0), (B, L). t: (B,) in 0..T."""

    def forward_step(self, x_r: Tensor, r: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """Draws q(x_t | x_r), (B, L). t, r: (B,) with r < t."""

    def reverse_step(self, x_t: Tensor, output: Tensor, t: Tensor, r: Tensor, u: Tensor) -> Tensor:
        """Draws p(x_r | x_t), (B, L), given the network's output for x_t."""

    # --- the bound

    def times(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Times t in 1..T from uniform u and their probabilities P(t), both of u's shape."""

    def step_divergence(
        self, x_0: Tensor, x_t: Tensor, output: Tensor, t: Tensor, r: Tensor
    ) -> Tensor:
        """KL( q(x_r | x_t, x_0) || p(x_r | x_t) ), (B,) bits; at r = 0 -log2 p(x_0 | x_t)."""

    def control_variate(self, x_0: Tensor, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """(B,) bits with mean 0 over x_t ~ q(x_t | x_0) if output does not depend on x_t."""

    # --- evidence: what is known of x_0 from elsewhere; only the process looks inside

    def evidence_of(self, known: Tensor, noise: float = 0.0) -> Tensor:
        """Of observed values (..., L), some of them unknown, seen through noise of this size."""

    def evidence_of_x_0(self, x_0: Tensor) -> Tensor:
        """Evidence that says all of x_0 (..., L)."""

    def evidence_at_0(self, x_0: Tensor, evidence: Tensor) -> Tensor:
        """log p(observed | x_0), (B,) nats."""

    def known_share(self, evidence: Tensor) -> Tensor:
        """How much of x_0 evidence tells, (B,): 0 nothing, 1 all."""

    def look_ahead(self, x_t: Tensor, output: Tensor, evidence: Tensor, t: Tensor) -> Tensor:
        """log p(observed | x_t) as the denoiser sees it, (B,) nats."""

    def guided_step(
        self, x_t: Tensor, output: Tensor, evidence: Tensor, t: Tensor, r: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x_r (B, L) ~ g(x_r | x_t), which leans towards the evidence, and log p / g (B,) nats."""

    # --- what not every process has

    simple_loss: Callable | None  # (x_0, x_t, output, t) -> (B,) to train on, instead of the bound
    deterministic_step: Callable | None  # (x_t, output, t, r) -> x_r without noise (DDIM)
    flips: "Flips | None"  # where values flip between two states
    beside_steps: "BesideSteps | None"  # what the bound holds beside its steps


class Flips(Protocol):
    """What a process of bits knows more: its steps are flips, of bounded probability."""

    def flip_probability(self, x_t: Tensor, output: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """p(x_r != x_t | x_t) for each bit, (B, L)."""

    def max_flip_probability(self) -> Tensor:
        """(T + 1,) the largest that any network can ask for in the step from t to t - 1."""

    def guided_flip(
        self, x_t: Tensor, output: Tensor, evidence: Tensor, t: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """guided_step to t - 1 for single bits that were proposed, all (n,): flip?, log weight."""

    def time_of_channel(self, flip_probability: float) -> int:
        """The first t by which a bit has flipped with at least this probability, in [0, 0.5]."""

    def channel_step(
        self, y: Tensor, output: Tensor, flip_probability: float, r: Tensor, u: Tensor
    ) -> Tensor:
        """Draws p(x_r | y), (B, L), y seen through a channel that flips bits."""


class BesideSteps(Protocol):
    """Terms of the bound that no step holds, and a part of the steps that is known in closed form."""

    def fixed_terms(self, x_0: Tensor) -> Tensor:
        """KL( q(x_T | x_0) || p(x_T) ) and the change of units, (B,) bits."""

    def control(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What may be taken off the term at t, (B,) bits."""

    def control_total(self, x_0: Tensor) -> Tensor:
        """The sum over t of the means of control over x_t, (B,) bits."""


class Measures(Protocol):
    """How samples compare with the data: made once a run, asked at every validation."""

    baselines: dict  # bits a sample without a network, by name; None where there is none
    facts: dict  # more about the data, numbers by name

    def __init__(self, train, val, config: Config, shown):
        """shown: samples of val (of train without val.txt) that generated ones are compared with."""

    def described(self) -> list[Measure]:
        """What is measured, without values."""

    def of(self, samples) -> dict[str, float]:
        """The values of these measures, by name."""

    def statistics(self, samples) -> dict | None:
        """More about the last samples, for Kind's part of report.html."""

    def data_examples(self) -> list:
        """What samples are shown beside, as `examples` has it."""

    def examples(self, samples, count: int) -> list:
        """The first samples, as results.json keeps them."""

    def is_example(self, example) -> bool:
        """Whether that is one of these: a checkpoint may come from anybody."""

    def data_in_short(self) -> str:
        """What there is to say of train.txt beside its size."""


class Kind(Protocol):
    """The face of a kind of data."""

    NAME: str  # what models are of: "bits"
    SAMPLES: str  # what the lines of a file are called, in the plural: "strings"
    UNITS: str  # and what these are made of: "bits"
    NEEDED: str  # what train.txt has to hold
    SEPARATOR: str  # what stands there between the values of a line
    NETWORK: Path | None  # the file with its ReverseModel; None: the package's reverse_model.py
    NETWORKS: tuple[str, ...]  # those in networks/ that are for such data
    OPTIONS: frozenset  # options of the commands that not every kind answers, without dashes
    NOISE_OPTION: str  # the one among them that says how noisy the strings of --denoise are

    REPORT: str  # the template of report.html: templates/report.html with this kind's part

    # --- what a run is made from

    def check_config(self, config: Config, source: str) -> None:
        """Raises UserError for settings that do not go together; source names the file."""

    def read(self, path: Path, config: Config, like: Samples | None = None) -> Samples:
        """The samples of a file, of the length and on the scale of like. Raises UserError."""

    def look_at(self, config: Config, train: Samples, train_txt: Path) -> list[str]:
        """Sets what config leaves to the data; what a person should know of them. Raises UserError."""

    def read_evaluated(self, path: Path, process: Process, config: Config) -> Samples:
        """The samples of a file, on the scale of the process. Raises UserError."""

    def Batches(
        self, samples: Samples, batch_size: int, seed: int, device, shard: tuple[int, int]
    ) -> Batches:
        """The training batches; shard: (rank, world) of several processes."""

    def new_process(self, config: Config, train: Samples, device) -> Process: ...

    def saved_process(self, config: Config, state: dict, length: int, device) -> Process:
        """The process of a checkpoint. Raises ValueError if state is not that of one."""

    def values_in_file(self, state: dict, length: int) -> int:
        """Values in a line of a file, for a model of L values a line. state: that of its process."""

    def network_options(self, config: Config) -> dict:
        """The keyword arguments of ReverseModel."""

    # --- samples

    def pack(self, values: np.ndarray) -> np.ndarray:
        """What Process.to_data returned, as it is kept and sent to other processes."""

    def join(self, parts: list[np.ndarray], length: int):
        """Packed samples as Measures takes them."""

    def Measures(self, train, val, config: Config, shown) -> Measures: ...

    def baseline_bits(self, train: Samples, samples: Samples, fitted_to: str) -> dict:
        """Bits a sample without a model, for evaluate; fitted_to names train."""

    # --- questions to a model

    def parse_pattern(self, text: bytes, length: int, place: str) -> np.ndarray:
        """(L,) what is known of a sample. Raises UserError that begins with place."""

    def read_patterns(self, path: Path, length: int) -> np.ndarray:
        """(M, L) of a file with one pattern a line. Raises UserError."""

    def are_known(self, patterns: Tensor) -> Tensor:
        """(M, L) bool: what of the patterns is not asked for."""

    def all_but_impossible(self, process: Process, known: Tensor) -> Tensor:
        """From how many bits on -log2 p(known) says that something is wrong, (M,). known: (M, L)."""

    def to_text(self, values: np.ndarray) -> bytes:
        """(N, L) as written -> N lines."""

    def mean_text(self, mean) -> bytes:
        """(N, L) of Process.mean_as_written -> N lines."""

    # --- pictures

    def most_drawn(self, length: int) -> int:
        """Samples of L values that a picture shows: their states are all in memory at once."""

    def training_frames(
        self, examples: list[list], epochs: list[float], config: Config, train: Samples
    ) -> np.ndarray:
        """(F, H, W) or (F, H, W, 3) uint8: samples (as Measures.examples) of some validations."""

    def draw_model(
        self, diffusion, config: Config, train: Samples, seed: int, folder: Path, poll
    ) -> None:
        """reverse_process.gif, samples from noise to data, and what goes with it."""

    def report(self, results: Results, folder: Path, shape: list[int] | None) -> dict:
        """What that template needs for this kind's part; shape: data.shape."""

    def draw_trajectory(self, diffusion, noise: Noise, config: Config, path: Path, **how):
        """A GIF of samples on their way from noise. how: as in sampling.trajectory."""


KINDS: dict[str, Kind] = {"bernoulli": bits, "gaussian": numbers}


def kind_of(config: Config) -> Kind:
    """bits or numbers, as model.process says."""
    return KINDS[config.model.process]


def refuse_options_of_others(kind: Kind, given: Iterable[str]) -> None:
    """Raises UserError if one of the given options (without dashes) is for another kind of data."""
    for option in given:
        for other in KINDS.values():
            if option in other.OPTIONS and option not in kind.OPTIONS:
                cure = f": --{kind.NOISE_OPTION}" if option == other.NOISE_OPTION else ""
                raise UserError(
                    f"--{option}: for models of {other.NAME}; this one is of {kind.NAME}{cure}"
                )
