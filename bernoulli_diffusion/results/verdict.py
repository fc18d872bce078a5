"""What the numbers of a run say, in plain words, with the evidence: from results.json alone.

Two validations are compared by pairs of blocks of lines, which have the same random numbers; results
of version 1.0 kept no blocks, and are compared as if the noise were drawn anew each time, which is on
the safe side. A finding is made only where such a difference is beyond doubt, and "converged" only
where a fall that would matter is ruled out; if neither, it is said that it cannot be told.
"""

import math
from typing import NamedTuple

from ..estimate import BLOCKS, SURE, Difference, difference, text, times_error
from .record import Bound, Results

ENOUGH = 3  # validations of trained weights before a trend is spoken of
CLEAR = 3  # standard errors for what is the best, or worst, of many
NOTABLE = 0.02  # of what needs no network: a smaller gain is no sign of learning
WORTHWHILE = 0.005  # of the bound: a smaller fall in half of the training is not worth the time


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
    """The bound on train or val, without the validation before the first step (if there are others).

    Weights that were measured again, precisely, have that number.
    """
    bits, errors = (vars(results.bound)[key] for key in (name, f"{name}_standard_error"))
    points = [Point(*p) for p in zip(results.validated_epochs, bits, errors, strict=True)]
    for measured in (results.recommended, results.last):
        if measured and (bound := measured.bounds.get(name)):
            again = Point(measured.epoch, bound.bits, bound.standard_error)
            points = [again if p.epoch == measured.epoch else p for p in points]
    return [p for p in points if p.epoch > 0] or points


def best_bounds(results: Results) -> dict[str, Point] | None:
    """The bounds of the recommended weights, by name, the one they were judged by first.

    None before the first validation.
    """
    names = ("train", "val") if results.judged_by == "train" else ("val", "train")
    curves = {name: curve(results, name) for name in names if name == "train" or results.has_val}
    if not curves["train"]:
        return None
    again, judged = results.recommended, curves[names[0]]
    if again:
        known = ((name, again.bounds.get(name)) for name in curves)
        return {n: Point(again.epoch, b.bits, b.standard_error) for n, b in known if b}
    best = min(range(len(judged)), key=lambda k: judged[k].bits)
    bounds = {name: points[best] for name, points in curves.items()}
    final = results.final_bound
    if final and best == len(judged) - 1:  # of version 1.0
        for name, point in bounds.items():
            bounds[name] = Point(point.epoch, final[name].bits, final[name].standard_error)
    return bounds


def change(results: Results, name: str, a: int, b: int) -> Difference:
    """The bound at validation number a less that at number b, by pairs if there are blocks."""
    blocks = results.blocks.get(name, [])
    if max(a, b) < len(blocks) and blocks[a] and blocks[b]:
        lines = results.block_lines[name]
        if (found := difference(blocks[a], blocks[b], lines)) is not None:
            return found
    bits, errors = (vars(results.bound)[key] for key in (name, f"{name}_standard_error"))
    return Difference(bits[a] - bits[b], math.hypot(errors[a], errors[b]), BLOCKS)


def difference_of(a: Bound, b: Bound) -> Difference | None:
    """a - b of two runs' weights by pairs; None if they are not of the same lines and draws."""
    return difference(a.blocks, b.blocks, a.lines, b.lines) if a.lines and b.lines else None


def validations_without_progress(results: Results) -> int:
    """How many validations ago the bound by which weights are judged last fell beyond doubt.

    Progress is measured from the last validation that made some, so that many small steps add up.
    """
    name, since, reference = results.judged_by, 0, None
    for k, epoch in enumerate(results.validated_epochs):
        if epoch == 0:
            continue
        if reference is None or change(results, name, k, reference).is_lower:
            reference, since = k, 0
        else:
            since += 1
    return since


def floor(results: Results, name: str) -> float | None:
    """Bits on train or val of the best model that knows nothing of what goes together."""
    keys = ("uniform", f"independent_{name}", f"isotropic_{name}")
    known = [results.baselines.get(key) for key in keys]
    return min((bits for bits in known if bits is not None), default=None)


def nothing_learnt(results: Results, name: str) -> float | None:
    """Bits of a model that was not trained at all: coin flips, or one Gaussian for all numbers."""
    uniform = results.baselines.get("uniform")
    return results.baselines.get(f"isotropic_{name}") if uniform is None else uniform


