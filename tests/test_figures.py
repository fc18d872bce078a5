"""The figures and tables of docs/images.md come from a checkpoint by one command."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer, new_results_dir
from docs import fast_sampling, figure_2015


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """A checkpoint and the data of 2 x 3 images, of bits and of numbers."""
    rng, made = np.random.default_rng(0), {}
    for kind in ("bernoulli", "gaussian"):
        run = tmp_path_factory.mktemp(kind)
        values = rng.integers(2, size=(20, 6))
        space = "" if kind == "bernoulli" else " "
        (run / "train.txt").write_text("".join(space.join(map(str, v)) + "\n" for v in values))
        settings = ["model.T=12", f"model.process={kind}", "data.batch_size=8", "data.shape=[2, 3]"]
        trainer = Trainer(read_run_folder(run, settings), torch.device("cpu"), quiet=True)
        trainer.loop.train_step()
        trainer.results_dir = new_results_dir(run)
        trainer.save()
        (path,) = (trainer.results_dir / "checkpoints").iterdir()
        made[kind] = path, run / "train.txt"
    return made


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_the_figure_is_made_by_one_command(trained, kind, tmp_path, monkeypatch, capsys):
    checkpoint, data = trained[kind]
    line = ["figure", checkpoint, data, tmp_path / "figure.png", "--steps", 6, "--particles", 16]
    monkeypatch.setattr(sys, "argv", list(map(str, line)))
    figure_2015.main()
    assert Image.open(tmp_path / "figure.png").size[0] > 1000
    assert Image.open(tmp_path / "figure.gif").n_frames > 1
    assert "of 16" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*map(str, line), "--replace", "2"])
    figure_2015.main()
    assert capsys.readouterr().out == ""


def test_the_figure_takes_a_run_folder_and_names_what_does_not_fit(trained, tmp_path, monkeypatch):
    checkpoint, _ = trained["bernoulli"]
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "model_best.pt").write_bytes(checkpoint.read_bytes())
    other = tmp_path / "other.txt"
    other.write_text("0101\n")
    line = ["figure", tmp_path, other, tmp_path / "figure.png"]
    monkeypatch.setattr(sys, "argv", list(map(str, line)))
    with pytest.raises(UserError, match=r"other.txt: images of 4 values, but the model's have 6"):
        figure_2015.main()


def test_halves_keep_what_is_given():
    class Fair(torch.nn.Module):
        def forward(self, x_t, t):
            return torch.zeros_like(x_t)

    x = torch.tensor([[1.0, 0, 1, 1, 0, 1, 0, 0]])
    diffusion = Diffusion(BernoulliDiffusionProcess(10), Fair())
    known, drawn, sizes = figure_2015.halves(diffusion, x, [2, 4], 16, 5)
    assert known.tolist() == [[1, 0, -1, -1, 0, 1, -1, -1]]
    assert (drawn[0][:, [0, 1, 4, 5]] == [1, 0, 0, 1]).all()
    assert len(np.unique(drawn[0], axis=0)) > 1
    assert sizes == [pytest.approx(16)]  # what is fair tells nothing of the rest
    again, replaced, none = figure_2015.halves(diffusion, x, [2, 4], 16, 5, repeats=2)
    assert np.array_equal(again, known)
    assert not none
    assert (replaced[0][:, [0, 1, 4, 5]] == [1, 0, 0, 1]).all()
    assert len(np.unique(replaced[0], axis=0)) > 1


def test_tiles_are_images_in_reading_order():
    sheet = figure_2015.tiles(np.arange(12).reshape(3, 4), [2, 2], 2)[:, :, 0]
    assert sheet.shape == (6, 6)
    assert sheet[:2, :2].tolist() == [[0, 1], [2, 3]]
    assert sheet[:2, 4:].tolist() == [[4, 5], [6, 7]]
    assert sheet[4:, :2].tolist() == [[8, 9], [10, 11]]
    assert np.isnan(sheet[2:4]).all()


def test_the_classifier_tells_what_differs_and_nothing_else(monkeypatch):
    monkeypatch.setattr(fast_sampling, "EPOCHS", 15)
    bits = torch.Generator().manual_seed(0)
    a, b = ((torch.rand(1600, 2, generator=bits) < 0.5).float() for _ in range(2))
    share, error = fast_sampling.told_apart(a, b)
    assert abs(share - 0.5) < 4.5 * error
    b[:, 1] = b[:, 0]  # every bit alone is as before
    share, error = fast_sampling.told_apart(a, b)
    assert share > 0.5 + 4.5 * error


def test_pair_distance():
    a = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert fast_sampling.pair_distance(a, a) == 0
    # of the four pairs the two mixed ones differ, by 1/2
    assert fast_sampling.pair_distance(a, b) == pytest.approx((2 * 0.25 / 4) ** 0.5)


def test_the_table_has_a_row_for_each_number_of_calls(trained, monkeypatch, capsys):
    checkpoint, data = trained["bernoulli"]
    line = ["table", checkpoint, data, data, "--samples", 20, "--calls", 3, "all"]
    monkeypatch.setattr(sys, "argv", list(map(str, line)))
    fast_sampling.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "3",
        "12 (all)",
        "images of train",
    ]
    assert lines[-1].split("|")[3].strip() == "0.0000"
