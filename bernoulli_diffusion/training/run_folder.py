"""A run folder: train.txt, val.txt, config.yaml and perhaps reverse_model.py, read and checked."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from .. import config as config_module
from ..bits.data import BitStrings
from ..config import Config
from ..kinds import kind_of
from ..numbers.data import RealVectors
from ..system.errors import UserError
from .network import Source, live_source

TARGET_STEPS = 10_000
TARGET_VALIDATIONS = 20

# Data that are too large to ship, and the command that makes them.
GENERATED = {"multiples_of_5": "python -m bernoulli_diffusion.datasets multiples"}


@dataclass
class RunFolder:
    """Everything a training run is made from. val is None without val.txt."""

    path: Path
    config: Config
    train: BitStrings | RealVectors
    val: BitStrings | RealVectors | None
    source: Source


def read_run_folder(
    path: str | Path, overrides: list[str] = (), config: Config | None = None
) -> RunFolder:
    """Read and check a run folder; overrides are train.py's --set assignments.

    config takes the place of the folder's config.yaml. Raises UserError naming file, line and cure.
    """
    path = Path(path)
    if not path.is_dir():
        what = "this is a file" if path.exists() else "no such folder"
        raise UserError(f"{path}: {what}; expected a folder that holds train.txt")
    if config is None:
        config = config_module.load_config(path / "config.yaml")
    config_module.apply_overrides(config, list(overrides))
    kind = kind_of(config)
    kind.check_config(config, str(path / "config.yaml"))
    train = kind.read(_train_file(path, kind.NEEDED), config)
    has_val = (path / "val.txt").exists()
    val = kind.read(path / "val.txt", config, like=train) if has_val else None
    shape = config.data.shape
    if shape and shape[0] * shape[1] != train.length:
        raise UserError(
            f"{path / 'config.yaml'}: data.shape: {shape[0]} x {shape[1]} = {shape[0] * shape[1]},"
            f" but the {kind.SAMPLES} of train.txt have {train.length} {kind.UNITS}"
        )
    fill_defaults(config, len(train))
    return RunFolder(path, config, train, val, live_source(path, kind.NETWORK))


def _train_file(path: Path, needed: str) -> Path:
    file = path / "train.txt"
    if not file.exists():
        command = GENERATED.get(path.resolve().name)
        cure = needed
        if command:
            cure = f"make it with: {command} {shlex.quote(str(path))}"
        raise UserError(f"{file}: no such file; {cure}")
    return file


def fill_defaults(config: Config, num_lines: int) -> None:
    """Replace the settings that depend on the size of the data by numbers."""
    training = config.training
    steps_per_epoch = -(-num_lines // config.data.batch_size)
    if training.epochs is None:
        training.epochs = max(1, round(TARGET_STEPS / steps_per_epoch))
    if training.validate_every_n_epochs is None:
        training.validate_every_n_epochs = max(1, training.epochs // TARGET_VALIDATIONS)
    if training.save_every_n_epochs is None:
        training.save_every_n_epochs = training.validate_every_n_epochs
