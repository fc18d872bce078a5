"""metrics.jsonl: one line of JSON for each validation, for programs that follow a run.

Every line is a function of results.json, so a resumed run writes the ones of its checkpoint anew and
goes on from there: no gap, no duplicate, no half line that a killed run left.
"""

import json
import os
from pathlib import Path

from ..system.files import write_atomically
from .record import Results

FILE_NAME = "metrics.jsonl"


def line(results: Results, index: int) -> bytes:
    """What was measured at a validation: bounds in bits, shares from 0 to 1."""
    epoch = results.validated_epochs[index]
    whole_epochs = int(epoch)
    row = {
        "epoch": epoch,
        "seconds": results.seconds[index],
        "loss": results.losses[whole_epochs - 1] if whole_epochs else None,
    }
    for name, values in vars(results.bound).items():
        if values:
            row[f"bound_{name}"] = values[index]
    row |= {measure.name: measure.values[index] for measure in results.measures}
    return json.dumps(row).encode() + b"\n"


def write_all(results: Results, folder: Path) -> None:
    """The file with a line for each validation so far."""
    lines = [line(results, index) for index in range(len(results.validated_epochs))]
    write_atomically(folder / FILE_NAME, b"".join(lines))


def append_last(results: Results, folder: Path) -> None:
    """Add the line of the last validation."""
    with open(folder / FILE_NAME, "ab", buffering=0) as file:
        file.write(line(results, -1))
        os.fsync(file.fileno())
