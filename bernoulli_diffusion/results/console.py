"""What train.py tells a person before and after training."""

from __future__ import annotations

import copy
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..estimate import decimals, text
from ..sampling import ProposalTimes, is_thinning_faster
from .record import Bound, Measured, Results

if TYPE_CHECKING:  # the trainer itself uses results/
    from ..training.trainer import Trainer

try:
    import resource
except ImportError:  # Windows
    resource = None

CHECK_STEPS = 20  # at most
SECONDS_TO_CHECK = 2  # for these
LONG_ENOUGH = 0.2  # seconds of work by which a longer one is priced
PRICED_TIMES = 8  # t for each sample, or fewer, where a step is priced by a part of it


def data_warnings(trainer: Trainer) -> list[str]:
    """Things about the data that are no mistakes but change how the results are to be read."""
    folder, notes = trainer.folder, list(trainer.folder.notes)
    val_txt = folder.path / "val.txt"
    if folder.val is None:
        notes.append(
            f"{val_txt}: not there; the bound on unseen {trainer.kind.SAMPLES} is missing, and"
            " model_best.pt goes by the bound on train.txt"
        )
        return notes
    for fact, meaning in (
        ("val_lines_in_train", "generated copies of them count as train"),
        ("val_copies", "what is said of unseen samples is not to be relied on"),
    ):
        if in_train := trainer.results.data.facts.get(fact):
            where, rest = f"{val_txt}: {in_train:,} of its", "train.txt"
            if folder.is_split:
                where, rest = (
                    f"{folder.path / 'train.txt'}: {in_train:,} of the held-out",
                    "the rest",
                )
            notes.append(f"{where} {len(folder.val):,} lines also stand in {rest}; {meaning}")
    return notes


def start(trainer: Trainer) -> str:
    """The run in a few lines: data, network, plan, baselines."""
    folder, config, kind = trainer.folder, trainer.config, trainer.kind
    measures = trainer.validator.measures
    where = "held out" if folder.is_split else "in val.txt"
    val = f"{len(folder.val):,} {where}" if folder.val else "no val.txt"
    steps = trainer.loop.batches.steps_per_epoch
    return "\n".join(
        [
            f"data       {len(folder.train):,} {kind.SAMPLES} of {trainer.length} {kind.UNITS}"
            f"{measures.data_in_short()}, {val}",
            f"network    {folder.source.path}, {trainer.num_parameters:,} parameters,"
            f" T = {config.model.T}, on {trainer.device}",
            *(
                [f"start      weights of {begun}"]
                if (begun := trainer.results.started_from)
                else []
            ),
            f"plan       {_length(trainer)} of {steps:,}"
            f" step{'s' if steps > 1 else ''} of {config.data.batch_size:,} {kind.SAMPLES}",
            f"baselines  {_baselines(trainer.results)}",
        ]
    )


def _at_most(trainer: Trainer) -> str:
    return "at most " if trainer.training.lr_schedule == "adaptive" else ""


def _length(trainer: Trainer) -> str:
    if trainer.loop.plan.ends_by_time:
        return f"at most {trainer.training.max_minutes:g} min in epochs"
    return f"{_at_most(trainer)}{trainer.training.epochs:,} epochs"


def end(trainer: Trainer) -> str:
    """The outcome, and what to type next."""
    results, measured = trainer.results, trainer.results.recommended
    best, by = results.best_epoch, results.judged_by
    lines = [results.status]
    if results.val_is_unlike:
        lines.append("val        no guide: what was learnt makes its bound worse (see report.html)")
    if best is not None:
        of_it = "; what follows is said of it" if results.last else ""
        lines.append(f"best       epoch {best}, by the bound on {by}: model_best.pt{of_it}")
    sample = results.samples.removesuffix("s")
    for name, bound in measured.bounds.items():
        if bound:
            value = text(bound.bits, bound.standard_error)
            lines.append(f"bound      {value} bits per {sample} on {name}{_alone(bound)}")
    lines.append(f"compared   {_compared(results)}")
    if shares := _shares(trainer.recommended.reverse_model):
        lines.append(f"made of    {shares}")
    lines.append(f"samples    {_samples(results, measured)}")
    if results.last:
        lines.append(f"last       {_last(results)}")
    lines.append(f"time       {trainer.seconds():.1f} s")
    if best is not None:
        path = trainer.results_dir / "checkpoints" / "model_best.pt"
        steps = trainer.validator.num_final_steps  # the sampler that the shares are said of
        how = f" --steps {steps}" if steps else ""
        lines.append(f"next       python generate.py {shlex.quote(str(path))} 10{how}")
    return "\n".join(lines)


def more(trainer: Trainer) -> list[str]:
    """The --set assignments with which a finished run goes on; none if it followed val to its end."""
    training, plan = trainer.training, trainer.loop.plan
    patience, minutes = training.patience, training.max_minutes
    wanted = []
    if trainer.step >= trainer.total_steps:
        if training.lr_schedule == "adaptive":
            return []
        wanted.append(f"training.epochs={2 * training.epochs}")
    if patience and plan.validations_without_progress >= patience:
        wanted.append(f"training.patience={plan.validations_without_progress + patience}")
    if minutes and trainer.now >= 60 * minutes:
        wanted.append(f"training.max_minutes={trainer.now / 60 + minutes:.3g}")
    return wanted


