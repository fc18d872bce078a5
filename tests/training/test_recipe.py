"""Training that follows val, with a results folder: best weights, stops, and going on after them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from bernoulli_diffusion.bits.measures import independent_bits
from bernoulli_diffusion.results import console
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.system.interrupt import Interrupted
from bernoulli_diffusion.training import checkpoint
from bernoulli_diffusion.training.loop import Loop
from bernoulli_diffusion.training.resume import resume
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.shares import Draws, mean_and_error
from bernoulli_diffusion.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_pictures")
CPU = torch.device("cpu")
CONFIG = """\
model: {T: 20, reverse_model: {width: 16, num_blocks: 1}}
training: {lr: 0.02, warmup_steps: 5, num_val_samples: 4, num_val_steps: 2, num_bound_draws: 64}
data: {batch_size: 32}
"""


def write_lines(path: Path, bits: np.ndarray) -> None:
    path.write_text("".join("".join(map(str, row)) + "\n" for row in bits.astype(int)))


def make_run(path: Path, n: int, n_val: int, L: int, *, tied: bool, seed: int = 0) -> Path:
    """Rare and frequent bits; tied: the second half mostly repeats the first."""
    path.mkdir()
    rng = np.random.default_rng(seed)
    bits = rng.random((n + n_val, L)) < np.linspace(0.05, 0.8, L)
    if tied:
        half = L // 2
        bits[:, half : 2 * half] = bits[:, :half] ^ (rng.random((n + n_val, half)) < 0.1)
    write_lines(path / "train.txt", bits[:n])
    write_lines(path / "val.txt", bits[n:])
    (path / "config.yaml").write_text(CONFIG)
    return path


def epochs(number: int) -> tuple[str, str]:
    """By default val decides how long; so many epochs take less time."""
    return f"training.epochs={number}", "training.lr_schedule=adaptive"


def trained(path: Path, *overrides: str) -> Trainer:
    trainer = Trainer(read_run_folder(path, list(overrides)), CPU, quiet=True)
    trainer.train()
    return trainer


def test_the_recommended_weights_are_those_that_are_measured(tmp_path):
    """Overfitted: the last weights are not the best, but the run's figures are of the best ones."""
    trainer = trained(make_run(tmp_path / "run", 40, 60, 12, tied=True))
    plan = trainer.loop.plan
    assert plan.best_step < trainer.step
    saved = checkpoint.load(trainer.results_dir / "checkpoints" / "model_best.pt")
    for name, averaged in trainer.averaged.reverse_model.state_dict().items():
        assert averaged.equal(saved["averaged_weights"][name])
    assert trainer.results.best_epoch == saved["step"] / 2  # two steps an epoch
    gain = independent_bits(trainer.folder.train, trainer.folder.val) - plan.best_bound
    assert gain > 1  # bits


def worse_than_chosen(trainer: Trainer, others: list[list[float]]) -> list[tuple[float, float]]:
    """By how much, with errors, the recommended weights are worse on val with other confidences."""
    model = trainer.averaged.reverse_model
    draws = Draws(trainer.averaged.process, trainer.folder.val, seed=3, num_draws=20_000)
    chosen = draws.bits(draws.logits(trainer.averaged))
    found = []
    for other in others:
        model.confidence.copy_(torch.tensor(other))
        found.append(mean_and_error(draws.bits(draws.logits(trainer.averaged)) - chosen))
    return found


def test_what_few_lines_teach_is_believed_in_part(tmp_path):
    """The recommended weights have the confidence with the least bound on val, and are better by it."""
    path = make_run(tmp_path / "run", 40, 200, 12, tied=True, seed=1)
    trainer = trained(path, *epochs(60), "model.reverse_model.companions=[]")
    [confidence] = trainer.averaged.reverse_model.confidence.tolist()
    assert 0.5 < confidence < 0.9
    for worse, error in worse_than_chosen(trainer, [[1.0], [confidence / 2]]):
        assert worse > 4.5 * error


