"""python -m bernoulli_diffusion.search: what is tried, for how long, and what comes of it."""

import io
import json
import sys
from pathlib import Path

import pytest
from processes import call, fewer_draws, mistake

from bernoulli_diffusion import bits, numbers, search
from bernoulli_diffusion.search import Candidate, Search, Trial, portfolio
from bernoulli_diffusion.system.errors import RunError, UserError
from bernoulli_diffusion.training import checkpoint
from bernoulli_diffusion.training.network import Source

BITS = {"a": 9.0, "b": 5.0, "c": 7.0, "d": 6.0, "e": 8.0}


class Finished:
    """A trial's process that has trained for as long as it may."""

    def __init__(self, folder: Path, returncode: int = 0):
        self.stdout, self.returncode = io.BytesIO(f"warning\n{folder}\n".encode()), returncode
        self.started, self.training, self.is_overdue = 0, 1e9, False

    def poll(self) -> int:
        return self.returncode


class Endless(Finished):
    """One that trains until it is told to stop."""

    is_stopped = False

    def poll(self) -> int | None:
        return self.returncode if self.is_stopped else None

    def terminate(self) -> None:
        self.is_stopped, self.returncode = True, 143


class Clockwork(Search):
    """A search whose trials take no time but by its own clock, and reach what BITS says."""

    def __init__(self, folder: Path, names="abcde", failing=(), minutes=10.0, processes=1):
        def measure(path: Path) -> tuple[float, float]:
            name, seed = path.parents[1].name.split("_")
            return BITS[name] - 0.01 * int(seed), 0.1

        candidates = [Candidate(name) for name in names]
        super().__init__(folder, candidates, measure, minutes=minutes, processes=processes)
        self.folder.mkdir(exist_ok=True)
        self.failing, self.now, self.stop_after = failing, 0.0, None

    def seconds(self) -> float:
        return self.now

    def start(self, trial: Trial) -> Finished:
        if self.stop_after is not None and len(self.done()) >= self.stop_after:
            raise KeyboardInterrupt
        self.now += 60 * trial.minutes / self.processes
        results = self.run_dir / "results" / f"{trial.candidate}_{trial.seed}"
        (results / "checkpoints").mkdir(parents=True, exist_ok=True)
        (results / "checkpoints" / "model_best.pt").write_bytes(b"")
        self.log_of(trial).write_bytes(b"the reason\n")
        trial.status = "running"
        finished = Finished(results, int(trial.candidate in self.failing))
        finished.started = self.now
        return finished


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(search, "POLL_SECONDS", 0)


def test_halving_gives_the_best_quarter_four_times_the_time(tmp_path):
    one = Clockwork(tmp_path)
    one.run_all()
    rounds = [[t for t in one.trials if t.round == r] for r in range(3)]
    assert ["".join(t.candidate for t in r) for r in rounds] == ["abcde", "bd", "b"]
    first = rounds[0][0].minutes
    for r, trials in enumerate(rounds):
        assert [t.minutes for t in trials] == pytest.approx([4**r * first] * len(trials))
    assert 0.8 * 600 < one.now <= 600
    assert one.best().candidate == "b"
    assert one.ranking() == ["b", "d", "c", "e", "a"]


def test_time_that_is_left_goes_to_whoever_had_no_long_trial(tmp_path):
    one = Clockwork(tmp_path)
    of_each = one.seconds_of_each
    one.minutes *= 2
    one.seconds_of_each = lambda *args: of_each(*args) / 2  # as if the trials had ended early
    one.run_all()
    (more,) = [t for t in one.trials if t.round >= search.ROUNDS]
    assert more.candidate == "d"  # b, the best, had one
    assert len({t.seed for t in one.trials if t.candidate == "d"}) == 3
    assert one.now <= 1200


def test_a_process_that_is_free_does_not_wait_for_the_others(tmp_path):
    """In the last round b trains to the end, d ends at once, and c has what is left of the time."""
    one = Clockwork(tmp_path, processes=2)
    start = one.start

    def start_with_one_that_is_long(trial: Trial) -> Finished:
        now = one.now
        finished = start(trial)
        if trial.round < search.ROUNDS - 1:
            return finished
        one.now = now
        if trial.candidate == "d":
            return finished
        one.now += one.most_seconds * (trial.candidate == "c")
        return Endless(one.run_dir / "results" / f"{trial.candidate}_{trial.seed}")

    one.start = start_with_one_that_is_long
    one.run_all()
    last = [t for t in one.trials if t.round >= search.ROUNDS - 1]
    assert [t.candidate for t in last] == ["b", "d", "c"]
    assert all(t.status == "done" for t in last)


