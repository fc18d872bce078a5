"""Finding a run that was stopped, and going on with it."""

import copy
import dataclasses
import math
import shlex
from pathlib import Path

import torch

from .. import config as config_module
from ..config import Config
from ..results import record
from ..results.record import Results
from ..system.errors import UserError, printable
from ..system.files import lock
from . import checkpoint
from .distributed import ALONE, Processes
from .network import FILE_NAME, live_source
from .plan import RECIPE_NUMBERS, Recipe
from .run_folder import RunFolder, file_sha256, read_run_folder
from .soundness import tensors_problem
from .trainer import Trainer

# What may be changed when a run is resumed: when it ends and what is kept, not what is computed.
FREE = {
    "epochs",
    "max_minutes",
    "patience",
    "save_every_n_epochs",
    "save_every_minutes",
    "keep_checkpoints",
}
RISE = 1.1  # times the learning rate: more is told


def is_finished(results_dir: Path) -> bool:
    """Whether results.json says that the run came to its end."""
    try:
        return record.read(results_dir).status.startswith("finished")
    except UserError:
        return False


def find_results_dir(run_dir: Path, parent: Path | None = None) -> Path:
    """The latest unfinished run of a run folder, or the latest if all are finished.

    parent: where its results folders are, if not in RUN_DIR/results.
    """
    parent = parent or run_dir / "results"
    folders = checkpoint.by_start(parent)
    found = [p for p in folders if checkpoint.by_age(p / "checkpoints")]
    if not found:
        raise UserError(f"{parent}: no run with a checkpoint to resume; start one without --resume")
    unfinished = [p for p in found if not is_finished(p)]
    return (unfinished or found)[-1]


def resume(
    run_dir: Path,
    results_dir: Path | None,
    overrides: list[str],
    device: torch.device,
    *,
    parent: Path | None = None,
    processes: Processes = ALONE,
    quiet: bool,
    tensorboard: bool = False,
    trust_code: bool,
    command: str,
) -> Trainer:
    """A Trainer that stands where the last checkpoint of results_dir was written.

    results_dir: by default the one that find_results_dir finds in parent. Raises UserError if there is
    none, if an override conflicts with the run's config, if the data have changed, or if its network
    may not run without trust_code (command: what to type); RunError if somebody else trains there.
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such folder; expected a folder that holds train.txt")
    results_dir = results_dir or processes.from_first(lambda: find_results_dir(run_dir, parent))
    if processes.is_first and results_dir.is_dir():
        with lock(results_dir):  # whoever trains there is told of before anything is read
            pass
    path, saved = _last_checkpoint(results_dir)
    config = checkpoint.config_of(saved, path)
    kept = copy.deepcopy(config)
    folder = read_run_folder(run_dir, overrides, config)
    _refuse_conflicts(kept, folder.config, path)
    _refuse_changed_data(folder, _data_hashes(saved, path), results_dir)
    folder.source = checkpoint.source_of(saved, path, trust_code, command)
    folder.notes += _edits(folder, kept, saved, overrides)
    for key in ("weights", "averaged_weights"):
        checkpoint.check_fit(folder.source, folder.train.length, config, saved[key], path)
    trainer = Trainer(
        folder, device, quiet=quiet, processes=processes, tensorboard=tensorboard, fresh=False
    )
    problem = _find_problem(saved, trainer)
    if problem:
        raise UserError(f"{path}: not a sound checkpoint: {problem}")
    trainer.resume(path, saved)
    folder.notes += _warm_again(trainer, kept, saved)
    if not is_finished(results_dir):  # it was killed while it wrote the last files
        trainer.results.status = "running"
    return trainer


def _warm_again(trainer: Trainer, kept: Config, saved: dict) -> list[str]:
    """More epochs or minutes: let the learning rate rise from where it is, and say so if it is much."""
    plan, training, step = trainer.loop.plan, trainer.training, trainer.step
    before = type(plan)(kept.training, plan.steps_per_epoch)
    before.load(saved)
    rate = before.learning_rate(step)
    if isinstance(plan, Recipe) and plan.anneal_from:
        plan.go_on(step, kept.training)
    plan.warm_again(step, rate)
    goal = plan.learning_rate(step + training.warmup_steps)
    if plan.warm_from != step or goal <= RISE * rate:
        return []
    changed = [
        f"training.{key}: {'null' if now is None else now}, not {then} any more"
        for key, now, then in (
            ("epochs", training.epochs, kept.training.epochs),
            ("max_minutes", training.max_minutes, kept.training.max_minutes),
        )
        if now != then
    ]
    return [
        f"{', '.join(changed)}: the learning rate rises again from {rate:.2g} to {goal:.2g} over"
        f" {training.warmup_steps:,} steps (training.warmup_steps), and then falls until the new end"
    ]


def _edits(folder: RunFolder, kept: Config, saved: dict, overrides: list[str]) -> list[str]:
    """What has been edited in the run folder since the start, and that it does not count."""
    notes, file = [], folder.path / "config.yaml"
    if record.from_text(saved["results"]).config_sha256 != file_sha256(file):
        asked = {override.partition("=")[0].strip() for override in overrides}
        try:
            edited = config_module.load_config(file)
            names = sorted(config_module.keys_in(file) - asked)
        except UserError as error:
            return [str(error)]
        for name in names:
            section, key = name.split(".")
            here, there = (getattr(getattr(c, section), key) for c in (edited, kept))
            if here == there:
                continue
            cure = "with which it was started; for the other, start a new run without --resume"
            if key in FREE:
                cure = f"--set {name}={here} asks for the other"
            notes.append(f"{file}: {name}: {here}, but this run goes on with {there}, {cure}")
    own = folder.path / FILE_NAME
    if own.exists() and live_source(folder.path).sha256 != folder.source.sha256:
        notes.append(
            f"{own}: edited since the run was started, which goes on with what it was then"
        )
    return notes


def _find_problem(saved: dict, trainer: Trainer) -> str | None:
    """What of a checkpoint's progress does not fit the run, or None: anybody may have made it."""
    epoch, steps = divmod(saved["step"], trainer.loop.batches.steps_per_epoch)
    if saved["epoch"] != epoch or not _are_numbers(saved["epoch_losses"], steps):
        return "step, epoch and epoch_losses do not fit each other"
    if not _is_optimizer_state(saved["optimizer"].get("state"), trainer):
        return "optimizer does not fit the network"
    follows_recipe = isinstance(trainer.loop.plan, Recipe)
    if not (_is_recipe(saved) if follows_recipe else saved["recipe"] == saved["best"] == {}):
        return "recipe and best are not those of such a run"
    try:
        sound = _is_history(record.from_text(saved["results"]), epoch, trainer)
    except ValueError:
        sound = False
    return None if sound else "results are not those of such a run"


