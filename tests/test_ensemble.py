"""python -m bernoulli_diffusion.ensemble, and the checkpoints that it writes."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from processes import ROOT, call, fewer_draws, mistake

from bernoulli_diffusion import ensemble as ensembles
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.likelihood import estimate_bound
from bernoulli_diffusion.sampling import sample
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training import checkpoint
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer, new_results_dir

NETWORKS = ROOT / "bernoulli_diffusion" / "networks"
STRINGS = "010010\n100100\n001001\n"


def train(
    path: Path,
    network: str | None = None,
    T: int = 20,
    text: str = STRINGS,
    process: str = "bernoulli",
    seed: int = 0,
) -> Path:
    """A checkpoint after a few steps on a little data."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "train.txt").write_text(text)
    (path / "val.txt").write_text(text)
    (path / "config.yaml").write_text(
        f"model: {{T: {T}, process: {process}}}\n"
        f"training: {{epochs: 9, lr: 0.02, num_val_samples: 8, seed: {seed}}}\n"
    )
    if network:
        shutil.copy(NETWORKS / f"{network}.py", path / "reverse_model.py")
    trainer = Trainer(read_run_folder(path), torch.device("cpu"), quiet=True)
    trainer.results_dir = new_results_dir(path)
    for _ in range(9):
        trainer.loop.train_step()
    trainer.save()
    return next((trainer.results_dir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> list[Path]:
    """Two networks of different kinds on the same data."""
    folder = tmp_path_factory.mktemp("members")
    return [train(folder / "one"), train(folder / "two", "mixture")]


@pytest.fixture(scope="module")
def ensemble(members, tmp_path_factory) -> Path:
    """Of both, a quarter and three quarters."""
    path = tmp_path_factory.mktemp("ensemble") / "together.pt"
    parts = [checkpoint.load(member) for member in members]
    shares = [0.25, 0.75]
    together = checkpoint.ensemble_of(list(zip(parts, shares, strict=True)), parts[1])
    checkpoint.save(path, together)
    return path


def test_log_odds_are_the_weighted_mean(members, ensemble):
    saved = checkpoint.load(ensemble)
    x_t = torch.randint(2, (9, 6), generator=torch.Generator().manual_seed(0)).float()
    t = torch.arange(1, 10)
    one, two = (checkpoint.restore(checkpoint.load(m), m).reverse_model(x_t, t) for m in members)
    for weights in ("averaged", "raw"):
        together = checkpoint.restore(saved, ensemble, weights=weights)
        found = together.reverse_model(x_t, t)
        torch.testing.assert_close(found, 0.25 * one + 0.75 * two)
    assert not torch.allclose(one, two)


def test_the_command_and_those_that_take_what_it_writes(members, tmp_path):
    out, val = tmp_path / "out.pt", members[0].parents[3] / "val.txt"
    done = call("ensemble", out, *members, "--weights-by", val, prepare=fewer_draws)
    report = json.loads(done.stdout)
    assert [m["checkpoint"] for m in report["members"]] == [str(m) for m in members]
    assert sum(m["share"] for m in report["members"]) == pytest.approx(1)
    best = min(each["bits"] for each in report["bounds_of_members"])
    assert report["bound"]["bits"] <= best
    again = call("evaluate", out, val, "--precision", 0.05)
    bound = json.loads(again.stdout)["bound"]
    bits, error = bound["bits"], bound["bits_standard_error"]
    assert abs(bits - report["bound"]["bits"]) < 5 * (error + report["bound"]["standard_error"])
    drawn = call("generate.py", out, 4, "--given", "01????").stdout.split()
    assert [line[:2] for line in drawn] == ["01"] * 4


def test_real_numbers(tmp_path, monkeypatch, capsys):
    """The mean of what two networks say of the noise; their standardisation must be the same."""
    text = "".join(f"{x / 7:.3f} {(x * x) % 5}\n" for x in range(40))
    one, two = (train(tmp_path / str(s), text=text, process="gaussian", seed=s) for s in (1, 2))
    out, val = tmp_path / "out.pt", tmp_path / "1" / "val.txt"
    fewer_draws(monkeypatch.setattr)
    monkeypatch.setattr(sys, "argv", ["x", *map(str, (out, one, two, "--weights-by", val))])
    assert ensembles.command() == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bound"]["bits"] <= min(each["bits"] for each in report["bounds_of_members"])
    diffusion = checkpoint.restore(checkpoint.load(out), out)
    assert next(sample(diffusion, 2, range(5), seed=0)).shape == (5, 2)
    other = train(tmp_path / "3", text=text + "9 9\n", process="gaussian")
    monkeypatch.setattr(sys, "argv", ["x", str(out), str(one), str(other)])
    assert ensembles.command() == 2
    assert f"{other}: of another kind than {one}" in capsys.readouterr().err


def test_equal_shares_and_ensembles_of_ensembles(members, ensemble, tmp_path):
    out = tmp_path / "out.pt"
    done = call("ensemble", out, members[0], ensemble)
    shares = [m["share"] for m in json.loads(done.stdout)["members"]]
    assert shares == [0.5, 0.125, 0.375]
    saved = checkpoint.load(out)
    assert saved["shares"] == shares
    call("ensemble", out, ensemble)  # an ensemble may be made again
    assert checkpoint.load(out)["shares"] == [0.25, 0.75]
    val = BitStrings.from_bits(torch.tensor([[0, 1, 0, 0, 1, 0]]).byte().numpy())
    assert estimate_bound(checkpoint.restore(saved, out), val, 100, seed=0).bits > 0


def test_what_cannot_be_one_model(members, tmp_path, monkeypatch):
    other_T = train(tmp_path / "a", T=21)
    longer = train(tmp_path / "b", text="0100101\n")
    trained = members[0].read_bytes()
    out, val = tmp_path / "out.pt", tmp_path / "b" / "train.txt"
    for words, told in (
        ((out, members[0], other_T), f"{other_T}: of another kind than {members[0]}"),
        ((out, members[0], longer), f"{longer}: of another kind than {members[0]}"),
        ((members[0], *members), "is a member itself"),
        (members, f"{members[0]}: there already, and no ensemble"),  # OUT.pt was forgotten
        ((out, *members, "--weights-by", val), "strings of 7 bits, but the model's have 6"),
    ):
        monkeypatch.setattr(sys, "argv", ["ensemble", *map(str, words)])
        with pytest.raises(UserError, match=re.escape(told)):
            ensembles.main()
    assert not out.exists()
    assert members[0].read_bytes() == trained


def test_code_of_a_member_runs_only_if_trusted(members, tmp_path):
    """A member whose network is nowhere but in its checkpoint; a packaged one needs no trust."""
    strange = checkpoint.load(members[0])
    strange["reverse_model_source"] += "\n# edited\n"
    source = checkpoint.Source("x", strange["reverse_model_source"])
    strange["reverse_model_sha256"] = source.sha256
    path = tmp_path / "strange.pt"
    parts = [(checkpoint.load(members[1]), 0.5), (strange, 0.5)]
    checkpoint.save(path, checkpoint.ensemble_of(parts, strange))
    with pytest.raises(UserError, match=r"none of this program.s"):
        checkpoint.restore(checkpoint.load(path), path)
    checkpoint.restore(checkpoint.load(path), path, trust_code=True)


def mean_shares(state):
    state["shares"] = [0.5, 0.6]


def no_number(state):
    state["shares"] = [0.5, float("nan")]


def too_few(state):
    state["shares"] = [1.0]


def nobody(state):
    state["members"], state["shares"] = [], []


def nested(state):
    state["members"][0] = dict(state)


def endless(state):
    state["members"][0] = state


def no_list(state):
    state["members"] = {"0": state["members"][0]}


def no_weights(state):
    del state["members"][1]["averaged_weights"]


def other_times(state):
    state["members"][1]["T"] = 3


def hundreds(state):
    """One network a hundred times: small on the disk, large in memory."""
    state["members"], state["shares"] = state["members"][:1] * 100, [0.01] * 100


def lists(state):
    state["members"] = [[]]


def infinite(state):
    weights = state["members"][1]["averaged_weights"]
    weights["share"] = weights["share"] * float("inf")


@pytest.mark.parametrize(
    "harm",
    [
        *(mean_shares, no_number, too_few, nobody, nested, endless, no_list, no_weights),
        *(other_times, hundreds, lists, infinite),
    ],
)
def test_damaged_and_hostile_ensembles_are_refused(ensemble, tmp_path, harm):
    state = torch.load(ensemble, weights_only=True)
    harm(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = tmp_path / "x.pt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"x\.pt: "):
        checkpoint.load(path)


def test_members_of_different_kinds_are_refused(ensemble, tmp_path):
    state = checkpoint.load(ensemble)
    member = state["members"][1]
    member["config"] = member["config"].replace("process: bernoulli", "process: gaussian")
    assert "gaussian" in member["config"]
    with pytest.raises(UserError, match="members are of different kinds"):
        checkpoint.restore(state, tmp_path / "x.pt")


def test_an_ensemble_is_not_trained_on(members, ensemble):
    """Put where a run's checkpoint was, it is refused in one line."""
    run_dir = shutil.copytree(members[0].parents[3], ensemble.parent / "run")
    (copied,) = run_dir.glob("results/*/checkpoints/*.pt")
    shutil.copy(ensemble, copied)
    mistake("train.py", run_dir, "--resume")
