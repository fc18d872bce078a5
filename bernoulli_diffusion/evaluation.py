"""How probable strings are under a model, in numbers, tables and a picture: what evaluate prints.

Columns are (n,) arrays, one number a string, by the names under which --per-line writes them.
"""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .conditioning import leave_one_out, log2_likelihoods
from .estimate import of_lines, weighed
from .likelihood import bound_of_each, exact_law, plan_bound
from .system.errors import UserError
from .system.files import open_atomically
from .tables import plain
from .training.checkpoint import run_dir_of
from .training.run_folder import data_file
from .weights import represented


def bound(diffusion, strings, precision: float, seed: int, device) -> tuple[dict, int]:
    """The columns of the bound, and the draws behind each string's."""
    effort = plan_bound(diffusion, strings, precision, seed, device)
    found = bound_of_each(diffusion, strings, effort, seed, device)
    names = "bound_bits", "bound_standard_error"
    return dict(zip(names, _gathered(found, strings, "bound"), strict=True)), effort.draws


def likelihood(diffusion, strings, particles: int, repeats: int, seed: int, device) -> dict:
    """The columns of the likelihood itself."""
    found = log2_likelihoods(diffusion, strings, particles, repeats, seed, device)
    log2_p, error, spread, size = _gathered(found, strings, "likelihood")
    return {
        "likelihood_bits": -log2_p,
        "likelihood_standard_error": error,
        "likelihood_spread": spread,
        "effective_sample_size": size,
    }


def _gathered(parts: Iterator[tuple], strings, what: str) -> list[np.ndarray]:
    """The estimates of blocks of strings, field by field, with a bar while they come."""
    found = []
    with tqdm(total=len(strings), desc=what, unit=" strings", disable=None, leave=False) as bar:
        for part in parts:
            found.append(part)
            bar.update(len(part[0]))
    return [torch.cat(values).numpy() for values in zip(*found, strict=True)]


def exact(diffusion, strings, device) -> dict:
    """The column of -log2 p(x), summed over all states. Raises UserError for unknown bits."""
    if strings.unknown is not None:
        raise UserError("--exact: for strings without unknown bits; use --particles")
    law = exact_law(diffusion, strings.length, device).numpy()
    number = strings.bits().astype(np.int64) @ (1 << np.arange(strings.length)[::-1])
    return {"exact_bits": -np.log2(law[number])}


def summary(bits, errors, L: int, unit: str, weights=None) -> dict:
    """Means over the strings, by their weights (n,) if these are given, and two errors of them.

    standard_error: of the mean over these very strings (Monte Carlo; errors None: there is none);
    law_standard_error: of the mean of the law they come from, which also counts how they differ.
    """
    if weights is not None:
        bits = weighed(bits, weights)
        errors = None if errors is None else errors * weights / weights.mean()
    mean = float(bits.mean())
    found = {}
    if errors is not None:
        found["standard_error"] = float((errors**2).sum() ** 0.5 / len(errors))
    if len(bits) > 1:
        found["law_standard_error"] = of_lines(bits).standard_error
    scales = {"bits": 1.0, "nats": math.log(2), f"bits_per_{unit}": 1 / L}
    result = {}
    for name, scale in scales.items():
        result[name] = mean * scale
        for kind, error in found.items():
            result[f"{name}_{kind}"] = None if math.isnan(error) else error * scale
    return result


def likelihood_summary(columns: dict, L: int, unit: str, weights=None) -> dict:
    spread = float((columns["likelihood_spread"] ** 2).mean() ** 0.5)
    errors = columns["likelihood_standard_error"]
    return summary(columns["likelihood_bits"], errors, L, unit, weights) | {
        "spread_over_repeats_bits": None if math.isnan(spread) else spread,
        "effective_sample_size": float(columns["effective_sample_size"].mean()),
    }


def baselines(kind, config, strings, checkpoint: Path) -> dict:
    """Bits a sample without a model, which is fitted to the run's train.txt if it is there."""
    source, train = "FILE", strings
    run_dir = run_dir_of(checkpoint)
    if run_dir and (file := data_file(run_dir, "train")):
        try:
            found, _ = plain.read(file, partial(kind.read, config=config), kind.SEPARATOR)
        except UserError:  # it is not what the user asked about
            found = None
        if found and found.length == strings.length:
            source, train = str(file), found
    return kind.baseline_bits(represented(train), represented(strings), source)


def write_table(path: Path, columns: dict) -> None:
    """Tab-separated: a header, then a row a string."""
    with open_atomically(path) as file:
        file.write(("\t".join(["line", *columns]) + "\n").encode())
        for number, row in enumerate(zip(*columns.values(), strict=True), 1):
            file.write(("\t".join([str(number), *(f"{v:.6g}" for v in row)]) + "\n").encode())


def write_surprises(diffusion, strings, path: Path, device) -> None:
    """Tab-separated: of each bit the probability of its value given all others, a row a string."""
    with open_atomically(path) as file:
        header = "\t".join(f"bit_{i}" for i in range(1, strings.length + 1))
        file.write(f"{header}\n".encode())
        for first in range(0, len(strings), 4096):
            x_0 = torch.from_numpy(strings.bits(slice(first, first + 4096))).float().to(device)
            for row in leave_one_out(diffusion, x_0).tolist():
                file.write(("\t".join(f"{p:.6g}" for p in row) + "\n").encode())


def draw_surprises(diffusion, strings, lines: int, path: Path, shape, device) -> None:
    """The same of the first lines as a picture."""
    from .bits.pictures import surprise_map  # importing matplotlib takes half a second
    from .results import plots

    bits = strings.bits(slice(lines))
    p = leave_one_out(diffusion, torch.from_numpy(bits).float().to(device)).cpu().numpy()
    plots.write_figure(surprise_map(bits, p, len(strings), shape), path)