@pytest.mark.parametrize(("name", "rounds"), [("b", [0, 1, 2]), ("d", [0, 1]), ("c", [0])])
def test_who_need_not_train_goes_on_while_it_is_better_and_takes_nobodys_place(
    tmp_path, name, rounds
):
    one = Clockwork(tmp_path)
    one.candidates[name] = Candidate(name, trains=False)
    one.run_all()
    assert [t.round for t in one.trials if t.candidate == name] == rounds
    trained = [t.candidate for t in one.trials if t.round == 1 and t.candidate != name]
    assert trained == [n for n in "bdcea" if n != name][:2]


def test_the_default_network_has_the_first_turn_and_then_all_have_theirs(tmp_path):
    one = Clockwork(tmp_path)
    one.candidates["default"] = Candidate("default")
    one.candidates["forest"] = Candidate("forest", trains=False)
    for rank, name in enumerate(("forest", "b", "d", "default")):
        one.trials.append(Trial(name, 0, 1.0, 0, "done", "x", float(rank), 0.1))
    turns = []
    for r in range(search.ROUNDS, search.ROUNDS + 5):
        name, *_ = one.in_turn()
        one.trials.append(Trial(name, r, 1.0, r, "done", "x", 9.0, 0.1))
        turns.append(name)
    assert turns == ["default", "b", "d", "default", "b"]
    assert one.in_turn()[:2] == ["d", "default"]


def test_an_ensemble_is_not_chosen_from_one_candidate_alone(tmp_path):
    one = Clockwork(tmp_path)
    for k in range(20):
        name = "a" if k < 12 else "b" if k < 18 else "c"
        one.trials.append(Trial(name, k, 1.0, 0, "done", "x", float(k), 0.1))
    assert [t.seed for t in one.members()] == [0, 1, 2, 12, 13, 14, 18, 19]


def test_an_ensemble_is_chosen_by_fewer_draws_where_time_is_short(tmp_path):
    one = Clockwork(tmp_path)
    one.now = 500.0  # 100 seconds are left, for 4,000 draws to choose and as many to check
    seconds = 100 / 2 / 4000 * search.TRIAL_DRAWS
    members = [Trial("a", 0, 1.0, 0, seconds_to_measure=s * seconds) for s in (0.4, 0.6)]
    assert one.num_draws(members, 5000) == pytest.approx(4000, abs=1)
    assert one.num_draws(members, 3000) == 3000
    one.now = 700.0
    assert one.num_draws(members, 5000) == search.TRIAL_DRAWS // 2
    members = [Trial("a", 0, 1.0, 0)]  # of a search that was begun before this was measured
    assert one.num_draws(members, 5000) == search.TRIAL_DRAWS // 2


def test_a_short_time_is_not_cut_into_crumbs(tmp_path):
    one = Clockwork(tmp_path, minutes=2)
    one.run_all()
    assert {t.candidate for t in one.trials} == {"a", "b"}
    assert all(t.minutes >= search.LEAST_SECONDS / 60 for t in one.trials)
    assert one.now <= 120


def test_the_time_is_kept_even_if_a_trial_does_not_end(tmp_path):
    one = Clockwork(tmp_path, names="ab", minutes=10)
    start = one.start

    def start_without_end(trial: Trial) -> Endless:
        start(trial)
        one.now = 601
        return Endless(one.run_dir / "results" / f"{trial.candidate}_{trial.seed}")

    one.start = start_without_end
    one.run_all()
    assert [t.candidate for t in one.done()] == ["a"]


def test_a_trial_that_takes_much_longer_than_its_time_is_stopped(tmp_path):
    one = Clockwork(tmp_path, minutes=10)
    start = one.start

    def start_slowly(trial: Trial) -> Finished:
        finished = start(trial)
        if trial.candidate != "b":
            return finished
        endless = Endless(one.run_dir / "results" / f"{trial.candidate}_{trial.seed}")
        endless.started, one.now = finished.started, one.now + 120 * trial.minutes
        return endless

    one.start = start_slowly
    one.run_all()
    first_round = [t for t in one.trials if t.round == 0]
    assert [(t.candidate, t.status) for t in first_round] == [(name, "done") for name in "abcde"]


