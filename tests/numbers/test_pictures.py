"""Pictures of real numbers in unusual ranges."""

import warnings

import numpy as np
import pytest

from bernoulli_diffusion.numbers import pictures
from bernoulli_diffusion.results import frames


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("D", [1, 2, 3])
@pytest.mark.parametrize("value", [0.0, 1e9, -1e-9])
def test_a_single_sample_is_drawn(D, value):
    drawn = pictures.sample_frames(np.full((3, 1, D), value), list("abc"), "title", None)
    assert drawn.shape[0] == 3


def test_two_numbers_of_different_units_have_a_scale_each():
    data = np.random.default_rng(0).normal(size=(500, 2)) * [1, 1000]
    low, high = pictures._limits(data)
    assert (high - low < 1.5 * np.ptp(data, axis=0)).all()
    figure = pictures.samples_beside_data(data, data, np.ones(pictures.GRID[1] ** 2))
    assert {one.get_aspect() for one in figure.axes} == {"auto"}
    alike = data / [1, 500]
    low, high = pictures._limits(alike)
    assert np.ptp(high - low) < 1e-9


def test_images_that_are_nearly_all_of_one_grey_keep_their_greys():
    data = np.zeros((50, 784))
    data[np.arange(50), np.arange(50)] = np.linspace(0.1, 1, 50)
    levels = pictures._levels(data, data)
    assert (levels == data).all()
    assert (pictures._levels(data, np.ones((5, 784))) == 0.5).all()


@pytest.mark.parametrize(("N", "caption"), [(1, "1 sample · "), (4, "4 samples · ")])
def test_frames_of_images_count_samples(monkeypatch, N, caption):
    captions, headers = [], frames._headers
    monkeypatch.setattr(
        frames, "_headers", lambda *given: captions.append(given[2]) or headers(*given)
    )
    states = np.random.default_rng(0).normal(size=(2, N, 64))
    pictures.sample_frames(states, ["a", "b"], "title", None, (8, 8))
    assert captions == [caption + "dark is large"]


@pytest.mark.parametrize("D", [1, 2])
def test_little_variation_around_a_large_mean_fills_the_picture(D):
    data = 1.7e9 + 0.01 * np.random.default_rng(0).normal(size=(500, D))
    low, high = pictures._limits(data)
    assert (high - low < 2 * np.ptp(data)).all()
    assert len(pictures.sample_frames(data[None], ["a"], "title", None)) == 1
