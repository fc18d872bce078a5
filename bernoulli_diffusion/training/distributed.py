"""Several processes that train or sample together, started by torchrun. One process is the case of 1.

Every process reads the same run folder and takes its part of each batch; process 0 alone writes.
"""

import contextlib
import copy
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

from ..system.command_line import tell
from ..system.errors import RunError, UserError, printable
from ..system.interrupt import Interrupted, ending_at_once

LOSS_OF_CONTACT = ("closed by peer", "reset by peer", "Broken pipe")  # what gloo says of it
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
PATIENCE = "BERNOULLI_JOIN_SECONDS"  # how long to wait for the others; 300 if it is not set
SECONDS_TO_WONDER = 5
ALONE_AGAIN = f"for one process alone: unset {' '.join(LAUNCHED)}"
TRIALS = 8  # of a network, for parameters that it may leave out


@dataclass(frozen=True)
class Processes:
    """The processes of this run, as one of them sees them."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of 0 .. count - 1: the parts of all, in order, are the whole."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def parallel(self, model: nn.Module, length: int) -> nn.Module:
        """model with its gradients averaged over all processes, which start from equal weights."""
        with warnings.catch_warnings():
            # torch 2.13 would have broadcast_buffers called by a name that 2.12 does not know
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                model,
                find_unused_parameters=_has_unused_parameters(model, length),
                bucket_cap_mb=25,  # by default the first is small, and small networks take two
                gradient_as_bucket_view=True,
                broadcast_buffers=False,  # see share_buffers
            )

    def share_buffers(self, model: nn.Module) -> None:
        """Running statistics as the first process has them; in training no process needs the others'."""
        if self.size > 1:
            with _telling_loss_of_contact():
                for buffer in model.buffers():
                    dist.broadcast(buffer, 0)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over the processes, element by element."""
        if self.size > 1:
            with _telling_loss_of_contact():
                dist.all_reduce(values)
            values /= self.size
        return values

    def greatest(self, measure: Callable[[], Iterable[float]]) -> Callable[[], list[float]]:
        """The largest over the processes of each number: what all of them can agree on.

        The numbers are measured now, and are underway while the processes work on; the result is
        there when what this returns is called. A process that is alone measures then.
        """
        if self.size == 1:
            return lambda: list(measure())
        values = torch.tensor([*measure()], dtype=torch.float64)
        with _telling_loss_of_contact():
            work = dist.all_reduce(values, dist.ReduceOp.MAX, async_op=True)

        def result() -> list[float]:
            with _telling_loss_of_contact():
                work.wait()
            return values.tolist()

        return result

    def gather(self, work: Callable[[], object]) -> list:
        """What work() returns in each process.

        If one of them is interrupted or raises one of our errors, all of them raise that: nobody
        waits for a process that will not come.
        """
        if self.size == 1:
            return [work()]
        try:
            outcome = work()
        except (Interrupted, RunError, UserError, BrokenPipeError) as error:
            outcome = error
        outcomes = [None] * self.size
        with _telling_loss_of_contact():
            dist.all_gather_object(outcomes, outcome)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return outcomes

    def from_first(self, work: Callable[[], object]) -> object:
        """What work() returns in the first process, where alone it is done."""
        return self.gather(lambda: work() if self.is_first else None)[0]


ALONE = Processes()


@contextlib.contextmanager
def processes():
    """The processes that torchrun has started together, or this one alone.

    Raises UserError if the environment's variables make no sense, or nobody else comes.
    """
    if not set(LAUNCHED) <= os.environ.keys():
        yield ALONE
        return
    rank, size = _place()
    with ending_at_once():
        # Imported later, as torch does, it would keep the group of processes alive in its functions'
        # defaults; one that outlives destroy_process_group aborts the program as it ends, at times.
        import torch.distributed.nn

        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=_meet(rank, size), rank=rank, world_size=size)
    try:
        yield Processes(rank, size)
    except RuntimeError as error:
        # in backward, where the gradients are averaged
        is_loss = any(words in str(error) for words in LOSS_OF_CONTACT)
        raise _loss_of_contact(error) if is_loss else error from None
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _place() -> tuple[int, int]:
    """This process's number and how many there are, as the launcher says."""
    values = {name: os.environ[name] for name in LAUNCHED}
    with contextlib.suppress(ValueError):
        rank, size, _ = (int(values[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        if 0 <= rank < size:
            return rank, size
    said = ", ".join(f"{name}={value}" for name, value in values.items())
    raise UserError(f"{printable(said)}: no launcher says so; {ALONE_AGAIN}")


def _meet(rank: int, size: int) -> dist.Store:
    """Where the processes find each other. Says after some seconds for whom this one waits.

    A shell may have a launcher's variables left over, and nobody else will ever come.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        seconds = float(os.environ.get(PATIENCE, "300"))
    except ValueError:
        raise UserError(f"{PATIENCE}: expected a number of seconds") from None
    said = ", ".join(f"{name}={os.environ[name]}" for name in LAUNCHED)
    others = "the first process" if rank else f"{size - 1} other processes"
    waits = printable(f"process {rank} of {size} waits for {others} at {address}:{port} ({said})")
    notice = threading.Timer(
        SECONDS_TO_WONDER,
        tell,
        [f"{waits}; it gives up after {seconds:g} s ({PATIENCE}); {ALONE_AGAIN}"],
    )
    notice.daemon = True
    notice.start()
    try:
        if rank or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            _wait_for_listener(address, port, seconds)  # torch would fill the screen meanwhile
        store, *_ = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{waits}, in vain: {printable(reason)}; {ALONE_AGAIN}") from None
    finally:
        notice.cancel()
    return store


def _wait_for_listener(address: str, port: int, seconds: float) -> None:
    """Return as soon as somebody listens there. Raises OSError after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), timeout=max(1, seconds)).close()
            return
        time.sleep(0.2)
    raise TimeoutError("nobody listens there")


def check_batch_size(batch_size: int, size: int) -> None:
    """Raises UserError if there are fewer strings in a batch than processes."""
    if batch_size < size:
        raise UserError(
            f"data.batch_size: {batch_size} strings cannot be shared out to {size} processes; it is"
            " the size of a step's whole batch, whatever the number of processes"
        )


def _has_unused_parameters(model: nn.Module, length: int) -> bool:
    """Whether some parameters may get no gradient, which costs a search in every step.

    Tried several times, since a network may leave out parts by chance, and with a copy, whose running
    statistics nobody will miss. All processes try the same.
    """
    model = copy.deepcopy(model)
    device = next(model.parameters()).device
    t = torch.ones(2, dtype=torch.int64, device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for trial in range(TRIALS):
            torch.manual_seed(trial)
            model.zero_grad(set_to_none=True)
            model(torch.zeros(2, length, device=device), t).sum().backward()
            if any(p.grad is None for p in model.parameters() if p.requires_grad):
                return True
    return False


@contextlib.contextmanager
def _telling_loss_of_contact():
    try:
        yield
    except RuntimeError as error:
        raise _loss_of_contact(error) from None


def _loss_of_contact(error: Exception) -> RunError:
    reason = (str(error).splitlines() or [""])[0]
    return RunError(f"another process has gone, and this one with it: {reason[:200]}")