def test_val_says_how_much_each_companion_is_believed(tmp_path):
    """All together are better than any alone; and the training is the same as without them."""
    path = make_run(tmp_path / "run", 150, 400, 12, tied=False)
    rng = np.random.default_rng(2)
    kinds = rng.random((4, 12))
    bits = rng.random((550, 12)) < kinds[rng.integers(4, size=550)] ** 2
    write_lines(path / "train.txt", bits[:150])
    write_lines(path / "val.txt", bits[150:])
    trainer = trained(path, *epochs(40))
    confidence = trainer.averaged.reverse_model.confidence.tolist()
    assert min(confidence[0], max(confidence[1:])) > 0.1
    assert sum(confidence) <= 1 + 1e-6
    [line] = [x for x in console.end(trainer).split("\n") if x.startswith("made of")]
    assert f"made of    {confidence[0]:.0%} what was trained, {confidence[1]:.0%} mixture" in line
    for worse, error in worse_than_chosen(trainer, torch.eye(len(confidence)).tolist()):
        assert worse > 4.5 * error

    alone = trained(path, *epochs(40), "model.reverse_model.companions=[]")
    assert "made of" not in console.end(alone)
    assert alone.loop.plan.best_step == trainer.loop.plan.best_step
    assert alone.step == trainer.step
    weights = trainer.averaged.reverse_model.state_dict()
    for name, tensor in alone.averaged.reverse_model.state_dict().items():
        assert name == "confidence" or tensor.equal(weights[name])


ITS_OWN = """\
import torch
from bernoulli_diffusion import reverse_model

class ReverseModel(reverse_model.ReverseModel):
    def __init__(self, sequence_length, T, **options):
        super().__init__(sequence_length, T, companions=(), **options)
        self.confidence = torch.ones(1, 1)
"""


def test_a_buffer_of_that_name_that_is_no_list_is_the_networks_own(tmp_path):
    path = make_run(tmp_path / "run", 40, 200, 12, tied=True, seed=1)
    (path / "reverse_model.py").write_text(ITS_OWN)
    trainer = trained(path, *epochs(20))
    assert trainer.averaged.reverse_model.confidence.tolist() == [[1]]


@pytest.mark.parametrize("how", [(), ("training.epochs=3",)])
def test_a_network_that_prepare_completes_is_not_trained(tmp_path, how):
    """By val or by epochs: the run ends at step 0, and recommends what prepare() found."""
    path = make_run(tmp_path / "run", 200, 100, 8, tied=True)
    trainer = trained(path, "model.network=forest", "model.reverse_model={}", *how)
    assert trainer.results.status == "finished: prepare() has found all that this network learns"
    assert trainer.step == 0
    assert trainer.results.best_epoch == 0
    assert (trainer.results_dir / "checkpoints" / "model_best.pt").exists()
    assert (
        trainer.results.final_bound["val"].bits
        < independent_bits(trainer.folder.train, trainer.folder.val) - 1
    )
    again = resume(path, None, [], CPU, quiet=True, trust_code=False, command="")
    assert again.is_finished


def test_a_val_of_another_kind_does_not_make_it_doubt(tmp_path):
    """What holds for train alone is not a mistake where train is what is to be learnt."""
    path = make_run(tmp_path / "run", 400, 200, 12, tied=True)
    val = np.random.default_rng(1).random((200, 12)) < np.linspace(0.9, 0.1, 12)
    write_lines(path / "val.txt", val)
    trainer = trained(path, *epochs(15))
    assert trainer.results.val_is_unlike
    assert trainer.averaged.reverse_model.confidence.tolist() == [1, 0, 0]


SIZES = [(20, 8, True, 80), (20, 60, False, 80), (60, 120, False, 80), (1500, 16, False, 30)]


