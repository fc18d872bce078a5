"""Train a model on a run folder: python train.py RUN_DIR"""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import os
import shlex
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

from .system.command_line import ArgumentParser, called_as, put_out, run, tell, trusting
from .system.interrupt import Interrupted, ending_at_once

MOST_RECORDS = 2000  # of a table, that are compared with its rows
# Options for the settings that are changed most, and for all others what to type instead.
SHORT = {
    "epochs": "training.epochs",
    "lr": "training.lr",
    "batch-size": "data.batch_size",
    "seed": "training.seed",
}
MEANT = {
    "o": "--results",
    "output": "--results",
    "output-dir": "--results",
    "checkpoint": "--from",
    "init-from": "--from",
    "pretrained": "--from",
    "config": "--set SECTION.KEY=VALUE, or a config.yaml in RUN_DIR",
    "gpus": "--device cuda, or torchrun for several",
    "learning-rate": "--lr",
}


def meant(name: str) -> str | None:
    """What to type instead of the option --name, which there is not."""
    with ending_at_once():
        from .config import Config

    sections = {section.name: vars(section.default_factory()) for section in fields(Config)}
    for section, keys in sections.items():
        if name.replace("-", "_") in keys:
            return f"--set {section}.{name.replace('-', '_')}=VALUE"
    return MEANT.get(name)


def parse_arguments():
    parser = ArgumentParser(
        description="Train a model on the strings of a run folder. The last line printed is the "
        "folder with the results.",
        meant=meant,
    )
    parser.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN_DIR",
        help="holds train.txt and, if you like, val.txt, config.yaml and reverse_model.py",
    )
    for name, key in SHORT.items():
        metavar = key.partition(".")[2].upper()
        text = f"the same as --set {key}={metavar}"
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_shared("--device")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="override a key of config.yaml, such as training.lr=0.003; may be repeated",
    )
    parser.add_argument(
        "--network",
        metavar="FILE",
        help="train this file's ReverseModel instead of RUN_DIR's; or one of the package's by its name:"
        " default, forest, hidden_tree, mixture, tree_and_mlp",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RESULTS_DIR",
        help="go on with a run that was stopped, in its results folder (default: the newest that is "
        "not finished); --set training.epochs=N asks for more of a run that has epochs",
    )
    parser.add_argument(
        "--from",
        type=Path,
        dest="start",
        metavar="CHECKPOINT",
        help="begin a new run with the weights of another one (its checkpoint, or its folder); data, T, "
        "learning rate and schedule are this run's, and so is the network if RUN_DIR holds one",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="make the results folder in DIR, not in RUN_DIR/results, which may be read-only",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="with --resume or --from: run the network kept in the checkpoint, though it is none of this"
        " program's and nothing was trained with it on this machine",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check everything, print sizes and an estimate of time and memory, train nothing",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write curves, samples and parameter histograms for TensorBoard, into the results",
    )
    parser.add_argument("--quiet", action="store_true", help="only warnings and errors")
    arguments = parser.parse_args()
    if arguments.network and arguments.resume is not None:
        parser.error("--network: a run that is resumed keeps its network")
    if arguments.start and arguments.resume is not None:
        parser.error("--from begins a new run and --resume goes on with one; leave one of them out")
    for name, key in SHORT.items():
        value = getattr(arguments, name.replace("-", "_"))
        if value is not None:
            arguments.overrides.append(f"{key}={value}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    if arguments.check and not arguments.quiet and is_first and arguments.run_dir.is_dir():
        tell(f"checking {arguments.run_dir}, which takes some seconds; nothing is trained")
    # torch takes a second to import: after the arguments are known to be sound
    with ending_at_once():
        from .training.distributed import processes

    with processes() as group:
        _train(arguments, group)


def _train(arguments, group) -> None:
    """What main does, in each of the group's processes."""
    with ending_at_once():
        from .results import console
        from .system.device import choose_device
        from .system.files import require_writable
        from .training.resume import resume
        from .training.run_folder import read_run_folder
        from .training.trainer import Trainer
        from .training.warm_start import trainer_from

    if arguments.tensorboard:
        from .results.tensorboard import check_installed

        check_installed()

    def inform(text: str) -> None:
        if group.is_first and not arguments.quiet:
            tell(text)

    def show(text: object) -> None:
        if group.is_first:
            put_out(text)

    run_dir, device = arguments.run_dir, choose_device(arguments.device)
    how = {"quiet": arguments.quiet, "processes": group, "tensorboard": arguments.tensorboard}
    trust = trusting(arguments)
    again = [*called_as(), str(run_dir), "--resume"]
    again += [] if arguments.results is None else ["--results", str(arguments.results)]
    if arguments.resume is None:
        folder = read_run_folder(run_dir, arguments.overrides, network=arguments.network)
        folder.results = arguments.results
        cure = "results can go elsewhere: --results DIR"
        parent = arguments.results or run_dir / "results"
        group.from_first(lambda: require_writable(parent, cure))
        if arguments.start:
            trainer = trainer_from(arguments.start, folder, device, **trust, **how)
        else:
            trainer = Trainer(folder, device, **how)
    else:
        where = Path(arguments.resume) if arguments.resume else None
        how |= {"parent": arguments.results}
        trainer = resume(run_dir, where, arguments.overrides, device, **trust, **how)
        if arguments.resume:
            again.insert(again.index("--resume") + 1, arguments.resume)
        if trainer.is_finished:
            more = [word for text in console.more(trainer) for word in ("--set", text)]
            if not more:  # its learning rate has come to zero, and val says that it is enough
                again = [*called_as(), str(run_dir), "--from", str(trainer.results_dir)]
            inform(f"{trainer.results_dir}: already finished; to go on: {shlex.join(again + more)}")
            show(trainer.results_dir)
            return
    for warning in console.data_warnings(trainer):
        trainer.progress.warn(warning)
    if arguments.check:
        show(console.check(trainer))
        return
    inform(console.start(trainer))
    try:
        trainer.train()
        inform(console.end(trainer))
    except Interrupted as stop:
        inform(f"stopped by {stop} and saved at step {trainer.step:,}; go on with:")
        inform(shlex.join(again))
        show(trainer.results_dir)
        sys.exit(stop.exit_code)
    try:
        if trainer.folder.columns and group.is_first:
            _compare_with_table(trainer, inform)
    finally:  # also after Ctrl-C
        show(trainer.results_dir)


def _compare_with_table(trainer, inform) -> None:
    """Add to report.html how like its table the recommended model's records are."""
    from .system.errors import UserError
    from .tables.likeness import add_to_report, compare
    from .training import checkpoint as checkpoints

    count = min(MOST_RECORDS, len(trainer.folder.train))
    inform(f"records    {count:,} are drawn and compared with the table, for report.html")
    try:
        best = checkpoints.find(trainer.results_dir)
        diffusion = checkpoints.restore(checkpoints.load(best), best)
        found = compare(trainer.folder.columns, diffusion, trainer.folder.path, count)
        add_to_report(trainer.results_dir, found)
    except Exception as error:  # the model is trained and saved
        what = (
            error if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {error}"
        )
        trainer.progress.warn(f"report.html says nothing of the table: {what}")


command = partial(run, main)  # bernoulli-train, python train.py; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
