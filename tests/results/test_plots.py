"""Pictures are read back and compared with what they are made from; nothing is compared by eye."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from bernoulli_diffusion.results import frames as frames_file
from bernoulli_diffusion.results import plots
from bernoulli_diffusion.results.record import Bounds, Data, File, Measure, Results
from bernoulli_diffusion.system import files

pytestmark = pytest.mark.filterwarnings("error")  # a picture that warns has something wrong


def make_results(validations=11, every=10, length=20, has_val=True, **changes) -> Results:
    """A run whose bound falls from length to length / 8 bits."""
    epochs = list(range(0, validations * every, every))
    bits = [length / 8 + 7 / 8 * length * 0.8**i for i in range(validations)]
    known = [1 - 0.8**i for i in range(validations)]
    described = {
        "share_train": ("in train.txt", [0.7 * p for p in known]),
        "share_val": ("in val.txt", [0.2 * p if has_val else 0.0 for p in known]),
        "share_other": ("in neither", [1 - (0.9 if has_val else 0.7) * p for p in known]),
        "distinct": ("distinct", [1 - 0.5 * p for p in known]),
    }
    measures = [
        Measure(name, label, name.removeprefix("share_") * (name != "distinct"), "share", values=v)
        for name, (label, v) in described.items()
    ]
    distances = [0.1 * 0.5**i for i in range(validations)]
    measures.append(Measure("pairs", "pairs", digits=4, floor=0.01, values=distances))
    results = {
        "losses": [length / 8 + 0.1 * (i % 3) for i in range(epochs[-1] if epochs else 0)],
        "validated_epochs": epochs,
        "seconds": [float(epoch) for epoch in epochs],
        "bound": Bounds(
            bits,
            [0.0123] * validations,
            [1.1 * b for b in bits] if has_val else [],
            [0.2] * validations if has_val else [],
        ),
        "measures": measures,
        "baselines": {
            "uniform": length,
            "independent_train": 0.7 * length,
            "independent_val": 0.7 * length if has_val else None,
        },
        "best_epoch": epochs[-1] if epochs else None,
        "length": length,
        "num_val_samples": 1000,
        "data": Data(File(80, "a" * 64), File(20, "b" * 64) if has_val else None),
    }
    about = {"status": "finished", "num_parameters": 1, "reverse_model_sha256": "c" * 64}
    about |= {"seed": 0, "device": "cpu", "versions": {}}
    return Results(**(about | results | changes))


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def title(figure) -> str:
    return figure.legends[0].get_title().get_text()


def curve(figure, name):
    """The one line whose legend entry starts with name."""
    (line,) = [line for line in figure.axes[0].lines if str(line.get_label()).startswith(name)]
    return line


def png(figure, path) -> np.ndarray:
    plots.write_figure(figure, path)
    return iio.imread(path)


# ---------------------------------------------------------------------------------------- curves


def test_loss_curve_shows_the_numbers():
    results = make_results()
    figure = plots.loss_curve(results)
    bound = results.bound
    np.testing.assert_allclose(curve(figure, "train bound").get_ydata(), bound.train)
    np.testing.assert_allclose(curve(figure, "val bound").get_ydata(), bound.val)
    np.testing.assert_array_equal(curve(figure, "val bound").get_xdata(), range(0, 110, 10))
    np.testing.assert_array_equal(curve(figure, "training loss").get_xdata(), range(1, 101))
    star = curve(figure, "best epoch 100")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (100, bound.val[-1])
    assert f"train bound {bound.train[-1]:.2f} ± 0.01 bits" in legend(figure)
    assert f"val bound {bound.val[-1]:.1f} ± 0.2 bits" in legend(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "independent: 14 bits",
        "uniform: 20 bits",
    ]
    band = figure.axes[0].collections[1].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(max(bound.val) + 0.2)


def test_validation_shows_the_numbers():
    results = make_results()
    figure = plots.validation(results)
    for name, label in (("train", "in train"), ("val", "in val"), ("other", "in neither")):
        expected = 100 * np.array(results.measure(f"share_{name}").values)
        np.testing.assert_allclose(curve(figure, label).get_ydata(), expected)
    np.testing.assert_allclose(
        curve(figure, "distinct").get_ydata(), 100 * np.array(results.measure("distinct").values)
    )
    final = 100 * results.measure("share_train").values[-1]
    assert f"in train.txt {final:.1f}%" in legend(figure)
    assert "1,000" in title(figure)
    assert "no val.txt" not in title(figure)


def test_without_val():
    results = make_results(has_val=False)
    figure = plots.validation(results)
    assert "no val.txt" in title(figure)
    assert not any("in val" in text for text in legend(figure))
    figure = plots.loss_curve(results)
    assert not any(text.startswith("val") for text in legend(figure))
    assert curve(figure, "best epoch").get_ydata()[0] == results.bound.train[-1]


@pytest.mark.parametrize(("validations", "length"), [(0, 4), (1, 4), (2, 2000), (5000, 2000)])
def test_any_number_of_validations(tmp_path, validations, length):
    results = make_results(validations, every=1, length=length)
    for draw in (plots.loss_curve, plots.validation):
        figure = draw(results)
        assert png(figure, tmp_path / "x.png").shape[:2] == (120 * figure.get_figheight(), 1008)
        notes = [text.get_text() for text in figure.axes[0].texts]
        assert any("yet" in note for note in notes) == (validations == 0)
        low, high = figure.axes[0].get_xlim()
        ticks = [x for x in figure.axes[0].get_xticks() if low <= x <= high]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)


def test_long_runs_are_averaged_in_blocks():
    losses = np.arange(1, 5001, dtype=float)
    losses[17] = np.nan
    figure = plots.loss_curve(make_results(losses=losses.tolist()))
    line = curve(figure, "training loss, means of 10 epochs")
    assert len(line.get_xdata()) == 500
    others = np.arange(500) != 1
    # The loss of epoch e is e, so a block's mean is its middle; the NaN is left out of the second.
    np.testing.assert_allclose(line.get_ydata()[others], line.get_xdata()[others])
    assert line.get_ydata()[1] == pytest.approx((np.arange(11, 21).sum() - 18) / 9)


def test_a_single_epoch_can_be_seen(tmp_path):
    """Before any validation there is one loss, which a line without marker would not show."""
    with_loss = png(plots.loss_curve(make_results(0, losses=[19.0])), tmp_path / "x.png")
    without = png(plots.loss_curve(make_results(0, losses=[float("nan")])), tmp_path / "x.png")
    spot = slice(160, 220), slice(430, 470)  # around (1, 19)
    assert (with_loss[spot] != without[spot]).any()


def test_values_that_are_not_finite_are_left_out(tmp_path):
    results = make_results()
    bound = results.bound
    bound.train[3] = float("nan")
    bound.train[4] = -float("inf")
    bound.val[-1] = float("inf")
    bound.val[2] = 1e300
    bound.val_standard_error[5] = float("nan")
    results.losses[7] = float("inf")
    results.baselines["independent_val"] = float("inf")
    results.measure("share_train").values[-1] = float("nan")
    figure = plots.loss_curve(results)
    assert np.isfinite(curve(figure, "train bound").get_ydata()).sum() == 9
    assert "val bound not finite" in legend(figure)
    assert figure.axes[0].get_ylim()[1] < 1e3
    png(figure, tmp_path / "x.png")
    png(plots.validation(results), tmp_path / "x.png")


def test_nothing_finite(tmp_path):
    results = make_results(best_epoch=None, losses=[float("nan")] * 3)
    results.bound = Bounds(*([float("nan")] * 11 for _ in range(4)))
    figure = plots.loss_curve(results)
    assert "no finite value" in [text.get_text() for text in figure.axes[0].texts]
    png(figure, tmp_path / "x.png")


def test_log_scale_only_where_it_helps(tmp_path):
    assert plots.loss_curve(make_results()).axes[0].get_yscale() == "log"  # 20 to 2.8 bits
    results = make_results(length=64)
    results.bound.train = [64 - i for i in range(11)]
    results.bound.val = [65 - i for i in range(11)]
    results.losses = [60.0]
    assert plots.loss_curve(results).axes[0].get_yscale() == "linear"
    results.bound.val = [10.0**i for i in range(11)]  # a held-out mode
    results.bound.val_standard_error = [11.0**i for i in range(11)]  # wider than the value
    figure = plots.loss_curve(results)
    assert figure.axes[0].get_yscale() == "log"
    png(figure, tmp_path / "x.png")


def test_labels_of_close_baselines_stay_apart(tmp_path):
    baselines = {"uniform": 20, "independent_train": 19.99, "independent_val": 20.9}
    figure = plots.loss_curve(make_results(baselines=baselines))
    png(figure, tmp_path / "x.png")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 3
    assert boxes[0].y1 <= boxes[1].y0
    assert boxes[1].y1 <= boxes[2].y0
    assert max(box.x1 for box in boxes) < 1008


def test_legend_and_axes_do_not_overlap(tmp_path):
    results = make_results(5000, every=1, length=2000, losses=[1999.0] * 5000)
    for draw in (plots.loss_curve, plots.validation):
        figure = draw(results)
        png(figure, tmp_path / "x.png")
        box = figure.legends[0].get_window_extent()
        assert box.y0 >= figure.axes[0].get_window_extent().y1
        assert box.x0 >= 0
        assert box.x1 <= 1008
        assert box.y1 <= 120 * figure.get_figheight()


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (2.3312, 0.0123, "2.33 ± 0.01 bits"),
        (2.3312, 0.0, "2.33 ± 0.00 bits"),
        (1812.4, 33.0, "1,812 ± 33 bits"),
        (3e9, 1e9, "3e+09 bits"),
        (2.0, float("nan"), "2.00 bits"),
        (float("nan"), 1.0, "not finite"),
    ],
)
def test_final_value_with_error(mean, error, text):
    assert plots._with_error(mean, error) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1, "100%"), (0.0002, "<0.1%"), (0.9996, ">99.9%"), (0.08, "8.0%")],
)
def test_percent_is_never_rounded_to_none_or_all(share, text):
    assert plots._percent(share) == text


# ---------------------------------------------------------------------------------------- frames

# N, L, shape, and by hand: strings shown, strings side by side, cells of one string (rows,
# columns), size of a cell (height, width), gaps between strings (y, x)
LAYOUTS = [
    (1, 4, None, 1, 1, (1, 4), (24, 24), (3, 24)),
    (10_000, 4, None, 40, 4, (1, 4), (24, 24), (3, 24)),
    (100, 4, (2, 2), 64, 8, (2, 2), (24, 24), (6, 6)),
    (40, 20, None, 40, 2, (1, 20), (15, 15), (3, 24)),
    (40, 20, (1, 20), 40, 2, (1, 20), (15, 15), (3, 24)),
    (7, 20, (4, 5), 7, 2, (4, 5), (24, 24), (6, 6)),
    (1000, 64, (8, 8), 64, 8, (8, 8), (9, 9), (6, 6)),
    (50, 784, None, 40, 1, (1, 784), (12, 1), (3, 24)),
    (200, 784, (28, 28), 49, 7, (28, 28), (3, 3), (6, 6)),
    (10_000, 784, (28, 28), 49, 7, (28, 28), (3, 3), (6, 6)),
    (3, 2000, None, 3, 1, (2, 1000), (12, 1), (3, 24)),
    (100, 2000, None, 40, 1, (2, 1000), (6, 1), (3, 24)),
    (2, 2000, (2000, 1), 2, 1, (2, 1000), (12, 1), (3, 24)),
    (5, 2001, None, 5, 1, (3, 667), (12, 1), (3, 24)),
]


@pytest.mark.parametrize(("N", "L", "shape", "count", "across", "cells", "size", "gap"), LAYOUTS)
def test_every_cell_shows_its_bit(N, L, shape, count, across, cells, size, gap):
    bits = np.random.default_rng(0).integers(0, 2, (2, N, L), dtype=np.uint8)
    frames = frames_file.sample_frames(bits, ["epoch 0", "epoch 1"], "title", shape)
    assert frames.dtype == np.uint8
    assert frames.ndim == 3
    F, H, W = frames.shape
    assert F == 2
    assert max(H, W) <= 1040
    pitch = [cells[i] * size[i] + gap[i] for i in (0, 1)]
    down = -(-count // across)
    width = across * pitch[1] - gap[1]
    left, top = (W - width) // 2, H - frames_file.MARGIN - (down * pitch[0] - gap[0])
    n, i = np.meshgrid(np.arange(count), np.arange(L), indexing="ij")  # (count, L)
    y = top + (n // across) * pitch[0] + (i // cells[1]) * size[0] + (size[0] - 1) // 2
    x = left + (n % across) * pitch[1] + (i % cells[1]) * size[1] + (size[1] - 1) // 2
    np.testing.assert_array_equal(frames[:, y, x], np.where(bits[:, :count], 30, 255))
    lines = frames[:, y + size[0] // 2, x + size[1] // 2]  # a cell's last row and column
    if min(size) >= 6:
        assert (lines == frames_file.BACKGROUND).all()
    else:
        np.testing.assert_array_equal(lines, np.where(bits[:, :count], 30, 255))
    # Between the strings there is nothing but background.
    assert (frames[:, top:, left + width :] == frames_file.BACKGROUND).all()
    assert len(np.unique(frames)) <= 8


def test_frames_say_what_they_show():
    """Header texts cannot be read back, but each has to change the header's pixels."""

    def header(N=40, label="epoch 1", title="title"):
        return frames_file.sample_frames(np.zeros((1, N, 20), np.uint8), [label], title)[0, :60]

    plain = header()
    assert (plain == header()).all()
    assert (plain != header(N=1000)).any()
    assert (header(N=1000) != header(N=2000)).any()
    assert (plain != header(label="epoch 2")).any()
    assert (plain != header(title="Title")).any()
    right = plain.shape[1] * 2 // 3
    assert (plain[:, :right] == header(label="t = 250")[:, :right]).all()  # labels at the right


