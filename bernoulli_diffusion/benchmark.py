"""Benchmark: python -m bernoulli_diffusion.benchmark [--quick] [--json FILE]

What the program costs, beside what it could cost on this machine. Prints Markdown tables, those of
docs/performance.md. What is compared runs in turn, A B A B ..., so that whatever disturbs one disturbs
the other too; a time is the median over the rounds, a ratio the median of the rounds' ratios.

A part is a function (size, device, folder) -> rows that measures with the program's own functions. A
row is a dict whose names end in their units; the docstring is the text above the printed table. Write
one, add it to PARTS, and it is printed, written to the JSON file and known to --parts.
"""

import argparse
import copy
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import __version__
from .architecture import live_source
from .command_line import ArgumentParser, run, tell
from .config import Config, apply_overrides
from .data import BitStrings, Membership, read_bit_strings, to_text
from .datasets import repeating_patterns
from .device import choose_device
from .diffusion import Diffusion
from .errors import RunError, UserError
from .files import write_atomically
from .noise import Noise
from .run_folder import RunFolder, fill_defaults, read_run_folder
from .sampling import ProposalTimes, ancestral, sample, thinned
from .trainer import FLUSH_EVERY, Trainer

try:
    import resource
except ImportError:  # Windows
    resource = None

Task = tuple  # a function and its arguments

PATTERN_LENGTH, PERIOD = 20, 10  # the data of the samplers' model
ASKED = 100_000  # generated strings whose membership is asked
NOTHING = "nothing, everything imported"
FIRST_STEP = "run folder to first step"
ANCESTRAL, THINNED = "ancestral, all T", "thinned, same law"


@dataclass(frozen=True)
class Size:
    """How much is measured; by default, for the figures of docs/performance.md."""

    T: int = 2000
    batch: int = 1024
    rounds: int = 11  # of what is compared
    few_rounds: int = 3  # where a round takes seconds
    seconds: float = 0.2  # that a round of one thing lasts, at least one call
    copied: int = 2**27  # numbers, to measure the memory's bandwidth
    product: int = 2048  # rows and columns of a large matrix, on a GPU four times as many
    paper_terms: int = 20  # of the paper's sum in each round
    whole_sum: bool = True  # whether the paper's sum is also run whole
    epochs: int = 1500  # of 4 steps, to train the model that the samplers are measured with
    drawn: int = 500  # strings that a sampler draws in a round
    judged: int = 10_000  # strings behind a share of invalid ones
    file_bytes: int = 65_000_000  # of a text file that is read
    lines: int = 1_000_000  # of the sets whose members are sought
    start_lines: int = 10_000_000  # of the file that a cold start reads
    lengths: tuple[int, ...] = (16, 64, 256, 784, 2048)
    process_steps: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    line_counts: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    batches: tuple[int, ...] = (64, 256, 1024, 4096, 16_384)


SIZES = {
    "full": Size(),
    "quick": Size(
        rounds=5,
        few_rounds=2,
        seconds=0.05,
        copied=2**25,
        product=1024,
        paper_terms=10,
        whole_sum=False,
        epochs=200,
        drawn=50,
        judged=1000,
        file_bytes=6_500_000,
        lines=100_000,
        start_lines=1_000_000,
        lengths=(16, 256, 2048),
        process_steps=(100, 1000, 10_000),
        line_counts=(10_000, 100_000, 1_000_000),
        batches=(64, 1024, 4096),
    ),
    "tiny": Size(  # for the tests: everything runs, nothing means anything
        T=20,
        batch=8,
        rounds=2,
        few_rounds=1,
        seconds=0.0,
        copied=2**16,
        product=32,
        paper_terms=2,
        epochs=2,
        drawn=8,
        judged=16,
        file_bytes=10_000,
        lines=1000,
        start_lines=1000,
        lengths=(16, 20),
        process_steps=(10, 20),
        line_counts=(100, 1000),
        batches=(8, 16),
    ),
}


