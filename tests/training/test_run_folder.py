"""Run folders: what lies there under another name, what is to blame, what kind of path was given."""

import dataclasses
from pathlib import Path

import pytest
import torch

from bernoulli_diffusion.bits import NETWORKS
from bernoulli_diffusion.config import Config, ModelConfig
from bernoulli_diffusion.results.console import data_warnings, start
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training.network import load_class
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer

STRINGS = "".join(f"{number:04b}\n" for number in range(16))
NUMBERS = "".join(f"{number} {number**2}\n" for number in range(16))


def make(folder: Path, **files: str) -> Path:
    """A folder of files, named with __ for a dot."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        read_run_folder(path, list(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["config__yml", "config__YAML", "Config__yaml", "config__json"])
def test_settings_in_a_file_of_another_name_are_not_lost(tmp_path, name):
    files = {"train__txt": STRINGS, name: "training: {epochs: 7}\n"}
    told = refusal(make(tmp_path / "run", **files))
    file = tmp_path / "run" / name.replace("__", ".")
    assert told == f"{file}: settings are read from config.yaml alone; rename it"


def test_beside_a_config_yaml_other_files_are_nobodys_business(tmp_path):
    files = {"train__txt": STRINGS, "config__yaml": "", "config__yml": "nonsense"}
    assert not read_run_folder(make(tmp_path / "run", **files)).val


@pytest.mark.parametrize("name", ["mine__train__data", "Train__txt", "people_training__TSV"])
def test_data_in_a_file_of_another_name(tmp_path, name):
    run_dir = make(tmp_path / "run", **{name: "0,1\n", "notes__md": "", "val__txt": "01\n"})
    told, there = refusal(run_dir), name.replace("__", ".")
    assert told.startswith(f"{run_dir / 'train.txt'}: no such file; there is {there}: rename it if")
    assert "one string of 0 and 1 a line" in told
    assert told.endswith(f"python -m bernoulli_diffusion.prepare {run_dir / there} RUN_DIR")


def test_some_file_that_may_be_the_data(tmp_path):
    files = dict.fromkeys(("a__csv", "b__md", "c__txt"), "")
    assert "there is a.csv, c.txt: rename it" in refusal(make(tmp_path / "run", **files))
    told = refusal(make(tmp_path / "empty"))
    assert told.endswith("train.txt: no such file; expected one string of 0 and 1 a line")


@pytest.mark.parametrize("name", ["valid__txt", "mine__valid__data", "Val__txt"])
def test_held_out_samples_in_a_file_of_another_name(tmp_path, name):
    folder = read_run_folder(make(tmp_path / "run", **{"train__txt": STRINGS, name: STRINGS}))
    [note] = folder.notes
    expected = "not read; samples that are held out are read from val.txt alone"
    assert note == f"{tmp_path / 'run' / name.replace('__', '.')}: {expected}"
    assert note in data_warnings(Trainer(folder, torch.device("cpu"), quiet=True))


@pytest.mark.parametrize(
    ("config", "train", "val", "meaning"),
    [
        ("", "01\n10\n", "01\n11\n", "generated copies of them count as train"),
        (
            "model: {process: gaussian}",
            "0.5\n0.7\n",
            "0.7\n0.9\n",
            "what is said of unseen samples is not to be relied on",
        ),
    ],
)
def test_lines_of_val_that_stand_in_train_are_told(tmp_path, config, train, val, meaning):
    files = {"config__yaml": config, "train__txt": train, "val__txt": val}
    folder = read_run_folder(make(tmp_path / "run", **files))
    [note] = data_warnings(Trainer(folder, torch.device("cpu"), quiet=True))
    expected = f"1 of its 2 lines also stand in train.txt; {meaning}"
    assert note == f"{tmp_path / 'run' / 'val.txt'}: {expected}"


def test_other_names_are_no_held_out_samples(tmp_path):
    names = "test__txt", "columns__yaml", "weight__txt", "evaluation__md", "train__valid__txt"
    files = {"train__txt": STRINGS} | dict.fromkeys(names, "")
    assert read_run_folder(make(tmp_path / "run", **files)).notes == []


# ------------------------------------------------------------------------- kinds of path


def test_train_txt_itself(tmp_path):
    run_dir = make(tmp_path / "my run", train__txt=STRINGS)
    told = refusal(run_dir / "train.txt")
    assert told.endswith(f"train.txt: this is a file; its folder is the run folder: '{run_dir}'")


def test_a_checkpoint_and_a_table(tmp_path):
    folder = make(tmp_path / "x", model__pt="", people__csv="")
    assert f"RUN_DIR --from {folder / 'model.pt'}" in refusal(folder / "model.pt")
    assert f"prepare {folder / 'people.csv'} RUN_DIR" in refusal(folder / "people.csv")


def test_a_folder_above_or_below(tmp_path):
    run_dir = make(tmp_path / "runs" / "mine", train__txt=STRINGS)
    (run_dir / "results").mkdir()
    assert refusal(run_dir.parent).endswith(f"a folder of run folders? One is {run_dir}")
    assert refusal(run_dir / "results").endswith(f"the run folder is {run_dir}")


def test_a_results_folder(tmp_path):
    (tmp_path / "run" / "results").mkdir(parents=True)
    results_dir = make(tmp_path / "run" / "results" / "2026", results__json="{}")
    told = refusal(results_dir)
    assert told.endswith(
        f"this is a results folder; to go on with it: {tmp_path / 'run'} --resume {results_dir}"
    )
    moved = results_dir.rename(tmp_path / "moved")
    assert refusal(moved).endswith(f"to go on with it: RUN_DIR --resume {moved}")


# ------------------------------------------------------------------------- who is to blame


def test_what_set_has_done_is_not_blamed_on_a_file(tmp_path):
    run_dir = make(tmp_path / "run", train__txt=STRINGS)
    told = refusal(run_dir, "data.shape=[3, 2]", "training.lr=0.1")
    assert told.startswith("--set data.shape=[3, 2], --set training.lr=0.1: data.shape: 3 x 2 = 6,")
    gaussian = ["model.process=gaussian", "model.schedule=linear", "model.beta_min=0.4"]
    (run_dir / "train.txt").write_text(NUMBERS)
    told = refusal(run_dir, *gaussian)
    assert told.startswith("--set model.process=gaussian, --set model.schedule=linear")
    assert "config.yaml" not in told


def test_what_the_file_says_is_blamed_on_the_file(tmp_path):
    files = {"train__txt": STRINGS, "config__yaml": "data: {shape: [3, 2]}\n"}
    run_dir = make(tmp_path / "run", **files)
    assert refusal(run_dir, "training.lr=0.1").startswith(f"{run_dir / 'config.yaml'}: data.shape")
    read_run_folder(run_dir, ["data.shape=[2, 2]"])


# ------------------------------------------------------------------------- batches and networks


def test_a_batch_larger_than_the_data(tmp_path):
    """Every string once, at more times, instead of copies of it."""
    config = "model: {num_sample_steps: 2}\ndata: {batch_size: 100}\n"
    folder = read_run_folder(make(tmp_path / "run", train__txt=STRINGS, config__yaml=config))
    assert (folder.config.data.batch_size, folder.config.model.num_sample_steps) == (16, 12)
    [note] = (note for note in folder.notes if "batch_size" in note)
    assert note.startswith("data.batch_size: 100 is more than the 16 strings of train.txt; every")
    assert "12 times t each" in note
    by_default = read_run_folder(make(tmp_path / "other", train__txt=STRINGS))
    assert (by_default.config.data.batch_size, by_default.config.model.num_sample_steps) == (16, 16)
    assert by_default.notes == []
    same = read_run_folder(tmp_path / "run", ["data.batch_size=16"])
    assert (same.config.data.batch_size, same.config.model.num_sample_steps) == (16, 2)


@pytest.mark.parametrize("as_package", [False, True])
def test_a_module_beside_the_network(tmp_path, as_package):
    text = "import torch\nfrom blocks.parts import H\n" if as_package else "from blocks import H\n"
    run_dir = make(tmp_path / "run", train__txt=STRINGS, reverse_model__py=text)
    if as_package:
        make(run_dir / "blocks", parts__py="H = 3\n")
    else:
        (run_dir / "blocks.py").write_text("H = 3\n")
    with pytest.raises(UserError) as caught:
        load_class(read_run_folder(run_dir).source)
    line = 2 if as_package else 1
    assert str(caught.value).startswith(
        f"{run_dir / 'reverse_model.py'}:{line}: cannot import blocks,"
    )
    assert "a network is one file" in str(caught.value)


def test_config_yaml_names_a_network_of_the_package(tmp_path):
    settings = "model: {network: mixture}\n"
    path = make(tmp_path / "run", train__txt="0011\n0101\n", config__yaml=settings)
    assert Path(read_run_folder(path).source.path).name == "mixture.py"
    named = read_run_folder(path, network="default")
    assert Path(named.source.path).name == "reverse_model.py"
    (path / "reverse_model.py").write_text("# the folder's own\n")
    assert read_run_folder(path).source.text == "# the folder's own\n"


def test_a_network_that_config_yaml_cannot_name(tmp_path):
    settings = "model: {network: tree}\n"
    path = make(tmp_path / "run", train__txt="0011\n0101\n", config__yaml=settings)
    known = "expected forest or hidden_tree or mixture or tree_and_mlp, found 'tree'"
    assert f"config.yaml:1: model.network: {known}" in refusal(path)
    (path / "config.yaml").write_text("model: {process: gaussian, network: mixture}\n")
    assert "model.network: mixture is for bits" in refusal(path)


def test_the_networks_that_config_yaml_may_name_are_those_for_bits():
    choices = {key.name: key.metadata["choices"] for key in dataclasses.fields(ModelConfig)}
    assert set(choices["network"]) == set(NETWORKS)


# ------------------------------------------------------------------------- what is held out


def many(n: int) -> str:
    return "".join(f"{number:010b}\n" for number in range(n))


def test_without_val_a_part_of_train_is_held_out(tmp_path):
    folder = read_run_folder(make(tmp_path / "run", train__txt=many(200)))
    assert (len(folder.train), len(folder.val), folder.config.data.hold_out) == (180, 20, 0.1)
    rows = [tuple(row) for part in (folder.train, folder.val) for row in part.bits().tolist()]
    assert len(set(rows)) == 200
    [note] = folder.notes
    assert "val.txt: not there; 20 strings of train.txt, drawn at random, are held out" in note
    trainer = Trainer(folder, torch.device("cpu"), quiet=True)
    assert "180 strings" in start(trainer)
    assert "20 held out" in start(trainer)


def test_the_same_seed_holds_the_same_lines_out(tmp_path):
    path = make(tmp_path / "run", train__txt=many(200))
    one, again, other = (
        read_run_folder(path, [f"training.seed={s}"]).val.sha256() for s in (1, 1, 2)
    )
    assert one == again != other


def test_how_much_is_held_out(tmp_path):
    few = make(tmp_path / "few", train__txt=many(99))
    assert read_run_folder(few).val is None
    assert len(read_run_folder(few, ["data.hold_out=0.2"]).val) == 20
    path = make(tmp_path / "run", train__txt=many(300))
    assert read_run_folder(path, ["data.hold_out=0"]).val is None
    (path / "val.txt").write_text(many(7))
    folder = read_run_folder(path)
    assert (len(folder.train), len(folder.val), folder.notes) == (300, 7, [])


def test_a_run_from_before_holds_nothing_out_when_it_is_resumed(tmp_path):
    path = make(tmp_path / "run", train__txt=many(200))
    assert read_run_folder(path, config=Config()).val is None


# ------------------------------------------------------------------------- length


def steps_of(tmp_path: Path, *overrides: str) -> int:
    run_dir = tmp_path / "run"
    if not run_dir.exists():
        make(run_dir, train__txt="01\n11\n" * 500)
    config = read_run_folder(run_dir, list(overrides)).config
    return config.training.epochs * -(-1000 // config.data.batch_size)


def test_a_run_that_is_given_minutes_is_not_ended_by_a_number_of_steps(tmp_path):
    assert 19_000 < steps_of(tmp_path) < 21_000
    assert steps_of(tmp_path, "training.max_minutes=30") > 5_000_000
    assert steps_of(tmp_path, "training.max_minutes=30", "training.epochs=5") == 20
    # of these the rate depends on where the end is
    assert steps_of(tmp_path, "training.max_minutes=30", "training.lr_schedule=cosine") < 21_000


def test_where_time_is_the_limit_no_number_of_epochs_is_told(tmp_path):
    make(tmp_path / "run", train__txt="01\n11\n" * 500)
    for overrides, told in (
        (["training.max_minutes=2"], "plan       at most 2 min in epochs of 4 steps"),
        ([], "plan       at most 5,000 epochs of 4 steps"),
    ):
        folder = read_run_folder(tmp_path / "run", overrides)
        trainer = Trainer(folder, torch.device("cpu"), quiet=True)
        assert told in start(trainer)
        shown = trainer.progress._epoch_of_all()
        assert shown == ("epoch 0" if overrides else "epoch 0/5000")