def _alone(bound: Bound) -> str:
    """The error over the lines of the file alone: what is left if these are all that count."""
    if bound.monte_carlo_error is None:
        return ""
    digits = decimals(bound.monte_carlo_error)
    return f" (± {bound.monte_carlo_error:,.{digits}f} for these lines alone)"


def _samples(results: Results, measured: Measured) -> str:
    shown = (m for m in results.measures if m.short)
    return ", ".join(m.in_words(measured.samples.get(m.name, m.values[-1])) for m in shown)


def _last(results: Results) -> str:
    """The last weights, if others are recommended."""
    last = results.last
    bounds = ", ".join(
        f"{text(b.bits, b.standard_error)} bits on {name}" for name, b in last.bounds.items() if b
    )
    return f"epoch {last.epoch}, {last.checkpoint}: {bounds}; {_samples(results, last)}"


def _baselines(results: Results) -> str:
    known = results.known_baselines().items()
    return ", ".join(f"{name} {bits:.3f}" for name, bits in known) + f" bits on {results.judged_by}"


def _compared(results: Results) -> str:
    """The bound of the recommended weights against what needs no network."""
    bound = results.recommended.bounds[results.judged_by]
    digits = decimals(bound.standard_error)
    gains = ((name, bits - bound.bits) for name, bits in results.known_baselines().items())
    return ", ".join(
        f"{abs(gain):.{digits}f} bits {'better' if gain >= 0 else 'worse'} than {name}"
        for name, gain in gains
    )


def _shares(model) -> str | None:
    """Whom the recommended weights listen to, where there are several; see reverse_model.py."""
    companions, confidence = (getattr(model, name, None) for name in ("companions", "confidence"))
    if not isinstance(companions, torch.nn.ModuleDict) or not confidence[1:].any():
        return None
    shares = zip(["what was trained", *companions], confidence.tolist(), strict=True)
    return ", ".join(f"{share:.0%} {name}" for name, share in shares if share)


def check(trainer: Trainer) -> str:
    """Sizes, and an estimate of time and memory from a few steps of this trainer (not used again)."""
    step = _seconds_per_step(trainer)
    validations = trainer.loop.plan.count_validations()
    validation = _seconds_per_validation(trainer)
    steps, minutes = trainer.total_steps, trainer.training.max_minutes
    if minutes:
        steps = min(steps, max(1, round(60 * minutes / step)))
    return "\n".join(
        [
            start(trainer),
            f"time       {_at_most(trainer) or 'about '}{_duration(step * steps)} for {steps:,} steps"
            f" ({1000 * step:.1f} ms each) and {_duration(validation * validations)} for"
            f" {validations:,} validations",
            f"memory     {_peak_memory()}"
            f"{trainer.folder.train.nbytes / 1e6:.1f} MB of it the training {trainer.kind.SAMPLES}",
            f"{trainer.folder.path}: ready to train",
        ]
    )


def _seconds_per_step(trainer: Trainer) -> float:
    """Of a few steps or, if they take long, priced by a part of a batch."""
    loop, times = trainer.loop, trainer.config.model.num_sample_steps
    trial = copy.deepcopy(loop.diffusion)
    x_0, few = loop.batches.batch(0), min(times, PRICED_TIMES)

    def part(n: int) -> None:
        trial.loss(x_0[:n], few).sum().backward()

    seconds = _priced(part, len(x_0)) * times / few
    steps = min(CHECK_STEPS, int(SECONDS_TO_CHECK / seconds))
    if not steps:
        return seconds
    trainer.choose_threads()
    for _ in range(steps // 4):  # the first steps allocate memory
        loop.train_step()
    loop.look_at_losses()
    start = time.perf_counter()
    for _ in range(steps):
        loop.train_step()
    loop.look_at_losses()  # waits for the device
    return (time.perf_counter() - start) / steps


def _priced(work: Callable[[int], object], count: int) -> float:
    """Seconds that work(count) would take, by those of work(n) for an n that is large enough."""
    n = 1
    while True:
        start = time.perf_counter()
        work(n)
        seconds = time.perf_counter() - start
        if n >= count or (n > 1 and seconds > LONG_ENOUGH) or seconds > 1:
            return seconds * count / n
        n = min(count, 4 * n)


@torch.inference_mode()
def _seconds_per_validation(trainer: Trainer) -> float:
    """The network calls for the samples, priced by one of them."""
    training, diffusion = trainer.training, trainer.averaged
    calls = min(training.num_val_steps or diffusion.T, diffusion.T)
    if calls == diffusion.T and is_thinning_faster(diffusion, trainer.length):
        proposals = ProposalTimes(diffusion.process.flips.max_flip_probability())
        calls = proposals.expected_network_calls(trainer.length)
    batch = min(training.val_batch_size, training.num_val_samples)
    x_t = torch.zeros(batch, trainer.length, device=trainer.device)
    t = torch.ones(batch, dtype=torch.int64, device=trainer.device)

    def call(n: int) -> None:
        diffusion.reverse_model(x_t[:n], t[:n]).sum().item()

    call(1)
    return _priced(call, batch) * calls * training.num_val_samples / batch


def _peak_memory() -> str:
    if resource is None:
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"about {peak / 1e9:.1f} GB, "


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