# ---------------------------------------------------------------------------------------- timing


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def elapsed(task: Task, calls: int, device: torch.device) -> float:
    """Seconds a call of task, over some calls."""
    function, *arguments = task
    finish(device)
    start = time.perf_counter()
    for _ in range(calls):
        function(*arguments)
    finish(device)
    return (time.perf_counter() - start) / calls


def warm_up(task: Task, seconds: float, device: torch.device) -> int:
    """Call task until it is warm. Returns how many calls last so many seconds, at least one."""
    calls = 1
    while (taken := elapsed(task, calls, device)) * calls < seconds:
        calls *= 2
    return max(1, round(seconds / taken))


def time_in_turn(
    tasks: list[Task], rounds: int, seconds: float, device: torch.device
) -> list[np.ndarray]:
    """Seconds a call in each round, an array a task: the first of each, the second of each, ...

    A round of a task is as many calls as last the given seconds, at least one.
    """
    calls = [warm_up(task, seconds, device) for task in tasks]
    times = [
        [elapsed(task, count, device) for task, count in zip(tasks, calls, strict=True)]
        for _ in range(rounds)
    ]
    return list(np.array(times).T)


def compare(above: np.ndarray, below: np.ndarray) -> dict:
    """The ratio of two things timed in turn: its median and quartiles over the rounds."""
    first, median, third = np.quantile(above / below, [0.25, 0.5, 0.75])
    return {"ratio": float(median), "quartiles": [float(first), float(third)]}


def milliseconds(seconds: np.ndarray) -> float:
    """The median over the rounds."""
    return 1000 * float(np.median(seconds))


# ---------------------------------------------------------------------------------------- things to time


def random_strings(count: int, length: int, seed: int = 0) -> BitStrings:
    """Fair bits."""
    width = -(-length // 8)
    packed = np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)
    packed[:, -1] &= 0xFF << (8 * width - length) & 0xFF  # the bits behind the last are 0
    return BitStrings(packed, length)


def text_file(folder: Path, count: int, length: int) -> Path:
    """A file with count strings of fair bits, made where it is missing, in a folder of its own."""
    path = folder / f"{count}_strings_of_{length}" / "train.txt"
    if not path.exists():
        needed, free = count * (length + 1), shutil.disk_usage(folder).free
        if needed > free // 2:
            raise RunError(
                f"{folder}: {needed / 1e6:,.0f} MB needed for a file of {count:,} lines and"
                f" {free / 1e6:,.0f} MB free; choose another place with --folder"
            )
        path.parent.mkdir()
        strings = random_strings(count, length)
        with open(path, "wb") as stream:
            for first in range(0, count, 1 << 16):
                stream.write(to_text(strings.bits(slice(first, first + (1 << 16)))))
    return path


def make_trainer(strings: BitStrings, size: Size, device: torch.device, *settings: str) -> Trainer:
    """A trainer as train.py makes it, with the default network; it has no folder to write to.

    settings: as of train.py's --set.
    """
    config = Config()
    apply_overrides(config, [f"model.T={size.T}", f"data.batch_size={size.batch}", *settings])
    fill_defaults(config, len(strings))
    folder = RunFolder(Path("."), config, strings, None, live_source(None))
    return Trainer(folder, device, quiet=True)


def train(trainer: Trainer, steps: int = 1) -> None:
    """Training steps, with a look at the losses now and then as in Trainer's own loop."""
    for _ in range(steps):
        trainer.train_step()
        if trainer.step % FLUSH_EVERY == 0:
            trainer.look_at_losses()


def bare_step(trainer: Trainer) -> Callable:
    """Forward, backward and optimizer step of a copy of the network, on a fixed batch, alone."""
    device, batch = trainer.device, trainer.batches.batch_size
    model = copy.deepcopy(trainer.diffusion.reverse_model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=trainer.training.lr, fused=device.type in ("cpu", "cuda")
    )
    x_t = (torch.rand(batch, trainer.length, device=device) < 0.5).float()
    t = torch.randint(1, trainer.diffusion.T + 1, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x_t, t).square().mean().backward()
        optimizer.step()

    return step


