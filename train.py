"""Train a model on a run folder: python train.py RUN_DIR"""

import shlex
import sys
from pathlib import Path

from bernoulli_diffusion.system.command_line import ArgumentParser, put_out, run, tell
from bernoulli_diffusion.system.interrupt import Interrupted, ending_at_once


def parse_arguments():
    parser = ArgumentParser(
        prog="train.py",
        description="Train a model on the strings of a run folder. The last line printed is the "
        "folder with the results.",
    )
    parser.add_argument(
        "run_dir",
        metavar="RUN_DIR",
        help="holds train.txt and, if you like, val.txt, config.yaml and reverse_model.py",
    )
    parser.add_argument("--seed", metavar="S", help="the same as --set training.seed=S")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="override a key of config.yaml, such as training.lr=0.003; may be repeated",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RESULTS_DIR",
        help="go on with a run that was stopped, in its results folder (default: the newest that is "
        "not finished); --set training.epochs=N asks for more",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="with --resume: run the reverse_model.py kept in the checkpoint, if the file was edited",
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
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    # torch takes a second to import: after the arguments are known to be sound
    with ending_at_once():
        from bernoulli_diffusion.training.distributed import processes

    with processes() as group:
        train(arguments, group)


def train(arguments, group) -> None:
    with ending_at_once():
        from bernoulli_diffusion.results import console as reports
        from bernoulli_diffusion.system.device import choose_device
        from bernoulli_diffusion.training.resume import resume
        from bernoulli_diffusion.training.run_folder import read_run_folder
        from bernoulli_diffusion.training.trainer import Trainer

    if arguments.tensorboard:
        from bernoulli_diffusion.results.tensorboard import check_installed

        check_installed()

    def inform(text: str) -> None:
        if group.is_first and not arguments.quiet:
            tell(text)

    def show(text: object) -> None:
        if group.is_first:
            put_out(text)

    overrides = list(arguments.overrides)
    if arguments.seed is not None:
        overrides.append(f"training.seed={arguments.seed}")
    device = choose_device(arguments.device)
    if arguments.resume is None:
        folder = read_run_folder(arguments.run_dir, overrides)
        trainer = Trainer(
            folder,
            device,
            quiet=arguments.quiet,
            processes=group,
            tensorboard=arguments.tensorboard,
        )
    else:
        trainer = resume(
            Path(arguments.run_dir),
            Path(arguments.resume) if arguments.resume else None,
            overrides,
            device,
            processes=group,
            quiet=arguments.quiet,
            tensorboard=arguments.tensorboard,
            trust_code=arguments.trust_code,
            command=shlex.join(["python", *sys.argv, "--trust-code"]),
        )
        if trainer.is_finished:
            inform(
                f"{trainer.results_dir}: already finished; --set training.epochs=N asks for more"
            )
            show(trainer.results_dir)
            return
    for warning in reports.data_warnings(trainer):
        trainer.warn(warning)
    if arguments.check:
        show(reports.check(trainer))
        return
    inform(reports.start(trainer))
    try:
        trainer.train()
        inform(reports.end(trainer))
    except Interrupted as stop:
        inform(f"stopped by {stop}; all {trainer.step:,} steps are saved; go on with:")
        inform(f"python train.py {shlex.quote(arguments.run_dir)} --resume")
        show(trainer.results_dir)
        sys.exit(stop.exit_code)
    show(trainer.results_dir)


if __name__ == "__main__":
    sys.exit(run(main))
