"""What is measured of a model while it trains: its bound, and how its samples compare with the data."""

import math

import numpy as np
import torch

from .config import Config
from .data import BitStrings, Membership, count_distinct
from .diffusion import Diffusion
from .distributed import Processes
from .likelihood import Estimate, estimate_bound, independent_bits
from .noise import derive_seed
from .sampling import sample

# Streams of random numbers derived from the run's seed. The same noise serves every validation, so
# that two epochs differ by the model alone.
TRAIN_SUBSET, VAL_SUBSET, BOUND_DRAWS, SAMPLES = range(1, 5)


class Validator:
    """Bounds on train and val, and the share of samples found in train, in val and in neither.

    The work is shared out to all processes, and all of them know the outcome.
    """

    def __init__(
        self,
        train: BitStrings,
        val: BitStrings | None,
        config: Config,
        device: torch.device,
        processes: Processes,
    ):
        self.processes = processes
        self.config, self.device, self.length = config, device, train.length
        self.train_members = Membership(train)
        self.val_members = Membership(val) if val else None
        self.train_subset = self._subset(train, TRAIN_SUBSET)
        self.val_subset = self._subset(val, VAL_SUBSET) if val else None
        self.val_lines_in_train = int(self.train_members.contains(val).sum()) if val else 0
        self.baselines = {
            "uniform": float(train.length),
            "independent_train": independent_bits(train, train),
            "independent_val": independent_bits(train, val) if val else None,
        }

    def _subset(self, strings: BitStrings, stream: int) -> BitStrings:
        """A fixed random subset, as many as there are draws for."""
        size = min(len(strings), self.config.training.num_bound_draws)
        rng = np.random.default_rng(derive_seed(self.config.training.seed, stream))
        rows = np.sort(rng.choice(len(strings), size, replace=False))
        return BitStrings(strings.packed[rows], strings.length)

    def bounds(
        self, diffusion: Diffusion, poll=lambda: None, times_draws: int = 1
    ) -> dict[str, Estimate | None]:
        """The bound on train and on val, None without val.txt; from times_draws as many draws."""
        training, rank = self.config.training, self.processes.rank
        num_draws = -(-times_draws * training.num_bound_draws // self.processes.size)
        seed = derive_seed(training.seed, BOUND_DRAWS, *([rank] if rank else []))

        def estimate(strings: BitStrings | None) -> tuple[int, Estimate] | None:
            share = strings and strings.part(self.processes.share(len(strings)))
            if not share:
                return None
            return len(share), estimate_bound(diffusion, share, num_draws, seed, self.device, poll)

        shares = self.processes.gather(
            lambda: (estimate(self.train_subset), estimate(self.val_subset))
        )
        return dict(zip(("train", "val"), map(_pooled, zip(*shares, strict=True)), strict=True))

    def draw(self, diffusion: Diffusion, poll=lambda: None) -> BitStrings:
        """num_val_samples strings from the model's exact law, always from the same noise."""
        training = self.config.training
        batches = sample(
            diffusion,
            self.length,
            self.processes.share(training.num_val_samples),
            derive_seed(training.seed, SAMPLES),
            batch_size=training.val_batch_size,
            device=self.device,
            poll=poll,
        )
        shares = self.processes.gather(
            lambda: [BitStrings.from_bits(x.byte().cpu().numpy()).packed for x in batches]
        )
        packed = [part for share in shares for part in share]
        return BitStrings(np.concatenate(packed), self.length)

    def proportions(self, samples: BitStrings) -> dict[str, float]:
        """Shares of samples in train, in val (and not in train), in neither; and of distinct ones."""
        in_train = self.train_members.contains(samples)
        in_val = self.val_members.contains(samples) if self.val_members else np.zeros_like(in_train)
        in_val &= ~in_train
        return {
            "train": float(in_train.mean()),
            "val": float(in_val.mean()),
            "other": float((~in_train & ~in_val).mean()),
            "distinct": count_distinct(samples) / len(samples),
        }


def _pooled(shares: tuple[tuple[int, Estimate] | None, ...]) -> Estimate | None:
    """The mean over all strings from those over shares of them, (how many, Estimate) each."""
    known = [share for share in shares if share]
    if len(known) < 2:
        return known[0][1] if known else None
    total = sum(count for count, _ in known)
    bits = sum(count * estimate.bits for count, estimate in known) / total
    errors = (count * estimate.standard_error / total for count, estimate in known)
    return Estimate(bits, math.hypot(*errors))
