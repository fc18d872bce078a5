"""Means over lines: their errors, differences by pairs, and as many digits as the error allows."""

import math

import numpy as np
import pytest

from bernoulli_diffusion.estimate import BLOCKS, SURE, difference, of_lines, text, times_error


@pytest.mark.parametrize("n", [2, 5, 64, 65, 300])
def test_the_mean_and_its_error_are_those_of_the_lines(n):
    values = np.random.default_rng(n).normal(3, 2, n)
    variances = np.linspace(0.1, 0.2, n)
    estimate = of_lines(values, variances)
    assert estimate.bits == pytest.approx(values.mean())
    assert estimate.monte_carlo_error == pytest.approx(math.sqrt(variances.sum()) / n)
    assert len(estimate.blocks) == min(n, BLOCKS)
    if n <= BLOCKS:
        assert estimate.standard_error == pytest.approx(values.std(ddof=1) / n**0.5)


def test_errors_from_blocks_are_right_on_average():
    """Blocks of 4 and of 5 lines: the mean square of 2,000 errors is known to 0.4%."""
    rng = np.random.default_rng(0)
    squares = [of_lines(rng.normal(size=300)).standard_error ** 2 for _ in range(2000)]
    assert np.mean(squares) * 300 == pytest.approx(1, abs=0.02)


def test_one_line_shows_its_monte_carlo_error_alone():
    estimate = of_lines(np.array([3.0]), np.array([0.04]))
    assert estimate.standard_error == estimate.monte_carlo_error == pytest.approx(0.2)
    assert math.isnan(of_lines(np.array([3.0])).standard_error)


def test_a_difference_by_pairs_does_not_see_what_both_have_in_common():
    rng = np.random.default_rng(1)
    lines = rng.normal(0, 5, 500)
    a, b = of_lines(lines + rng.normal(0, 0.1, 500)), of_lines(lines + 0.05)
    found = difference(a.blocks, b.blocks, 500)
    assert found.bits == pytest.approx(a.bits - b.bits)
    assert found.standard_error == pytest.approx(0.1 / 500**0.5, rel=0.3)
    assert found.is_lower
    assert not found.is_higher
    assert difference(b.blocks, a.blocks, 500).is_higher


def test_what_is_no_pair():
    a, b = of_lines(np.arange(10.0)), of_lines(np.arange(12.0))
    assert difference(a.blocks, b.blocks, 10) is None
    assert difference(a.blocks, a.blocks, 10, 12) is None
    assert difference((), (), 10) is None
    assert difference((1.0,), (1.0,), 1) is None


def test_times_error_is_students_t():
    """97.5% quantiles from a table."""
    for blocks, quantile in ((64, 1.9983), (31, 2.0423), (11, 2.2281), (6, 2.5706), (5, 2.7764)):
        assert times_error(blocks) == pytest.approx(quantile, rel=0.01)
    assert times_error(10**6) == pytest.approx(SURE, rel=1e-3)


def test_as_many_digits_as_the_error_allows():
    assert text(13.7012, 0.1449) == "13.70 ± 0.14"
    assert text(13.7012, 0.0031) == "13.7012 ± 0.0031"
    assert text(5912.3, 310) == "5,912 ± 310"
    assert text(5.0, 1.2) == "5.0 ± 1.2"
    assert text(2.0, 0.0) == "2.000 ± 0.000"
    assert text(2.0, math.nan) == "2.000 ± ?"
