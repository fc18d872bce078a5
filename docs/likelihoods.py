"""Measure docs/likelihoods.md: python -m docs.likelihoods FOLDER [--sets dna] [--columns search]

FOLDER holds a folder for each data set with train.txt, val.txt and test.txt, or the same with .gz. Run it
from the top of the checkout. Every figure that is measured goes into docs/likelihoods.json, and the table
in docs/likelihoods.md is made of that file anew, so that sets and columns can be measured one by one.
Choices are made on val alone; the figures are bounds on test, in nats.
"""

import argparse
import gzip
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bernoulli_diffusion.bits.data import read_bit_strings
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import (
    HollowDiffusion,
    bound_of_each,
    estimate_bound,
    plan_bound,
)
from bernoulli_diffusion.training.network import Ensemble, build, named_source

HERE = Path(__file__).parent
TOP = HERE.parent
PAGE, FIGURES = HERE / "likelihoods.md", HERE / "likelihoods.json"
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->\n"
COLUMNS = ("prepared", "five prepared", "default", "gallery", "ensemble", "search")
PARTS = ("train", "val", "test")
FITTED = ("hidden_tree", "mixture", "forest")  # by prepare(), without any training
GALLERY = (*FITTED, "tree_and_mlp")

# The best test log-likelihoods that were found in papers, in nats, and the method.
PUBLISHED = {
    "nltcs": "-5.99 (continuous mixtures)",
    "plants": "-11.99 (40 extremely randomised cutset networks)",
    "jester": "-51.29 (ensemble of LearnPSDD)",
    "tretail": "-10.72 (ensemble of LearnPSDD)",
    "dna": "-79.05 (HCLT)",
    "book": "-33.46 (mixture of all trees)",
    "mushrooms": "-9.68 (MADE, EoNADE), -9.40 (BiHM, sampled)",
    "nips": "-272.4 (EoNADE), -271.1 (RWS-NADE, sampled)",
}


