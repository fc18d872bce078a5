"""Train a model on a run folder: python train.py RUN_DIR"""

import sys

from bernoulli_diffusion.command_line import ArgumentParser, run


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
        "--check",
        action="store_true",
        help="check everything, print sizes and an estimate of time and memory, train nothing",
    )
    parser.add_argument("--quiet", action="store_true", help="only warnings and errors")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    # torch takes a second to import: after the arguments are known to be sound
    from bernoulli_diffusion import reports
    from bernoulli_diffusion.device import choose_device
    from bernoulli_diffusion.interrupt import Interrupted
    from bernoulli_diffusion.run_folder import read_run_folder
    from bernoulli_diffusion.trainer import Trainer

    def tell(text: str) -> None:
        if not arguments.quiet:
            print(text, file=sys.stderr)

    overrides = list(arguments.overrides)
    if arguments.seed is not None:
        overrides.append(f"training.seed={arguments.seed}")
    device = choose_device(arguments.device)
    trainer = Trainer(read_run_folder(arguments.run_dir, overrides), device, quiet=arguments.quiet)
    for warning in reports.data_warnings(trainer):
        trainer.warn(warning)
    if arguments.check:
        print(reports.check(trainer))
        return
    tell(reports.start(trainer))
    try:
        trainer.train()
        tell(reports.end(trainer))
    except Interrupted as stop:
        tell(f"stopped by {stop}; everything up to step {trainer.step:,} is saved")
        print(trainer.results_dir)
        sys.exit(stop.exit_code)
    print(trainer.results_dir)


if __name__ == "__main__":
    sys.exit(run(main))
