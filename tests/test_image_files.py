"""Images as data: MNIST's files, folders of pictures, colours, and the run folders made of them."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import ROOT, call, mistake

from bernoulli_diffusion import datasets
from bernoulli_diffusion.bits.pictures import strings_picture, surprise_map
from bernoulli_diffusion.config import load_config
from bernoulli_diffusion.datasets import image_files
from bernoulli_diffusion.datasets.image_files import drawn, read_mnist, read_pictures, thresholded
from bernoulli_diffusion.numbers.pictures import sample_frames as number_frames
from bernoulli_diffusion.numbers.pictures import samples_beside_data
from bernoulli_diffusion.results.frames import sample_frames
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training.run_folder import read_run_folder


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def some_mnist(folder: Path, end: str = ".gz") -> dict[str, np.ndarray]:
    """A folder of 24 training and 5 test images of 3 x 2 pixels, and what is in it."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    arrays = {}
    for part, count in (("train", 24), ("t10k", 5)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(256, size=(count, 3, 2), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    for name, values in arrays.items():
        data = gzip.compress(idx(values)) if end == ".gz" else idx(values)
        (folder / f"{name}{end}").write_bytes(data)
    return arrays


def lines(path: Path) -> np.ndarray:
    """Bits of a file of strings."""
    return np.array([[int(c) for c in line] for line in path.read_text().split()], np.uint8)


# ------------------------------------------------------------------------------- MNIST


@pytest.mark.parametrize("end", [".gz", ""])
def test_idx_files_are_read_packed_or_not(tmp_path, end):
    arrays = some_mnist(tmp_path, end)
    train, val, test = read_mnist(tmp_path, [], print)
    images = arrays["train-images-idx3-ubyte"]
    assert np.array_equal(train, images[:20])  # a sixth is held out: of MNIST 10,000
    assert np.array_equal(val, images[20:])
    assert np.array_equal(test, arrays["t10k-images-idx3-ubyte"])


def test_digits_are_chosen_by_their_labels(tmp_path):
    arrays = some_mnist(tmp_path)
    train, val, test = read_mnist(tmp_path, [3, 1], print)
    images = arrays["train-images-idx3-ubyte"]
    assert np.array_equal(train, images[[1, 3, 11, 13]])
    assert np.array_equal(val, images[[21, 23]])
    assert len(test) == 2
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert len(read_mnist(tmp_path, [], print)[0]) == 20  # not needed for all of them
    with pytest.raises(UserError, match=r"neither train-labels.* which image is which digit"):
        read_mnist(tmp_path, [3], print)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-7], "137 bytes, expected 144; is it complete"),
        (lambda data: b"\x00\x00\x0d\x03" + data[4:], "not an IDX file of bytes in 3 dimensions"),
        (lambda data: b"", "not an IDX file"),
        (lambda data: gzip.compress(data)[:10] + b"\xff" * 40, "cannot be unpacked"),
    ],
)
def test_damaged_files_are_named(tmp_path, spoil, message):
    some_mnist(tmp_path, "")
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        read_mnist(tmp_path, [], print)
    assert str(path) in str(error.value)


def test_download_checks_the_hash(tmp_path, monkeypatch):
    arrays = some_mnist(tmp_path)
    monkeypatch.setattr(image_files, "MIRROR", f"file://{tmp_path}/")
    with pytest.raises(UserError, match="sha256 differs"):
        read_mnist(None, [], lambda text: None)
    for name in image_files.MNIST:
        data = (tmp_path / f"{name}.gz").read_bytes()
        monkeypatch.setitem(image_files.MNIST, name, hashlib.sha256(data).hexdigest())
    told = []
    train, _, _ = read_mnist(None, [], told.append)
    assert np.array_equal(train, arrays["train-images-idx3-ubyte"][:20])
    assert [text.split("/")[-1] for text in told] == [
        "train-images-idx3-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
    ]


def test_without_a_network_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(image_files, "MIRROR", "http://127.0.0.1:9/")  # nobody listens there
    with pytest.raises(UserError, match=r"cannot be downloaded: .*--from FOLDER") as error:
        read_mnist(None, [], lambda text: None)
    assert "\n" not in str(error.value)


def test_mnist_in_black_and_white(tmp_path):
    images = some_mnist(tmp_path / "files")["train-images-idx3-ubyte"]
    done = call(
        "datasets", "mnist", tmp_path / "run", "--from", tmp_path / "files", "--threshold", 100
    )
    assert np.array_equal(lines(tmp_path / "run/train.txt"), images[:20].reshape(20, 6) >= 100)
    assert len(lines(tmp_path / "run/val.txt")) == 4
    assert len(lines(tmp_path / "run/test.txt")) == 5
    config = load_config(tmp_path / "run/config.yaml")
    assert (config.model.process, config.data.shape) == ("bernoulli", [3, 2])
    assert "config.yaml says data.shape: [3, 2]" in done.stderr


