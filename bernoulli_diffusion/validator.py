"""What is measured of a model while it trains: its bound, and how its samples compare with the data."""

import numpy as np
import torch

from .config import Config
from .data import BitStrings, Membership, count_distinct
from .diffusion import Diffusion
from .likelihood import Estimate, estimate_bound, independent_bits
from .noise import derive_seed
from .sampling import sample

# Streams of random numbers derived from the run's seed. The same noise serves every validation, so
# that two epochs differ by the model alone.
TRAIN_SUBSET, VAL_SUBSET, BOUND_DRAWS, SAMPLES = range(1, 5)


class Validator:
    """Bounds on train and val, and the share of samples found in train, in val and in neither."""

    def __init__(
        self, train: BitStrings, val: BitStrings | None, config: Config, device: torch.device
    ):
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
        training = self.config.training
        num_draws = times_draws * training.num_bound_draws
        seed = derive_seed(training.seed, BOUND_DRAWS)
        return {
            name: subset and estimate_bound(diffusion, subset, num_draws, seed, self.device, poll)
            for name, subset in (("train", self.train_subset), ("val", self.val_subset))
        }

    def draw(self, diffusion: Diffusion, poll=lambda: None) -> BitStrings:
        """num_val_samples strings from the model's exact law, always from the same noise."""
        training = self.config.training
        batches = sample(
            diffusion,
            self.length,
            range(training.num_val_samples),
            derive_seed(training.seed, SAMPLES),
            batch_size=training.val_batch_size,
            device=self.device,
            poll=poll,
        )
        packed = [BitStrings.from_bits(x.byte().cpu().numpy()).packed for x in batches]
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