def call(*arguments: object) -> str:
    """What a command of the package prints."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def copy_data(source: Path, run_dir: Path) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        plain, packed = source / f"{part}.txt", source / f"{part}.txt.gz"
        data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        (run_dir / f"{part}.txt").write_bytes(data)


def train(run_dir: Path, minutes: float, network: str | None = None) -> Path:
    """The best checkpoint of a training with an empty config.yaml, or with a packaged network."""
    own = ["--network", network] if network else []
    limit = f"training.max_minutes={minutes}"
    folder = call("bernoulli_diffusion.train", run_dir, "--quiet", "--set", limit, *own)
    return Path(folder.strip().splitlines()[-1]) / "checkpoints" / "model_best.pt"


def bound(checkpoint: Path, file: Path) -> tuple[float, float]:
    """Mean bound in nats and its standard error, by evaluate."""
    report = json.loads(call("bernoulli_diffusion.evaluate", checkpoint, file, "--trust-code"))
    return -report["bound"]["nats"], report["bound"]["nats_standard_error"]


def prepared(run_dir: Path) -> dict:
    """The best on val of FITTED, as prepare() leaves them; and the mean of five such."""
    train, val, test = (read_bit_strings(run_dir / f"{part}.txt") for part in PARTS)
    process, x_0 = BernoulliDiffusionProcess(2000), train.tensor(slice(None))

    def fitted(name: str, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        model = build(named_source(name), train.length, 2000, {})
        model.prepare(x_0)
        return model.eval()

    def on_test(model: torch.nn.Module) -> tuple[float, float]:
        diffusion = Diffusion(process, model)
        effort = plan_bound(diffusion, test, 0.001, seed=0)
        parts = zip(*bound_of_each(diffusion, test, effort, 0), strict=True)
        bits, errors = (torch.cat(part) for part in parts)
        error = errors.square().sum().sqrt() / len(errors)
        return -math.log(2) * bits.mean().item(), math.log(2) * error.item()

    start = time.process_time()
    models = {name: fitted(name, 0) for name in FITTED}
    spent = (time.process_time() - start) / 60
    on_val = {
        name: estimate_bound(HollowDiffusion(process, model), val, 20_000, seed=0).bits
        for name, model in models.items()
    }
    best = min(on_val, key=on_val.get)
    found = {"prepared": cell(*on_test(models[best]), spent, best)}
    print(run_dir.name, found, file=sys.stderr, flush=True)
    start = time.process_time()
    five = Ensemble([models[best], *(fitted(best, seed) for seed in range(1, 5))], [0.2] * 5)
    spent += (time.process_time() - start) / 60
    found["five prepared"] = cell(*on_test(five), spent, f"5 times {best}")
    return found


def cell(nats: float, error: float, minutes: float, what: str) -> dict:
    """A figure of the table as it is kept."""
    return {
        "nats": round(nats, 4),
        "standard_error": round(error, 4),
        "minutes": round(minutes, 2),
        "what": what,
    }


def measure(run_dir: Path, columns: list[str], minutes: float, search_minutes: float) -> dict:
    """{column: {nats, standard_error, minutes, what}} of one data set."""
    found, trained = {}, {}

    def note(column: str, checkpoint: Path, start: float, what: str) -> None:
        spent = (time.monotonic() - start) / 60
        found[column] = cell(*bound(checkpoint, run_dir / "test.txt"), spent, what)
        print(run_dir.name, column, found[column], file=sys.stderr, flush=True)

    if "prepared" in columns or "five prepared" in columns:
        found |= prepared(run_dir)
    start = time.monotonic()
    if "default" in columns or "ensemble" in columns:
        trained["default"] = train(run_dir, minutes)
        note("default", trained["default"], start, "default")
    if "gallery" in columns or "ensemble" in columns:
        own_start = time.monotonic()
        for network in GALLERY:
            trained[network] = train(run_dir, minutes, network)
        on_val = {name: bound(trained[name], run_dir / "val.txt") for name in GALLERY}
        best = max(on_val, key=on_val.get)
        note("gallery", trained[best], own_start, best)
    if "ensemble" in columns:
        out = run_dir / "ensemble.pt"
        report = json.loads(
            call(
                *("bernoulli_diffusion.ensemble", out, *trained.values()),
                *("--weights-by", run_dir / "val.txt"),
            )
        )
        shares = [round(member["share"], 2) for member in report["members"]]
        text = ", ".join(f"{name} {share}" for name, share in zip(trained, shares, strict=True))
        note("ensemble", out, start, text)
    if "search" in columns:
        start = time.monotonic()
        out = call("bernoulli_diffusion.search", run_dir, "--minutes", search_minutes)
        note("search", Path(out.strip().splitlines()[-1]), start, f"--minutes {search_minutes:g}")
    return found


def table(figures: dict) -> str:
    lines = [
        "| set | " + " | ".join(COLUMNS) + " | published |",
        "|---|" + "---:|" * len(COLUMNS) + "---|",
    ]
    for name in [*(n for n in PUBLISHED if n in figures), *sorted(set(figures) - set(PUBLISHED))]:
        cells = []
        for column in COLUMNS:
            if found := figures[name].get(column):
                value = f"{found['nats']:.3f} ± {found['standard_error']:.3f}"
                spent = found["minutes"]
                spent = f"{spent:.0f} min" if spent >= 1 else f"{60 * spent:.0f} s"
                cells.append(f"{value} ({found['what']}, {spent})")
            else:
                cells.append("—")
        lines.append(f"| {name} | {' | '.join(cells)} | {PUBLISHED.get(name, '')} |")
    return "\n".join(lines) + "\n"


def write_page(figures: dict) -> None:
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table(figures)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", help="default: every folder that holds a test set")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--minutes", type=float, default=5, help="for each training; default: 5")
    parser.add_argument("--search-minutes", type=float, default=20, help="default: 20")
    parser.add_argument("--keep", type=Path, help="where run folders are kept; default: nowhere")
    arguments = parser.parse_args()
    held = {path.parent for path in arguments.folder.rglob("test.txt*")}
    sets = {path.name: path for path in sorted(held)}
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sets or sets:
            run_dir = (arguments.keep or Path(temporary)).resolve() / name
            copy_data(sets[name], run_dir)
            found = measure(run_dir, arguments.columns, arguments.minutes, arguments.search_minutes)
            figures[name] = figures.get(name, {}) | found
            write_page(figures)


if __name__ == "__main__":
    main()
