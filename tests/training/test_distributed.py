"""Several processes: one run, one results folder, nobody hangs.

They are given what torchrun gives its processes; torchrun itself, three interpreters that start, is
tried once.
"""

import json
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import ROOT, Command, Together, call, train
from torch import nn

from bernoulli_diffusion.bits.data import BitStrings, to_text
from bernoulli_diffusion.reverse_model import ReverseModel
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training import distributed
from bernoulli_diffusion.training.distributed import (
    Processes,
    _has_unused_parameters,
    check_batch_size,
)

CONFIG = """
model: {T: 20, reverse_model: {width: 16, num_blocks: 1}}
training:
  epochs: 6
  validate_every_n_epochs: 3
  num_val_samples: 25
  val_batch_size: 7
  num_bound_draws: 200
data: {batch_size: 5}
"""


def make_run(folder: Path, config: str = CONFIG, lines: int = 31) -> Path:
    folder.mkdir()
    bits = np.random.default_rng(0).integers(0, 2, (lines, 8))
    (folder / "train.txt").write_bytes(to_text(bits))
    (folder / "val.txt").write_bytes(to_text(bits[:9] ^ 1))
    (folder / "config.yaml").write_text(config)
    return folder


def results_of(run_dir: Path) -> dict:
    (folder,) = (run_dir / "results").iterdir()
    return json.loads((folder / "results.json").read_text())


# ----------------------------------------------------------------------------- the parts


