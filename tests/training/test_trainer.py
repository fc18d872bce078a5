"""The trainer from the inside: schedule, averaging, clipping, stops, checkpoints, NaN."""

import copy
import json
import math
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from bernoulli_diffusion.bits import pictures
from bernoulli_diffusion.likelihood import Estimate
from bernoulli_diffusion.noise import derive_seed
from bernoulli_diffusion.results import plots
from bernoulli_diffusion.sampling import sample
from bernoulli_diffusion.system.errors import RunError
from bernoulli_diffusion.training import checkpoint, results_folder, soundness, validator
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer, new_results_dir
from bernoulli_diffusion.training.validator import SAMPLES

CPU = torch.device("cpu")
TRAIN = [format(number, "04b") * 2 for number in range(16)]
VAL = ["00000001", "11111110", "01010101"]  # the last one stands in TRAIN too
CONFIG = """\
model: {T: 20, reverse_model: {width: 16}}
training: {epochs: 4, num_val_samples: 20, num_bound_draws: 64, warmup_steps: 2}
data: {batch_size: 8}
"""

# Learns, until forward has been called `good_calls` times in training mode; then gives NaN.
NETWORK = """\
import math
from torch import nn

class ReverseModel(nn.Module):
    def __init__(self, sequence_length, T, good_calls=1000000, width=0):
        super().__init__()
        self.norm = nn.BatchNorm1d(sequence_length)
        self.linear = nn.Linear(sequence_length, sequence_length)
        self.good_calls, self.calls = good_calls, 0

    def forward(self, x_t, t):
        self.calls += self.training
        {line}
        return self.linear(x_t) * (math.nan if self.calls > self.good_calls else 1)
"""


def make_run(path: Path, *, val=True, network: str | None = None) -> Path:
    path.mkdir()
    (path / "train.txt").write_text("\n".join(TRAIN))
    (path / "config.yaml").write_text(CONFIG)
    if val:
        (path / "val.txt").write_text("\n".join(VAL))
    if network:
        (path / "reverse_model.py").write_text(network)
    return path


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "run")


def make(run_dir: Path, *overrides: str) -> Trainer:
    return Trainer(read_run_folder(run_dir, list(overrides)), CPU, quiet=True)


def weights(trained: Trainer) -> dict[str, torch.Tensor]:
    return copy.deepcopy(trained.loop.diffusion.reverse_model.state_dict())


def averages(trained: Trainer) -> dict[str, torch.Tensor]:
    return copy.deepcopy(trained.averaged.reverse_model.state_dict())


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def names(trained: Trainer) -> set[str]:
    return {path.name for path in (trained.results_dir / "checkpoints").iterdir()}


def results(trained: Trainer) -> dict:
    return json.loads((trained.results_dir / "results.json").read_text())


# --- The results folder


def test_two_runs_in_the_same_second(run_dir, monkeypatch):
    class StoppedClock:
        @staticmethod
        def now():
            return datetime(2031, 2, 3, 4, 5, 6)

    monkeypatch.setattr(results_folder, "datetime", StoppedClock)
    paths = [new_results_dir(run_dir) for _ in range(3)]
    assert [path.name for path in paths] == [
        "2031-02-03_04-05-06",
        "2031-02-03_04-05-06_2",
        "2031-02-03_04-05-06_3",
    ]
    assert all((path / "checkpoints").is_dir() for path in paths)


# --- Steps


def test_the_optimizer_gets_the_learning_rate(run_dir):
    trained = make(run_dir)
    for step in range(trained.total_steps):
        trained.loop.train_step()
        assert trained.loop.optimizer.lr == trained.loop.plan.learning_rate(step)


# --- The averaged weights


@pytest.mark.parametrize("ema_decay", [0.0, 0.3, 0.999])
def test_averaged_weights_by_hand(run_dir, ema_decay):
    trained = make(run_dir, f"training.ema_decay={ema_decay}", "training.lr=0.05")
    expected = {key: value.double() for key, value in weights(trained).items()}
    for step in range(8):
        trained.loop.train_step()
        decay = min(ema_decay, (1 + step) / (10 + step))
        for key, value in weights(trained).items():
            expected[key] = decay * expected[key] + (1 - decay) * value.double()
    for key, value in averages(trained).items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)
    assert equal(weights(trained), averages(trained)) == (ema_decay == 0)
    assert not trained.averaged.reverse_model.training


