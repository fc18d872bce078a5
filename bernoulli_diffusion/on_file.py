"""Models on a file that may not be theirs: read for them, and measured from the same draws for all."""

import itertools
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .config import Config
from .diffusion import Diffusion
from .estimate import Difference, Estimate, of_lines
from .estimate import text as told
from .kinds import Samples, kind_of
from .likelihood import blocks_of_lines, line_values, plan_bound, values_of_lines
from .results.comparison import table
from .results.runs import find_results
from .system.errors import UserError, printable
from .tables import answering, judging, plain
from .tables.encoding import Encoding
from .training import checkpoint as checkpoints


class Model(NamedTuple):
    """A trained model, and a file's samples on its own scale."""

    path: Path  # of its checkpoint
    diffusion: Diffusion
    samples: Samples


class Comparison(NamedTuple):
    """The bounds of M models on the same lines, from the same draws.

    Of each Estimate standard_error is that for the law of the lines, monte_carlo_error that for these
    very lines. differences: (i, j), i < j -> the bound of model i less that of model j, line by line.
    """

    draws: int  # of each line
    bounds: list[Estimate]
    differences: dict[tuple[int, int], Estimate]

    def difference(self, i: int, j: int) -> Estimate:
        """The bound of model i less that of model j, i != j."""
        if i < j:
            return self.differences[i, j]
        other = self.differences[j, i]
        blocks = tuple(-b for b in other.blocks)
        return other._replace(bits=0.0 - other.bits, blocks=blocks)  # no -0


def read_samples(
    file: Path, diffusion: Diffusion, config: Config, length: int, encoding: Encoding | None = None
) -> Samples:
    """The samples of a file, as a model of this length takes them; encoding: that of its table.

    Raises UserError if they cannot be read or have another length.
    """
    kind = kind_of(config)
    if encoding:
        samples = judging.read_records(encoding, file)
        diffusion.process.may_be_unknown = samples.unknown is not None
    else:

        def read(path: Path) -> Samples:
            return kind.read_evaluated(path, diffusion.process, config)

        samples, _ = plain.read(file, read, kind.SEPARATOR)
    if samples.length != length:
        expected = kind.values_in_file(diffusion.process.state(), length)
        raise UserError(
            f"{file}: {kind.SAMPLES} of {samples.length} {kind.UNITS}, but the model's have {expected}"
        )
    return samples