def test_a_long_title_leaves_room_for_the_label():
    bits = np.zeros((2, 1, 4), np.uint8)
    short = frames_file.sample_frames(bits, ["epoch 0", "epoch 1,000"], "W" * 30)
    long = frames_file.sample_frames(bits, ["epoch 0", "epoch 1,000"], "W" * 300)
    np.testing.assert_array_equal(short[:, :, -95:], long[:, :, -95:])
    assert (
        long[1, :30, -93:-85] == frames_file.BACKGROUND
    ).all()  # between title and longest label
    assert (long[1, :30, -85:] != frames_file.BACKGROUND).any()
    assert (long[1, :30, -130:-95] != frames_file.BACKGROUND).any()


def test_many_frames_are_thinned_out():
    bits = np.zeros((1001, 1, 4), np.uint8)
    bits[-1] = 1
    frames = frames_file.sample_frames(bits, [str(i) for i in range(1001)], "title")
    ends = frames_file.sample_frames(bits[[0, -1]], ["0", "1000"], "title")
    assert len(frames) == frames_file.MAX_FRAMES
    np.testing.assert_array_equal(frames[[0, -1]], ends)  # labels too
    steps = frames_file.evenly_spaced(1001, frames_file.MAX_FRAMES)
    assert (steps[0], steps[-1]) == (0, 1000)
    assert set(np.diff(steps)) == {5, 6}
    assert frames_file.evenly_spaced(1, 200).tolist() == [0]
    assert frames_file.evenly_spaced(3, 200).tolist() == [0, 1, 2]


