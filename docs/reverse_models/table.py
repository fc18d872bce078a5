"""Train every network of this folder on four data sets: python -m docs.reverse_models.table

Run it from the top of the checkout; it takes about a quarter of an hour on one core. It replaces what
stands between the two marks in docs/reverse_models/README.md.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bernoulli_diffusion import datasets
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.measures import independent_bits
from bernoulli_diffusion.bits.membership import Membership
from bernoulli_diffusion.sampling import sample
from bernoulli_diffusion.training import network as architecture
from bernoulli_diffusion.training.network import Source
from bernoulli_diffusion.training.run_folder import RunFolder, read_run_folder
from bernoulli_diffusion.training.trainer import Trainer

HERE = Path(__file__).parent
RUNS = HERE.parent.parent / "runs"
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->\n"

STEPS, BATCH_SIZE, SAMPLES, SAMPLE_STEPS = 600, 128, 1000, 50
DATA = ("heartbeat_len_20_per_5", "repeating_patterns_len_20_per_10", "digits_8x8", "ising")

# Options that differ from a file's defaults, and the learning rate.
NETWORKS = {
    "residual_mlp": ({}, 0.003),
    "mirrored_mlp": ({}, 0.003),
    "mlp_2015": ({}, 0.003),
    "attention": ({"width": 32}, 0.003),
    "hollow": ({"width": 32}, 0.003),
    "convolution": ({}, 0.003),
    "automaton": ({"num_automata": 16}, 0.02),
    "unet": ({}, 0.003),
}


def network(name: str) -> Source:
    """residual_mlp is the package's own file, the others are those of this folder."""
    path = architecture.PACKAGE_FILE if name == "residual_mlp" else HERE / f"{name}.py"
    return Source(path, path.read_text(encoding="utf-8"))


def run_folder(data: str, folder: Path) -> RunFolder:
    """The run folder of this data set; ising is made in folder first."""
    overrides = [f"data.batch_size={BATCH_SIZE}", "training.warmup_steps=50"]
    if data != "ising":
        return read_run_folder(RUNS / data, overrides)
    if not (folder / "train.txt").exists():
        train, val = datasets.ising()
        datasets.write_split(folder, datasets.to_text(train), datasets.to_text(val))
    return read_run_folder(folder, [*overrides, "data.shape=[8, 8]"])


def measure(folder: RunFolder, name: str, data: str, steps: int) -> list[str]:
    """One row of the table."""
    options, rate = NETWORKS[name]
    if name == "convolution":
        options = options | {"periodic": data == "ising"}
    folder.source, folder.config.model.reverse_model = network(name), options
    folder.config.training.lr = rate
    steps_per_epoch = -(-len(folder.train) // BATCH_SIZE)
    folder.config.training.epochs = -(-steps // steps_per_epoch)
    trainer = Trainer(folder, torch.device("cpu"), quiet=True)
    start = time.process_time()
    for _ in range(trainer.total_steps):
        trainer.loop.train_step()
    seconds = time.process_time() - start
    trainer.loop.look_at_losses()
    bounds = trainer.validator.bounds(trainer.averaged, times_draws=4)
    batches = sample(
        trainer.averaged, trainer.length, range(SAMPLES), seed=0, steps=SAMPLE_STEPS, batch_size=256
    )
    strings = BitStrings.from_bits(torch.cat(list(batches)).byte().numpy())
    known = [Membership(part).contains(strings) for part in (folder.train, folder.val)]
    return [
        name,
        f"{trainer.num_parameters:,}",
        f"{1000 * seconds / trainer.total_steps:.0f}",
        *(f"{bounds[k].bits:.3f} ± {bounds[k].standard_error:.3f}" for k in ("train", "val")),
        f"{100 * (1 - np.logical_or(*known).mean()):.1f}%",
    ]


def table(data: str, steps: int, folder: Path) -> str:
    files = run_folder(data, folder)
    independent = independent_bits(files.train, files.val)
    lines = [
        f"**{data}**: uniform {files.train.length} bits, independent bits {independent:.2f} on val.\n",
        "| network | parameters | ms a step | bound on train | bound on val | neither |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in NETWORKS:
        row = measure(run_folder(data, folder), name, data, steps)
        print(data, *row, file=sys.stderr, flush=True)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    readme = HERE / "README.md"
    with tempfile.TemporaryDirectory() as folder:
        tables = [table(data, STEPS, Path(folder)) for data in DATA]
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    text = before + BEGIN + "\n" + "\n".join(tables) + "\n" + END + after
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
