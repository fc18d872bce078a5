"""What the numbers of a run say, in plain words, with the evidence: from results.json alone.

A finding is made only where the difference is several times its standard error. The standard errors
count the noise as if it were drawn anew at each validation; it is not, so they are on the safe side.
"""

import math
from itertools import pairwise
from typing import NamedTuple

from .record import Results

ENOUGH = 3  # validations of trained weights before a trend is spoken of
RISES = 5  # last values of the bound on val, each above the one before
WORTHWHILE = 0.005  # of the bound: a fall of less in the last quarter is not worth the time


class Finding(NamedTuple):
    """What is claimed, what it rests on, and whether it is "good", "bad" or "neutral"."""

    claim: str
    evidence: str
    tone: str


class Point(NamedTuple):
    """A validation of trained weights."""

    epoch: float
    bits: float
    error: float


def curve(results: Results, name: str) -> list[Point]:
    """The bound on train or val, without the validation before the first step (if there are others)."""
    bits, errors = (vars(results.bound)[key] for key in (name, f"{name}_standard_error"))
    points = [Point(*p) for p in zip(results.validated_epochs, bits, errors, strict=True)]
    return [p for p in points if p.epoch > 0] or points


def best_bounds(results: Results) -> dict[str, Point] | None:
    """The bounds at the validation with the lowest bound on val (else on train), by name.

    If that is the last one and the run has come to its end, those of the more precise final
    measurement. None before the first validation.
    """
    names = ("val", "train") if results.has_val else ("train",)
    curves = {name: curve(results, name) for name in names}
    if not curves["train"]:
        return None
    judged_by = curves[names[0]]
    best = min(range(len(judged_by)), key=lambda i: judged_by[i].bits)
    bounds = {name: points[best] for name, points in curves.items()}
    final = results.final_bound
    if final and best == len(judged_by) - 1:
        for name, point in bounds.items():
            bounds[name] = Point(point.epoch, final[name].bits, final[name].standard_error)
    return bounds


def findings(results: Results) -> list[Finding]:
    """All that can be said of a run, the most important first; never empty."""
    judged_by = results.judged_by
    points = curve(results, judged_by)
    found = _failed(results)
    if len([p for p in points if p.epoch > 0]) < ENOUGH:
        seen = len([p for p in points if p.epoch > 0])
        evidence = (
            f"{_plural(seen, 'validation')} of trained weights so far; a trend needs {ENOUGH}."
        )
        return found or [Finding("Too early to say.", evidence, "neutral")]
    overfitting = _overfitting(results)
    return [
        *found,
        *overfitting,
        *_memorising(results),
        *_undertrained(results),
        *([] if overfitting else _trend(points, judged_by)),
    ]


def _failed(results: Results) -> list[Finding]:
    status = results.status
    if not status.startswith("failed"):
        return []
    return [Finding("The run failed.", status.removeprefix("failed: ") + ".", "bad")]


def _overfitting(results: Results) -> list[Finding]:
    """The bound on val has risen since its best, while that on train has not."""
    if not results.has_val:
        return []
    val, train = curve(results, "val"), curve(results, "train")
    best = min(range(len(val)), key=lambda i: val[i].bits)
    after = val[best + 1 :]
    # a single high value could be chance
    far = after and all(p.bits - val[best].bits > 3 * _error(p, val[best]) for p in after[-2:])
    # chance orders so many values so once in RISES! times
    steady = len(after) >= RISES and all(a.bits < b.bits for a, b in pairwise(after[-RISES:]))
    risen = val[-1].bits - val[best].bits > _error(val[-1], val[best])
    if not (far or (steady and risen)):
        return []
    if train[-1].bits > train[best].bits + 2 * _error(train[-1], train[best]):
        return []  # it got worse everywhere: that is not overfitting
    evidence = (
        f"The bound on val was {_bits(val[best])} at epoch {val[best].epoch:,} and is"
        f" {_bits(val[-1])} now; on train it went from {_bits(train[best])} to {_bits(train[-1])}."
        " model_best.pt has the weights of the best epoch."
    )
    return [Finding(f"Overfitting since epoch {val[best].epoch:,}.", evidence, "bad")]


