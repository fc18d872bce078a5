"""A run folder: train.txt, val.txt, config.yaml and perhaps reverse_model.py, read and checked."""

import copy
import functools
import hashlib
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import config as config_module
from .. import weights
from ..config import Config, DataConfig
from ..kinds import Samples, kind_of
from ..noise import derive_seed
from ..system.errors import UserError
from ..tables import plain
from ..tables.encoding import Encoding, read_columns
from .network import (
    Source,
    configured_network,
    default_network,
    laid_out,
    live_source,
    named_source,
)

CONFIG_LIKE = re.compile(r"config\.(ya?ml|json|toml|txt)", re.IGNORECASE)
DATA_LIKE = re.compile(
    r"\.(txt|csv|tsv|dat|data|arff|json|npy|npz|parquet|gz|zip)$|^[^.]+$", re.IGNORECASE
)
TRAIN_LIKE = re.compile(r"(^|[._-])train(ing)?([._-]|$)", re.IGNORECASE)
VAL_LIKE = re.compile(r"(^|[._-])(val|valid|validation|dev)([._-]|$)", re.IGNORECASE)

HOLD_OUT = 17  # the stream of random numbers, of the run's seed, for what is held out
# Of a run without training.epochs, which may end earlier: enough on two cores for some five minutes.
TARGET_EPOCHS, LEAST_EPOCHS = 60, 3
LEAST_STEPS, MOST_STEPS = 20_000, 60_000
TIMED_STEPS = 10_000_000  # of one that training.max_minutes ends, unless val does
TARGET_VALIDATIONS = 20
MOST_TIMES = 10_000  # drawn for each sample at each step

# Data that are too large to ship, and the command that makes them.
GENERATED = {"multiples_of_5": "python -m bernoulli_diffusion.datasets multiples"}


@dataclass
class RunFolder:
    """Everything a training run is made from. val is None without val.txt if nothing is held out."""

    path: Path
    config: Config
    train: Samples
    val: Samples | None
    source: Source
    notes: list[str] = field(default_factory=list)  # what a person should know of it
    columns: dict = field(default_factory=dict)  # of a table, as checkpoints keep them
    results: Path | None = None  # where results folders go; None: path / "results"
    is_split: bool = False  # val is a part of train.txt
    is_network_chosen: bool = False  # by --network or model.network, not by the kind of data


