"""What results.json holds: read and written here alone.

Measures of samples describe themselves (name, unit, what is better, how they are shown), so whoever
shows them needs no list of them: a new one is added in measures.py of its kind of data, and nowhere
else. All earlier files are read. Imports neither torch nor numpy.
"""

import json
import math
import types
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from ..system.errors import UserError, cannot_open, printable

FORMAT = 2  # 1.0 wrote no number: 1
FILE_NAME = "results.json"


class Shown(NamedTuple):
    """One measure or several of one unit, in short: "train/val/neither", "50.0/30.0/20.0%", ""."""

    title: str
    value: str
    note: str  # what chance alone would show


@dataclass
class Measure:
    """A number that is measured of the samples at every validation, and how it is shown."""

    name: str  # the column of metrics.jsonl
    label: str  # in words: "in train.txt"
    short: str = ""  # in a table or on one line; "" keeps it out of them
    unit: str = ""  # "share": from 0 to 1, shown in percent
    better: str = ""  # "higher" or "lower"; "" if it is neither
    digits: int = 1  # behind the point
    floor: float | None = None  # what chance alone would show: the mean
    floor_high: float | None = None  # and what it exceeds once in 20 times
    values: list[float] = field(default_factory=list)  # one for each validation

    @property
    def tag(self) -> str:
        """Its name for TensorBoard: share/train, energy distance."""
        if self.unit:
            return f"{self.unit}/{self.name.removeprefix(self.unit + '_')}"
        return self.name.replace("_", " ")

    def number(self, value: float) -> str:
        """The value without its sign of percent."""
        return f"{100 * value if self.unit == 'share' else value:.{self.digits}f}"

    def text(self, value: float) -> str:
        return self.number(value) + ("%" if self.unit == "share" else "")

    def in_words(self, value: float) -> str:
        """50.0% in train.txt; energy distance 0.0200, by chance 0.0100."""
        value = self.text(value)
        words = f"{value} {self.label}" if self.unit == "share" else f"{self.label} {value}"
        if self.floor is not None:
            words += f" ({self.text(self.floor)} by chance"
            words += f", up to {self.text(self.floor_high)})" if self.floor_high else ")"
        return words


@dataclass
class File:
    """A file of data."""

    lines: int
    sha256: str


@dataclass
class Data:
    """What the model was trained on. facts: what else there is to know, by the kind of data."""

    train: File
    val: File | None = None
    facts: dict[str, float] = field(default_factory=dict)


@dataclass
class Bound:
    """A bound on -log2 p(x), in bits per sample, and its errors, as in estimate.Estimate."""

    bits: float
    standard_error: float  # as an estimate for the law: the lines are a sample of it
    monte_carlo_error: float | None = None  # for these lines alone; None if it is not known
    lines: int = 0  # that were drawn
    blocks: list[float] = field(default_factory=list)  # means of blocks of lines, for differences


@dataclass
class Measured:
    """Some weights, measured precisely: what is said of them at the end of a run."""

    epoch: float
    date: str  # when they were measured
    checkpoint: str  # the name of their file in checkpoints/
    bounds: dict[str, Bound | None]  # of train and val
    samples: dict[str, float] = field(default_factory=dict)  # what was measured of samples
    examples: list = field(default_factory=list)  # the first of these


@dataclass
class Bounds:
    """The bounds at each validation, in bits per sample; those on val are empty without val.txt."""

    train: list[float] = field(default_factory=list)
    train_standard_error: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    val_standard_error: list[float] = field(default_factory=list)