def add_papers_gradient(trainer: Trainer, x_0: Tensor, times: range) -> None:
    """Adds up the gradients of the bound's terms at these times, for all strings of a batch at each."""
    for time_ in times:
        t = torch.full((len(x_0),), time_, device=x_0.device)
        trainer.diffusion.bound_term(x_0, t, torch.rand_like(x_0)).mean().backward()


def papers_step(trainer: Trainer, x_0: Tensor) -> None:
    """A gradient step on the whole bound, all T terms of it (Sohl-Dickstein et al. 2015, eq. 14)."""
    trainer.optimizer.zero_grad()
    add_papers_gradient(trainer, x_0, range(1, trainer.diffusion.T + 1))
    trainer.optimizer.step()


def last(states) -> Tensor:
    """x_0, where a sampler ends."""
    [(_, x_0)] = deque(states, maxlen=1)
    return x_0


def samplers(diffusion: Diffusion, length: int, device: torch.device) -> dict[str, Callable]:
    """Each sampler as a function count -> (count, L) samples."""

    def noise(count: int) -> Noise:
        return Noise(0, torch.arange(count, device=device), length)

    def grid(K: int) -> Callable:
        def draw(count: int) -> Tensor:
            batches = sample(diffusion, length, range(count), 0, K, count, device)
            return torch.cat(list(batches))

        return draw

    return {
        ANCESTRAL: lambda count: last(ancestral(diffusion, noise(count))),
        THINNED: lambda count: last(thinned(diffusion, noise(count))),
        **{f"grid, K = {K}": grid(K) for K in (20, 50, 100)},
    }


def count_calls(diffusion: Diffusion, draw: Callable, count: int) -> tuple[Tensor, float]:
    """count samples, and how often the network was called for one of them on average."""
    rows = []
    hook = diffusion.reverse_model.register_forward_pre_hook(
        lambda _, inputs: rows.append(len(inputs[0]))
    )
    try:
        return draw(count), sum(rows) / count
    finally:
        hook.remove()


# ---------------------------------------------------------------------------------------- the parts


