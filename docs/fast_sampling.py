"""Quality against network calls: python -m docs.fast_sampling CHECKPOINT TRAIN TEST

For each number of calls N samples are compared with images of TEST in two ways. A classifier (a small
MLP) learns to tell half of them from as many images, and is asked about the other half: 50% is perfect.
And the root mean square, over all pairs of pixels, of the difference in how often both are 1 (of numbers:
in the mean product, in units of the data's variance). Images of TRAIN in the place of samples say what
chance alone shows. Run it from the top of the checkout; "all" calls take the longest. Options:
--samples N (1000), --calls 10 20 50 100 all.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bernoulli_diffusion.kinds import kind_of
from bernoulli_diffusion.sampling import sample
from bernoulli_diffusion.system.command_line import run
from bernoulli_diffusion.training import checkpoint as checkpoints

EPOCHS, BATCH = 30, 64


def told_apart(a: Tensor, b: Tensor) -> tuple[float, float]:
    """How often a classifier tells held-out rows of a and b (n, L) apart, and its standard error."""
    torch.manual_seed(0)
    half = len(a) // 2
    x, y = torch.cat([a[:half], b[:half]]), torch.cat([torch.zeros(half), torch.ones(half)])
    network = nn.Sequential(
        nn.Linear(x.shape[1], 128), nn.SiLU(), nn.Dropout(0.3), nn.Linear(128, 1)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = binary_cross_entropy_with_logits(network(x[rows])[:, 0], y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        right = torch.cat([network(a[half:])[:, 0] < 0, network(b[half:])[:, 0] > 0]).float()
    share = right.mean().item()
    return share, (share * (1 - share) / len(right)) ** 0.5


def pair_distance(a: Tensor, b: Tensor) -> float:
    """Root mean square over pairs of the difference in mean products. a: (n, L); b: (m, L)."""
    return (a.T @ a / len(a) - b.T @ b / len(b)).square().mean().sqrt().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("checkpoint", "train", "test"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--samples", type=int, default=1000, metavar="N")
    parser.add_argument("--calls", nargs="+", default=["10", "20", "50", "100", "all"])
    parser.add_argument("--trust-code", action="store_true", help="as generate.py's")
    arguments = parser.parse_args()
    N, path = arguments.samples, checkpoints.find(arguments.checkpoint)
    saved = checkpoints.load(path)
    config, length = checkpoints.config_of(saved, path), saved["sequence_length"]
    diffusion = checkpoints.restore(saved, path, trust_code=arguments.trust_code)
    kind = kind_of(config)

    def images(file: Path) -> Tensor:
        data = kind.read_evaluated(file, diffusion.process, config)
        return data.tensor(slice(0, 10_000))

    real = images(arguments.test)
    print(f"| network calls | told apart, {N:,} of each | pairs of pixels | CPU seconds |")
    print("|---|---:|---:|---:|")
    for steps in arguments.calls:
        start = time.process_time()
        K = None if steps == "all" else int(steps)
        drawn = torch.cat(list(sample(diffusion, length, range(N), 0, K, 500)))
        seconds = time.process_time() - start
        _row(f"{diffusion.T:,} (all)" if K is None else steps, drawn, real, f"{seconds:.0f}")
    _row("images of train", images(arguments.train)[:N], real, "")


def _row(name: str, drawn: Tensor, real: Tensor, seconds: str) -> None:
    share, error = told_apart(drawn, real[: len(drawn)])
    pairs = pair_distance(drawn, real)
    print(f"| {name} | {share:.1%} ± {error:.1%} | {pairs:.4f} | {seconds} |", flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