@dataclass
class Results:
    """A run: what it was made from, its curves, and where it stands."""

    status: str  # "running", "finished", "finished: ...", "stopped by ...", "failed: ..."
    length: int  # values in a sample
    data: Data
    baselines: dict[str, float | None]  # bits a sample without a network; None: there is none
    num_val_samples: int
    num_parameters: int
    reverse_model_sha256: str
    seed: int
    device: str
    versions: dict[str, str]
    config_sha256: str | None = ""  # of the run folder's config.yaml; "": not known, None: no file
    started_from: str | None = None  # the checkpoint with whose weights the run began (--from)
    threads: int | None = None  # of a training step, as measured at the start; None: not chosen
    process: str = "bernoulli"  # model.process
    samples: str = "strings"  # what they are called, in the plural
    units: str = "bits"  # and what they are made of
    losses: list[float] = field(default_factory=list)  # one an epoch: the mean training loss
    validated_epochs: list[float] = field(default_factory=list)  # one for each validation, and
    seconds: list[float] = field(default_factory=list)  # since the start
    bound: Bounds = field(default_factory=Bounds)
    measures: list[Measure] = field(default_factory=list)
    examples_per_epoch: list[list] = field(default_factory=list)  # the first samples of each
    blocks: dict[str, list[list[float]]] = field(default_factory=dict)  # of bound, for differences
    block_lines: dict[str, int] = field(default_factory=dict)  # over how many lines the blocks are
    final_bound: dict[str, Bound | None] | None = None  # those of recommended (in 1.0 of the last)
    recommended: Measured | None = None  # the weights in model_best.pt
    last: Measured | None = None  # the last weights, if they are others
    val_is_unlike: bool = False  # than what was learnt, so that it is no guide (see verdict.py)
    data_examples: list = field(default_factory=list)  # what samples are shown beside
    statistics: dict | None = None  # of the last samples; their form is the kind of data's own
    samples_per_second: float | None = None  # of the last validation
    best_epoch: float | None = None  # by the bound on judged_by

    @property
    def has_val(self) -> bool:
        return self.data.val is not None

    @property
    def judged_by(self) -> str:
        """The file by whose bound weights are chosen: "val", or "train" if there is none that guides."""
        return "val" if self.has_val and not self.val_is_unlike else "train"

    @property
    def shown_beside(self) -> str:
        """The file that samples are shown and measured beside."""
        return "val" if self.has_val else "train"

    @property
    def what_lines_are(self) -> str:
        """strings of 20 bits; samples of 2 numbers."""
        return f"{self.samples} of {self.length:,} {self.units}"

    def measure(self, name: str) -> Measure | None:
        return next((m for m in self.measures if m.name == name), None)

    def add_measured(self, values: dict[str, float]) -> None:
        """Add what was measured at a validation. A resumed run keeps to the measures it began with."""
        for measure in self.measures:
            measure.values.append(values[measure.name])

    def shown(self, measure: Measure) -> float:
        """What is told of samples: of those of the recommended weights, or else of the last ones."""
        samples = self.recommended.samples if self.recommended else {}
        return samples.get(measure.name, measure.values[-1])

    def last_in_short(self) -> list[Shown]:
        """The measures that are shown on one line; those of one unit together."""
        shown = []
        told = [m for m in self.measures if m.short and m.values]
        for unit, group in groupby(told, key=lambda m: m.unit or m.name):
            group = list(group)
            value = "/".join(m.number(self.shown(m)) for m in group) + "%" * (unit == "share")
            floor = group[0].floor
            note = "" if floor is None else f"{group[0].text(floor)} by chance"
            shown.append(Shown("/".join(m.short for m in group), value, note))
        return shown

    def last_on_one_line(self) -> str:
        """The same, for the progress bar: ", train/val/neither 50.0/30.0/20.0%"."""
        shown = self.last_in_short()
        return "".join(f", {s.title} {s.value}" + f" ({s.note})" * bool(s.note) for s in shown)

    def known_baselines(self) -> dict[str, float]:
        """Bits on judged_by of what needs no network, by its name in words."""
        found = {}
        for key, bits in self.baselines.items():
            here = key.endswith(f"_{self.judged_by}")
            if bits is not None and (here or not key.endswith(("_train", "_val"))):
                found[baseline_name(key).removesuffix(", val")] = bits
        return found


def baseline_name(key: str) -> str:
    """independent_train -> independent; independent_val -> independent, val."""
    name = key.removesuffix("_train").removesuffix("_val").replace("_", " ")
    return name.replace("gaussian", "Gaussian") + ", val" * key.endswith("_val")


# ---------------------------------------------------------------------------------------- writing


def to_text(results: Results) -> str:
    """results.json. Some of what it holds is there once more, under the names of 1.0."""
    shares = ("train", "val", "other")
    proportions = {name: results.measure(f"share_{name}") for name in shares}
    plain = vars(results) | {
        "format": FORMAT,
        "has_val": results.has_val,
        "data": {"train": results.data.train, "val": results.data.val, **results.data.facts},
    }
    if all(proportions.values()):
        plain["proportions"] = {name: m.values for name, m in proportions.items()}
    plain |= {m.name: m.values for m in results.measures if m not in proportions.values()}
    return json.dumps(plain, indent=1, default=vars)


# ---------------------------------------------------------------------------------------- reading


def read(folder: Path) -> Results:
    """results.json of a results folder, of this version or an earlier one. Raises UserError."""
    path = folder / FILE_NAME
    try:
        text = path.read_bytes()
    except OSError as error:
        raise cannot_open(path, error, "expected a results folder of train.py") from None
    try:
        return from_text(text)
    except ValueError as error:
        raise UserError(f"{path}: not the results of a run: {printable(error)}") from None