def test_frames_are_drawn_quickly():
    bits = np.random.default_rng(0).integers(0, 2, (200, 64, 64), dtype=np.uint8)
    start = time.process_time()
    frames_file.sample_frames(bits, [f"epoch {i}" for i in range(200)], "title", (8, 8))
    assert time.process_time() - start < 5  # 0.3 s on a 2-core machine; a figure a frame takes 20


# ---------------------------------------------------------------------------------------- GIFs


def read_gif(path):
    """(frames (F, H, W), milliseconds of each frame, number of repetitions)."""
    with Image.open(path) as image:
        durations, frames = [], []
        for i in range(image.n_frames):
            image.seek(i)
            durations.append(image.info["duration"])
            frames.append(np.asarray(image.convert("L")))
        return np.stack(frames), durations, image.info.get("loop")


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 31])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_gif_is_what_was_written(tmp_path, width, count):
    """Also where the last axis could be taken for colours, or the first for a single frame."""
    frames = np.random.default_rng(0).choice([30, 226, 255], (count, 6, width)).astype(np.uint8)
    frames[:, 0, 0] = np.arange(count)  # neighbours differ
    frames_file.write_gif(frames, tmp_path / "x.gif", milliseconds=47)
    read, durations, loop = read_gif(tmp_path / "x.gif")
    np.testing.assert_array_equal(read, frames)
    assert durations == [50] * (count - 1) + [2000]
    assert loop == 0
    assert len(iio.imread(tmp_path / "x.gif", index=None)) == count