def test_who_fails_is_told_and_dropped(tmp_path, capsys):
    one = Clockwork(tmp_path, failing="b")
    one.run_all()
    assert [t.status for t in one.trials if t.candidate == "b"] == ["failed"]
    assert one.best().candidate == "d"
    assert "b: failed: the reason" in capsys.readouterr().err
    nobody = Clockwork(tmp_path, failing="abcde")
    nobody.run_all()
    with pytest.raises(RunError, match="no trial came to an end"):
        nobody.best()


def test_a_stopped_search_goes_on(tmp_path):
    whole, stopped, rest = Clockwork(tmp_path), Clockwork(tmp_path), Clockwork(tmp_path)
    whole.run_all()
    stopped.stop_after = 6
    with pytest.raises(KeyboardInterrupt):
        stopped.run_all()
    rest.load()
    rest.now = rest.seconds_before
    assert [t.status for t in rest.trials].count("done") == 6
    rest.run_all()
    assert rest.trials == whole.trials


@pytest.mark.parametrize(
    "text", ["", "[]", '{"trials": 3}', '{"seconds": 1, "trials": [{"x": 1}]}']
)
def test_a_state_that_is_none_is_refused(tmp_path, text):
    one = Clockwork(tmp_path)
    one.state_file.write_text(text)
    with pytest.raises(UserError, match="not the state of a search"):
        one.load()


def test_the_portfolio(tmp_path):
    mine = tmp_path / "mixture.py"
    names = [c.name for c in portfolio(bits.NETWORKS, False, [mine])]
    assert names[:2] == ["default", str(mine)]
    assert len(set(names)) == len(names)
    assert portfolio(bits.NETWORKS, True, [])[0] == Candidate("own")
    assert not any(
        c.network in ("hidden_tree", "mixture") for c in portfolio(numbers.NETWORKS, False, [])
    )


def test_two_trials_and_their_ensemble(tmp_path, monkeypatch, capsys):
    """The real thing, but for what it costs: two candidates, one round, a tenth of the data.

    The options in config.yaml are for the default network, and the mixture does not know them.
    """
    (tmp_path / "train.txt").write_text("010010\n100100\n001001\n" * 9)
    (tmp_path / "val.txt").write_text("010010\n100100\n001001\n")
    (tmp_path / "config.yaml").write_text(
        "model: {T: 20, reverse_model: {width: 32}}\ntraining: {epochs: 9, num_val_samples: 8}\n"
    )
    for name in ("ROUNDS", "MOST_MORE"):
        monkeypatch.setattr(search, name, int(name == "ROUNDS"))
    fewer_draws(monkeypatch.setattr)
    monkeypatch.setattr(search, "POLL_SECONDS", 0.1)  # the trials are processes that need the time
    two = [Candidate("default"), Candidate("mixture", "mixture", {"num_components": 4})]
    monkeypatch.setattr(search, "portfolio", lambda *_: two)
    monkeypatch.setattr(sys, "argv", ["search", str(tmp_path), "--minutes", "9", "--device", "cpu"])
    assert search.command() == 0
    out, err = capsys.readouterr()
    recommended = Path(out.strip())
    assert recommended.exists()
    assert "default: " in err
    assert "mixture: " in err
    assert "better than the best alone" in err
    state = json.loads((tmp_path / "search" / "state.json").read_text())
    assert [t["status"] for t in state["trials"]] == ["done", "done"]
    table = call("compare", tmp_path).stdout
    assert all(Path(t["results_dir"]).name in table for t in state["trials"])
    checkpoint.restore(checkpoint.load(recommended), recommended)

    # code that came with the folder and was not given in this call does not run
    path = Path(state["trials"][0]["results_dir"]) / "checkpoints" / "model_best.pt"
    saved = checkpoint.load(path)
    saved["reverse_model_source"] = f"raise SystemExit\n{saved['reverse_model_source']}"
    saved["reverse_model_sha256"] = Source("", saved["reverse_model_source"]).sha256
    checkpoint.save(path, saved)
    assert search.command() == 2
    assert "name its file with --networks" in capsys.readouterr().err


def test_mistakes(tmp_path):
    (tmp_path / "train.txt").write_text("01\n10\n" * 100)  # of which training would hold out some
    assert "val.txt: no such file" in mistake("search", tmp_path, "--minutes", 1)
    told = mistake("search", tmp_path, "--minutes", 1, "--networks", "no.py")
    assert "no.py: no such file" in told
    told = mistake("train.py", tmp_path, "--network", "no.py")
    assert "no.py: no such file; expected a file like reverse_model.py, or default" in told
