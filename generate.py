"""Draw samples from a trained model: python generate.py CHECKPOINT N"""

import argparse
import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

from bernoulli_diffusion.command_line import ArgumentParser, run

PICTURE_SAMPLES = 36


def count(text: str, least: int = 0) -> int:
    """A whole number >= least."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or number >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, found {text!r}")
    return number


def output_file(text: str) -> Path:
    """A path at which a file can be made or replaced; told before the work and not after it."""
    path = Path(text)
    if path.is_dir():
        problem = "this is a folder, expected a file"
    elif not path.parent.is_dir():
        problem = f"there is no folder {path.parent}"
    elif path.exists() and not path.is_file():  # /dev/null must not be replaced
        problem = "not a regular file; redirect standard output instead"
    elif not os.access(path.parent, os.W_OK):
        problem = f"the folder {path.parent} may not be written to"
    else:
        return path
    raise argparse.ArgumentTypeError(f"{text}: {problem}")


def positive(text: str) -> int:
    return count(text, least=1)


def parse_arguments():
    parser = ArgumentParser(
        prog="generate.py",
        description="Print N strings drawn from a trained model, one a line. The same seed gives the "
        "same strings, and the first lines of a longer list, whatever the batch size.",
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="results/.../checkpoints/model_best.pt"
    )
    parser.add_argument("N", type=count, help="how many strings")
    parser.add_argument("--seed", type=count, default=0, metavar="S", help="default: 0")
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="K",
        help="walk a grid of K steps: fast and approximate. Default: the exact law of all T steps, by "
        "thinning for short strings (network calls only where a bit may flip), else step by step",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=1024, metavar="B", help="default: 1024"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--output", type=output_file, metavar="FILE", help="write there, not to the screen"
    )
    parser.add_argument(
        "--weights",
        choices=("averaged", "raw"),
        default="averaged",
        help="the averaged weights (default, those that were validated) or the last step's",
    )
    parser.add_argument(
        "--gif",
        type=output_file,
        metavar="FILE",
        help="also draw the way from noise to the first samples",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="run the reverse_model.py kept inside the checkpoint, if it differs from the live file",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    # torch takes a second to import: after the arguments are known to be sound
    import torch

    from bernoulli_diffusion import checkpoint as checkpoints
    from bernoulli_diffusion.data import to_text
    from bernoulli_diffusion.device import choose_device
    from bernoulli_diffusion.files import open_atomically
    from bernoulli_diffusion.noise import Noise
    from bernoulli_diffusion.sampling import sample, trajectory

    device = choose_device(arguments.device)
    checkpoint = checkpoints.load(arguments.checkpoint)
    diffusion = checkpoints.restore(
        checkpoint,
        arguments.checkpoint,
        weights=arguments.weights,
        trust_code=arguments.trust_code,
        command=shlex.join(["python", *sys.argv, "--trust-code"]),
        device=device,
    )
    length, N, seed = checkpoint["sequence_length"], arguments.N, arguments.seed
    target = (
        open_atomically(arguments.output) if arguments.output else nullcontext(sys.stdout.buffer)
    )
    with target as stream:
        for batch in sample(
            diffusion, length, range(N), seed, arguments.steps, arguments.batch_size, device
        ):
            stream.write(to_text(batch.byte().cpu().numpy()))
    if arguments.gif and N:
        from bernoulli_diffusion import plots

        numbers = torch.arange(min(N, PICTURE_SAMPLES), device=device)
        times, states = trajectory(diffusion, Noise(seed, numbers, length), arguments.steps)
        shape = checkpoints.config_of(checkpoint, arguments.checkpoint).data.shape
        frames = plots.sample_frames(
            states, [f"t = {t}" for t in times], "from noise to samples", shape
        )
        plots.write_gif(frames, arguments.gif)


if __name__ == "__main__":
    sys.exit(run(main))
