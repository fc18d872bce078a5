"""What a checkpoint file must be to be believed: it may come from anybody."""

import hashlib
import math
import pickletools
import zipfile
from pathlib import Path

import torch

from ..bits.data import MAX_LENGTH
from ..system.errors import UserError

FORMAT_VERSION = 1
# of a checkpoint that has "members", each of FORMAT_VERSION, and their "shares"
ENSEMBLE_VERSION = 2
MAX_NESTING = 100  # of tuples; a key a few hundred thousand deep would crash Python

# Every key of a checkpoint and its type. "weights" and "averaged_weights" are state dicts.
KEYS = {
    "format_version": int,
    "config": str,  # config.yaml, resolved
    "sequence_length": int,
    "T": int,
    "process_state": dict,  # tensors that the process needs beside the config; none for bits
    "columns": dict,  # of a table (tables.Encoding.state); empty for other data
    "reverse_model_source": str,
    "reverse_model_sha256": str,
    "weights": dict,
    "averaged_weights": dict,
    "optimizer": dict,
    "usual_norm": float,  # of the gradient, by which an unusual one is told
    "epoch": int,  # epochs completed
    "step": int,  # steps completed; with the seed, all there is to the random state
    "epoch_losses": list,  # of the steps of the epoch that is under way
    "best_bound": float,
    "validations_without_progress": int,
    "warm_from": int,  # the step from which the learning rate rises, ...
    "warm_rate": float,  # ... and from what: of a run that got more epochs
    "recipe": dict,  # of training that follows val: the numbers that it remembers ...
    "best": dict,  # ... and the weights it goes back to
    "seconds": float,
    "results": str,  # results.json as of this checkpoint
}


def all_finite(weights: dict) -> bool:
    return all(w.isfinite().all() for w in weights.values() if w.is_floating_point())


def check_archive(stream, size: int, path: Path) -> None:
    """Refuse what torch.save does not write, before torch reads it, and what does not fit its CRC.

    Compressed entries could be a thousand times larger than the file.
    """
    strange = UserError(f"{path}: not a checkpoint of this program")
    try:
        if stream.read(4) != b"PK\3\4":  # torch would take it for a file of 2019
            raise zipfile.BadZipFile
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            pickles = [e for e in entries if e.filename.lower().endswith(".pkl")]
            compressed = any(e.compress_type != zipfile.ZIP_STORED for e in entries)
            if compressed or sum(e.file_size for e in entries) > size or len(pickles) != 1:
                raise strange
            if damaged := archive.testzip():
                raise UserError(f"{path}: damaged (in {damaged})")
            if _nesting(archive.read(pickles[0])) > MAX_NESTING:
                raise strange
    except (UserError, OSError, MemoryError):
        raise
    except Exception:  # zipfile and pickletools have many ways to say it
        raise UserError(f"{path}: not a checkpoint, or one that was cut short") from None


