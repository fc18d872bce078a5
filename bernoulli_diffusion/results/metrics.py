"""metrics.jsonl: one line of JSON for each validation, for programs that follow a run.

Every line is a function of results.json, so a resumed run writes the ones of its checkpoint anew and
goes on from there: no gap, no duplicate, no half line that a killed run left.
"""

import json
import os
from pathlib import Path

from ..system.files import write_atomically

FILE_NAME = "metrics.jsonl"


def line(results: dict, index: int) -> bytes:
    """What was measured at a validation: bounds in bits, shares from 0 to 1."""
    epoch = results["validated_epochs"][index]
    whole_epochs = int(epoch)
    row = {
        "epoch": epoch,
        "seconds": results["seconds"][index],
        "loss": results["losses"][whole_epochs - 1] if whole_epochs else None,
    }
    for name in ("train", "val"):
        if results["bound"][name]:
            row[f"bound_{name}"] = results["bound"][name][index]
            row[f"bound_{name}_standard_error"] = results["bound"][f"{name}_standard_error"][index]
    for name, shares in results.get("proportions", {}).items():
        row[f"share_{name}"] = shares[index]
    for name in ("distinct", "energy_distance"):  # of bits, of real numbers
        if name in results:
            row[name] = results[name][index]
    return json.dumps(row).encode() + b"\n"


def write_all(results: dict, folder: Path) -> None:
    """The file with a line for each validation so far."""
    lines = [line(results, index) for index in range(len(results["validated_epochs"]))]
    write_atomically(folder / FILE_NAME, b"".join(lines))


def append_last(results: dict, folder: Path) -> None:
    """Add the line of the last validation."""
    with open(folder / FILE_NAME, "ab", buffering=0) as file:
        file.write(line(results, -1))
        os.fsync(file.fileno())