def has_beaten(results: Results, name: str) -> bool:
    """Whether the bound on train or val was ever lower than floor by more than chance explains."""
    return any(_beats(results, name, p.bits, p.error) for p in curve(results, name))


def _beats(results: Results, name: str, bits: float, error: float) -> bool:
    least = floor(results, name)
    return least is not None and bits + SURE * error < least - NOTABLE * abs(least)


def may_be_of_another_kind(results: Results) -> bool:
    """Whether val.txt's lines cost more than training lines that were left out (or that is unknown).

    If they do not, they are of the same kind as those of train.txt.
    """
    return results.data.facts.get("val_excess", math.inf) >= CLEAR


def is_val_unlike(results: Results) -> bool:
    """Whether val.txt is no guide: what is learnt from train.txt makes its bound worse.

    The bound on val has never beaten what needs no network, and is clearly worse than that now; the
    bound on train has. So it is with lines of another kind.
    """
    if not results.has_val or not may_be_of_another_kind(results):
        return False
    if has_beaten(results, "val") or not has_beaten(results, "train"):
        return False
    last, least = curve(results, "val")[-1], floor(results, "val")
    return least is not None and last.bits - SURE * last.error > least


def is_val_unlike_now(results: Results, least_val: float, val: Bound, train: Bound) -> bool:
    """The same of bounds just measured; least_val: the least on val so far."""
    least = floor(results, "val")
    if least is None or not may_be_of_another_kind(results):
        return False
    was_beaten = _beats(results, "val", min(least_val, val.bits), val.standard_error)
    is_worse = val.bits - SURE * val.standard_error > least
    return (
        is_worse and not was_beaten and _beats(results, "train", train.bits, train.standard_error)
    )


def has_diverged(results: Results, last: int = 1) -> bool:
    """Whether the last so many bounds on train are worse than those of a model that learnt nothing."""
    points, least = curve(results, "train"), nothing_learnt(results, "train")
    points = [p for p in points if p.epoch > 0][-last:]
    if least is None or len(points) < last:
        return False
    return all(p.bits - CLEAR * p.error > least for p in points) and points[-1].bits >= (
        min(p.bits for p in points)
    )


def findings(results: Results) -> list[Finding]:
    """All that can be said of a run, the most important first; never empty."""
    found, seen = _failed(results), len([e for e in results.validated_epochs if e > 0])
    if seen and has_diverged(results):
        return [*found, *_diverged(results)]
    if seen < ENOUGH:
        validations = "validation" if seen == 1 else "validations"
        evidence = f"{seen} {validations} of trained weights so far; a trend needs {ENOUGH}."
        return found or [Finding("Too early to say.", evidence, "neutral")]
    if results.val_is_unlike:
        found += _unlike(results)
    overfitting = _overfitting(results)
    undertrained = _undertrained(results)
    memorising = _memorising(results)
    trend = [] if overfitting else _trend(results)
    if undertrained:  # a flat curve up there is no success
        trend = [f for f in trend if f.tone != "good"]
    return [*found, *overfitting, *memorising, *undertrained, *trend]


def _failed(results: Results) -> list[Finding]:
    status = results.status
    if not status.startswith("failed"):
        return []
    return [Finding("The run failed.", status.removeprefix("failed: ") + ".", "bad")]


def _diverged(results: Results) -> list[Finding]:
    least, last = nothing_learnt(results, "train"), curve(results, "train")[-1]
    what = "coin flips" if "uniform" in results.baselines else "a single Gaussian"
    evidence = (
        f"The bound on train is {_bits(last)}; {what} need {least:,.3f}. Training has gone astray, and"
        " more of it will hardly help: try a smaller training.lr."
    )
    return [Finding(f"Diverged: worse than {what}.", evidence, "bad")]


def _unlike(results: Results) -> list[Finding]:
    val = curve(results, "val")
    best = min(val, key=lambda p: p.bits)
    evidence = (
        f"The bound on val was never beyond doubt better than the {floor(results, 'val'):,.3f} bits"
        f" that need no network ({_bits(best)} at best, {_bits(val[-1])} now); that on train is. Either"
        " the lines of val.txt are of another kind, or nothing that was learnt carries over to them."
        " The weights are recommended by the bound on train."
    )
    return [Finding("val.txt is no guide: it is unlike what was learnt.", evidence, "bad")]


