"""Draw docs/planar.png, data beside samples: python -m docs.planar FOLDER

FOLDER holds run folders that `datasets planar NAME FOLDER/NAME` has made and train.py has trained on.
Run it from the top of the checkout.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bernoulli_diffusion.datasets import densities

TOP = Path(__file__).parent.parent
POINTS = 5_000


def points(lines: list[str], name: str) -> np.ndarray:
    strings = np.array([[c == "1" for c in line] for line in lines], dtype=np.uint8)
    return densities.to_points(strings, name)


def samples(run_dir: Path) -> list[str]:
    """Strings from the newest trained model of a run folder."""
    found = sorted(run_dir.glob("results/*/checkpoints/model_best.pt"))
    command = [sys.executable, "generate.py", found[-1], str(POINTS), "--steps", "50"]
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    names = [name for name in densities.DENSITIES if (folder / name / "results").is_dir()]
    figure = Figure(figsize=(1.6 * len(names), 3.4), layout="constrained")
    axes = figure.subplots(2, len(names), squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        data = (folder / name / "train.txt").read_text().split()[:POINTS]
        rows = zip(column, (data, samples(folder / name)), ("data", "samples"), strict=True)
        for axis, lines, what in rows:
            axis.hist2d(*points(lines, name).T, bins=96, range=[[-5, 5]] * 2, cmap="magma")
            axis.set(xticks=[], yticks=[], aspect="equal", title=name if what == "data" else "")
            if axis in axes[:, 0]:
                axis.set_ylabel(what)
    figure.savefig(Path(__file__).with_name("planar.png"), dpi=100)


if __name__ == "__main__":
    main()
