"""The best model of a file in a given time: python -m bernoulli_diffusion.search RUN_DIR --minutes 30"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import contextlib
import dataclasses
import json
import math
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .system.command_line import ArgumentParser, positive, positive_number, put_out, run, tell
from .system.errors import RunError, UserError, cannot_open
from .system.files import lock, write_atomically
from .system.interrupt import ending_at_once

DESCRIPTION = """\
Train a portfolio of networks and settings on a run folder, each for a short time; give the quarter
with the better bounds on val.txt four times as long, and again (successive halving); then make an
ensemble of what is worth it. Every trial is an ordinary results folder of RUN_DIR. The last line
printed is the checkpoint to use. Stopped, the same command goes on."""

ROUNDS, FACTOR = 3, 4  # of halving: each keeps one of so many, which gets so many times the time
LAST_SHARE = 0.08  # of the time, for the ensemble
LEAST_SECONDS = 15  # a trial shorter than this says nothing
# Of the trials before the last round, which are soon forgotten: as little beside training as can be.
BRIEF = {
    "training.num_val_samples": 10,
    "training.num_val_steps": 20,
    "training.num_bound_draws": 256,
    "training.validate_every_n_epochs": 1_000_000,
}
# And of those that need no training, whose end takes longer than all else: a network may be slow.
BRIEFEST = BRIEF | {"training.num_val_samples": 1, "training.num_bound_draws": 32}
TRIAL_DRAWS = 1 << 12  # on which trials are compared; the shares are chosen on more, if time allows
OVERTIME = 1.5  # times its own time: then a trial is stopped, for the others' sake
SECONDS_BESIDE = 5.0  # that a trial is thought to take to start, and to draw its last pictures
MOST_MORE = 16  # trials of whoever is next, where others ended early and a process is free
MOST_MEMBERS, MOST_ALIKE = 10, 3  # that the ensemble is chosen from, in all and of one candidate
POLL_SECONDS = 0.2


def parse_arguments():
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="holds train.txt and val.txt")
    parser.add_argument(
        "--minutes",
        type=positive_number,
        required=True,
        metavar="M",
        help="for everything together",
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="further files like reverse_model.py to try; they are programs, and are run",
    )
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="trials at a time; default: one for each core, on a GPU one",
    )
    parser.add_shared("--seed", "--device")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    for path in arguments.networks:
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected one like reverse_model.py")
    # torch takes a second to import: after the arguments are known to be sound
    with ending_at_once():
        from .kinds import kind_of
        from .system.device import choose_device
        from .training import checkpoint as checkpoints
        from .training.network import named_source
        from .training.run_folder import read_run_folder
        from .training.shares import MOST_DRAWS, Draws, fit_shares, mean_and_error

    run_dir, device = arguments.run_dir, choose_device(arguments.device)
    folder = read_run_folder(run_dir)
    if folder.val is None or folder.is_split:  # each seed would hold out other lines
        raise UserError(
            f"{run_dir / 'val.txt'}: no such file; search chooses by strings that are not trained on:"
            " take a random tenth of the lines of train.txt for it"
        )
    process = kind_of(folder.config).new_process(folder.config, folder.train, device)
    draws = Draws(process, folder.val, arguments.seed, device, TRIAL_DRAWS)

    # Code runs only if the user gave it in this call: the run folder may be somebody else's.
    given = {named_source(str(path)).sha256 for path in arguments.networks}

    def restored(path: Path):
        saved = checkpoints.load(path)
        return checkpoints.restore(
            saved,
            path,
            trust_code=saved["reverse_model_sha256"] in given,
            command=f"name its file with --networks, or remove {run_dir / 'search'}",
            device=device,
        )

    search = Search(
        run_dir,
        portfolio(
            kind_of(folder.config).NETWORKS,
            (run_dir / "reverse_model.py").exists() or folder.config.model.network is not None,
            arguments.networks,
        ),
        lambda path: mean_and_error(draws.bits(draws.logits(restored(path)))),
        minutes=arguments.minutes,
        processes=arguments.processes or (num_cores() if device.type == "cpu" else 1),
        seed=arguments.seed,
        device=arguments.device,
    )
    search.folder.mkdir(exist_ok=True)
    with lock(search.folder):
        search.load()
        search.run_all()
        best, members = search.best(), search.members()
        tell(f"{search.clock()} choosing shares among the best {len(members)}")
        paths = [trial.checkpoint for trial in members]
        num_draws = search.num_draws(members, MOST_DRAWS)
        fitted = fit_shares(
            [restored(p) for p in paths], folder.val, arguments.seed, device, num_draws
        )
        parts = [(checkpoints.load(p), w) for p, w in zip(paths, fitted.shares, strict=True) if w]
        recommended = best.checkpoint
        if len(parts) > 1:
            recommended = search.folder / "best.pt"
            first, _ = max(parts, key=lambda part: part[1])
            checkpoints.save(recommended, checkpoints.ensemble_of(parts, first))
        search.save()
    for trial in search.done():
        share = dict(zip(paths, fitted.shares, strict=True)).get(trial.checkpoint, 0.0)
        tell(f"{trial.bits:10.3f}  {share:6.1%}  {trial.candidate:16}  {trial.results_dir}")
    (bits, error), (gain, gain_error) = fitted.bound, fitted.gain
    tell(
        f"{'ensemble' if len(parts) > 1 else best.candidate}: {bits:.3f} ± {error:.3f} bits on val,"
        f" {gain:.3f} ± {gain_error:.3f} better than the best alone"
    )
    tell(f"next: python generate.py {shlex.quote(str(recommended))} 10")
    put_out(recommended)


@dataclass
class Candidate:
    """A network and its options. network: a file or a name of the package's; None: RUN_DIR's own.

    options None: those of RUN_DIR/config.yaml. trains: False if prepare() finds all there is to find.
    """

    name: str
    network: str | None = None
    options: dict | None = None
    trains: bool = True

    @property
    def is_given(self) -> bool:
        """Whether it is a file of --networks."""
        return self.network is not None and Path(self.network).is_absolute()


@dataclass
class Trial:
    """A candidate's training for some minutes, and what came of it."""

    candidate: str
    seed: int
    minutes: float
    round: int
    status: str = "waiting"  # running, stopped, done, failed
    results_dir: str | None = None
    bits: float | None = None  # the bound on val
    standard_error: float | None = None
    seconds_to_measure: float = 0.0

    @property
    def checkpoint(self) -> Path:
        return Path(self.results_dir) / "checkpoints" / "model_best.pt"