def test_gif_of_generated_strings(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (12, 40, 20), dtype=np.uint8)
    frames = frames_file.sample_frames(bits, [f"epoch {i}" for i in range(12)], "title")
    frames_file.write_gif(frames, tmp_path / "x.gif", milliseconds=1)
    read, durations, _ = read_gif(tmp_path / "x.gif")
    np.testing.assert_array_equal(read, frames)
    assert durations == [20] * 11 + [2000]


def test_a_converged_model_still_moves(tmp_path):
    """Frames that differ in nothing but the label are not merged."""
    bits = np.ones((5, 3, 4), np.uint8)
    frames = frames_file.sample_frames(bits, [f"epoch {i}" for i in range(5)], "title")
    frames_file.write_gif(frames, tmp_path / "x.gif")
    assert read_gif(tmp_path / "x.gif")[1] == [120] * 4 + [2000]


def test_equal_frames_keep_the_playing_time(tmp_path):
    frames = np.zeros((5, 8, 8), np.uint8)
    frames_file.write_gif(frames, tmp_path / "same.gif", milliseconds=100)
    assert sum(read_gif(tmp_path / "same.gif")[1]) == 2400
    frames[3:] = 255
    frames_file.write_gif(frames, tmp_path / "half.gif", milliseconds=100)
    assert read_gif(tmp_path / "half.gif")[1] == [300, 2100]