def test_running_statistics_are_taken_over(tmp_path):
    network = NETWORK.format(line="x_t = self.norm(x_t)")
    trained = make(make_run(tmp_path / "run", network=network))
    for _ in range(3):
        trained.loop.train_step()
    raw, averaged = weights(trained), averages(trained)
    assert raw["norm.running_mean"].any()
    for key in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
        assert torch.equal(raw[key], averaged[key])


# --- Gradients


def trainable(trained: Trainer) -> list[torch.nn.Parameter]:
    return [p for p in trained.loop.diffusion.reverse_model.parameters() if p.requires_grad]


def gradient_norm(trained: Trainer) -> float:
    gradients = [p.grad for p in trainable(trained)]
    return math.sqrt(sum(g.double().square().sum() for g in gradients))


def test_gradient_clipping(run_dir):
    free, clipped = (make(run_dir, f"training.clip_thresh={c}") for c in (1e6, 0.01))
    free.loop.train_step()
    clipped.loop.train_step()
    norm = gradient_norm(free)
    assert norm > 0.1
    assert gradient_norm(clipped) == pytest.approx(0.01, rel=1e-3)
    for one, other in zip(trainable(free), trainable(clipped), strict=True):
        torch.testing.assert_close(one.grad * (0.01 / norm), other.grad)  # the direction stays
    # what is watched for a NaN is the norm before clipping
    assert clipped.loop._pending[0][1] == pytest.approx(norm, rel=1e-5)


def test_weight_decay_pulls_towards_zero(run_dir):
    plain, decayed = (
        make(run_dir, "training.lr=0.1", f"training.weight_decay={w}") for w in (0, 5)
    )
    before = weights(plain)
    plain.loop.train_step()
    decayed.loop.train_step()
    rate = plain.loop.plan.learning_rate(0)
    named = plain.loop.diffusion.reverse_model.named_parameters()
    are_trained = {key for key, p in named if p.requires_grad}
    for key, value in weights(decayed).items():
        if key in are_trained:
            expected = weights(plain)[key] - rate * 5 * before[key]
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


# --- Batches and random numbers


def spy_on_loss(trained: Trainer) -> list[tuple[torch.Tensor, int, float]]:
    """(x_0, num_sample_steps, loss) of every training step."""
    calls, loss = [], trained.loop.diffusion.loss

    def spy(x_0, num_sample_steps):
        value = loss(x_0, num_sample_steps)
        calls.append((x_0.clone(), num_sample_steps, value.item()))
        return value

    trained.loop.diffusion.loss = spy
    return calls


def strings(x_0: torch.Tensor) -> list[str]:
    return ["".join(str(int(bit)) for bit in row) for row in x_0]


