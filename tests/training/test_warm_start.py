"""--from: a new run that begins with another one's weights; --results: a place elsewhere."""

import hashlib
import threading
from pathlib import Path

import pytest
import torch
from processes import call, make_run, only_results_dir, without_pictures

from bernoulli_diffusion.results import console, record
from bernoulli_diffusion.system.errors import RunError, UserError
from bernoulli_diffusion.system.files import require_writable
from bernoulli_diffusion.training import checkpoint
from bernoulli_diffusion.training.resume import resume
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer
from bernoulli_diffusion.training.warm_start import trainer_from

pytestmark = pytest.mark.usefixtures("no_pictures")
CPU = torch.device("cpu")
OTHER = """\
from torch import nn

class ReverseModel(nn.Module):
    def __init__(self, sequence_length, T, **options):
        super().__init__()
        self.own = nn.Linear(sequence_length, sequence_length)

    def forward(self, x_t, t):
        return self.own(x_t)
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """The best checkpoint of a run."""
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch.setattr)
        run_dir = make_run(tmp_path_factory.mktemp("first") / "run")
        folder = read_run_folder(run_dir, ["training.epochs=20", "training.lr=0.02"])
        return Trainer(folder, CPU, quiet=True).train() / "checkpoints" / "model_best.pt"


def begin(run_dir: Path, start: Path, *overrides: str, trust_code=False) -> Trainer:
    folder = read_run_folder(run_dir, list(overrides))
    command = "train.py X --from Y --trust-code"
    return trainer_from(start, folder, CPU, trust_code=trust_code, command=command, quiet=True)


def test_the_first_validation_is_of_the_weights_begun_with(tmp_path, first):
    run_dir = make_run(tmp_path / "run")
    (run_dir / "config.yaml").write_text("model: {T: 20}\ntraining: {num_val_samples: 20}\n")
    settings = "training.epochs=2", "training.num_bound_draws=64", "data.batch_size=4"
    trainer = begin(run_dir, first, *settings, "training.validate_every_n_epochs=1")
    assert trainer.folder.notes == []
    assert trainer.config.model.reverse_model["width"] == 8  # the checkpoint's
    saved = checkpoint.load(first)
    for diffusion in (trainer.loop.diffusion, trainer.averaged):
        for name, weight in diffusion.reverse_model.state_dict().items():
            assert weight.equal(saved["averaged_weights"][name])
    results = record.read(trainer.train())
    fresh = Trainer(read_run_folder(run_dir, list(settings)), CPU, quiet=True)
    untrained = fresh.validator.bounds(fresh.averaged)["train"]
    assert results.bound.train[0] < untrained.bits - 1
    assert results.started_from == str(first)
    assert f"start      weights of {first}" in console.start(trainer)


def test_the_weights_begun_with_may_stay_the_best(tmp_path, first):
    """A learning rate that ruins them: what is recommended is what the run began with."""
    run_dir = make_run(tmp_path / "run")
    trainer = begin(run_dir, first, "training.lr=9", "training.warmup_steps=0")
    results_dir = trainer.train()
    assert record.read(results_dir).best_epoch == 0
    best = checkpoint.load(results_dir / "checkpoints" / "model_best.pt")
    saved = checkpoint.load(first)["averaged_weights"]
    assert all(w.equal(saved[name]) for name, w in best["averaged_weights"].items())


def test_a_folder_stands_for_its_best_checkpoint_and_other_settings_are_told(tmp_path, first):
    trainer = begin(make_run(tmp_path / "run"), first.parents[3], "model.T=30")
    [note] = trainer.folder.notes
    assert note == f"{first}: trained with other settings: T 20 there, 30 here"


def test_what_does_not_fit_begins_afresh_and_is_told(tmp_path, first):
    trainer = begin(make_run(tmp_path / "run"), first, "model.reverse_model.num_blocks=2")
    [note] = trainer.folder.notes
    assert note.startswith(f"{first}: what does not fit begins afresh: blocks.1.")
    assert "(none there, " in note
    run_dir = make_run(tmp_path / "other")
    (run_dir / "reverse_model.py").write_text(OTHER)
    with pytest.raises(UserError, match="none of its weights fits this network"):
        begin(run_dir, first)


def test_what_cannot_be_begun_with(tmp_path, first):
    run_dir = make_run(tmp_path / "run", train=["0101"] * 3, val=["0101"])
    with pytest.raises(UserError, match=r"a model of 8 bits, but the strings of train.txt have 4"):
        begin(run_dir, first)
    numbers = make_run(tmp_path / "numbers", train=["1 2", "2 1", "3 3"], val=["1 1"])
    with pytest.raises(UserError, match="a model of bits, but this run is of real numbers"):
        begin(numbers, first, "model.process=gaussian", "model.reverse_model.width=8")


def test_a_strangers_network_needs_the_flag(tmp_path, first, monkeypatch):
    saved = torch.load(first, weights_only=True)
    source = saved["reverse_model_source"] + "\n# from afar\n"
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    path = tmp_path / "foreign.pt"
    torch.save(saved | {"reverse_model_source": source, "reverse_model_sha256": sha256}, path)
    run_dir = make_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"if you trust .*: train.py X --from Y --trust-code"):
        begin(run_dir, path)
    assert begin(run_dir, path, trust_code=True).folder.source.sha256 == sha256


def test_a_run_that_began_so_is_resumed_bit_for_bit(tmp_path, first, monkeypatch):
    whole = begin(make_run(tmp_path / "whole"), first)
    whole.train()
    run_dir = make_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        trainer = begin(run_dir, first)
        train_step = trainer.loop.train_step

        def stop() -> None:
            train_step()
            if trainer.step == 5:
                raise RunError("stopped")

        patch.setattr(trainer.loop, "train_step", stop)
        with pytest.raises(RunError):
            trainer.train()
    resumed = resume(run_dir, None, [], CPU, quiet=True, trust_code=False, command="")
    assert resumed.loop.plan.is_warm
    resumed.train()
    for name, weight in whole.averaged.reverse_model.state_dict().items():
        assert weight.equal(resumed.averaged.reverse_model.state_dict()[name])
    assert record.read(resumed.results_dir).started_from == str(first)


# ------------------------------------------------------------------------- results elsewhere


def test_results_elsewhere(tmp_path):
    """Made there, found there by --resume, and what is told to be typed leads there."""
    run_dir, elsewhere = make_run(tmp_path / "run"), tmp_path / "a" / "place"
    arguments = run_dir, "--results", elsewhere
    done = call("train.py", *arguments, "--set", "training.epochs=1", prepare=without_pictures)
    [results_dir] = elsewhere.iterdir()
    assert done.stdout == f"{results_dir}\n"
    assert not (run_dir / "results").exists()
    again = call("train.py", *arguments, "--resume")
    assert again.stdout == f"{results_dir}\n"
    advice = f"--resume --results {elsewhere} --set training.epochs=2\n"
    assert again.stderr.endswith(advice)
    more = again.stderr.strip().split("train.py ")[1].split()
    call("train.py", *more, prepare=without_pictures)
    assert len(record.read(results_dir).losses) == 2


def test_a_place_where_nothing_can_be_written(tmp_path, monkeypatch):
    """Also for root: a file stands where the folder would be."""
    run_dir = make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    wrong = tmp_path / "file" / "results"
    for more in ([], ["--check"]):
        done = call("train.py", run_dir, "--results", wrong, *more, code=1)
        assert done.stdout == ""
        told = f"error: {wrong}: nothing can be written there: Not a directory; results can go "
        assert done.stderr.splitlines()[-1].startswith(told)
    before = sorted(tmp_path.iterdir())
    require_writable(tmp_path / "not" / "yet", "")
    assert sorted(tmp_path.iterdir()) == before


# ------------------------------------------------------------------------- advice


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["training.epochs=2"], ["training.epochs=4"]),
        (["training.max_minutes=0.0001"], ["training.max_minutes="]),
        (
            ["training.patience=1", "training.lr=9", "training.warmup_steps=0"],
            ["training.patience="],
        ),
        (["training.epochs=1", "training.max_minutes=0.0001"], ["training.max_minutes="]),
    ],
)
def test_a_finished_run_goes_on_by_the_advice_that_it_gives(tmp_path, settings, expected):
    run_dir = make_run(tmp_path / "run")
    every = "training.validate_every_n_epochs=1"
    trainer = Trainer(read_run_folder(run_dir, [*settings, every]), CPU, quiet=True)
    trainer.train()
    done = resume(run_dir, None, [], CPU, quiet=True, trust_code=False, command="")
    assert done.is_finished
    advice = console.more(done)
    assert [a.startswith(e) for a, e in zip(advice, expected, strict=True)] == [True]
    resumed = resume(run_dir, None, advice, CPU, quiet=True, trust_code=False, command="")
    assert not resumed.is_finished


# ------------------------------------------------------------------------- threads and others' runs


def test_training_in_another_thread_than_the_main_one(tmp_path):
    trainer = Trainer(read_run_folder(make_run(tmp_path / "run")), CPU, quiet=True)
    done = []
    thread = threading.Thread(target=lambda: done.append(trainer.train()))
    thread.start()
    thread.join()
    assert record.read(done[0]).status == "finished"


def test_the_number_of_threads_is_measured_once_and_kept(tmp_path, monkeypatch):
    numbers = []
    monkeypatch.setattr(
        "bernoulli_diffusion.training.trainer.better_threads",
        lambda _, work: (work(), numbers.append("measured"), 3)[-1],
    )
    monkeypatch.setattr("bernoulli_diffusion.training.trainer.use_threads", numbers.append)
    run_dir = make_run(tmp_path / "run")
    trainer = Trainer(read_run_folder(run_dir), CPU, quiet=True)
    before = {k: w.clone() for k, w in trainer.loop.diffusion.reverse_model.state_dict().items()}
    trainer._trial_step()()
    after = trainer.loop.diffusion.reverse_model.state_dict()
    assert all(w.equal(after[name]) for name, w in before.items())
    trainer.train()
    resume(
        run_dir, None, ["training.epochs=7"], CPU, quiet=True, trust_code=False, command=""
    ).train()
    assert numbers == ["measured", 3, 3]


def test_a_run_that_another_process_has_gone_on_with(tmp_path):
    run_dir = make_run(tmp_path / "run")
    Trainer(read_run_folder(run_dir, ["training.epochs=2"]), CPU, quiet=True).train()
    more = ["training.epochs=4"]
    how = {"quiet": True, "trust_code": False, "command": ""}
    late, early = (resume(run_dir, None, more, CPU, **how) for _ in range(2))
    early.train()
    kept = (only_results_dir(run_dir) / "results.json").read_text()
    with pytest.raises(RunError, match="another process has gone on here; resume again"):
        late.train()
    assert (only_results_dir(run_dir) / "results.json").read_text() == kept