def limits(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Limits of the machine

    What no program can beat here. The copy counts bytes read and bytes written; the products are
    float32, of the default network's own shapes at a batch of 1,024 and of a large one; the smallest
    operation adds to a single number, so its time is what it costs to ask for anything at all.
    """
    source, one = torch.ones(size.copied, device=device), torch.zeros(1, device=device)
    large = size.product * (4 if device.type == "cuda" else 1)
    shapes = [(1024, 256, 256), (1024, 784, 256), (large, large, large)]
    products = [
        (torch.mm, torch.randn(n, k, device=device), torch.randn(k, m, device=device))
        for n, k, m in shapes
    ]
    tasks = [(torch.empty_like(source).copy_, source), (one.add_, 1), *products]
    copy_, smallest, *rest = map(np.median, time_in_turn(tasks, size.rounds, size.seconds, device))
    name = f"copy of {source.nbytes / 1e6:,.0f} MB"
    return [
        {"limit": name, "GB_per_s": 2 * source.nbytes / copy_ / 1e9},
        {"limit": "smallest operation", "microseconds": 1e6 * smallest},
        *(
            {
                "limit": f"matrix product {n:,} x {k:,} x {m:,}",
                "GFLOP_per_s": 2 * n * k * m / seconds / 1e9,
            }
            for (n, k, m), seconds in zip(shapes, rest, strict=True)
        ),
    ]


def training_step(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """A training step

    The whole of it (gathering the batch, drawing times and noise, the network forwards and backwards,
    the bound, clipping, AdamW, averaging the weights) against the bare network's forward, backward
    and AdamW step with a trivial loss at the same batch. Default network. The matrix products alone
    are priced at the rate of a plain product of the network's inner shape in the same rounds.
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes a second to import

    a, b = torch.randn(size.batch, 256, device=device), torch.randn(256, 256, device=device)
    rows = []
    for length in (20, 784):
        trainer = make_trainer(random_strings(10_000, length), size, device)
        train(trainer, 20)
        bare = bare_step(trainer)
        with FlopCounterMode(display=False) as counter:
            bare()
        flops = counter.get_total_flops()
        ours, theirs, product = time_in_turn(
            [(train, trainer), (bare,), (torch.mm, a, b)], size.rounds, size.seconds, device
        )
        rows.append(
            {
                "L": length,
                "batch": size.batch,
                "training_step_ms": milliseconds(ours),
                "bare_network_step_ms": milliseconds(theirs),
                **compare(ours, theirs),
                "bar": "at most 1.25",
                "matrix_products_GFLOP": flops / 1e9,
                "matrix_products_alone_ms": flops * milliseconds(product) / (2 * len(a) * 256**2),
            }
        )
    return rows


def papers_sum(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """The paper's gradient against ours

    The paper sums all T terms of the bound for every gradient step; ours draws one term a string. Same
    network, same batch, same code for a term. The sum is written as it should be: term after term,
    each for the whole batch, gradients added up in place, one optimizer step at the end. In each round
    some terms, evenly spaced, stand for the T; the whole sum is run once (not with --quick).
    """
    trainer = make_trainer(random_strings(10_000, PATTERN_LENGTH), size, device)
    x_0 = trainer.batches.batch(0)
    apart = size.T // size.paper_terms
    times = range(apart, size.T + 1, apart)
    tasks = [(train, trainer), (add_papers_gradient, trainer, x_0, times)]
    ours, terms = time_in_turn(tasks, size.rounds, size.seconds, device)
    paper = terms * size.T / len(times)
    row = {
        "L": PATTERN_LENGTH,
        "T": size.T,
        "batch": size.batch,
        "our_step_ms": milliseconds(ours),
        "terms_in_a_round": len(times),
        "papers_step_ms": milliseconds(paper),
        **compare(paper, ours),
        "bar": "at least 300",
    }
    if size.whole_sum:
        row["whole_sum_once_ms"] = 1000 * elapsed((papers_step, trainer, x_0), 1, device)
    return [row]


def sampling(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Samplers

    On repeating patterns (ten bits written twice, T = 2,000), with the averaged weights of a default
    network that the benchmark trains first. A string is invalid if its halves differ. Network calls
    are counted by the row. The ratio is that of the throughput to the plain T-step sampler's.
    """
    strings = BitStrings.from_bits(repeating_patterns(PATTERN_LENGTH, PERIOD)[0])
    settings = ["data.batch_size=256", f"training.epochs={size.epochs}"]
    trainer = make_trainer(strings, size, device, *settings)
    train(trainer, trainer.total_steps)
    diffusion = trainer.averaged
    draw = samplers(diffusion, PATTERN_LENGTH, device)
    tasks = [(function, size.drawn) for function in draw.values()]
    seconds = time_in_turn(tasks, size.few_rounds, size.seconds, device)
    rows = []
    for name, taken in zip(draw, seconds, strict=True):
        slow = name == ANCESTRAL  # and its law is the thinned sampler's
        count = size.drawn if slow else size.judged
        x, calls = count_calls(diffusion, draw[name], count)
        invalid = (x[:, :PERIOD] != x[:, PERIOD:]).any(dim=1).float().mean().item()
        row = {
            "sampler": name,
            "samples_per_s": size.drawn / float(np.median(taken)),
            "network_calls_per_sample": calls,
            "invalid_percent": 100 * invalid,
            "standard_error_percent": 100 * (invalid * (1 - invalid) / count) ** 0.5,
            "judged_samples": count,
        }
        if not slow:
            row |= compare(seconds[0], taken)
        if name == THINNED:
            row["bar"] = "at least 6"
        rows.append(row)
    return rows


def reading(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Reading a text file

    read_bit_strings, which checks every character and packs the bits, against numpy.fromfile of the
    same bytes. The file was just written, so it comes from the system's cache: this is the
    processor's share, and the ratio is at its worst.
    """
    rows = []
    for length in (20, 64, 784):
        path = text_file(folder, size.file_bytes // (length + 1), length)
        tasks = [(read_bit_strings, path), (np.fromfile, path, np.uint8)]
        ours, bytes_alone = time_in_turn(tasks, size.rounds, size.seconds, device)
        megabytes = path.stat().st_size / 1e6
        rows.append(
            {
                "L": length,
                "file_MB": megabytes,
                "reading_MB_per_s": megabytes / float(np.median(ours)),
                "fromfile_MB_per_s": megabytes / float(np.median(bytes_alone)),
                **compare(ours, bytes_alone),
            }
        )
    return rows


def cold_start(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Cold start

    From starting Python to the end of the first training step on a text file of lines of 64 bits, in
    a process of its own, against numpy.fromfile of the same bytes (in the system's cache for both).
    Beside it the part that is starting Python and importing torch and the program.
    """
    path = text_file(folder, size.start_lines, 64)
    rounds = [
        [
            elapsed((np.fromfile, path, np.uint8), 1, device),
            alone(NOTHING, size, device, folder)["seconds"],
            alone(FIRST_STEP, size, device, folder)["seconds"],
        ]
        for _ in range(size.few_rounds)
    ]
    bytes_alone, imports, ours = np.array(rounds).T
    return [
        {
            "lines": size.start_lines,
            "file_MB": path.stat().st_size / 1e6,
            "to_first_step_s": float(np.median(ours)),
            "of_it_imports_s": float(np.median(imports)),
            "fromfile_s": float(np.median(bytes_alone)),
            **compare(ours, bytes_alone),
            "bar": "at most 6 (10,000,000 lines)",
        }
    ]


def membership(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Membership

    Which of 100,000 strings stand among the lines, half of them copies of lines and half fair bits:
    the first answer, whatever has to be prepared for it included, and another one. Beside them a
    Python set of the same lines, built and asked once. Both agree on every string.
    """
    rows = []
    for length in (20, 64, 65, 784):
        strings = random_strings(size.lines, length)
        asked, members = asked_strings(strings), Membership(strings)
        start = time.perf_counter()
        lines = set(map(bytes, strings.packed))
        expected = [bytes(row) in lines for row in asked.packed]
        python_set = time.perf_counter() - start
        if members.contains(asked).tolist() != expected:
            raise RunError(f"Membership is wrong about strings of {length} bits")
        tasks = [(first_answer, strings, asked), (members.contains, asked)]
        first, another = time_in_turn(tasks, size.few_rounds, size.seconds, device)
        rows.append(
            {
                "L": length,
                "lines": size.lines,
                "asked": len(asked),
                "found": sum(expected),
                "first_answer_ms": milliseconds(first),
                "another_answer_ms": milliseconds(another),
                "bar": "at most 1,000",
                "python_set_ms": 1000 * python_set,
            }
        )
    return rows


def first_answer(strings: BitStrings, asked: BitStrings) -> np.ndarray:
    """Which of the asked strings are among strings, from nothing."""
    return Membership(strings).contains(asked)


def asked_strings(strings: BitStrings) -> BitStrings:
    """ASKED strings, half of them of these and half fair bits; fewer if these are fewer."""
    half = min(ASKED // 2, len(strings))
    other = random_strings(half, strings.length, seed=1)
    return BitStrings(np.concatenate([strings.packed[:half], other.packed]), strings.length)


# ---------------------------------------------------------------------------------------- memory


def memory(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Peak memory

    Of processes that do one thing alone, and over that of a process that only imports everything.
    """
    rows = []
    for name in things_to_do_alone(size, device, folder):
        peak = alone(name, size, device, folder)
        row = {"process": name, "peak_MB": peak["peak_MB"]}
        if rows and row["peak_MB"] is not None:
            row["over_imports_MB"] = row["peak_MB"] - rows[0]["peak_MB"]
        if name == FIRST_STEP:
            row["bar"] = "over imports: at most 250"
        if device.type == "cuda":
            row["device_peak_MB"] = peak["device_peak_MB"]
        rows.append(row)
    return rows


def things_to_do_alone(size: Size, device: torch.device, folder: Path) -> dict[str, Callable]:
    """What is done in a process of its own, by name; the first is nothing."""

    def steps(length: int) -> None:
        train(make_trainer(random_strings(10_000, length), size, device), 20)

    def paper() -> None:
        trainer = make_trainer(random_strings(10_000, PATTERN_LENGTH), size, device)
        add_papers_gradient(trainer, trainer.batches.batch(0), range(1, 21))

    def samples(name: str) -> None:
        trainer = make_trainer(random_strings(10_000, PATTERN_LENGTH), size, device)
        samplers(trainer.averaged, PATTERN_LENGTH, device)[name](size.drawn)

    def seek(length: int) -> None:
        strings = random_strings(size.lines, length)
        first_answer(strings, asked_strings(strings))

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
        "reading": lambda: read_bit_strings(text_file(folder, size.start_lines, 64)),
        "membership, L = 64": lambda: seek(64),
        "membership, L = 784": lambda: seek(784),
        FIRST_STEP: first_step,
    }


def alone(name: str, size: Size, device: torch.device, folder: Path) -> dict:
    """Do one of things_to_do_alone in a new process: its seconds from the start and its peaks."""
    text_file(folder, size.start_lines, 64)  # making it would count
    [size_name] = [key for key, value in SIZES.items() if value == size]
    options = {"size": size_name, "device": device.type, "folder": folder, "alone": name}
    command = [sys.executable, "-m", f"{__package__}.benchmark"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    root = Path(__file__).parent.parent
    start = time.time()
    process = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        raise RunError(f"a process that was to do {name!r} alone failed, see above")
    peak = json.loads(process.stdout)
    return {"seconds": peak.pop("finished") - start, **peak}


def report_alone(name: str, size: Size, device: torch.device, folder: Path) -> dict:
    """Do one of things_to_do_alone here: the time when it was done, and this process's peaks."""
    things_to_do_alone(size, device, folder)[name]()
    finish(device)
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    return {"finished": time.time(), "peak_MB": peak_megabytes(), "device_peak_MB": peak}


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


# ---------------------------------------------------------------------------------------- growth


def growth_L(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Growth with the length of the strings

    A training step and a bare network step at a batch of 1,024, and drawing 100 strings on a grid of
    50 steps.
    """
    rows = []
    for length in size.lengths:
        trainer = make_trainer(random_strings(10_000, length), size, device)
        grid = samplers(trainer.averaged, length, device)["grid, K = 50"]
        tasks = [(train, trainer), (bare_step(trainer),), (grid, 100)]
        ours, bare, draw = time_in_turn(tasks, size.rounds, size.seconds, device)
        rows.append(
            {
                "L": length,
                "training_step_ms": milliseconds(ours),
                "bare_network_step_ms": milliseconds(bare),
                **compare(ours, bare),
                "100_samples_on_a_grid_ms": milliseconds(draw),
            }
        )
    return rows


def growth_T(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Growth with the number of steps of the process

    A training step (L = 20, batch 1,024; all T in turn, the ratio is to the smallest), and drawing 100
    strings from the exact law with the thinned sampler.
    """
    strings = random_strings(10_000, PATTERN_LENGTH)
    trainers = [make_trainer(strings, size, device, f"model.T={T}") for T in size.process_steps]
    draws = [samplers(t.averaged, PATTERN_LENGTH, device)[THINNED] for t in trainers]
    steps = time_in_turn([(train, t) for t in trainers], size.rounds, size.seconds, device)
    samples = time_in_turn([(draw, 100) for draw in draws], size.few_rounds, size.seconds, device)
    rows = []
    for trainer, ours, draw in zip(trainers, steps, samples, strict=True):
        proposals = ProposalTimes(trainer.diffusion.process.max_flip_probability())
        rows.append(
            {
                "T": trainer.diffusion.T,
                "training_step_ms": milliseconds(ours),
                **compare(ours, steps[0]),
                "bar": "0.95 to 1.05",
                "100_samples_thinned_ms": milliseconds(draw),
                "expected_network_calls": proposals.expected_network_calls(PATTERN_LENGTH),
            }
        )
    return rows


def growth_lines(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Growth with the number of lines

    Lines of 64 bits: a training step at a batch of 1,024 (all numbers in turn, the ratio is to the
    smallest), reading the text, and membership: the first answer for 100,000 strings.
    """
    sets = [random_strings(lines, 64) for lines in size.line_counts]
    trainers = [make_trainer(strings, size, device) for strings in sets]
    steps = time_in_turn([(train, t) for t in trainers], size.rounds, size.seconds, device)
    asked = asked_strings(sets[-1])
    rows = []
    for strings, ours in zip(sets, steps, strict=True):
        path = text_file(folder, len(strings), 64)
        tasks = [(read_bit_strings, path), (first_answer, strings, asked)]
        read, answer = time_in_turn(tasks, size.few_rounds, size.seconds, device)
        rows.append(
            {
                "lines": len(strings),
                "training_step_ms": milliseconds(ours),
                **compare(ours, steps[0]),
                "bar": "0.95 to 1.05",
                "reading_ms": milliseconds(read),
                "membership_ms": milliseconds(answer),
            }
        )
    return rows


def growth_batch(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Growth with the batch

    A training step and a bare network step at L = 20.
    """
    strings = random_strings(50_000, PATTERN_LENGTH)
    rows = []
    for batch in size.batches:
        trainer = make_trainer(strings, size, device, f"data.batch_size={batch}")
        tasks = [(train, trainer), (bare_step(trainer),)]
        ours, bare = time_in_turn(tasks, size.rounds, size.seconds, device)
        rows.append(
            {
                "batch": batch,
                "training_step_ms": milliseconds(ours),
                "bare_network_step_ms": milliseconds(bare),
                **compare(ours, bare),
                "microseconds_per_string": 1000 * milliseconds(ours) / batch,
            }
        )
    return rows


GROWTH = [growth_L, growth_T, growth_lines, growth_batch]
PARTS = [
    limits,
    training_step,
    papers_sum,
    sampling,
    reading,
    cold_start,
    membership,
    memory,
    *GROWTH,
]


# ---------------------------------------------------------------------------------------- reports


def describe_machine(device: torch.device) -> dict:
    """What the figures were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "processor": processor_name(),
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
        "memory_GB": None,
        "device": device.type,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "bernoulli_diffusion": __version__,
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        pages = os.sysconf("SC_PHYS_PAGES")
        machine["memory_GB"] = round(pages * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = properties.name
        machine["gpu_memory_GB"] = round(properties.total_memory / 1e9, 1)
    return machine


def processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def as_list(machine: dict) -> str:
    """A Markdown list of what describe_machine found out."""
    known = {key.replace("_", " "): value for key, value in machine.items() if value is not None}
    return "".join(f"- {name}: {value}\n" for name, value in known.items())


def title(part: Callable) -> str:
    """The heading of a part: its docstring's first line."""
    return inspect.getdoc(part).partition("\n")[0]


def as_markdown(part: Callable, rows: list[dict]) -> str:
    """A section: the part's docstring and a table of its rows."""
    text = inspect.getdoc(part).partition("\n")[2].strip()
    return f"### {title(part)}\n\n{text}\n\n{table(rows)}\n"


def table(rows: list[dict]) -> str:
    """rows as a Markdown table; a column for each name that any of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numeric = [not any(isinstance(row.get(name), str) for row in rows) for name in names]
    lines = [[name.replace("_", " ") for name in names], ["--:" if n else "---" for n in numeric]]
    lines += [[cell(row.get(name)) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " to ".join(map(cell, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def growth_figure(parts: dict[str, list[dict]]):
    """How milliseconds grow with what: a log-log panel for each growth part among the parts."""
    from matplotlib.figure import Figure  # here, because importing matplotlib takes half a second
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    growth = [part for part in PARTS if part.__name__ in parts and part in GROWTH]
    curves = [key for part in growth for key in parts[part.__name__][0] if key.endswith("_ms")]
    colors = {key: f"C{number}" for number, key in enumerate(dict.fromkeys(curves))}
    columns = min(2, len(growth))
    shape = -(-len(growth) // columns), columns
    figure = Figure(figsize=(5 * shape[1], 3.8 * shape[0]), dpi=120, layout="constrained")
    panels = figure.subplots(*shape, squeeze=False, sharey=True).flat
    for panel, part in zip(panels, growth, strict=False):
        rows = parts[part.__name__]
        name = next(iter(rows[0]))  # of what grows
        values = [row[name] for row in rows]
        for key in filter(colors.get, rows[0]):
            label = key.removesuffix("_ms").replace("_", " ")
            times = [row[key] for row in rows]
            panel.loglog(values, times, color=colors[key], marker="o", markersize=4, label=label)
        panel.set_title(title(part), fontsize=10)
        panel.set_xlabel(name)
        panel.set_ylabel("milliseconds")
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        panel.tick_params(labelleft=True)
        panel.grid(alpha=0.3, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8.5)
    for panel in panels:  # those that are left
        panel.remove()
    return figure


# ---------------------------------------------------------------------------------------- command line


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="python -m bernoulli_diffusion.benchmark",
        description="Measure what the program costs beside what it could cost on this machine, and "
        "print Markdown tables. About ten minutes on two cores; nothing else should be running.",
    )
    parser.add_argument(
        "--quick",
        action="store_const",
        const="quick",
        default="full",
        dest="size",
        help="less of everything, about a minute",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rows to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="also draw the growth with L, T, lines, batch"
    )
    names = [part.__name__ for part in PARTS]
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=names,
        default=names,
        metavar="PART",
        help=f"measure only these of: {', '.join(names)}",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to make temporary files, up to a gigabyte (default: the system's place for them)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    parser.add_argument("--size", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    for path in filter(None, (arguments.json, arguments.plot)):
        if not path.parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}")
    if arguments.folder and not arguments.folder.is_dir():
        raise UserError(f"{arguments.folder}: no such folder")
    if arguments.plot and not any(part.__name__ in arguments.parts for part in GROWTH):
        raise UserError("--plot draws the parts growth_...; ask for one of them with --parts")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    size, device = SIZES[arguments.size], choose_device(arguments.device)
    if arguments.alone:
        print(json.dumps(report_alone(arguments.alone, size, device, arguments.folder)))
        return
    start = time.monotonic()
    machine = describe_machine(device)
    print(as_list(machine), flush=True)
    measured = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="benchmark_") as folder:
        for part in PARTS:
            if part.__name__ not in arguments.parts:
                continue
            tell(f"{title(part)} ...")
            measured[part.__name__] = part(size, device, Path(folder).resolve())
            print(as_markdown(part, measured[part.__name__]), flush=True)
            if arguments.json:
                report = {
                    "machine": machine,
                    "size": arguments.size,
                    "seconds": time.monotonic() - start,
                    "parts": measured,
                }
                write_atomically(arguments.json, json.dumps(report, indent=1).encode())
    if arguments.plot:
        from .plots import write_figure

        write_figure(growth_figure(measured), arguments.plot)
    tell(f"measured in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(run(main))