def _memorising(results: Results) -> list[Finding]:
    """Samples are training strings, though held-out ones should be among them by now."""
    shares = {name: results.measure(f"share_{name}") for name in ("train", "val", "other")}
    if not all(shares.values()):  # real numbers are never drawn twice
        return []
    shares = {name: measure.values[-1] for name, measure in shares.items()}
    if shares["other"] >= 0.01:
        return []
    data, n = results.data, results.num_val_samples
    copies = f"{100 * shares['train']:.1f}% of {n:,} samples are strings of train.txt"
    if not results.has_val:
        evidence = f"{copies}. Hold some strings out in val.txt to tell learning from memorising."
        return [Finding("Nothing new appears among the samples.", evidence, "neutral")]
    held_out = data.val.lines - data.facts.get("val_lines_in_train", 0)
    expected = n * held_out / (data.train.lines + held_out)
    seen = n * shares["val"]
    numbers = (
        f"{copies}, {seen:.0f} are held-out strings (about {expected:.0f} if all lines of the two"
        f" files were equally likely), {100 * shares['other']:.1f}% are in neither file"
    )
    if expected >= 10 and seen <= expected / 10:
        claim = "Memorising: neither new nor held-out strings appear."
        return [Finding(claim, f"{numbers}.", "bad")]
    if expected < 10:
        evidence = f"{numbers}: too few to tell learning from memorising."
        return [Finding("Nearly all samples are training strings.", evidence, "neutral")]
    if seen >= expected / 2:
        claim = "Held-out strings appear among the samples, and next to nothing else is new."
        return [Finding(claim, f"{numbers}.", "good")]
    return []


def _undertrained(results: Results) -> list[Finding]:
    """On train, hardly better than a model in which bits have nothing to do with each other."""
    baseline, last = results.baselines.get("independent_train"), curve(results, "train")[-1]
    if baseline is None:
        return []
    gain = baseline - last.bits
    if gain > 0.02 * baseline + 2 * last.error:
        return []
    evidence = (
        f"The bound on train is {_bits(last)}; independent bits, a column of averages, need"
        f" {baseline:.3f}. Either the run was too short, or this network does not find what goes"
        " together, or nothing does."
    )
    return [Finding("Undertrained: near the independent-bits baseline.", evidence, "bad")]


def _trend(points: list[Point], judged_by: str) -> list[Finding]:
    """What the last quarter of the training has brought."""
    last = points[-1]
    before = [p for p in points if p.epoch <= 0.75 * last.epoch] or points[:1]
    start = before[-1]
    fall, error = start.bits - last.bits, _error(start, last)
    since = f"Since epoch {start.epoch:,} (of {last.epoch:,}) the bound on {judged_by}"
    numbers = f"{abs(fall):.3f} ± {error:.3f} bits, to {_bits(last)}"
    if fall > 2 * error and fall > WORTHWHILE * abs(last.bits):
        evidence = f"{since} fell by {numbers}. More epochs would probably help."
        return [Finding("Still improving.", evidence, "neutral")]
    if fall < -2 * error:
        return [Finding("Getting worse.", f"{since} rose by {numbers}.", "bad")]
    evidence = (
        f"{since} {'fell' if fall >= 0 else 'rose'} by {numbers}: no more than noise, or too little"
        " to matter. That is so at this learning rate and for this network; others may do better."
    )
    return [Finding("Converged.", evidence, "good")]


def _error(a: Point, b: Point) -> float:
    """The standard error of their difference."""
    return math.hypot(a.error, b.error)


def _bits(point: Point) -> str:
    return f"{point.bits:.3f} ± {point.error:.3f} bits"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
