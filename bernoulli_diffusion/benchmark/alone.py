"""What is measured in processes of its own: one thing alone, or a step of two processes together."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..bits.data import BitStrings, read_bit_strings
from ..bits.membership import Membership
from ..system.errors import RunError
from ..training.distributed import ALONE, Processes
from ..training.run_folder import read_run_folder
from ..training.trainer import Trainer
from .measure import (
    SIZES,
    THINNED,
    Size,
    add_papers_gradient,
    compare,
    elapsed,
    finish,
    make_trainer,
    milliseconds,
    random_strings,
    samplers,
    text_file,
    train,
    warm_up,
)

try:
    import resource
except ImportError:  # Windows
    resource = None

PATTERN_LENGTH = 20  # of the data of the samplers' model
ASKED = 100_000  # generated strings whose membership is asked
NOTHING = "nothing, everything imported"
FIRST_STEP = "run folder to first step"
SHARED_STEPS = "steps of two processes and of one"


def things_to_do_alone(
    size: Size, device: torch.device, folder: Path, group: Processes = ALONE
) -> dict[str, Callable]:
    """What is done in a process of its own, or in a group of them, by name; the first is nothing."""

    def steps(length: int) -> None:
        train(make_trainer(random_strings(10_000, length), size, device), 20)

    def paper() -> None:
        trainer = make_trainer(random_strings(10_000, PATTERN_LENGTH), size, device)
        add_papers_gradient(trainer, trainer.loop.batches.batch(0), range(1, 21))

    def samples(name: str) -> None:
        trainer = make_trainer(random_strings(10_000, PATTERN_LENGTH), size, device)
        samplers(trainer.averaged, PATTERN_LENGTH, device)[name](size.drawn)

    def seek(length: int) -> None:
        strings = random_strings(size.lines, length)
        first_answer(strings, asked_strings(strings))

    def read() -> None:
        read_bit_strings(text_file(folder, size.start_lines, 64))

    def first_step() -> None:
        path = text_file(folder, size.start_lines, 64)
        train(Trainer(read_run_folder(path.parent), device, quiet=True))

    return {
        NOTHING: lambda: None,
        "20 training steps, L = 20": lambda: steps(20),
        "20 training steps, L = 784": lambda: steps(784),
        "20 terms of the paper's sum, L = 20": paper,
        "thinned sampler, L = 20": lambda: samples(THINNED),
        "grid sampler, K = 50, L = 20": lambda: samples("grid, K = 50"),
        "reading": read,
        "membership, L = 64": lambda: seek(64),
        "membership, L = 784": lambda: seek(784),
        FIRST_STEP: first_step,
        SHARED_STEPS: lambda: steps_of_two_and_of_one(size, group),
    }


def alone(name: str, size: Size, device: torch.device, folder: Path, processes: int = 1) -> dict:
    """Do one of things_to_do_alone in a new process, or several: what report_alone says there.

    And the seconds from the start.
    """
    text_file(folder, size.start_lines, 64)  # making it would count
    [size_name] = [key for key, value in SIZES.items() if value == size]
    options = {"size": size_name, "device": device.type, "folder": folder, "alone": name}
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", __package__]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    root = Path(__file__).parents[2]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if processes > 1 else {})
    start = time.time()
    process = subprocess.run(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if process.returncode:
        raise RunError(f"a process that was to do {name!r} alone failed, see above")
    peak = json.loads(process.stdout)
    return {"seconds": peak.pop("finished") - start, **peak}


def report_alone(
    name: str, size: Size, device: torch.device, folder: Path, group: Processes = ALONE
) -> dict:
    """Do one of things_to_do_alone here: its rows, if it has any, when it was done, and the peaks."""
    rows = things_to_do_alone(size, device, folder, group)[name]()
    finish(device)
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    return {
        "rows": rows,
        "finished": time.time(),
        "peak_MB": peak_megabytes(),
        "device_peak_MB": peak,
    }


def peak_megabytes() -> float | None:
    """The most memory that this process has had, in MB of 10^6 bytes; None where nobody knows."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent's memory at the moment of the fork too
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def first_answer(strings: BitStrings, asked: BitStrings) -> np.ndarray:
    """Which of the asked strings are among strings, from nothing."""
    return Membership(strings).contains(asked)


def asked_strings(strings: BitStrings) -> BitStrings:
    """ASKED strings, half of them of these and half fair bits; fewer if these are fewer."""
    half = min(ASKED // 2, len(strings))
    other = random_strings(half, strings.length, seed=1)
    return BitStrings(np.concatenate([strings.packed[:half], other.packed]), strings.length)


def steps_of_two_and_of_one(size: Size, group: Processes) -> list[dict]:
    """The rows of two_processes, measured by both of them; the first one's count."""
    cpu = torch.device("cpu")
    strings = random_strings(10_000, 784)
    rows = []
    for batch in size.shared_batches:
        setting = f"data.batch_size={batch}"
        together = make_trainer(strings, size, cpu, setting, processes=group)
        single = make_trainer(strings, size, cpu, setting)
        tasks = [(train, together), (train, single)]
        calls = group.from_first(lambda single=single: warm_up((train, single), size.seconds, cpu))
        times = []
        for _ in range(1 + size.rounds):  # the first round is a warm-up
            shared = elapsed(tasks[0], calls, cpu)
            own = group.from_first(lambda task=tasks[1], calls=calls: elapsed(task, calls, cpu))
            times.append([own, shared])
        one, two = np.array(times[1:]).T
        rows.append(
            {
                "batch": batch,
                "one_process_ms": milliseconds(one),
                "two_processes_ms": milliseconds(two),
                **compare(one, two),
                "bar": "at least 1.7",
            }
        )
    return rows
