"""Do the reported errors cover? And how much are the controls and strata worth?

    python tests/stress/stress_coverage.py            # the tables; some twenty minutes on one core
    python tests/stress/stress_coverage.py --seeds 1000 --only validation

Of a true standard error, 68.3% of cases lie within one and 95.4% within two. Over 200 seeds chance
alone gives 62 to 74% and 93 to 97.5% in about nine of ten rows; "luck" says how likely a row that is
farther away than its own would be if the errors were true.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from covering import MEASUREMENTS, Cell, covered, differences, oracle_of, outcomes, subset  # noqa: E402

from bernoulli_diffusion.likelihood import draws_per_line, estimate_bound  # noqa: E402

SIZES = 300, 3_000, 50_000
MOST_PARTICLE_LINES = 3_000  # a particle run takes as long as a thousand draws of the bound
WITHIN = 0.6827, 0.9545
LIMITS = (0.62, 0.74), (0.93, 0.975)


def cells(only: str | None = None) -> list[Cell]:
    return [
        Cell(measurement, kind, heterogeneous, lines)
        for measurement in MEASUREMENTS
        if only in (None, measurement)
        for kind in ("bits", "numbers")
        for heterogeneous in (False, True)
        for lines in SIZES
        if measurement != "particles" or lines <= MOST_PARTICLE_LINES
    ]


def luck(shares, count: int) -> float:
    """How likely chance alone is as far off in the worse of the two columns."""
    z = max(
        abs(share - expected) / math.sqrt(expected * (1 - expected) / count)
        for share, expected in zip(shares, WITHIN, strict=True)
    )
    return 1 - (1 - math.erfc(z / math.sqrt(2))) ** 2


def rows(cell: Cell, seeds: int):
    """("lines" or "law", shares, z) of a cell."""
    z = np.array(outcomes(cell, range(seeds)))
    for name, values in (("lines", z[:, 0]), ("law", z[:, 1])):
        if not np.isnan(values).any():
            yield name, covered(values), values


def old_estimate(diffusion, strings, num_draws: int, seed: int) -> float:
    """The mean bound without controls: all draws share one set of strata."""
    n = len(strings)
    total = n * -(-num_draws // n)
    generator = torch.Generator().manual_seed(seed)
    row = torch.randperm(total, generator=generator) % n
    u_t = (torch.arange(total).double() + torch.rand(total, generator=generator)) / total
    x_0 = strings.tensor(row.numpy())
    u_x = torch.rand(x_0.shape, generator=generator)
    with torch.inference_mode():
        return diffusion.one_t_estimate(x_0, u_t.float(), u_x).double().mean().item()


def gain(kind: str, heterogeneous: bool, lines: int, seeds: int) -> tuple[float, float, float]:
    """Root mean square errors of a validation, of the mean of its own lines, before and now,
    and how many times fewer draws the same error needs now.
    """
    oracle = oracle_of(Cell("validation", kind, heterogeneous, lines))
    data, number = oracle.file(lines, heterogeneous, np.random.default_rng(0))
    part, number = subset(data, number, 2048, np.random.default_rng(0))
    truth, now = oracle.bounds(number).mean(), []
    before = [old_estimate(oracle.diffusion, part, 2048, seed) for seed in range(seeds)]
    for seed in range(seeds):  # another pairing of lines and times for each seed, as it was
        order = np.random.default_rng(seed).permutation(len(part))
        now.append(estimate_bound(oracle.diffusion, part.part(order), 2048, seed).bits)
    more = draws_per_line(len(part), 2048) / -(-2048 // len(part))  # draws than before
    before, now = (float(np.sqrt(np.mean((np.array(x) - truth) ** 2))) for x in (before, now))
    return before, now, (before / now) ** 2 / more


@pytest.mark.parametrize("cell", cells("validation") + cells("final"), ids=str)
def test_errors_cover(cell):
    """Wider than LIMITS, so that one row in a thousand fails by chance and not one in ten."""
    for name, shares, _ in rows(cell, 200):
        assert luck(shares, 200) > 1e-3, (name, shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", choices=(*MEASUREMENTS, "differences", "gain"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, only = arguments.seeds, arguments.only
    started = time.monotonic()
    if only not in ("differences", "gain"):
        print("measurement kind     lines            number  error of  within 1  within 2   luck")
        outside = total = 0
        for cell in cells(only):
            for name, shares, _ in rows(cell, seeds):
                good = all(a <= s <= b for s, (a, b) in zip(shares, LIMITS, strict=True))
                outside, total = outside + (not good), total + 1
                one, two = (f"{100 * s:7.1f}%" for s in shares)
                mark = "" if good else "  outside"
                text = f"{cell}  {name:8} {one}  {two}  {luck(shares, seeds):5.2f}{mark}"
                print(text, flush=True)
        print(f"{total} rows, {outside} of them outside 62 to 74% or 93 to 97.5%")
    if only in (None, "differences"):
        print(
            "\ntwo equally good networks: called different, by pairs / by both errors / by one error"
        )
        for kind in ("bits", "numbers"):
            for heterogeneous in (False, True):
                for lines in SIZES:
                    found = list(differences(kind, heterogeneous, lines, range(seeds)))
                    pairs = np.mean([d.is_lower or d.is_higher for d, _, _ in found])
                    two = np.mean([abs(bits) > 1.96 * error for _, bits, error in found])
                    one = np.mean([abs(bits) > error for _, bits, error in found])
                    smaller = np.mean([error / d.standard_error for d, _, error in found])
                    print(
                        f"{Cell('difference', kind, heterogeneous, lines)}  {100 * pairs:5.1f}% /"
                        f" {100 * two:5.1f}% / {100 * one:5.1f}%; the error by pairs is"
                        f" {smaller:.1f} times smaller",
                        flush=True,
                    )
    if only in (None, "gain"):
        print("\nMonte Carlo error of a validation of 2,048 draws, before and now, and draws saved")
        for kind in ("bits", "numbers"):
            for heterogeneous in (False, True):
                for lines in SIZES[:2]:
                    before, now, ratio = gain(kind, heterogeneous, lines, seeds)
                    cell = Cell("gain", kind, heterogeneous, lines)
                    print(f"{cell}  {before:.4f}  {now:.4f} bits  {ratio:.1f} times", flush=True)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
