"""Finding a run that was stopped, and going on with it."""

import copy
import dataclasses
import json
from pathlib import Path

import torch

from . import checkpoint
from .config import Config
from .errors import UserError
from .run_folder import RunFolder, read_run_folder
from .trainer import Trainer

# What may be changed when a run is resumed: when it ends and what is kept, not what is computed.
FREE = {"epochs", "max_minutes", "patience", "save_every_n_epochs", "save_every_minutes"}
FREE |= {"keep_checkpoints"}


def is_finished(results_dir: Path) -> bool:
    """Whether results.json says that the run came to its end."""
    try:
        status = json.loads((results_dir / "results.json").read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return str(status).startswith("finished")


def find_results_dir(run_dir: Path) -> Path:
    """The newest unfinished results folder of a run folder, or the newest if all are finished."""
    found = [p for p in (run_dir / "results").glob("*") if checkpoint.by_age(p / "checkpoints")]
    if not found:
        raise UserError(
            f"{run_dir / 'results'}: no run with a checkpoint to resume; start one without --resume"
        )
    found.sort(key=lambda p: (p.stat().st_ctime_ns, p.name))
    unfinished = [p for p in found if not is_finished(p)]
    return (unfinished or found)[-1]


def resume(
    run_dir: Path,
    results_dir: Path | None,
    overrides: list[str],
    device: torch.device,
    *,
    quiet: bool,
    trust_code: bool,
    command: str,
) -> Trainer:
    """A Trainer that stands where the last checkpoint of results_dir was written.

    Raises UserError if there is none, if an override conflicts with the run's config, if the data
    have changed, or if reverse_model.py has and trust_code is not given (command: what to type).
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such folder; expected a folder that holds train.txt")
    results_dir = results_dir or find_results_dir(run_dir)
    path, saved = _last_checkpoint(results_dir)
    config = checkpoint.config_of(saved, path)
    kept = copy.deepcopy(config)
    folder = read_run_folder(run_dir, overrides, config)
    _refuse_conflicts(kept, folder.config, path)
    _refuse_changed_data(folder, json.loads(saved["results"]), results_dir)
    folder.source = checkpoint.source_of(saved, path, trust_code, command)
    for key in ("weights", "averaged_weights"):
        checkpoint.check_fit(folder.source, folder.train.length, config, saved[key], path)
    trainer = Trainer(folder, device, quiet=quiet)
    try:
        trainer.resume(results_dir, saved)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: cannot be resumed: {reason}") from None
    return trainer


def _last_checkpoint(results_dir: Path) -> tuple[Path, dict]:
    paths = checkpoint.by_age(results_dir / "checkpoints")
    if not paths:
        raise UserError(
            f"{results_dir}: no checkpoint to resume from (checkpoints/model_epoch_*.pt)"
        )
    return paths[-1], checkpoint.load(paths[-1])


def _refuse_conflicts(kept: Config, asked: Config, path: Path) -> None:
    conflicts = []
    for section in dataclasses.fields(Config):
        old, new = getattr(kept, section.name), getattr(asked, section.name)
        for key in dataclasses.fields(old):
            before, after = getattr(old, key.name), getattr(new, key.name)
            if before != after and key.name not in FREE:
                conflicts.append(
                    f"{section.name}.{key.name}: {path} was trained with {before}, not {after};"
                    " leave this option out, or start a new run without --resume"
                )
    if conflicts:
        raise UserError("\n".join(conflicts))


def _refuse_changed_data(folder: RunFolder, results: dict, results_dir: Path) -> None:
    for name, strings in (("train", folder.train), ("val", folder.val)):
        file = folder.path / f"{name}.txt"
        before = results["data"][name]
        if (before and before["sha256"]) != (strings and strings.sha256()):
            what = "appeared" if not before else "gone" if not strings else "changed"
            raise UserError(
                f"{file}: {what} since {results_dir} was started; put the old file back, or start a"
                " new run without --resume"
            )
