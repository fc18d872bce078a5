"""A new run that begins with the weights of another: new data, learning rate, T, a longer schedule."""

import dataclasses
from pathlib import Path

import torch

from ..config import Config
from ..kinds import kind_of
from ..system.errors import UserError
from . import checkpoint
from .network import FILE_NAME
from .run_folder import RunFolder
from .trainer import Trainer

MOST_TOLD = 3  # names of weights


def trainer_from(
    start: Path, folder: RunFolder, device: torch.device, *, trust_code: bool, command: str, **how
) -> Trainer:
    """A Trainer of a fresh run whose weights are the averaged ones of a checkpoint, or of a run's best.

    The network is the checkpoint's, with its options, unless the run folder has one of its own. What
    does not fit is noted in folder.notes. how: as in Trainer. Raises UserError if the checkpoint is of
    other data, nothing of it fits, or its network may not run without trust_code (command: what to
    type).
    """
    path = checkpoint.find(start)
    saved = checkpoint.load(path)
    if "members" in saved:
        raise UserError(f"{path}: an ensemble; expected a checkpoint of one network")
    config = checkpoint.config_of(saved, path)
    _refuse_other_data(folder, config, saved["sequence_length"], path)
    if not (folder.path / FILE_NAME).exists() and not folder.is_network_chosen:
        folder.source = checkpoint.source_of(saved, path, trust_code, command)
    if folder.source.sha256 == saved["reverse_model_sha256"]:
        options = folder.config.model
        options.reverse_model = config.model.reverse_model | options.reverse_model
    trainer = Trainer(folder, device, **how)
    folder.notes += _differences(config, trainer.config, path)
    if left := trainer.start_from(path, saved):
        more = f" and {len(left) - MOST_TOLD:,} more" if len(left) > MOST_TOLD else ""
        folder.notes.append(
            f"{path}: what does not fit begins afresh: {', '.join(left[:MOST_TOLD])}{more}"
        )
    return trainer


def _refuse_other_data(folder: RunFolder, config: Config, length: int, path: Path) -> None:
    kind, other = kind_of(folder.config), kind_of(config)
    if kind is not other:
        raise UserError(f"{path}: a model of {other.NAME}, but this run is of {kind.NAME}")
    if length != folder.train.length:
        raise UserError(
            f"{path}: a model of {length:,} {kind.UNITS}, but the {kind.SAMPLES} of train.txt have"
            f" {folder.train.length:,}; weights are for one length only"
        )


def _differences(there: Config, here: Config, path: Path) -> list[str]:
    """What is said of settings of the model that differ: the weights have learnt with others."""
    differing = [
        f"{key.name} {getattr(there.model, key.name)} there, {getattr(here.model, key.name)} here"
        for key in dataclasses.fields(here.model)
        if key.name not in ("reverse_model", "num_sample_steps")
        and getattr(there.model, key.name) != getattr(here.model, key.name)
    ]
    return [f"{path}: trained with other settings: {', '.join(differing)}"] if differing else []