@pytest.mark.parametrize(("count", "size"), [(0, 2), (1, 3), (7, 3), (64, 5)])
def test_shares_are_the_whole_in_order(count, size):
    shares = [Processes(rank, size).share(count) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_nobody():
    alone = Processes()
    assert alone.is_first
    assert alone.greatest(lambda: (1, 2.5))() == [1, 2.5]
    assert alone.gather(lambda: 3) == [3]
    assert alone.from_first(lambda: 3) == 3
    assert alone.mean(torch.ones(2)).tolist() == [1, 1]


def test_a_batch_smaller_than_the_processes():
    with pytest.raises(UserError, match="cannot be shared out to 3 processes"):
        check_batch_size(2, 3)
    check_batch_size(3, 3)


def test_the_parts_of_strings():
    strings = BitStrings.from_bits(np.eye(5, dtype=np.uint8))
    assert strings.part(range(1, 3)).bits().tolist() == np.eye(5)[1:3].tolist()
    assert len(strings.part(range(5, 5))) == 0


class SometimesShallow(nn.Module):
    """Leaves out a layer now and then, as stochastic depth does."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x_t, t):
        x = self.norm(x_t)
        return x if torch.rand(()) < 0.3 else self.layer(x)


def test_a_layer_that_is_left_out_by_chance_is_found_and_the_network_left_as_it_was():
    for seed in range(10):
        torch.manual_seed(seed)
        model, before = SometimesShallow(), torch.get_rng_state()
        assert _has_unused_parameters(model, 4)
        assert torch.get_rng_state().equal(before)
        assert model.norm.num_batches_tracked == 0
        assert all(p.grad is None for p in model.parameters())
    assert not _has_unused_parameters(ReverseModel(4, 10, width=8, num_blocks=1), 4)


def launched(monkeypatch, **environment: object) -> None:
    """The variables that a launcher has left in the shell, with a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    left = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in (left | {"BERNOULLI_JOIN_SECONDS": 1} | environment).items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("environment", [{}, {"RANK": 1}, {"TORCHELASTIC_USE_AGENT_STORE": "True"}])
def test_leftover_variables_of_a_launcher(monkeypatch, capfd, environment):
    launched(monkeypatch, **environment)
    monkeypatch.setattr(distributed, "SECONDS_TO_WONDER", 0.3)
    start = time.monotonic()
    with pytest.raises(UserError) as caught, distributed.processes():
        pass
    assert time.monotonic() - start < 10
    [notice] = capfd.readouterr().err.splitlines()
    rank = environment.get("RANK", 0)
    others = "the first process" if rank else "1 other processes"
    for told in (notice, str(caught.value)):
        assert told.startswith(f"process {rank} of 2 waits for {others} at 127.0.0.1:")
        assert told.endswith("alone: unset RANK WORLD_SIZE MASTER_ADDR MASTER_PORT")
    assert "gives up after 1 s (BERNOULLI_JOIN_SECONDS)" in notice


@pytest.mark.parametrize("wrong", [{"RANK": "x"}, {"RANK": 2}, {"WORLD_SIZE": 0}, {"RANK": -1}])
def test_variables_that_make_no_sense(monkeypatch, wrong):
    launched(monkeypatch, **wrong)
    with pytest.raises(UserError, match=r"RANK=.*WORLD_SIZE=.*: no launcher says so; for one"):
        distributed._place()


def test_a_part_of_the_variables_is_not_enough(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with distributed.processes() as group:
        assert group == Processes()


# ----------------------------------------------------------------------------- together

SCRIPT = """
import sys, torch
from bernoulli_diffusion.training.distributed import processes
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer

with processes() as group:
    trainer = Trainer(read_run_folder(sys.argv[1]), torch.device("cpu"), quiet=True, processes=group)

    # the gradient: of a loss without noise, known from the whole batch
    model = trainer.loop.diffusion.reverse_model
    bias = model.read_out.bias
    whole = Trainer(read_run_folder(sys.argv[1]), torch.device("cpu"), quiet=True)
    x = whole.loop.batches.batch(0)
    expected = x.mean(dim=0)
    seen = []

    def loss(x_0, _):
        t = torch.ones(len(x_0), dtype=torch.int64)
        return (trainer.loop.together.reverse_model(x_0, t) * x_0).sum(dim=1).mean()

    trainer.loop.together.loss = loss
    trainer.loop.clip.threshold = 1e9
    step = trainer.loop.optimizer.step
    trainer.loop.optimizer.step = lambda: (seen.append(bias.grad.clone()), step())
    trainer.loop.train_step()
    torch.testing.assert_close(seen[0], expected)

    # the steps leave every process with the same weights, to the last bit
    del trainer.loop.together.loss
    for _ in range(5):
        trainer.loop.train_step()
    weights = group.gather(lambda: [p.detach() for p in model.parameters()])
    assert all(a.equal(b) for a, b in zip(*weights, strict=True))

    # all see the greatest, and the first one's work
    assert group.greatest(lambda: (group.rank, -group.rank))() == [1, 0]
    assert group.from_first(lambda: group.rank) == 0

    # a bound of few draws has a standard error, also if they are shared out
    trainer.training.num_bound_draws = 2
    assert all(e.standard_error > 0 for e in trainer.validator.bounds(trainer.averaged).values())

    # the samples are those of one process
    together = trainer.validator.draw(whole.averaged)
    assert (together.packed == whole.validator.draw(whole.averaged).packed).all()
    print("all is well")
"""


def test_gradients_weights_and_samples(tmp_path):
    run_dir = make_run(tmp_path / "run")
    (tmp_path / "script.py").write_text(SCRIPT)
    codes, out, err = Together(tmp_path, tmp_path / "script.py", run_dir).finish()
    assert (codes, out) == ([0, 0], "all is well\n" * 2), err


def test_one_results_folder_and_resuming_with_another_number(tmp_path):
    run_dir = make_run(tmp_path / "run")
    codes, out, err = Together(tmp_path, "train.py", run_dir).finish()
    assert codes == [0, 0], err
    assert "Warning" not in err
    (folder,) = (run_dir / "results").iterdir()
    assert out == f"{folder}\n"
    results = results_of(run_dir)
    assert results["status"] == "finished"
    assert len(results["losses"]) == 6
    assert results["validated_epochs"] == [0, 3, 6]
    assert sum(results["proportions"][k][-1] for k in ("train", "val", "other")) == pytest.approx(1)
    assert (folder / "loss_curve.png").stat().st_size > 1000
    assert train(run_dir, "--resume", "--set", "training.epochs=9") == folder
    assert results_of(run_dir)["validated_epochs"] == [0, 3, 6, 9]


def test_generate_prints_what_one_process_would(tmp_path):
    checkpoint = ROOT / "tests" / "data" / "checkpoint_format_1.pt"
    ask = ["generate.py", checkpoint, 23, "--batch-size", 4, "--trust-code", "--seed", 5]
    alone = call(*ask)
    assert Together(tmp_path, *ask).finish()[:2] == ([0, 0], alone.stdout)
    codes, out, _ = Together(tmp_path, *ask, "--output", tmp_path / "out.txt").finish()
    assert (codes, out) == ([0, 0], "")
    assert (tmp_path / "out.txt").read_text() == alone.stdout


THREADS = """
import os, sys
from bernoulli_diffusion.generate import command

code = command()
tasks = "/proc/self/task"
print([open(f"{tasks}/{t}/comm").read().strip() for t in os.listdir(tasks)], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists threads by /proc")
def test_nothing_is_left_of_the_group_when_the_program_ends(tmp_path):
    """A group that was alive at the end aborted one run in five."""
    (tmp_path / "script.py").write_text(THREADS)
    checkpoint = ROOT / "tests" / "data" / "checkpoint_format_1.pt"
    words = tmp_path / "script.py", checkpoint, 3, "--trust-code"
    codes, _, err = Together(tmp_path, *words).finish()
    assert codes == [0, 0], err
    assert err.count("['python") == 2
    assert "gloo" not in err


def test_a_reader_that_has_seen_enough_ends_all_quietly(tmp_path):
    checkpoint = ROOT / "tests" / "data" / "checkpoint_format_1.pt"
    words = "generate.py", checkpoint, 200_000, "--steps", 1, "--batch-size", 5000, "--trust-code"
    pipe = tmp_path / "rank 0" / "stdout"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    together = Together(tmp_path, *words)
    with open(pipe) as reader:
        assert reader.readline()
    pipe.unlink()
    pipe.touch()
    codes, _, err = together.finish()
    assert codes == [0, 0]
    assert "Error" not in err


FULL = """
from bernoulli_diffusion.reverse_model import ReverseModel as Default
import os

class ReverseModel(Default):
    def forward(self, x_t, t):
        self.calls = getattr(self, "calls", 0) + self.training
        if os.environ["RANK"] == "1" and self.calls > 20:
            raise OSError(28, "No space left on device", "/some/file")
        return super().forward(x_t, t)
"""


def test_the_process_that_failed_says_why(tmp_path):
    run_dir = make_run(tmp_path / "run")
    (run_dir / "reverse_model.py").write_text(FULL)
    codes, _, err = Together(tmp_path, "train.py", run_dir).finish()
    assert 0 not in codes
    assert "error: process 1: /some/file: No space left on device" in err
    assert results_of(run_dir)["status"].startswith("failed: ")


TORCHRUN = """
from torch.distributed.run import main

main()
"""


def test_a_signal_to_torchrun_reaches_all_and_the_run_goes_on(tmp_path):
    config = CONFIG.replace("epochs: 6", "epochs: 100000")
    run_dir = make_run(tmp_path / "run", config)
    (tmp_path / "torchrun.py").write_text(TORCHRUN)
    script = tmp_path / "torchrun.py", "--nproc_per_node=2", "train.py", run_dir
    command = Command(tmp_path, *script, environment={"PYTHONPATH": ROOT})
    deadline = time.monotonic() + 90
    while not list(run_dir.glob("results/*/checkpoints/model_epoch_*")):
        assert time.monotonic() < deadline
        assert command.process.is_alive(), command.stderr
        time.sleep(0.1)
    os.kill(command.pid, signal.SIGTERM)
    command.wait(120)
    assert "and saved at step" in command.stderr
    (folder,) = (run_dir / "results").iterdir()
    assert command.stdout == f"{folder}\n"
    assert results_of(run_dir)["status"] == "stopped by SIGTERM"
    epochs = len(results_of(run_dir)["losses"]) + 3
    words = "train.py", run_dir, "--resume", "--set", f"training.epochs={epochs}"
    codes, _, err = Together(tmp_path, *words).finish()
    assert codes == [0, 0], err
    assert len(results_of(run_dir)["losses"]) == epochs


NAN = """
import torch
from processes import ROOT, Command, Together, call, train
from torch import nn

class ReverseModel(nn.Module):
    def __init__(self, sequence_length, T):
        super().__init__()
        self.linear = nn.Linear(sequence_length, sequence_length)
        self.calls = 0

    def forward(self, x_t, t):
        self.calls += self.training
        return self.linear(x_t) * (float("nan") if self.calls > 12 else 1)
"""


@pytest.mark.parametrize(
    ("change", "network", "message"),
    [
        ("batch_size: 1", None, "error: data.batch_size: 1 strings cannot be shared"),
        ("batch_size: 5", NAN, "try a smaller training.lr"),
    ],
)
def test_errors_are_told_once_and_nobody_hangs(tmp_path, change, network, message):
    config = CONFIG.replace("batch_size: 5", change)
    if network:
        config = config.replace(", reverse_model: {width: 16, num_blocks: 1}", "")
    run_dir = make_run(tmp_path / "run", config)
    if network:
        (run_dir / "reverse_model.py").write_text(network)
    codes, out, err = Together(tmp_path, "train.py", run_dir).finish()
    told = [line for line in err.splitlines() if line.startswith("error:")]
    assert 0 not in codes
    assert out == ""
    assert len(told) == 1, err
    assert message in told[0]