@pytest.mark.usefixtures("no_pictures")
def test_each_epoch_is_a_fresh_permutation_of_train(run_dir):
    trained = make(run_dir, "model.num_sample_steps=3")
    calls = spy_on_loss(trained)
    trained.train()
    assert len(calls) == trained.total_steps == 8
    assert all(x_0.shape == (8, 8) and times == 3 for x_0, times, _ in calls)
    epochs = [strings(calls[k][0]) + strings(calls[k + 1][0]) for k in range(0, 8, 2)]
    assert all(sorted(epoch) == sorted(TRAIN) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    losses = [loss for *_, loss in calls]
    assert results(trained)["losses"] == pytest.approx(
        [(losses[k] + losses[k + 1]) / 2 for k in range(0, 8, 2)]
    )


@pytest.mark.usefixtures("no_pictures")
def test_a_loss_for_every_epoch_however_long_an_epoch_is(run_dir):
    """Losses are fetched from the device every 100 steps: fewer than an epoch, and more."""
    for overrides in (
        ["data.batch_size=16", "training.epochs=110", "training.validate_every_n_epochs=500"],
        ["data.batch_size=1", "training.epochs=7", "training.validate_every_n_epochs=500"],
    ):
        trained = make(run_dir, *overrides)
        calls = spy_on_loss(trained)
        trained.train()
        per_epoch = trained.loop.batches.steps_per_epoch
        losses = torch.tensor([loss for *_, loss in calls]).reshape(-1, per_epoch).mean(dim=1)
        assert results(trained)["losses"] == pytest.approx(losses.tolist(), rel=1e-5)
        assert results(trained)["validated_epochs"] == [0, trained.training.epochs]


@pytest.mark.usefixtures("no_pictures")
def test_a_step_is_a_function_of_seed_and_number(run_dir):
    """Neither validations nor anything else that draws random numbers changes the training."""
    often = make(run_dir, "training.validate_every_n_epochs=1")
    often.train()
    never = make(run_dir)
    for _ in range(never.total_steps):
        torch.rand(7)
        never.loop.train_step()
    assert equal(weights(often), weights(never))
    assert equal(averages(often), averages(never))

    other = make(run_dir, "training.seed=1")
    assert not equal(weights(other), weights(make(run_dir)))  # from the very start


# --- What ends a training


@pytest.fixture
def scripted(monkeypatch):
    """Make the validations measure given bounds on val, in this order, and then the last again."""

    def script(trained: Trainer, bounds: list[float]) -> None:
        def measure(*_):
            val = float(bounds.pop(0) if len(bounds) > 1 else bounds[0])
            return {"train": Estimate(7.0, 0.1), "val": Estimate(val, 0.1)}

        monkeypatch.setattr(trained.validator, "bounds", measure)

    return script


EVERY_EPOCH = ("training.epochs=20", "training.validate_every_n_epochs=1")


@pytest.mark.usefixtures("no_pictures")
def test_patience(run_dir, scripted):
    trained = make(run_dir, *EVERY_EPOCH, "training.patience=3")
    scripted(trained, [8, 7, 7.5, 7.2, 6, 6, 6.5, 9, 1])
    trained.train()
    assert trained.epoch == 7
    told = results(trained)
    assert told["validated_epochs"] == list(range(8))
    assert len(told["losses"]) == 7
    assert told["best_epoch"] == 4
    assert "training.patience" in told["status"]
    best = checkpoint.load(trained.results_dir / "checkpoints" / "model_best.pt")
    assert (best["epoch"], best["best_bound"]) == (4, 6)


@pytest.mark.usefixtures("no_pictures")
def test_without_patience_worse_bounds_end_nothing(run_dir, scripted):
    trained = make(run_dir, "training.validate_every_n_epochs=1")
    scripted(trained, [5, 6, 7, 8, 9])
    trained.train()
    told = results(trained)
    assert (told["status"], trained.epoch) == ("finished", 4)
    assert told["best_epoch"] == 1  # the untrained network does not compete


@pytest.mark.usefixtures("no_pictures")
def test_the_time_budget(run_dir, monkeypatch):
    trained = make(
        run_dir,
        "training.epochs=1000",
        "training.validate_every_n_epochs=300",
        "training.max_minutes=2",
    )
    monkeypatch.setattr(trained, "seconds", lambda: 5.0 * trained.step)  # 24 steps are 12 epochs
    trained.train()
    assert 23 <= trained.step <= 25
    told = results(trained)
    assert told["validated_epochs"] == [0, 12]  # measured where it ended, due or not
    assert "training.max_minutes" in told["status"]
    assert "model_epoch_12.pt" in names(trained)


# --- Checkpoints


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {2, 3, 4}),
        (["training.keep_checkpoints=1"], {4}),
        (["training.keep_checkpoints=null"], {1, 2, 3, 4}),
        (["training.keep_checkpoints=9", "training.save_every_n_epochs=3"], {3, 4}),
        (["training.keep_checkpoints=2", "training.epochs=11"], {10, 11}),  # 10 comes after 9
    ],
)
def test_which_checkpoints_are_kept(run_dir, overrides, expected):
    trained = make(run_dir, "training.validate_every_n_epochs=1", *overrides)
    trained.train()
    assert names(trained) == {f"model_epoch_{n}.pt" for n in expected} | {"model_best.pt"}