def find_checkpoints(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """The recommended checkpoints of all runs at or below paths, which may be checkpoints themselves.

    And what was left out, because it has none yet. Raises UserError if there are none at all.
    """
    found, left_out = {}, []
    for path in paths:
        if not path.is_dir() or (path / checkpoints.BEST).is_file():
            found[checkpoints.find(path)] = None
            continue
        for folder in find_results(path):
            if (best := folder / "checkpoints" / checkpoints.BEST).is_file():
                found[best] = None
            else:
                left_out.append(f"{printable(folder)}: no trained model in this folder")
    if not found:
        raise UserError(f"{printable(paths[0])}: no trained model there; train something first")
    return list(found), left_out


def open_models(
    paths: list[Path],
    file: Path,
    *,
    trust_code: bool = False,
    command: str = "add --trust-code",
    device: torch.device | str = "cpu",
) -> list[Model]:
    """The models of checkpoints, whose bounds on a file can be compared.

    Raises UserError if they cannot: they are of other kinds of data or lengths, or cannot read the file.
    """
    loaded = [(path, checkpoints.load(path)) for path in paths]
    first_path, first = loaded[0]
    for path, saved in loaded[1:]:
        if problem := _cannot_be_compared(saved, path, first, first_path):
            raise UserError(f"{path}: {problem}; bounds of such models cannot be compared")
    models = []
    for path, saved in loaded:
        diffusion = checkpoints.restore(
            saved, path, trust_code=trust_code, command=command, device=device
        )
        config, encoding = checkpoints.config_of(saved, path), answering.encoding_of(saved, path)
        samples = read_samples(file, diffusion, config, saved["sequence_length"], encoding)
        models.append(Model(path, diffusion, samples))
    return models


def _cannot_be_compared(one: dict, path: Path, other: dict, other_path: Path) -> str | None:
    """Why the bounds of two checkpoints are not of the same thing, or None."""
    configs = [checkpoints.config_of(one, path), checkpoints.config_of(other, other_path)]
    kind, other_kind = map(kind_of, configs)
    if kind is not other_kind:
        return f"a model of {kind.NAME}, {other_path} is one of {other_kind.NAME}"
    length, other_length = (
        kind.values_in_file(saved["process_state"], saved["sequence_length"])
        for saved in (one, other)
    )
    if length != other_length:
        return f"of {length} {kind.UNITS} a line, {other_path} of {other_length}"
    widths = [config.data.dequantize or 0.0 for config in configs]
    if widths[0] != widths[1]:
        return f"data.dequantize is {widths[0]:g}, that of {other_path} {widths[1]:g}"
    if one["sequence_length"] != other["sequence_length"] or one["columns"] != other["columns"]:
        return f"it takes the columns of a line in another way than {other_path}"
    return None


def compare(
    models: list[Model],
    precision: float,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> Comparison:
    """The bounds of all models on their samples, with the same times and noise for each line.

    precision: the Monte Carlo error of the least precise bound, relative to it. progress is called with
    the number of lines done at a time.
    """
    plans = [plan_bound(m.diffusion, m.samples, precision, seed, device) for m in models]
    draws = max(plan.draws for plan in plans)
    plans = [plan._replace(draws=draws) for plan in plans]
    pairs = list(itertools.combinations(range(len(models)), 2))
    blocks = []
    for lines in blocks_of_lines(models[0].samples, draws):
        values = [
            line_values(m.diffusion, m.samples, plan, seed, device, lines)
            for m, plan in zip(models, plans, strict=True)
        ]
        of_pairs = (values[i] - values[j] for i, j in pairs)
        blocks.append([values_of_lines(v) for v in itertools.chain(values, of_pairs)])
        progress(len(lines))
    weights = models[0].samples.weights
    estimates = [
        of_lines(*(np.concatenate(parts) for parts in zip(*found, strict=True)), weights)
        for found in zip(*blocks, strict=True)
    ]
    bounds, rest = estimates[: len(models)], estimates[len(models) :]
    return Comparison(draws, bounds, dict(zip(pairs, rest, strict=True)))


# ---------------------------------------------------------------------------------------- as text

LEGEND = (
    "* the lowest bound; = no difference to it beyond chance (in 5% of cases equal models are told"
    " apart). bound: ± its error as that of the law that the lines come from; in brackets that of the"
    " mean over these very lines. Differences are line by line, from the same draws; ± theirs for the"
    " law. All in bits."
)


def text(models: list[Model], found: Comparison, file: Path, width: int) -> str:
    """All that compare --on prints. width: of the terminal, in characters."""
    samples, order = models[0].samples, rows_in_order(found)
    parts = [
        f"{printable(file)}: {len(samples):,} lines; {found.draws:,} draws of each, with the same times"
        " and noise for all models",
        "",
        *table(list(cells(found))),
        "",
    ]
    between = table(list(differences(found)))
    if len(order) > 2 and max(map(len, between)) <= width:
        parts += ["the bound of a row less that of a column", "", *between, ""]
    parts += [f"{k:3d}  {printable(models[m].path)}" for k, m in enumerate(order, 1)]
    return "\n".join([*parts, "", *textwrap.wrap(LEGEND, width)])


def rows_in_order(found: Comparison) -> list[int]:
    """The models' numbers, the lowest bound first."""
    return sorted(range(len(found.bounds)), key=lambda m: found.bounds[m].bits)


def is_higher(by: Estimate) -> bool:
    """Whether a difference is above 0 beyond chance."""
    return Difference(by.bits, by.standard_error, len(by.blocks)).is_higher


def cells(found: Comparison) -> Iterator[tuple[str, ...]]:
    """A header, and a row a model, the lowest bound first: its bound, and how much the best is lower."""
    order = rows_in_order(found)
    yield "", "bound", "", "above the best"
    for number, m in enumerate(order, 1):
        bound, mark, above = found.bounds[m], "*", ""
        if number > 1:
            by = found.difference(m, order[0])
            mark, above = "" if is_higher(by) else "=", _told(by)
        yield f"{mark}{number}", _told(bound), f"({_error(bound)})", above


def differences(found: Comparison) -> Iterator[tuple[str, ...]]:
    """A header, and a row for each model from the second one on: its bound less those of better ones."""
    order = rows_in_order(found)
    yield "", *(str(k) for k in range(1, len(order)))
    for number, m in enumerate(order[1:], 2):
        by = [_told(found.difference(m, other)) for other in order[: number - 1]]
        yield str(number), *by, *[""] * (len(order) - number)


def _told(estimate: Estimate) -> str:
    return told(estimate.bits, estimate.standard_error)


def _error(estimate: Estimate) -> str:
    return told(0.0, estimate.monte_carlo_error).partition(" ")[2]


def report(models: list[Model], found: Comparison, file: Path, seed: int) -> dict:
    """The same for programs, with evaluate's names for the errors. In bits."""

    def of(estimate: Estimate) -> dict:
        errors = estimate.monte_carlo_error, estimate.standard_error
        return {
            "bits": estimate.bits,
            "bits_standard_error": errors[0],
            "bits_law_standard_error": errors[1] if estimate.lines > 1 else None,
        }

    order = rows_in_order(found)
    return {
        "file": str(file),
        "samples": len(models[0].samples),
        "length": models[0].samples.length,
        "seed": seed,
        "draws_per_sample": found.draws,
        "models": [
            {"checkpoint": str(models[m].path), "bound": of(found.bounds[m])} for m in order
        ],
        "differences": [
            {
                "of": str(models[i].path),
                "less": str(models[j].path),
                **of(by := found.difference(i, j)),
                "is_beyond_chance": is_higher(by),
            }
            for j, i in itertools.combinations(order, 2)
        ],
    }