def _nesting(data: bytes) -> int:
    """How deep the tuples of a pickle stand in each other, found without building anything."""
    stack, memo, deepest = [], {}, 0  # of depths; None is a mark
    for opcode, argument, _ in pickletools.genops(data):
        name, inside = opcode.name, [0]
        if name == "MEMOIZE" or name.endswith("PUT"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
            continue
        for kind in reversed(opcode.stack_before):
            if kind is pickletools.stackslice:
                while stack[-1] is not None:
                    inside.append(stack.pop())
            else:
                inside.append(stack.pop() or 0)
        depth = max(inside) + 1 if "TUPLE" in name else 0
        if name.endswith("GET"):
            depth = memo[int(argument)]
        deepest = max(deepest, depth)
        after = opcode.stack_after
        stack += [None if kind is pickletools.markobject else depth for kind in after]
    return deepest


def find_problem(checkpoint, size: int) -> str | None:
    """What is wrong with the contents of a file of size bytes, or None."""
    if not isinstance(checkpoint, dict) or "format_version" not in checkpoint:
        return "not a checkpoint of this program"
    version = checkpoint["format_version"]
    if type(version) is not int or not 0 <= version < 1000:
        return "not a checkpoint of this program"
    if version not in (FORMAT_VERSION, ENSEMBLE_VERSION):
        return (
            f"a checkpoint of format {version}, this program reads formats {FORMAT_VERSION} and"
            f" {ENSEMBLE_VERSION}"
        )
    checkpoint.setdefault("process_state", {})  # older ones are of bits
    checkpoint.setdefault("recipe", {})  # and follow a plan
    checkpoint.setdefault("usual_norm", 0.0)  # and clip at a given norm
    checkpoint.setdefault("warm_from", 0)
    checkpoint.setdefault("warm_rate", 0.0)
    checkpoint.setdefault("best", {})
    checkpoint.setdefault("columns", {})  # and of no table
    for key, kind in KEYS.items():
        if key not in checkpoint:
            return f"not a sound checkpoint: {key} is missing"
        if type(checkpoint[key]) is not kind:
            return f"not a sound checkpoint: {key} is not of type {kind.__name__}"
    for key in ("weights", "averaged_weights", "process_state"):
        if any(type(name) is not str for name in checkpoint[key]):
            return f"not a sound checkpoint: {key} holds a name that is not text"
        if problem := tensors_problem(checkpoint[key], size):
            return f"not a sound checkpoint: {key} {problem}"
    limits = {"sequence_length": (1, MAX_LENGTH), "T": (1, 2**63)}
    for key in ("step", "epoch", "validations_without_progress", "seconds", "warm_from"):
        limits[key] = 0, 2**63
    for key, (least, most) in limits.items():
        if not least <= checkpoint[key] <= most:  # NaN is not either
            return f"not a sound checkpoint: {key} is out of range"
    for key in ("usual_norm", "warm_rate"):
        if not 0 <= checkpoint[key] < math.inf:
            return f"not a sound checkpoint: {key} is out of range"
    if math.isnan(checkpoint["best_bound"]):
        return "not a sound checkpoint: best_bound is not a number"
    source = checkpoint["reverse_model_source"].encode("utf-8", "surrogatepass")
    if hashlib.sha256(source).hexdigest() != checkpoint["reverse_model_sha256"]:
        return "not a sound checkpoint: reverse_model_sha256 does not fit its source"
    return _find_problem_of_members(checkpoint, size) if version == ENSEMBLE_VERSION else None


def _find_problem_of_members(checkpoint: dict, size: int) -> str | None:
    """What is wrong with the members of an ensemble, or None."""
    members, shares = checkpoint.get("members"), checkpoint.get("shares")
    if type(members) is not list or not members:
        return "not a sound checkpoint: members is not a list of checkpoints"
    is_list = type(shares) is list and len(shares) == len(members)
    if not is_list or any(type(w) is not float or not 0 < w <= 1 for w in shares):
        return "not a sound checkpoint: shares is not a list of a number from 0 to 1 a member"
    if abs(sum(shares) - 1) > 1e-3:
        return "not a sound checkpoint: shares do not add up to 1"
    tensors = {}
    for number, member in enumerate(members):
        if type(member) is not dict or member.get("format_version") != FORMAT_VERSION:
            return f"not a sound checkpoint: member {number + 1} is not a checkpoint"
        if problem := find_problem(member, size):
            return f"member {number + 1}: {problem}"
        for key in ("sequence_length", "T"):
            if member[key] != checkpoint[key]:
                return f"not a sound checkpoint: member {number + 1} has another {key}"
        tensors |= {(number, name): t for name, t in member["averaged_weights"].items()}
    if problem := tensors_problem(tensors, size):
        return f"not a sound checkpoint: members {problem}"
    return None


def tensors_problem(tensors: dict, size: float = math.inf) -> str | None:
    """What is wrong with the tensors in a file of size bytes, or None."""
    total = 0
    for tensor in tensors.values():
        if type(tensor) is not torch.Tensor:
            return "holds something that is not a tensor"
        # a small file can describe a huge tensor, all of whose elements are one number
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or not tensor.is_contiguous():
            return "holds a tensor that is not plain"
        total += tensor.nbytes
    if total > 4 * size:  # more than once, because weights may be shared
        return "holds one tensor many times"
    return None if all_finite(tensors) else "are not finite"