def from_text(text: str | bytes) -> Results:
    """Raises ValueError that says what is wrong."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("this is not JSON; was it edited?") from None
    if not isinstance(plain, dict):
        raise ValueError("expected a mapping")
    version = plain.get("format", 1)
    if version not in (1, FORMAT):
        raise ValueError(f"format {version!r} is that of a later version")
    data = plain.get("data")
    if isinstance(data, dict):
        facts = {name: value for name, value in data.items() if name not in ("train", "val")}
        plain["data"] = {"train": data.get("train"), "val": data.get("val"), "facts": facts}
    results = _built(Results, plain if version == FORMAT else _from_1_0(plain), "")
    _check_lengths(results)
    return results


def _from_1_0(plain: dict) -> dict:
    """What 1.0 wrote, in today's form: it did not describe its measures."""
    described = [
        ("share_train", "in train.txt", "train", "higher", "proportions", "train"),
        ("share_val", "in val.txt", "val", "higher", "proportions", "val"),
        ("share_other", "in neither", "neither", "lower", "proportions", "other"),
        ("distinct", "distinct", "", "", "distinct", None),
    ]
    measures = []
    for name, label, short, better, key, part in described:
        values = plain.get(key)
        values = values.get(part) if part and isinstance(values, dict) else values
        if values is not None:
            entry = {"name": name, "label": label, "short": short, "better": better}
            measures.append(entry | {"unit": "share", "values": values})
    if "energy_distance" in plain:
        plain |= {"samples": "samples", "units": "numbers"}
        facts = (plain.get("data") or {}).get("facts", {})
        entry = {"name": "energy_distance", "label": "energy distance", "short": "energy distance"}
        entry |= {"better": "lower", "digits": 4, "values": plain["energy_distance"]}
        entry |= {"floor": facts.get("energy_floor"), "floor_high": facts.get("energy_floor_high")}
        measures.append(entry)
    return plain | {"measures": measures}


def _built(form, value, place: str):
    """value as the declared form: a dataclass, list, dict, a plain type or None. Checks everything."""
    origin, parts = typing.get_origin(form), typing.get_args(form)
    if origin is types.UnionType:
        if value is None and type(None) in parts:
            return None
        return _built(parts[0], value, place)
    if form is float and type(value) is int:
        return value
    plain = origin or form
    if is_dataclass(form):
        if not isinstance(value, dict):
            raise ValueError(f"{place or 'the file'}: expected a mapping, found {_name(value)}")
        given = {}
        for part in fields(form):
            where = f"{place}.{part.name}" if place else part.name
            if part.name in value:
                given[part.name] = _built(part.type, value[part.name], where)
            elif part.default is MISSING and part.default_factory is MISSING:
                raise ValueError(f"{where} is missing")
        return form(**given)
    if type(value) is not plain:
        raise ValueError(f"{place}: expected {plain.__name__}, found {_name(value)}")
    if origin is list:
        if parts[0] is float and all(type(v) in (float, int) for v in value):
            return value
        return [_built(parts[0], v, f"{place}[{k}]") for k, v in enumerate(value)]
    if origin is dict:
        return {k: _built(parts[1], v, f"{place}.{k}") for k, v in value.items()}
    return value


def _name(value) -> str:
    return "null" if value is None else type(value).__name__


def _check_lengths(results: Results) -> None:
    """Raises ValueError unless all lists have an entry for each validation."""
    count, bound = len(results.validated_epochs), results.bound
    lists = {"seconds": results.seconds, "examples_per_epoch": results.examples_per_epoch}
    lists |= {f"bound.{name}": values for name, values in vars(bound).items()}
    lists |= {measure.name: measure.values for measure in results.measures}
    for name, values in lists.items():
        expected = 0 if name.startswith("bound.val") and not results.has_val else count
        if len(values) != expected:
            raise ValueError(f"{name}: {len(values)} entries for {expected} validations")
    for name, values in results.blocks.items():
        if name not in results.block_lines or len(values) > count:
            raise ValueError(f"blocks.{name}: {len(values)} entries for {count} validations")


def is_finite(results: Results) -> bool:
    """Whether all its curves consist of finite numbers."""
    lists = [results.losses, results.validated_epochs, results.seconds]
    lists += [*vars(results.bound).values(), *(m.values for m in results.measures)]
    lists += [values for blocks in results.blocks.values() for values in blocks]
    return all(math.isfinite(v) for values in lists for v in values)
