"""Checkpoints: one file, tensors and plain Python only, written whole or not at all.

Loaded with weights_only=True and never otherwise, then checked before anything is built from it.
"""

import copy
import dataclasses
import io
import math
import os
import pickle
import re
import warnings
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from .. import config as config_module
from ..config import Config
from ..diffusion import Diffusion
from ..kinds import KINDS, kind_of
from ..system.errors import RunError, UserError, cannot_open, printable
from ..system.files import write_atomically
from . import trust
from .network import FORMER, PACKAGE_FILE, Ensemble, Source, build, live_source, packaged_sources
from .soundness import ENSEMBLE_VERSION, FORMAT_VERSION, all_finite, check_archive, find_problem

BEST = "model_best.pt"  # the weights with the best bound so far


def save(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint. Raises RunError if its weights are not finite, OSError if it cannot."""
    if not all_finite(checkpoint["weights"]) or not all_finite(checkpoint["averaged_weights"]):
        raise RunError(f"{path}: not written, the weights are not finite")
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **checkpoint}, buffer)
    write_atomically(path, buffer.getvalue())


def members_of(checkpoint: dict) -> list[tuple[dict, float]]:
    """The members of an ensemble and their shares; of any other checkpoint itself alone."""
    if "members" not in checkpoint:
        return [(checkpoint, 1.0)]
    return list(zip(checkpoint["members"], checkpoint["shares"], strict=True))


def ensemble_of(members: list[tuple[dict, float]], first: dict) -> dict:
    """The checkpoint of an ensemble of single checkpoints and their shares, which add up to 1.

    A member keeps its averaged weights alone. first: the member whose config, results and whatever else
    concerns the data stand for all.
    """
    empty = {"optimizer": {}, "epoch_losses": []}
    parts = [
        {**member, **empty, "results": "{}", "weights": member["averaged_weights"]}
        for member, _ in members
    ]
    return {
        **first,
        **empty,
        "format_version": ENSEMBLE_VERSION,
        "weights": {},
        "averaged_weights": {},
        "members": parts,
        "shares": [share for _, share in members],
    }


def by_age(folder: Path) -> list[Path]:
    """The model_epoch_<n>[_step_<k>].pt of a folder, the earliest in training first."""
    found = []
    for path in folder.glob("model_epoch_*.pt"):
        numbers = re.fullmatch(r"model_epoch_(\d+)(?:_step_(\d+))?", path.stem)
        if numbers:
            found.append((int(numbers[1]), int(numbers[2] or 0), path))
    return [path for *_, path in sorted(found)]


def load(path: Path) -> dict:
    """Read and check a checkpoint; runs no code from it. Raises UserError if it is not sound."""
    path = Path(path)
    try:
        with open(path, "rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            size = os.fstat(stream.fileno()).st_size
            check_archive(stream, size, path)
            stream.seek(0)
            checkpoint = torch.load(stream, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise cannot_open(path, error, "expected a checkpoint such as model_best.pt") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors and plain Python; it was not made by this program"
            " and is not opened"
        ) from None
    except Exception as error:  # whatever the unpickler says of a damaged file
        raise UserError(
            printable(f"{path}: not a sound checkpoint: {_first_line(error)}")
        ) from None
    problem = find_problem(checkpoint, size)
    if problem:
        raise UserError(printable(f"{path}: {problem}"))
    return checkpoint


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def config_of(checkpoint: dict, path: Path) -> Config:
    """The configuration that the checkpoint was trained with."""
    return copy.deepcopy(_parsed(checkpoint["config"], f"{path} (config)"))


@lru_cache  # an ensemble's members have the same few, and each is asked for several times
def _parsed(config: str, source: str) -> Config:
    return config_module.parse_config(config, source)


def find(path: Path) -> Path:
    """The checkpoint that is meant by path: itself or, of a folder, the one to be recommended.

    The folder may be a run folder, whose latest results are meant, or a results folder. Raises
    UserError if there is no trained model in it.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    folders = [path, path / "checkpoints"]
    folders += [p / "checkpoints" for p in reversed(by_start(path / "results"))]
    for folder in folders:
        if (folder / BEST).is_file():
            return folder / BEST
    raise UserError(
        f"{path}: no trained model in this folder; expected a checkpoint such as"
        f" RUN_DIR/results/<time>/checkpoints/{BEST}, or the folder of a run"
    )


def by_start(folder: Path) -> list[Path]:
    """The results folders in a folder in the order in which their runs were started.

    Their names say when: what is written into them later does not matter.
    """

    def start(path: Path) -> tuple:
        stamp = re.fullmatch(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_(\d+))?", path.name)
        return (1, stamp[1], int(stamp[2] or 1)) if stamp else (0, path.name, 0)

    return sorted((p for p in folder.glob("*") if p.is_dir()), key=start)


def run_dir_of(path: Path) -> Path | None:
    """The run folder of RUN_DIR/results/<time>/checkpoints/<name>.pt, if path is of this form."""
    parents = Path(path).resolve().parents
    return parents[3] if len(parents) > 3 and parents[2].name == "results" else None


def source_of(checkpoint: dict, path: Path, trust_code: bool, command: str) -> Source:
    """The reverse_model.py to run for this checkpoint: the text that it was trained with.

    Raises UserError unless that is one of the package's, or the user has trained with it on this machine
    or says trust_code: a folder may come from anybody. command: what to type then.
    """
    saved = Source(f"{path} (reverse_model.py)", checkpoint["reverse_model_source"])
    shipped = live_source(None, kind_of(config_of(checkpoint, path)).NETWORK)
    for source in (shipped, *packaged_sources(), *packaged_sources(FORMER)):
        if source.sha256 == saved.sha256:
            return source
    if trust_code or trust.is_known(saved):
        return saved
    raise UserError(
        f"{path}: its network (reverse_model.py, sha256 {saved.sha256[:16]}) is none of this program's,"
        " and nothing was trained with it on this machine; it is a program, and if you trust where it"
        f" comes from: {command}"
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

    weights: "averaged" (as validated) or "raw" (the last training step's); an ensemble has the
    averaged ones alone.
    """
    config = config_of(checkpoint, path)
    L = checkpoint["sequence_length"]
    if config.data.shape and math.prod(config.data.shape) != L:
        raise UserError(f"{path}: not a sound checkpoint: data.shape does not fit sequence_length")
    if "members" in checkpoint:
        members, shares = checkpoint["members"], checkpoint["shares"]
        if any(not is_of_one_kind(checkpoint, member, path) for member in members):
            raise UserError(f"{path}: not a sound checkpoint: its members are of different kinds")
        networks = [_network(m, path, weights, trust_code, command) for m in members]
        model = Ensemble(networks, shares)
    else:
        model = _network(checkpoint, path, weights, trust_code, command)
    try:
        process = kind_of(config).saved_process(config, checkpoint["process_state"], L, device)
    except ValueError as error:
        raise UserError(f"{path}: not a sound checkpoint: {error}") from None
    return Diffusion(process, model.to(device).eval())


def _network(checkpoint: dict, path: Path, weights: str, trust_code: bool, command: str):
    """The trained network of a checkpoint that is no ensemble."""
    source = source_of(checkpoint, path, trust_code, command)
    config = config_of(checkpoint, path)
    L, T = checkpoint["sequence_length"], checkpoint["T"]
    if config.model.T != T:
        raise UserError(
            f"{path}: not a sound checkpoint: T is {T}, but {config.model.T} in its config"
        )
    chosen = checkpoint["averaged_weights" if weights == "averaged" else "weights"]
    check_fit(source, L, config, chosen, path)
    model = build(source, L, T, kind_of(config).network_options(config))
    load_weights(model, chosen, path)
    return model


def is_of_one_kind(one: dict, other: dict, path: Path) -> bool:
    """Whether two checkpoints say the same of the data and the process, so that their networks can work
    together: the lengths, the times, the schedule and what the process knows of the data."""

    def facts(checkpoint: dict) -> tuple:
        model = dataclasses.asdict(config_of(checkpoint, path).model)
        free = "reverse_model", "num_sample_steps"
        settings = {key: value for key, value in model.items() if key not in free}
        return checkpoint["sequence_length"], checkpoint["T"], settings

    states = [checkpoint["process_state"] for checkpoint in (one, other)]
    return (
        facts(one) == facts(other)
        and states[0].keys() == states[1].keys()
        and all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    )


def check_fit(source: Source, L: int, config: Config, weights: dict, path: Path) -> None:
    """Refuse weights that are not the network's, before memory is taken for a network of any size.

    The network is built without memory, on torch's meta device, and building stops as soon as it has
    many more parameters than there are weights; a few more may be, as in sharing two weights one is
    made and thrown away.
    """
    allowed = [4 * len(weights) + 100, 4 * sum(w.numel() for w in weights.values()) + 100]

    def count(_module, _name, parameter) -> None:
        if parameter is not None:
            allowed[0] -= 1
            allowed[1] -= parameter.numel()
        if min(allowed) < 0:
            raise _TooLarge

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build(source, L, config.model.T, kind_of(config).network_options(config))
    except UserError as error:
        if isinstance(error.__cause__, _TooLarge):
            raise UserError(
                f"{path}: the weights do not fit the network: its config describes a larger one"
            ) from None
        if source.path in (PACKAGE_FILE, *(kind.NETWORK for kind in KINDS.values())):
            raise
        # a network of the user's may do things in __init__ that the meta device cannot
    finally:
        hook.remove()


class _TooLarge(Exception):
    """A network has more parameters than there are weights for it."""


def load_fitting(model: torch.nn.Module, weights: dict, path: Path) -> list[str]:
    """Load what of a state dict fits model by name and shape. Returns what was left out on either side.

    Raises UserError if nothing fits.
    """
    own = model.state_dict()
    fitting = {k: w for k, w in weights.items() if k in own and own[k].shape == w.shape}
    if not fitting:
        raise UserError(f"{path}: none of its weights fits this network")
    load_weights(model, own | fitting, path)
    left = []
    for name in sorted(own.keys() | weights.keys()):
        there, here = (tuple(w[name].shape) if name in w else "none" for w in (weights, own))
        if there != here:
            left.append(f"{name} ({there} there, {here} here)")
    return left


def load_weights(model: torch.nn.Module, weights: dict, path: Path) -> None:
    """Load a state dict strictly. Raises UserError if it does not fit the model."""
    try:
        model.load_state_dict(weights, strict=True)
    except Exception as error:  # torch's RuntimeError, or anything from a network's own hooks
        reason = printable(" ".join(str(error).split()))[:300]
        raise UserError(f"{path}: the weights do not fit the network: {reason}") from None