def read_run_folder(
    path: str | Path,
    overrides: list[str] = (),
    config: Config | None = None,
    network: str | None = None,
) -> RunFolder:
    """Read and check a run folder; overrides are train.py's --set assignments.

    config takes the place of the folder's config.yaml, and network (a file, or a name of the package's)
    that of its reverse_model.py. Raises UserError naming file, line and cure.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(_no_run_folder(path))
    is_new = config is None
    if is_new:
        _refuse_misnamed_config(path)
        config = config_module.load_config(path / "config.yaml")
    written = copy.deepcopy(config)
    config_module.apply_overrides(config, list(overrides))
    kind = kind_of(config)

    def source_of_settings(is_wrong: Callable[[Config], bool]) -> str:
        """What to blame for settings that are wrong: --set, if config.yaml is right without it."""
        if overrides and not is_wrong(written):
            return ", ".join(f"--set {override}" for override in overrides)
        return str(path / "config.yaml")

    kind.check_config(config, source_of_settings(_do_not_go_together))
    notes = []

    def read(file: Path, like: Samples | None = None) -> Samples:
        of_kind = functools.partial(kind.read, config=config, like=like)
        samples, understood = plain.read(file, of_kind, kind.SEPARATOR)
        if samples.weights is not None:
            notes.append(f"{file}: {weights.in_words(samples.weights)}")
        if understood or file.suffix != ".txt":
            what = understood and f"{understood}; "
            notes.append(f"{file}: {what}read as {len(samples):,} {kind.SAMPLES}")
        return samples

    train = read(_train_file(path, kind.NEEDED))
    val_txt = data_file(path, "val") or path / "val.txt"
    has_val = val_txt.exists()
    val = read(val_txt, like=train) if has_val else None

    def is_other_shape(config: Config) -> bool:
        shape = config.data.shape
        return bool(shape) and math.prod(shape) != train.length

    if is_other_shape(config):
        sides = " x ".join(map(str, config.data.shape))
        raise UserError(
            f"{source_of_settings(is_other_shape)}: data.shape: {sides} ="
            f" {math.prod(config.data.shape)},"
            f" but the {kind.SAMPLES} of train.txt have {train.length} {kind.UNITS}"
        )
    notes += [] if has_val else _misnamed_val(path)
    if is_new and config.data.hold_out is None:
        config.data.hold_out = 0.0 if has_val else _share_to_hold_out(len(train))
    is_split = not has_val and bool(config.data.hold_out) and len(train) > 1
    if is_split:  # a run of before this key has None and holds nothing out
        train, val = _split(train, config)
        notes.append(
            f"{path / 'val.txt'}: not there; {len(val):,} {kind.SAMPLES} of train.txt, drawn at random,"
            " are held out in its place (data.hold_out)"
        )
    if is_new:
        notes += kind.look_at(config, train, path / "train.txt")
        notes += _fit_batch(config, len(train), kind.SAMPLES)
    fill_defaults(config, len(train))
    columns = read_columns(path, train.length)
    if network:
        source = named_source(network, default_network(config, is_table=bool(columns)))
    else:
        source = live_source(path, configured_network(config, is_table=bool(columns)))
    if columns:
        known = {"columns": Encoding.of_state(columns).layout()}
        config.model.reverse_model = laid_out(source, config.model.reverse_model, **known)
    how = {"is_split": is_split, "is_network_chosen": bool(network or config.model.network)}
    return RunFolder(path, config, train, val, source, notes, columns, **how)


def _share_to_hold_out(num_lines: int) -> float:
    return 0.0 if num_lines < 100 else 0.1 if num_lines < 20_000 else 0.05


def _split(train, config: Config):
    """train without a random part of it, and that part: the same ones for the same seed."""
    count = max(1, round(config.data.hold_out * len(train)))
    rng = np.random.default_rng(derive_seed(config.training.seed, HOLD_OUT))
    order = rng.permutation(len(train))
    rest, held_out = np.sort(order[count:]), np.sort(order[:count])
    train, val = train.part(rest), train.part(held_out)
    for part in (train, val):
        if part.weights is not None and not part.weights.any():
            raise UserError(
                "data.hold_out: all weights of a part are 0; name held-out samples in val.txt instead"
            )
    return train, val


def _do_not_go_together(config: Config) -> bool:
    try:
        kind_of(config).check_config(config, "")
    except UserError:
        return True
    return False


def _no_run_folder(path: Path) -> str:
    """What is wrong with a path that is no folder, and what was probably meant."""
    expected = "expected a folder that holds train.txt"
    if not path.exists():
        return f"{path}: no such folder; {expected}"
    quoted = shlex.quote(str(path))
    if path.name == "train.txt":
        meant = f"its folder is the run folder: {shlex.quote(str(path.parent))}"
    elif path.suffix == ".pt":
        meant = f"{expected}; to begin with the weights of a checkpoint: RUN_DIR --from {quoted}"
    else:
        meant = f"{expected}; a table: {plain.PREPARE} {quoted} RUN_DIR"
    return f"{path}: this is a file; {meant}"


def _names(path: Path, pattern: re.Pattern) -> list[str]:
    """The files in a folder that may be data and whose names hold the pattern."""
    names = (p.name for p in path.iterdir() if p.is_file())
    return sorted(name for name in names if pattern.search(name) and DATA_LIKE.search(name))


def _refuse_misnamed_config(path: Path) -> None:
    """Raise UserError for a config.yml: its settings would be lost without a word."""
    if (path / "config.yaml").exists():
        return
    for name in sorted(p.name for p in path.iterdir()):
        if CONFIG_LIKE.fullmatch(name):
            raise UserError(f"{path / name}: settings are read from config.yaml alone; rename it")


def _misnamed_val(path: Path) -> list[str]:
    names = [name for name in _names(path, VAL_LIKE) if not TRAIN_LIKE.search(name)]
    return [
        f"{path / name}: not read; samples that are held out are read from val.txt alone"
        for name in names[:1]
    ]


def data_file(path: Path, part: str) -> Path | None:
    """A folder's train.txt (part: "train"), or the one file there that differs in the ending alone."""
    if (path / f"{part}.txt").exists():
        return path / f"{part}.txt"
    others = [p for p in path.glob(f"{part}.*") if p.is_file() and DATA_LIKE.search(p.name)]
    return others[0] if len(others) == 1 else None