def test_mnist_in_greys_is_ready_to_train(tmp_path):
    images = some_mnist(tmp_path / "files")["train-images-idx3-ubyte"]
    (tmp_path / "run").mkdir()
    options = ("--from", tmp_path / "files", "--grey", "--num-train", 7, "--num-val", 0)
    call("datasets", "mnist", tmp_path / "run", *options)
    rows = [line.split() for line in (tmp_path / "run/train.txt").read_text().splitlines()]
    assert np.array_equal(np.array(rows, int), images[:7].reshape(7, 6))
    assert not (tmp_path / "run/val.txt").exists()
    config = load_config(tmp_path / "run/config.yaml")
    assert config.model.process == "gaussian"
    assert (config.data.shape, config.data.dequantize) == ([3, 2], 1)
    assert len(read_run_folder(tmp_path / "run").train) == 7


def test_a_config_that_is_there_is_left_alone(tmp_path):
    some_mnist(tmp_path / "files")
    (tmp_path / "config.yaml").write_text("training: {lr: 0.002}\n")
    done = call("datasets", "mnist", tmp_path, "--from", tmp_path / "files", "--grey")
    assert "config.yaml should say model.process: gaussian, data.shape: [3, 2]" in done.stderr
    assert (tmp_path / "config.yaml").read_text() == "training: {lr: 0.002}\n"
    assert "next:" not in done.stderr
    ready = "training: {lr: 0.002}\nmodel: {process: gaussian}\ndata:\n  shape: [3, 2]\n  dequantize: 1\n"
    (tmp_path / "config.yaml").write_text(ready)
    done = call("datasets", "mnist", tmp_path, "--from", tmp_path / "files", "--grey", "--force")
    assert "config.yaml says model.process: gaussian, data.shape: [3, 2]" in done.stderr
    assert "next: python train.py" in done.stderr
    assert (tmp_path / "config.yaml").read_text() == ready


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grey", "--draw"], "leave one of them out"),
        (["--threshold", 0], "threshold is 0, expected 1 to 255"),
        (["--digits", 3, 10], "digit is 10, expected 0 to 9"),
        (["--num-train", 21], "num-train is 21, expected 1 to 20"),
        (["--from", "nowhere"], "nowhere: neither train-images-idx3-ubyte"),
    ],
)
def test_mnist_refuses(tmp_path, options, message):
    some_mnist(tmp_path / "files")
    told = mistake("datasets", "mnist", tmp_path / "run", "--from", tmp_path / "files", *options)
    assert message in told
    assert not (tmp_path / "run").exists()


def test_drawn_bits_have_the_probability_of_their_brightness():
    images = np.repeat(np.array([0, 51, 128, 255], np.uint8)[None], 4000, axis=0)
    bits = drawn(images, np.random.default_rng(5))
    assert bits.dtype == np.uint8
    share = bits.mean(axis=0)
    assert (share[0], share[3]) == (0, 1)
    for k, p in ((1, 0.2), (2, 128 / 255)):
        assert abs(share[k] - p) < 4.5 * (p * (1 - p) / 4000) ** 0.5
    assert np.array_equal(bits, drawn(images, np.random.default_rng(5)))


def test_threshold():
    values = np.array([0, 127, 128, 255], np.uint8)
    assert thresholded(values, 128).tolist() == [0, 0, 1, 1]


# ------------------------------------------------------------------------------- pictures


def some_pictures(folder: Path) -> np.ndarray:
    """One picture in several formats: 4 rows of 6 pixels, dark in the corner. Returns its greys."""
    folder.mkdir(exist_ok=True)
    grey = np.full((4, 6), 255, np.uint8)
    grey[:2, :3] = 0
    picture = Image.fromarray(grey)
    picture.save(folder / "a.png")
    picture.convert("1").save(folder / "b.pbm")
    picture.convert("RGB").save(folder / "c.JPG", "JPEG", quality=100)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.fromarray(255 - grey))  # the white is transparent
    clear.save(folder / "d.png")
    (folder / "notes.txt").write_text("no picture")
    return grey


def test_pictures_of_many_formats(tmp_path):
    grey = some_pictures(tmp_path / "files")
    call("datasets", "images", tmp_path / "run", "--from", tmp_path / "files", "--val-share", 0)
    bits = lines(tmp_path / "run/train.txt")
    assert np.array_equal(bits, np.repeat((grey == 0).reshape(1, 24), 4, axis=0))
    assert load_config(tmp_path / "run/config.yaml").data.shape == [4, 6]
    options = ("--val-share", 0, "--invert", "--force")
    call("datasets", "images", tmp_path / "run", "--from", tmp_path / "files", *options)
    assert np.array_equal(lines(tmp_path / "run/train.txt"), 1 - bits)


@pytest.mark.parametrize("form", ["png", "pgm"])
def test_greys_of_16_bits_keep_their_brightness(tmp_path, form):
    brightness = np.array([[0, 257, 32_000], [40_000, 65_278, 65_535]], np.uint16)
    if form == "png":
        Image.fromarray(brightness).save(tmp_path / "a.png")
    else:
        (tmp_path / "a.pgm").write_bytes(b"P5 3 2 65535\n" + brightness.astype(">u2").tobytes())
    assert read_pictures(tmp_path, [], False).tolist() == [[[0, 1, 125], [156, 254, 255]]]


