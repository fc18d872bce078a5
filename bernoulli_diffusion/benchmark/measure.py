"""Timing in turn, and the things that are timed: the program's own functions, and bare networks."""

import copy
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..bits.data import BitStrings, to_text
from ..config import Config, apply_overrides
from ..diffusion import Diffusion
from ..noise import Noise
from ..sampling import ancestral, sample, thinned
from ..system.errors import RunError
from ..training.distributed import ALONE, Processes
from ..training.network import live_source
from ..training.run_folder import RunFolder, fill_defaults
from ..training.trainer import FLUSH_EVERY, Trainer

Task = tuple  # a function and its arguments

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
    shared_batches: tuple[int, ...] = (256, 1024, 4096)


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
        shared_batches=(1024,),
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
        shared_batches=(8,),
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


def make_trainer(
    strings: BitStrings,
    size: Size,
    device: torch.device,
    *settings: str,
    processes: Processes = ALONE,
) -> Trainer:
    """A trainer as train.py makes it, with the default network; it has no folder to write to.

    settings: as of train.py's --set.
    """
    config = Config()
    apply_overrides(config, [f"model.T={size.T}", f"data.batch_size={size.batch}", *settings])
    fill_defaults(config, len(strings))
    folder = RunFolder(Path("."), config, strings, None, live_source(None))
    trainer = Trainer(folder, device, quiet=True, processes=processes)
    trainer.choose_threads()
    return trainer


def train(trainer: Trainer, steps: int = 1) -> None:
    """Training steps, and what Trainer's own loop does between them.

    Several processes agree on how to go on, and now and then somebody looks at the losses.
    """
    for _ in range(steps):
        agreed = trainer.processes.greatest(lambda: (0, 0))
        trainer.loop.train_step()
        agreed()
        if trainer.step % FLUSH_EVERY == 0:
            trainer.loop.look_at_losses()


def bare_step(trainer: Trainer) -> Callable:
    """Forward, backward and optimizer step of a copy of the network, on a fixed batch, alone."""
    device, batch = trainer.device, trainer.loop.batches.batch_size
    model = copy.deepcopy(trainer.loop.diffusion.reverse_model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=trainer.training.lr, fused=device.type in ("cpu", "cuda")
    )
    x_t = (torch.rand(batch, trainer.length, device=device) < 0.5).float()
    t = torch.randint(1, trainer.loop.diffusion.T + 1, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x_t, t).square().mean().backward()
        optimizer.step()

    return step


def add_papers_gradient(trainer: Trainer, x_0: Tensor, times: range) -> None:
    """Adds up the gradients of the bound's terms at these times, for all strings of a batch at each."""
    for time_ in times:
        t = torch.full((len(x_0),), time_, device=x_0.device)
        trainer.loop.diffusion.bound_term(x_0, t, torch.rand_like(x_0)).mean().backward()


def papers_step(trainer: Trainer, x_0: Tensor) -> None:
    """A gradient step on the whole bound, all T terms of it (Sohl-Dickstein et al. 2015, eq. 14)."""
    trainer.loop.optimizer.zero_grad()
    add_papers_gradient(trainer, x_0, range(1, trainer.loop.diffusion.T + 1))
    trainer.loop.optimizer.step()


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