def _train_file(path: Path, needed: str) -> Path:
    file = path / "train.txt"
    if found := data_file(path, "train"):
        return found
    if command := GENERATED.get(path.resolve().name):
        cure = f"make it with: {command} {shlex.quote(str(path))}"
    elif (path / "results.json").is_file():
        above = path.resolve().parent
        run_dir = shlex.quote(str(above.parent)) if above.name == "results" else "RUN_DIR"
        cure = f"this is a results folder; to go on with it: {run_dir} --resume {shlex.quote(str(path))}"
    elif found := _names(path, TRAIN_LIKE) or _names(path, re.compile("^(?!val)")):
        there = ", ".join(found[:3])
        table = shlex.quote(str(path / found[0]))
        cure = (
            f"there is {there}: rename it if it holds {needed}, or turn a table into a run folder:"
            f" {plain.PREPARE} {table} RUN_DIR"
        )
    elif inside := sorted(path.glob("*/train.txt")):
        cure = f"a folder of run folders? One is {inside[0].parent}"
    elif data_file(path.parent, "train"):
        cure = f"the run folder is {path.parent}"
    else:
        cure = f"expected {needed}"
    raise UserError(f"{file}: no such file; {cure}")


def file_sha256(path: Path) -> str | None:
    """A hash of the file's contents; None if there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _fit_batch(config: Config, num_lines: int, samples: str) -> list[str]:
    """Let a batch be no larger than the data: instead of copies, more times t for each of them."""
    asked, model = config.data.batch_size, config.model
    if asked <= num_lines:
        return []
    config.data.batch_size = num_lines
    model.num_sample_steps = min(MOST_TIMES, model.num_sample_steps * (asked // num_lines))
    if asked == DataConfig().batch_size:
        return []  # nobody asked for it
    return [
        f"data.batch_size: {asked:,} is more than the {num_lines:,} {samples} of train.txt; every step"
        f" takes all of them, with {model.num_sample_steps:,} times t each (model.num_sample_steps)"
    ]


def fill_defaults(config: Config, num_lines: int) -> None:
    """Replace the settings that depend on the size of the data by numbers."""
    training = config.training
    steps_per_epoch = -(-num_lines // config.data.batch_size)
    if training.lr_schedule is None:
        training.lr_schedule = "cosine" if training.epochs else "adaptive"
    if training.epochs is None:
        steps = min(max(LEAST_STEPS, TARGET_EPOCHS * steps_per_epoch), MOST_STEPS)
        if training.lr_schedule == "adaptive" and training.max_minutes:
            steps = TIMED_STEPS
        training.epochs = max(LEAST_EPOCHS, round(steps / steps_per_epoch))
    if training.lr_schedule == "adaptive":
        return  # validations and checkpoints follow the looks at val
    if training.validate_every_n_epochs is None:
        training.validate_every_n_epochs = max(1, training.epochs // TARGET_VALIDATIONS)
    if training.save_every_n_epochs is None:
        training.save_every_n_epochs = training.validate_every_n_epochs