def test_gif_in_colour(tmp_path):
    frames = np.zeros((2, 6, 5, 3), np.uint8)
    frames[0, ..., 0] = frames[1, ..., 2] = 255
    frames_file.write_gif(frames, tmp_path / "x.gif")
    np.testing.assert_array_equal(iio.imread(tmp_path / "x.gif", index=None)[..., :3], frames)


def test_long_gifs_are_thinned_out(tmp_path):
    frames = np.zeros((450, 1, 2), np.uint8)
    frames[:, 0, 0], frames[:, 0, 1] = np.arange(450) % 256, np.arange(450) // 256
    frames_file.write_gif(frames, tmp_path / "x.gif")
    read, durations, _ = read_gif(tmp_path / "x.gif")
    assert len(durations) == frames_file.MAX_FRAMES
    np.testing.assert_array_equal(read[[0, -1]], frames[[0, -1]])


# ---------------------------------------------------------------------------------------- files


def test_png_is_written(tmp_path):
    image = png(plots.validation(make_results()), tmp_path / "x.png")
    assert image.shape[:2] == (1008, 1008)  # shares, and below them the pairs
    assert image.std() > 5
    assert os.listdir(tmp_path) == ["x.png"]


def test_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.bin"
    files.write_atomically(path, b"first")
    inode = path.stat().st_ino
    files.write_atomically(str(path), b"second, longer")
    assert path.read_bytes() == b"second, longer"
    assert path.stat().st_ino != inode  # a new file took the name; the old one was not overwritten
    assert os.listdir(tmp_path) == ["x.bin"]


def test_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    files.write_atomically(tmp_path / "x", b"data")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_ctrl_c_leaves_the_earlier_file(tmp_path, monkeypatch):
    """As faults of the disk do (test_hostile_files.py)."""
    path, seen = tmp_path / "x.gif", []
    path.write_bytes(b"earlier")

    def interrupt(*_):
        seen.extend(os.listdir(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        frames_file.write_gif(np.zeros((2, 8, 8), np.uint8), path)
    assert any(name.startswith(".tmp-x.gif-") for name in seen)
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["x.gif"]


def test_folder_that_cannot_be_opened_is_no_error(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")  # what Windows says

    monkeypatch.setattr(os, "open", refuse)
    files.write_atomically(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"


def test_stray_temporaries_are_removed(tmp_path):
    (tmp_path / ".tmp-x.gif-0123abcd").write_bytes(b"half")
    (tmp_path / ".gitignore").write_bytes(b"")
    (tmp_path / "x.gif").write_bytes(b"whole")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / ".tmp-y").write_bytes(b"half")
    files.remove_stray_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".gitignore", "deeper", "x.gif"]
    assert os.listdir(tmp_path / "deeper") == [".tmp-y"]


# ---------------------------------------------------------------------------------------- manners


def test_random_state_is_left_alone(tmp_path):
    before = np.random.get_state()[1].copy(), random.getstate()
    frames = frames_file.sample_frames(np.zeros((2, 3, 4), np.uint8), ["a", "b"], "title")
    frames_file.write_gif(frames, tmp_path / "x.gif")
    png(plots.loss_curve(make_results()), tmp_path / "x.png")
    png(plots.validation(make_results()), tmp_path / "x.png")
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


def test_neither_pyplot_nor_torch_is_imported_and_no_setting_changes(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import matplotlib, numpy as np
# A look at the setting "backend" would itself import pyplot.
names = sorted(set(matplotlib.rcParams) - {{"backend"}})
before = [matplotlib.rcParams[name] for name in names]
from bernoulli_diffusion.results import frames as frames_file, plots
from test_plots import make_results
plots.write_figure(plots.loss_curve(make_results()), "a.png")
plots.write_figure(plots.validation(make_results()), "b.png")
frames_file.write_gif(frames_file.sample_frames(np.zeros((2, 3, 4)), ["a", "b"], "title"), "c.gif")
assert [matplotlib.rcParams[name] for name in names] == before
print(sorted({{"matplotlib.pyplot", "torch"}} & set(sys.modules)))
"""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    environment.pop("MPLBACKEND", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png", "c.gif"]