@pytest.mark.parametrize(("n", "L", "tied", "times"), SIZES)
def test_never_worse_than_independent_bits(tmp_path, n, L, tied, times):
    """Few lines of many bits, and bits with nothing to learn between them, many times over."""
    path = make_run(tmp_path / "run", n, 300, L, tied=tied)
    trainer = trained(path, *epochs(times), f"data.batch_size={max(32, n // 8)}")
    final = trainer.results.final_bound["val"]
    independent = independent_bits(trainer.folder.train, trainer.folder.val)
    assert final.bits < independent + 3 * final.standard_error


def test_a_resumed_run_becomes_what_it_would_have_become(tmp_path, monkeypatch):
    """Stopped before the first validation, at the constant rate, and while the rate falls."""
    path = make_run(tmp_path / "run", 64, 50, 8, tied=True)
    how = epochs(50)
    whole = trained(path, *how)
    assert 30 < whole.loop.plan.anneal_from < 85 < whole.step
    train_step = Loop.train_step
    for stop_at in (1, 30, 85):

        def stop(loop: Loop, stop_at: int = stop_at) -> None:
            if loop.step == stop_at:
                raise Interrupted(15)
            train_step(loop)

        monkeypatch.setattr(Loop, "train_step", stop)
        half = Trainer(read_run_folder(path, list(how)), CPU, quiet=True)
        with pytest.raises(Interrupted):
            half.train()
        monkeypatch.setattr(Loop, "train_step", train_step)
        rest = resume(path, half.results_dir, [], CPU, quiet=True, trust_code=False, command="")
        assert rest.step == stop_at
        rest.train()
        for trainer in (whole, rest):
            trainer.results.seconds, trainer.results.samples_per_second = [], None
            for measured in filter(None, (trainer.results.recommended, trainer.results.last)):
                measured.date = ""
        assert rest.results == whole.results
        assert rest.loop.plan == whole.loop.plan
        for key in ("weights", "averaged_weights"):
            expected, found = whole.loop.state()[key], rest.loop.state()[key]
            assert all(expected[name].equal(found[name]) for name in expected)


def test_a_checkpoint_whose_recipe_was_tampered_with_is_refused(tmp_path):
    path = make_run(tmp_path / "run", 64, 50, 8, tied=True)
    trainer = trained(path, *epochs(20))
    file = checkpoint.by_age(trainer.results_dir / "checkpoints")[-1]
    sound = checkpoint.load(file)

    def resumed(**changes) -> None:
        checkpoint.save(file, copy.deepcopy(sound) | changes)
        resume(path, trainer.results_dir, [], CPU, quiet=True, trust_code=False, command="")

    resumed()
    recipe, best = sound["recipe"], sound["best"]
    for changes in (
        {"recipe": {}},
        {"recipe": recipe | {"anneal_steps": 0}},
        {"recipe": recipe | {"next_look": 1.5}},
        {"best": {}},
        {"best": best | {"weights": {"frequency": torch.zeros(3)}}},
        {"best": best | {"bits": "many"}},
    ):
        with pytest.raises(UserError, match="recipe and best are not those of such a run"):
            resumed(**changes)


def test_where_val_is_of_another_kind_train_decides(tmp_path):
    """One phase of a beat is held out: what is learnt makes its bound worse, and says nothing of it."""
    path = tmp_path / "run"
    path.mkdir()
    phases = np.array([np.roll([1, 0, 0, 0, 0, 0] * 2, k) for k in range(6)], bool)
    write_lines(path / "train.txt", phases[np.arange(100) % 5])
    write_lines(path / "val.txt", phases[[5] * 40])
    (path / "config.yaml").write_text(CONFIG)
    results = trained(path, *epochs(60), "training.num_val_samples=400").results
    assert results.val_is_unlike
    assert results.final_bound["train"].bits < results.baselines["independent_train"] - 1
    assert results.measure("share_train").values[-1] > 0.3