def _overfitting(results: Results) -> list[Finding]:
    """The bound on val has risen since its best, while that on train has not."""
    if results.judged_by != "val":
        return []
    bits = results.bound.val
    trained = [k for k, epoch in enumerate(results.validated_epochs) if epoch > 0]
    best, last = min(trained, key=lambda k: bits[k]), trained[-1]
    # the best of many is low by chance as well, and a single high value could be chance
    rises = [change(results, "val", k, best) for k in trained if k > best][-2:]
    if not rises or any(d.bits <= CLEAR * d.standard_error for d in rises):
        return []
    if change(results, "train", last, best).is_higher:
        return []  # it got worse everywhere: that is not overfitting
    val, train = curve(results, "val"), curve(results, "train")
    epoch = results.validated_epochs[best]
    at = next(k for k, p in enumerate(val) if p.epoch == epoch)
    evidence = (
        f"The bound on val was {_bits(val[at])} at epoch {epoch:,} and is {_bits(val[-1])} now, higher"
        f" by {_amount(rises[-1])}; on train it went from {_bits(train[at])} to {_bits(train[-1])}."
        " model_best.pt has the weights of the best epoch."
    )
    return [Finding(f"Overfitting since epoch {epoch:,}.", evidence, "bad")]


def _memorising(results: Results) -> list[Finding]:
    """Samples are training strings, though held-out ones should be among them by now."""
    shares = {name: results.measure(f"share_{name}") for name in ("train", "val", "other")}
    if not all(shares.values()):  # real numbers are never drawn twice
        return []
    shares = {name: results.shown(measure) for name, measure in shares.items()}
    if shares["other"] >= 0.01:
        return []
    data, n = results.data, results.num_val_samples
    copies = f"{100 * shares['train']:.1f}% of {n:,} samples are strings of train.txt"
    if results.judged_by != "val":
        missing = "in val.txt" if not results.has_val else "of the same kind in val.txt"
        evidence = f"{copies}. Hold some strings out {missing} to tell learning from memorising."
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


def _trend(results: Results) -> list[Finding]:
    """What the second half of the training has brought, and its last quarter."""
    name, epochs = results.judged_by, results.validated_epochs
    trained = [k for k, epoch in enumerate(epochs) if epoch > 0]
    last = trained[-1]

    def since(share: float) -> tuple[int, Difference]:
        before = [k for k in trained if epochs[k] <= share * epochs[last]] or trained[:1]
        return before[-1], change(results, name, before[-1], last)

    start, fall = since(0.75)
    half, half_fall = since(0.5)
    point = curve(results, name)[-1]
    matters = WORTHWHILE * max(abs(point.bits), 1.0)

    def told(k: int, by: Difference) -> str:
        verb = "fell" if by.bits >= 0 else "rose"
        return (
            f"Since epoch {epochs[k]:,} (of {epochs[last]:,}) the bound on {name} {verb} by"
            f" {_amount(by)}, to {_bits(point)}"
        )

    if fall.is_higher and fall.bits > matters:
        more = "More epochs would probably help."
        return [Finding("Still improving.", f"{told(start, fall)}. {more}", "neutral")]
    if fall.is_lower and -fall.bits > matters:
        return [Finding("Getting worse.", f"{told(start, fall)}.", "bad")]
    reach = times_error(half_fall.blocks) * half_fall.standard_error
    if half_fall.bits + reach < matters and half_fall.bits - reach > -CLEAR * matters:
        evidence = (
            f"{told(half, half_fall)}: a fall of {matters:.2g} bits or more is"
            " ruled out. That is so at this learning rate and for this network; others may do better."
        )
        return [Finding("Converged.", evidence, "good")]
    evidence = (
        f"{told(half, half_fall)}; and by {_amount(fall)} since epoch {epochs[start]:,}. Whether a"
        " longer run would do better cannot be told from this one: a falling learning rate ends every"
        " curve flat."
    )
    return [Finding("Cannot tell yet whether more training would help.", evidence, "neutral")]


def _amount(by: Difference) -> str:
    return f"{text(abs(by.bits), by.standard_error)} bits"


def _bits(point: Point) -> str:
    return f"{text(point.bits, point.error)} bits"