def _is_recipe(saved: dict) -> bool:
    """Whether a checkpoint says how far the recipe is, and what it goes back to."""
    recipe, best = saved["recipe"], saved["best"]
    if recipe.keys() != set(RECIPE_NUMBERS) or any(type(n) is not int for n in recipe.values()):
        return False
    if any(abs(n) > 2**62 for n in recipe.values()) or recipe["anneal_steps"] < 0:
        return False
    if bool(recipe["anneal_from"]) != bool(recipe["anneal_steps"]):
        return False
    if not best:
        return saved["step"] == 0
    if best.keys() != {"weights", "averaged_weights", "bits"}:
        return False
    if tensors_problem({"bits": best["bits"]}) or best["bits"].dim() != 1:
        return False
    return all(
        type(best[key]) is dict
        and best[key].keys() == saved[key].keys()
        and tensors_problem(best[key]) is None
        and all(best[key][name].shape == w.shape for name, w in saved[key].items())
        for key in ("weights", "averaged_weights")
    )


def _is_optimizer_state(state, trainer: Trainer) -> bool:
    """Whether state holds AdamW's two moments and step of some of the parameters."""
    parameters = trainer.loop.optimizer.parameters
    if type(state) is not dict or not state.keys() <= set(range(len(parameters))):
        return False
    for index, entry in state.items():
        shape = parameters[index].shape
        shapes = {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}
        if type(entry) is not dict or entry.keys() != shapes.keys():
            return False
        if tensors_problem(entry) or any(entry[k].shape != s for k, s in shapes.items()):
            return False
    return True


def _is_history(results: Results, epoch: int, trainer: Trainer) -> bool:
    """Whether results are those of this run so far: of its data, with all their numbers."""
    fresh = trainer.results
    names = {measure.name for measure in results.measures}
    return (
        (results.length, results.process, results.num_val_samples)
        == (fresh.length, fresh.process, fresh.num_val_samples)
        and names <= {measure.name for measure in fresh.measures}
        and len(results.losses) == epoch
        and record.is_finite(results)
        and (results.best_epoch is None or 0 <= results.best_epoch <= epoch + 1)
        and all(_are_examples(strings, trainer) for strings in results.examples_per_epoch)
    )


def _are_numbers(values: list, count: int) -> bool:
    """Whether values are count finite numbers."""
    return len(values) == count and all(
        type(v) in (int, float) and math.isfinite(v) for v in values
    )


def _are_examples(strings, trainer: Trainer) -> bool:
    training = trainer.training
    count = min(training.num_examples, training.num_val_samples)
    return (
        type(strings) is list
        and len(strings) == count
        and all(map(trainer.validator.measures.is_example, strings))
    )


def _last_checkpoint(results_dir: Path) -> tuple[Path, dict]:
    paths = checkpoint.by_age(results_dir / "checkpoints")
    if not paths:
        problem = "no checkpoint to resume from (checkpoints/model_epoch_*.pt)"
        if results_dir.is_file():
            quoted = shlex.quote(str(results_dir))
            problem = (
                f"expected a results folder; to begin with a checkpoint's weights: --from {quoted}"
            )
        elif (results_dir / "results").is_dir():
            problem = "a run folder; --resume alone goes on with its newest run"
        raise UserError(f"{results_dir}: {problem}")
    try:
        return paths[-1], checkpoint.load(paths[-1])
    except UserError as error:
        cure = f"; remove it to go on from {paths[-2]}" if len(paths) > 1 else ""
        raise UserError(f"{error}{cure}") from None


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


def _data_hashes(saved: dict, path: Path) -> dict[str, str | None]:
    try:
        data = record.from_text(saved["results"]).data
    except ValueError as error:
        raise UserError(f"{path}: not a sound checkpoint: results: {printable(error)}") from None
    return {"train": data.train.sha256, "val": data.val and data.val.sha256}


def _refuse_changed_data(folder: RunFolder, hashes: dict, results_dir: Path) -> None:
    for name, strings in (("train", folder.train), ("val", folder.val)):
        file = folder.path / f"{name}.txt"
        if hashes[name] != (strings and strings.sha256()):
            what = "appeared" if not hashes[name] else "gone" if not strings else "changed"
            raise UserError(
                f"{file}: {what} since {results_dir} was started; put the old file back, or start a"
                " new run without --resume"
            )
