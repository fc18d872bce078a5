"""Checkpoints: one file, tensors and plain Python only, written whole or not at all.

Loaded with weights_only=True and never otherwise, then checked before anything is built from it.
"""

import io
import pickle
import zipfile
from pathlib import Path

import torch

from . import config as config_module
from .architecture import Source, build, live_source
from .config import Config
from .diffusion import Diffusion
from .errors import RunError, UserError, cannot_open, printable
from .files import write_atomically
from .forward_process import BernoulliProcess

FORMAT_VERSION = 1

# Every key of a checkpoint and its type. "weights" and "averaged_weights" are state dicts.
KEYS = {
    "format_version": int,
    "config": str,  # config.yaml, resolved
    "sequence_length": int,
    "T": int,
    "reverse_model_source": str,
    "reverse_model_sha256": str,
    "weights": dict,
    "averaged_weights": dict,
    "optimizer": dict,
    "epoch": int,  # epochs completed
    "step": int,  # steps completed; with the seed, all there is to the random state
    "epoch_losses": list,  # of the steps of the epoch that is under way
    "best_bound": float,
    "validations_without_progress": int,
    "seconds": float,
    "results": dict,  # results.json as of this checkpoint
}


def save(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint. Raises RunError if its weights are not finite, OSError if it cannot."""
    if not all_finite(checkpoint["weights"]) or not all_finite(checkpoint["averaged_weights"]):
        raise RunError(f"{path}: not written, the weights are not finite")
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **checkpoint}, buffer)
    write_atomically(path, buffer.getvalue())


def all_finite(weights: dict) -> bool:
    return all(w.isfinite().all() for w in weights.values() if w.is_floating_point())


def load(path: Path) -> dict:
    """Read and check a checkpoint; runs no code from it. Raises UserError if it is not sound."""
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise UserError(f"{path}: not a checkpoint, or one that was cut short")
            stream.seek(0)
            checkpoint = torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:
        raise cannot_open(path, error, "expected a checkpoint such as model_best.pt") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors and plain Python; it was not made by this program"
            " and is not opened"
        ) from None
    except Exception as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        raise UserError(f"{path}: not a sound checkpoint: {reason}") from None
    problem = _find_problem(checkpoint)
    if problem:
        raise UserError(printable(f"{path}: {problem}"))
    return checkpoint


def _find_problem(checkpoint) -> str | None:
    if not isinstance(checkpoint, dict) or "format_version" not in checkpoint:
        return "not a checkpoint of this program"
    version = checkpoint["format_version"]
    if version != FORMAT_VERSION:
        return f"a checkpoint of format {version!r}, this program reads format {FORMAT_VERSION}"
    for key, kind in KEYS.items():
        if key not in checkpoint:
            return f"not a sound checkpoint: {key} is missing"
        if type(checkpoint[key]) is not kind:
            return f"not a sound checkpoint: {key} is not of type {kind.__name__}"
    for key in ("weights", "averaged_weights"):
        if not all(isinstance(w, torch.Tensor) for w in checkpoint[key].values()):
            return f"not a sound checkpoint: {key} holds something that is not a tensor"
        if not all_finite(checkpoint[key]):
            return f"not a sound checkpoint: {key} are not finite"
    return None


def config_of(checkpoint: dict, path: Path) -> Config:
    """The configuration that the checkpoint was trained with."""
    return config_module.parse_config(checkpoint["config"], f"{path} (config)")


def run_dir_of(path: Path) -> Path | None:
    """The run folder of RUN_DIR/results/<time>/checkpoints/<name>.pt, if path is of this form."""
    parents = Path(path).resolve().parents
    return parents[3] if len(parents) > 3 and parents[2].name == "results" else None


def source_of(checkpoint: dict, path: Path, trust_code: bool, command: str) -> Source:
    """The reverse_model.py to run for this checkpoint.

    The live file (the run folder's, or the package's) if it is the one the checkpoint was trained
    with; else the text in the checkpoint, but only if the user says so. command: what to type then.
    """
    saved = Source(f"{path} (reverse_model.py)", checkpoint["reverse_model_source"])
    candidates = [live_source(None)]
    if run_dir := run_dir_of(path):
        candidates.insert(0, live_source(run_dir))
    for live in candidates:
        if live.sha256 == saved.sha256:
            return live
    if trust_code:
        return saved
    live = candidates[0]
    raise UserError(
        f"{path}: was trained with another reverse_model.py (sha256 {saved.sha256[:16]}) than"
        f" {live.path} (sha256 {live.sha256[:16]}); to run the code inside the checkpoint, if you"
        f" trust where it comes from: {command}"
    )


def restore(
    checkpoint: dict,
    path: Path,
    *,
    weights: str = "averaged",
    trust_code: bool = False,
    command: str = "add --trust-code",
    device: torch.device | str = "cpu",
) -> Diffusion:
    """The trained Diffusion of a loaded checkpoint, in eval mode on device.

    weights: "averaged" (as validated) or "raw" (the last training step's).
    """
    source = source_of(checkpoint, path, trust_code, command)
    config = config_of(checkpoint, path)
    L, T = checkpoint["sequence_length"], checkpoint["T"]
    if config.model.T != T:
        raise UserError(f"{path}: not a sound checkpoint: T is {T}, but {config.model.T} in its config")
    model = build(source, L, T, config.model.reverse_model)
    load_weights(model, checkpoint["averaged_weights" if weights == "averaged" else "weights"], path)
    return Diffusion(BernoulliProcess(T, device), model.to(device).eval())


def load_weights(model: torch.nn.Module, weights: dict, path: Path) -> None:
    """Load a state dict strictly. Raises UserError if it does not fit the model."""
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise UserError(f"{path}: the weights do not fit the network: {reason}") from None
