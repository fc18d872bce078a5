"""Whether val.txt holds lines of the same kind as train.txt, by the cost of independent bits."""

import numpy as np

from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.measures import independent_bits, independent_excess


def strings(bits) -> BitStrings:
    return BitStrings.from_bits(np.asarray(bits, np.uint8))


def drawn(rng, n: int, shares: np.ndarray) -> BitStrings:
    return strings(rng.random((n, len(shares))) < shares)


def test_lines_of_one_kind_differ_by_chance():
    """Mean and deviation over 200 drawings are near 0 and 1; |z| of the mean below 3."""
    rng, shares = np.random.default_rng(0), np.linspace(0.05, 0.8, 60)
    for n in (20, 1000):
        z = [independent_excess(drawn(rng, n, shares), drawn(rng, 300, shares)) for _ in range(200)]
        assert abs(np.mean(z)) < 0.5
        assert 0.8 < np.std(z) < 1.4


def test_lines_of_another_kind_stand_out():
    phases = [np.roll([1, 0, 0, 0, 0] * 4, k) for k in range(5)]
    train, val = strings([phases[k % 4] for k in range(200)]), strings([phases[4]] * 50)
    assert independent_excess(train, val) > 100


def test_a_line_that_is_left_out_costs_what_the_others_say():
    rng = np.random.default_rng(1)
    train = drawn(rng, 12, np.full(5, 0.3))
    bits = train.bits()
    left_out = [
        independent_bits(strings(np.delete(bits, k, axis=0)), strings(bits[k : k + 1]))
        for k in range(12)
    ]
    val = drawn(rng, 40, np.full(5, 0.3))
    apart = independent_bits(train, val) - np.mean(left_out)
    assert np.sign(independent_excess(train, val)) == np.sign(apart)


def test_few_lines_say_nothing():
    assert independent_excess(strings(np.eye(4)), strings(np.eye(4)[:1])) is None
