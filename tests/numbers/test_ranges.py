"""Whole numbers: without blurring they have no density; counts have a range, which samples keep."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bernoulli_diffusion import numbers
from bernoulli_diffusion.config import Config, apply_overrides
from bernoulli_diffusion.numbers.data import RealVectors
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training.run_folder import read_run_folder

FILE = Path("run/train.txt")
COUNTS = np.random.default_rng(0).poisson([3, 0.5, 20], size=(500, 3)).astype(float)


def config_of(*overrides: str) -> Config:
    config = Config()
    apply_overrides(config, ["model.process=gaussian", *overrides])
    return config


def look(values: np.ndarray, *overrides: str) -> tuple[Config, list[str]]:
    config = config_of(*overrides)
    train = RealVectors(values, width=config.data.dequantize or 0.0)
    return config, numbers.look_at(config, train, FILE)


def test_whole_numbers_that_are_not_blurred_are_told():
    _, [note] = look(COUNTS)
    assert note.startswith(f"{FILE}: all numbers are whole")
    assert note.endswith("blurred by data.dequantize: 1")
    mixed = COUNTS + np.array([0, 0.5, 0])
    _, [note] = look(mixed)
    assert "column 1 and 1 more has whole numbers alone" in note
    assert look(COUNTS + 0.5)[1] == []
    assert look(COUNTS[:5])[1] == []  # by chance


def test_counts_are_never_negative():
    config, [note] = look(COUNTS, "data.dequantize=1")
    assert (config.data.minimum, config.data.maximum) == (0, None)
    assert note == f"{FILE}: none is below 0, so no sample will be: data.minimum: 0"
    assert look(COUNTS - 1, "data.dequantize=1") == (config_of("data.dequantize=1"), [])
    assert look(COUNTS + 0.5, "data.dequantize=1")[1] == []
    told = look(COUNTS, "data.dequantize=1", "data.minimum=-3")
    assert told == (config_of("data.dequantize=1", "data.minimum=-3"), [])


def test_grey_levels_end_at_the_greatest_that_is_often_reached():
    levels = np.random.default_rng(0).integers(0, 17, (200, 5)).astype(float)
    config, notes = look(levels, "data.dequantize=1")
    assert (config.data.minimum, config.data.maximum) == (0, 16)
    assert notes[1].endswith("many are 16 and none is more, so no sample will be: data.maximum: 16")


def test_a_range_that_the_data_leave():
    with pytest.raises(UserError, match=r"data.minimum: 1, but run/train.txt has 0"):
        look(COUNTS, "data.minimum=1")
    with pytest.raises(UserError, match=r"data.maximum: 5, but run/train.txt has 3"):
        look(COUNTS, "data.maximum=5")
    with pytest.raises(UserError, match=r"here: data.minimum: 3 is no less than data.maximum, 3"):
        numbers.check_config(config_of("data.minimum=3", "data.maximum=3"), "here")


@pytest.mark.parametrize("blurred", [True, False])
def test_what_is_written_keeps_the_range(blurred):
    overrides = ["data.minimum=0", "data.maximum=4"] + ["data.dequantize=1"] * blurred
    config = config_of(*overrides)
    train = RealVectors(np.array([[0.0], [4.0], [2.0]]), width=1.0 if blurred else 0.0)
    process = numbers.new_process(config, train, "cpu")
    x = torch.linspace(-9, 9, 50)[:, None]
    for written in (process.as_written(x), process.mean_as_written(x)):
        assert (written.min(), written.max()) == (0, 4)
    saved = numbers.saved_process(config, process.state(), 1, "cpu")
    assert (saved.as_written(x) == process.as_written(x)).all()


def test_a_run_folder_of_counts_has_its_range_in_the_config(tmp_path):
    np.savetxt(tmp_path / "train.txt", COUNTS, fmt="%d")
    folder = read_run_folder(tmp_path, ["model.process=gaussian", "data.dequantize=1"])
    assert folder.config.data.minimum == 0
    assert len(folder.notes) == 2  # the other one: a part of train.txt is held out
    resumed = read_run_folder(tmp_path, [], config_of("data.dequantize=1", "training.epochs=1"))
    assert resumed.config.data.minimum is None  # as the run was started