def portfolio(suited: Collection[str], has_own: bool, networks: list[Path]) -> list[Candidate]:
    """What is tried: RUN_DIR's network, the package's in several sizes, and those of --networks.

    In this order, as far as the time goes; those that the user named come before the package's.
    suited: those in networks/ that are for such data; has_own: whether RUN_DIR has a network of its own.
    """
    found = [Candidate("own")] if has_own else []
    found += [Candidate("default", "default", {}) if has_own else Candidate("default")]
    known = {
        "own",
        "default",
        "forest",
        "hidden_tree",
        "tree_and_mlp",
        "mixture",
        "mixture_and_mlp",
    }
    for path in networks:
        taken = known | {candidate.name for candidate in found}
        found.append(
            Candidate(path.stem if path.stem not in taken else str(path), str(path.resolve()), {})
        )
    packaged = [
        Candidate("forest", "forest", {}, trains=False),
        Candidate("hidden_tree", "hidden_tree", {}),
        Candidate("tree_and_mlp", "tree_and_mlp", {}),
        Candidate("mixture", "mixture", {}),
        Candidate("mixture_and_mlp", "tree_and_mlp", {"base": "mixture"}),
        Candidate("hidden_tree_32", "hidden_tree", {"num_states": 32}),
    ]
    found += [candidate for candidate in packaged if candidate.network in suited]
    found += [
        Candidate("wide", "default", {"width": 512}),
        Candidate("dropout", "default", {"dropout": 0.4}),
        Candidate("small_dropout", "default", {"width": 128, "dropout": 0.4}),
        Candidate("wide_much_dropout", "default", {"width": 512, "dropout": 0.75}),
    ]
    return found