def test_pictures_of_one_size(tmp_path):
    some_pictures(tmp_path)
    Image.new("L", (5, 5), 0).save(tmp_path / "e.png")
    with pytest.raises(UserError, match=r"e\.png: 5 x 5 pixels, but a\.png has 4 x 6; --size 4 6"):
        read_pictures(tmp_path, [], False)
    images = read_pictures(tmp_path, [2, 3], False)
    assert images.shape == (5, 2, 3)
    assert (images[0] == [[0, 128, 255], [255, 255, 255]]).mean() > 0.8
    assert read_pictures(tmp_path, [4], False).shape == (5, 4, 4)
    assert (read_pictures(tmp_path, [2, 3], False)[4] == 0).all()


def test_what_is_no_picture_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no picture in it.*\.gif$"):
        read_pictures(tmp_path, [], False)
    (tmp_path / "cats").mkdir()
    with pytest.raises(UserError, match="those of the folders in it are not looked at"):
        read_pictures(tmp_path, [], False)
    (tmp_path / "x.png").write_bytes(b"\x89PNG and nonsense")
    with pytest.raises(UserError, match=r"x\.png: cannot be read as a picture"):
        read_pictures(tmp_path, [], False)
    with pytest.raises(UserError, match="nowhere"):
        read_pictures(tmp_path / "nowhere", [], False)


def test_colours_from_pictures_to_samples(tmp_path):
    """Eight pictures in colour become a run folder, which trains with a network that takes the shape."""
    rng = np.random.default_rng(1)
    pixels = 255 * rng.integers(2, size=(8, 4, 4, 3), dtype=np.uint8)
    (tmp_path / "files").mkdir()
    for k, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"files/{k}.png")
    run = tmp_path / "run"
    done = call(
        "datasets", "images", run, "--from", tmp_path / "files", "--colour", "--val-share", 0.25
    )
    found = np.concatenate([lines(run / "train.txt"), lines(run / "val.txt")])
    assert sorted(map(tuple, found)) == sorted(map(tuple, pixels.reshape(8, 48) // 255))
    assert load_config(run / "config.yaml").data.shape == [4, 4, 3]
    (run / "reverse_model.py").write_bytes((ROOT / "docs/reverse_models/unet.py").read_bytes())
    small = "model.reverse_model={width: 8, levels: 2}", "model.T=10", "training.epochs=1"
    settings = [part for one in small for part in ("--set", one)]
    done = call("train.py", run, "--set", "training.num_val_samples=4", *settings)
    results = Path(done.stdout.strip())
    for name in ("reverse_process.gif", "sample_evolution_throughout_training.gif"):
        assert Image.open(results / name).convert("RGB").getcolors(1 << 20)
    assert "in colour" in (results / "report.html").read_text()
    assert load_config(results / "config.yaml").model.reverse_model["shape"] == [4, 4, 3]


def test_colours_are_drawn_as_they_are():
    red, white = [1, 0, 0], [1, 1, 1]
    bits = np.array([red, white, white, red], np.uint8).reshape(1, 1, 12)
    frame = sample_frames(bits, ["now"], "title", [2, 2, 3])[0]
    colours = {tuple(c) for c in frame[62:].reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (255, 255, 255)} <= colours
    assert (0, 0, 0) not in colours
    page = strings_picture(["".join(map(str, bits[0, 0]))], [2, 2, 3])
    assert page[0, 0].tolist() == [255, 0, 0]
    assert page[0, 1].tolist() == [255, 255, 255]
    figure = surprise_map(bits[0], np.full((1, 12), 0.5), 1, [2, 2, 3])
    assert figure.axes[0].images[0].get_array().shape == (2, 6)


def test_numbers_in_colour_are_drawn_as_they_are():
    data = np.random.default_rng(2).uniform(0, 255, (9, 12))
    data[0] = [255, 0, 0] * 4
    frames = number_frames(data[None, :1], ["now"], "title", data, [2, 2, 3])
    assert (255, 0, 0) in {tuple(c) for c in frames[0].reshape(-1, 3).tolist()}
    figure = samples_beside_data(data, data, None, [2, 2, 3])
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (8, 8, 3)
    assert np.allclose(picture[0, 0], [1, 0, 0])
    assert np.allclose(picture[2, 2], 1)  # white between images


def test_sets_of_any_kind_write_what_their_config_must_say(tmp_path):
    for name, options, expected in (
        ("bars_and_stripes", ["--size", 3], ("bernoulli", [3, 3])),
        ("spiral", ["--num-train", 9, "--num-val", 2], ("gaussian", None)),
    ):
        call("datasets", name, tmp_path / name, *options)
        config = load_config(tmp_path / name / "config.yaml")
        assert (config.model.process, config.data.shape) == expected
    assert datasets.config_text({}) == ""