@pytest.mark.usefixtures("no_pictures")
def test_a_checkpoint_there_and_back(run_dir):
    trained = make(run_dir, "training.lr=0.01")
    trained.train()
    path = trained.results_dir / "checkpoints" / "model_epoch_4.pt"
    plain = torch.load(path, weights_only=True)
    loaded = checkpoint.load(path)
    assert plain.keys() == loaded.keys() == {*soundness.KEYS, "format_version"}
    assert (loaded["sequence_length"], loaded["T"]) == (8, 20)
    assert (loaded["epoch"], loaded["step"]) == (4, 8)
    assert loaded["reverse_model_source"] == trained.folder.source.text
    assert checkpoint.config_of(loaded, path) == trained.config
    assert equal(loaded["weights"], weights(trained))
    assert equal(loaded["averaged_weights"], averages(trained))
    assert not equal(weights(trained), averages(trained))

    t = torch.tensor([1, 7, 20])
    x_t = torch.tensor([[0.0, 1] * 4, [1.0, 1] * 4, [0.0] * 8])
    for kind, diffusion in (("raw", trained.loop.diffusion), ("averaged", trained.averaged)):
        restored = checkpoint.restore(loaded, path, weights=kind)
        assert not restored.reverse_model.training
        assert restored.T == 20
        assert torch.equal(restored.reverse_model(x_t, t), diffusion.reverse_model.eval()(x_t, t))

    trained_ones = [p for p in restored.reverse_model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained_ones)
    optimizer.load_state_dict(loaded["optimizer"])
    for own, other in zip(
        trained.loop.optimizer.state_dict()["state"].values(),
        optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert torch.equal(own["exp_avg_sq"], other["exp_avg_sq"])


@pytest.mark.usefixtures("no_pictures")
def test_the_best_checkpoint_is_as_it_was_then(run_dir, scripted):
    trained = make(run_dir, "training.validate_every_n_epochs=1", "training.lr=0.01")
    then, validate = {}, trained.validate

    def validate_and_note(interrupt):
        then[trained.epoch] = averages(trained)
        validate(interrupt)

    trained.validate = validate_and_note
    scripted(trained, [8, 7, 5, 6, 7])
    trained.train()
    best = checkpoint.load(trained.results_dir / "checkpoints" / "model_best.pt")
    assert best["epoch"] == 2
    assert equal(best["averaged_weights"], then[2])
    assert not equal(best["averaged_weights"], averages(trained))


# --- Validation


@pytest.mark.usefixtures("no_pictures")
def test_what_is_noted_at_a_validation(run_dir):
    trained = make(run_dir, "training.num_examples=7", "training.validate_every_n_epochs=2")
    trained.train()
    assert not [path for path in trained.results_dir.rglob("*") if path.name.startswith(".")]
    told = results(trained)
    assert told["validated_epochs"] == [0, 2, 4]
    for name in ("train", "val"):
        assert len(told["bound"][name]) == len(told["bound"][f"{name}_standard_error"]) == 3
    # untrained, the output layer is zero: each term is that of the uniform model, 8 bits a string
    error = told["bound"]["train_standard_error"][0]
    assert told["bound"]["train"][0] == pytest.approx(8, abs=4.5 * error)
    assert [len(strings) for strings in told["examples_per_epoch"]] == [7, 7, 7]
    assert told["recommended"]["bounds"] == told["final_bound"]
    for name in ("train", "val"):  # the recommended ones once more, from 16 times as many draws
        final = told["final_bound"][name]
        assert final["monte_carlo_error"] < told["bound"][f"{name}_standard_error"][-1]
        assert np.mean(final["blocks"]) == pytest.approx(final["bits"], rel=1e-5)
    if told["last"] is None:
        assert told["recommended"]["epoch"] == 4
    shares = told["proportions"]
    assert [sum(s) for s in zip(*shares.values(), strict=True)] == pytest.approx([1, 1, 1])
    assert told["data"]["val_lines_in_train"] == 1
    samples = trained.validator.draw(trained.averaged)
    assert len(samples) == 20
    drawn = strings(torch.from_numpy(samples.bits()))
    assert drawn[:7] == told["examples_per_epoch"][-1]
    only_val = set(VAL) - set(TRAIN)
    assert shares["train"][-1] == pytest.approx(sum(s in TRAIN for s in drawn) / 20)
    assert shares["val"][-1] == pytest.approx(sum(s in only_val for s in drawn) / 20)
    assert told["distinct"][-1] == len(set(drawn)) / 20


@pytest.mark.usefixtures("no_pictures")
def test_without_val_the_train_bound_decides(tmp_path):
    trained = make(make_run(tmp_path / "run", val=False), "training.lr=0.02")
    trained.train()
    told = results(trained)
    assert told["has_val"] is False
    assert told["bound"]["val"] == told["bound"]["val_standard_error"] == []
    assert told["baselines"]["independent_val"] is None
    assert set(told["proportions"]["val"]) == {0}
    best = told["validated_epochs"].index(told["best_epoch"])
    assert told["bound"]["train"][best] == min(told["bound"]["train"])


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns(run_dir, precision):
    """16 patterns of 4 bits, repeated: 4 bits. 8 without learning."""
    trained = make(
        run_dir,
        f"training.precision={precision}",
        "training.epochs=200",
        "training.lr=0.02",
        "training.validate_every_n_epochs=200",
        "training.num_val_samples=200",
        "training.num_bound_draws=1000",
        "training.ema_decay=0.98",
        "model.reverse_model.width=32",
        "data.batch_size=16",
        "model.num_sample_steps=8",
    )
    trained.train()
    told = results(trained)
    assert told["bound"]["train"][-1] < 5.2
    assert told["proportions"]["train"][-1] > 0.75


@pytest.mark.usefixtures("no_pictures")
def test_the_samples_at_the_end_are_of_the_sampler_that_is_printed(run_dir, monkeypatch):
    """The exact law, as generate.py's; or so many calls, if that would take too long."""
    trained = make(run_dir, "training.num_val_steps=3")
    seed = derive_seed(trained.training.seed, SAMPLES)
    for steps in (None, 3):
        if steps:
            monkeypatch.setattr(validator, "MOST_EXACT", 1)
        samples = trained.validator.draw(trained.averaged, at_the_end=True)
        (batch,) = sample(trained.averaged, trained.length, range(20), seed, steps)
        assert samples.bits().tolist() == batch.tolist()
        assert trained.validator.num_final_steps == steps


@pytest.mark.usefixtures("no_pictures")
def test_the_samples_of_a_validation(run_dir):
    """num_val_steps network calls each, or the exact law: those that generate.py prints."""
    for steps, expected in ((3, 3), ("null", None), (10**6, None)):
        trained = make(run_dir, f"training.num_val_steps={steps}")
        samples = trained.validator.draw(trained.averaged)
        seed = derive_seed(trained.training.seed, SAMPLES)
        (batch,) = sample(trained.averaged, trained.length, range(20), seed, expected)
        assert samples.bits().tolist() == batch.tolist()


def test_a_picture_that_cannot_be_drawn_ends_nothing(run_dir, monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError("no font")

    monkeypatch.setattr(plots, "loss_curve", broken)
    monkeypatch.setattr(pictures, "sample_frames", broken)
    trained = make(run_dir)
    trained.train()
    assert results(trained)["status"] == "finished"
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert all(w.startswith("warning: ") and "ValueError: no font" in w for w in warnings)


# --- A loss that is not a number


def broken_run(path: Path, good_calls: int, line: str = "pass") -> Trainer:
    run_dir = make_run(path, network=NETWORK.format(line=line))
    return make(
        run_dir,
        f"model.reverse_model.good_calls={good_calls}",
        "training.validate_every_n_epochs=1",
        "training.lr=0.004",
        "training.lr_schedule=constant",
    )


@pytest.mark.usefixtures("no_pictures")
def test_nan(tmp_path):
    trained = broken_run(tmp_path / "run", good_calls=5)
    with pytest.raises(RunError) as caught:
        trained.train()
    message = str(caught.value)
    last = trained.results_dir / "checkpoints" / "model_epoch_2.pt"
    assert message.startswith("step 6: loss nan, gradient norm nan, learning rate 0.004; ")
    assert str(last) in message
    assert "\n" not in message
    assert names(trained) == {"model_epoch_1.pt", "model_epoch_2.pt", "model_best.pt"}
    for path in last.parent.iterdir():
        loaded = checkpoint.load(path)  # refuses weights that are not finite
        assert checkpoint.all_finite(loaded["weights"])
        assert checkpoint.all_finite(loaded["averaged_weights"])
    told = results(trained)
    assert told["status"].startswith("failed: step 6: loss nan")
    assert len(told["losses"]) == 2
    assert all(map(math.isfinite, told["losses"]))


@pytest.mark.usefixtures("no_pictures")
def test_the_learning_rate_told_is_that_of_the_step(tmp_path):
    """The loss is looked at later, when the warm-up has gone on."""
    trained = broken_run(tmp_path / "run", good_calls=1)
    trained.training.warmup_steps = 4
    trained.training.validate_every_n_epochs = 1000
    trained.training.save_every_n_epochs = 1000
    with pytest.raises(RunError, match=r"^step 2: loss nan.* learning rate 0\.002; "):
        trained.train()


@pytest.mark.usefixtures("no_pictures")
def test_nan_in_validation_alone(tmp_path):
    """Trained well, it seems, but in eval mode the log-odds are no numbers."""
    line = "if not self.training and len(x_t) > 5: return self.linear(x_t) * math.nan"
    trained = broken_run(tmp_path / "run", good_calls=1000, line=line)
    with pytest.raises(RunError, match="bound on train is nan"):
        trained.train()
    assert names(trained) == set()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("which", ["diffusion", "averaged"])
def test_weights_that_are_not_finite_are_not_written(run_dir, which):
    trained = make(run_dir)
    trained.train()
    before = {path: path.read_bytes() for path in (trained.results_dir / "checkpoints").iterdir()}
    with torch.no_grad():
        next(getattr(trained.loop, which).reverse_model.parameters()).view(-1)[3] = math.inf
    with pytest.raises(RunError, match="not finite"):
        trained.save()
    assert {path: path.read_bytes() for path in before} == before
    assert names(trained) == {path.name for path in before}