class Search:
    """The trials of a run folder, and RUN_DIR/search/state.json, which remembers them.

    measure: tells the bound of a checkpoint on val and its standard error, on the same draws for all.
    """

    def __init__(
        self,
        run_dir: Path,
        candidates: list[Candidate],
        measure: Callable[[Path], tuple[float, float]],
        *,
        minutes: float,
        processes: int = 1,
        seed: int = 0,
        device: str = "auto",
    ):
        self.run_dir, self.measure, self.minutes = run_dir, measure, minutes
        self.processes, self.seed, self.device = processes, seed, device
        self.candidates = {candidate.name: candidate for candidate in candidates}
        self.folder = run_dir / "search"
        self.trials: list[Trial] = []
        self.seconds_before, self.started = 0.0, time.monotonic()
        self.seconds_beside: dict[str, float] = {}  # training, by candidate

    # ------------------------------------------------------------------------------- time

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def seconds_left(self) -> float:
        """Until trials must end, so that the ensemble has its time."""
        return self.most_seconds - self.seconds()

    @property
    def most_seconds(self) -> float:
        """For all trials together."""
        return 60 * self.minutes * (1 - LAST_SHARE)

    # ------------------------------------------------------------------------------- state

    @property
    def state_file(self) -> Path:
        return self.folder / "state.json"

    def save(self) -> None:
        trials = [dataclasses.asdict(trial) for trial in self.trials]
        state = {"seconds": self.seconds(), "trials": trials}
        write_atomically(self.state_file, json.dumps(state, indent=1).encode())

    def load(self) -> None:
        """Go on where state.json says. Raises UserError if it is not one of a search."""
        try:
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
            self.trials = [Trial(**trial) for trial in state["trials"]]
            self.seconds_before = float(state["seconds"])
        except FileNotFoundError:
            return
        except OSError as error:
            raise cannot_open(self.state_file, error) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{self.state_file}: not the state of a search; remove it to start anew"
            ) from None
        self.trials = [trial for trial in self.trials if trial.candidate in self.candidates]
        for trial in self.trials:
            if trial.status == "running":  # and this process was killed
                trial.status = "stopped" if trial.results_dir else "waiting"

    # ------------------------------------------------------------------------------- trials

    def run_all(self) -> None:
        """All rounds, and then others in turn, until the time is over."""
        names = list(self.candidates)
        while len(names) > 2:  # better a few with enough time
            if self.seconds_of_each(len(names), 0, self.most_seconds) >= LEAST_SECONDS:
                break
            names.pop()
        for r in range(ROUNDS):
            seconds = self.seconds_of_each(len(names), r, self.seconds_left())
            minutes = max(seconds, LEAST_SECONDS) / 60
            for name in names if r == 0 else self.kept(self.num_kept(len(names), r)):
                if not any(t.candidate == name and t.round == r for t in self.trials):
                    self.trials.append(Trial(name, r, minutes, r))
            self.run_round(r)

    def seconds_of_each(self, num_candidates: int, r: int, seconds: float) -> float:
        """For each trial of round r, so that it and all later rounds take so many seconds."""
        later = range(r, ROUNDS)
        shares = sum(self.num_kept(num_candidates, q) * FACTOR ** (q - r) for q in later)
        return seconds * self.processes / shares

    def num_kept(self, num_candidates: int, r: int) -> int:
        """How many train in round r: enough that no process waits."""
        return min(num_candidates, max(self.processes, math.ceil(num_candidates / FACTOR**r)))

    def run_round(self, r: int) -> None:
        """Run what is waiting in a round, a few at a time; in the last one then whoever is next."""
        is_last = r == ROUNDS - 1
        waiting = [
            t
            for t in self.trials
            if (t.round == r or (is_last and t.round > r)) and t.status in ("waiting", "stopped")
        ]
        running: list[tuple[Trial, subprocess.Popen]] = []
        try:
            while waiting or running or (is_last and self.has_time_for_more()):
                while len(running) < self.processes:
                    if not waiting and is_last and self.has_time_for_more():
                        waiting.append(self.one_more())
                    if not waiting:
                        break
                    trial = waiting.pop(0)
                    if self.seconds_left() < LEAST_SECONDS:
                        continue
                    trial.minutes = min(trial.minutes, self.seconds_left() / 60)
                    running.append((trial, self.start(trial)))
                    self.save()
                for trial, process in list(running):
                    overtime = self.seconds() - process.started - OVERTIME * 60 * trial.minutes
                    is_late = overtime > 0 and self.candidates[trial.candidate].trains
                    is_over = self.seconds_left() < 0 or is_late
                    if is_over and not process.is_overdue:
                        process.is_overdue = True
                        process.terminate()  # it saves, and what it has counts
                    if process.poll() is not None:
                        running.remove((trial, process))
                        self.finish(trial, process)
                        self.save()
                time.sleep(POLL_SECONDS)
        except BaseException:  # Ctrl-C: the trials save and say where, so that they can go on
            for _, process in running:
                with contextlib.suppress(OSError):
                    process.terminate()
            for trial, process in running:
                trial.results_dir = _last_line(process.communicate()[0]) or trial.results_dir
                trial.status = "stopped" if trial.results_dir else "waiting"
            self.save()
            raise

    def has_time_for_more(self) -> bool:
        more = sum(t.round >= ROUNDS for t in self.trials)
        return (
            more < MOST_MORE and self.seconds_left() >= 2 * LEAST_SECONDS and bool(self.in_turn())
        )

    def one_more(self) -> Trial:
        """A trial of whoever is next, for all the time that is left."""
        number = ROUNDS + sum(t.round >= ROUNDS for t in self.trials)
        trial = Trial(self.in_turn()[0], number, self.seconds_left() / 60, number)
        self.trials.append(trial)
        return trial

    def start(self, trial: Trial) -> subprocess.Popen:
        candidate = self.candidates[trial.candidate]
        beside = self.seconds_beside.get(trial.candidate, SECONDS_BESIDE)
        training = max(30 * trial.minutes, 60 * trial.minutes - beside)
        settings = {
            "training.max_minutes": round(training / 60, 3),
            "training.seed": self.seed + trial.seed,
        }
        if not candidate.trains:
            settings |= BRIEFEST
        elif trial.round < ROUNDS - 1:
            settings |= BRIEF
        command = [sys.executable, "-m", "bernoulli_diffusion.train", str(self.run_dir), "--quiet"]
        command += ["--device", self.device]
        if trial.status == "stopped" and not candidate.is_given:  # to resume that takes trust
            command += ["--resume", trial.results_dir]
        else:
            if candidate.options is not None:  # in place of config.yaml's; JSON is YAML
                command += ["--set", "model.reverse_model={}"]
                settings["model.reverse_model"] = json.dumps(candidate.options)
            if candidate.network:
                command += ["--network", candidate.network]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        threads = max(1, num_cores() // self.processes)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with open(self.log_of(trial), "wb") as log:
            # in a group of its own, so that Ctrl-C reaches it through this process alone
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,  # one line: the results folder
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        trial.status, process.is_overdue = "running", False
        process.started, process.training = self.seconds(), training
        return process

    def log_of(self, trial: Trial) -> Path:
        """What the trial's process says on standard error."""
        return self.folder / f"trial_{self.trials.index(trial) + 1}.log"

    def finish(self, trial: Trial, process: subprocess.Popen) -> None:
        """Note what came of a trial, measured on the draws that serve all of them."""
        beside = max(0.0, self.seconds() - process.started - process.training)
        self.seconds_beside[trial.candidate] = beside
        trial.results_dir = _last_line(process.stdout.read()) or None
        has_failed = process.returncode and not process.is_overdue
        if has_failed or not trial.results_dir or not trial.checkpoint.exists():
            trial.status = "failed"
            reason = (
                "nothing to show in its time"
                if process.is_overdue
                else _last_line(self.log_of(trial).read_bytes())
                or f"exit code {process.returncode}"
            )
            tell(f"{self.clock()} {trial.candidate}: failed: {reason}")
            return
        start = self.seconds()
        trial.bits, trial.standard_error = self.measure(trial.checkpoint)
        trial.seconds_to_measure = self.seconds() - start
        trial.status = "done"
        best = self.best()
        what = f"{trial.bits:.3f} ± {trial.standard_error:.3f} bits on val"
        after = f"best so far: {best.candidate}, {best.bits:.3f}"
        tell(f"{self.clock()} {trial.candidate}: {what}; {after}")

    def clock(self) -> str:
        return f"[{self.seconds() / 60:.1f} of {self.minutes:g} min]"

    def done(self) -> list[Trial]:
        """Finished trials, the best first. All were measured on the same draws."""
        done = [t for t in self.trials if t.status == "done" and math.isfinite(t.bits)]
        return sorted(done, key=lambda t: t.bits)

    def best(self) -> Trial:
        done = self.done()
        if not done:
            raise RunError(f"{self.run_dir}: no trial came to an end; try more --minutes")
        return done[0]

    def ranking(self) -> list[str]:
        """Names of candidates by their best trial."""
        return list(dict.fromkeys(trial.candidate for trial in self.done()))

    def kept(self, most: int) -> list[str]:
        """Names of those that go on: the best `most` that train, and those better that need not."""
        ranking = self.ranking()
        trained = [name for name in ranking if self.candidates[name].trains][:most]
        better = ranking[: ranking.index(trained[-1])] if trained else ranking
        return [name for name in ranking if name in trained + better]

    def in_turn(self) -> list[str]:
        """Names of those that train, the next one first: who had the fewest long trials.

        Of these first RUN_DIR's network and the default one, which short trials do not do justice.
        """
        long = Counter(t.candidate for t in self.trials if t.round >= ROUNDS - 1)
        names = [name for name in self.ranking() if self.candidates[name].trains]
        return sorted(names, key=lambda n: (long[n], n not in ("own", "default")))

    def members(self) -> list[Trial]:
        """Those that an ensemble is chosen from: the best, but few of the same candidate."""
        of = Counter()
        found = []
        for trial in self.done():
            of[trial.candidate] += 1
            if of[trial.candidate] <= MOST_ALIKE:
                found.append(trial)
        return found[:MOST_MEMBERS]

    def num_draws(self, members: list[Trial], most: int) -> int:
        """On how many draws, at most so many, there is time to choose shares, and to check them."""
        seconds = 2 * sum(trial.seconds_to_measure for trial in members)  # for those of the trials
        left = 60 * self.minutes - self.seconds()
        return max(TRIAL_DRAWS // 2, min(most, int(left / max(1.0, seconds) * TRIAL_DRAWS)))


def num_cores() -> int:
    """Those that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _last_line(output: bytes) -> str:
    return (output.decode("utf-8", "replace").strip().splitlines() or [""])[-1]


command = partial(run, main)  # bernoulli-search, python -m ...; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
