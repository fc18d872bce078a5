"""What is measured of a model while it trains: its bound, and how its samples compare with the data."""

import math

import numpy as np
import torch

from ..config import Config
from ..diffusion import Diffusion
from ..kinds import kind_of
from ..likelihood import Estimate, estimate_bound
from ..noise import derive_seed
from ..sampling import sample
from .distributed import Processes

# Streams of random numbers derived from the run's seed. The same noise serves every validation, so
# that two epochs differ by the model alone.
TRAIN_SUBSET, VAL_SUBSET, BOUND_DRAWS, SAMPLES = range(1, 5)


class Validator:
    """Bounds on train and val, samples, and what the process has to say of these (measures).

    The work is shared out to all processes, and all of them know the outcome.
    """

    def __init__(
        self,
        train,
        val,
        config: Config,
        device: torch.device,
        processes: Processes,
    ):
        self.processes = processes
        self.config, self.device, self.length = config, device, train.length
        self.train_subset = self._subset(train, TRAIN_SUBSET)
        self.val_subset = self._subset(val, VAL_SUBSET) if val else None
        self.kind = kind_of(config)
        self.measures = self.kind.Measures(train, val, config, self.val_subset or self.train_subset)

    def _subset(self, strings, stream: int):
        """A fixed random subset, as many as there are draws for."""
        size = min(len(strings), self.config.training.num_bound_draws)
        rng = np.random.default_rng(derive_seed(self.config.training.seed, stream))
        rows = np.sort(rng.choice(len(strings), size, replace=False))
        return strings.part(rows)

    def bounds(
        self, diffusion: Diffusion, poll=lambda: None, times_draws: int = 1
    ) -> dict[str, Estimate | None]:
        """The bound on train and on val, None without val.txt; from times_draws as many draws."""
        training, rank = self.config.training, self.processes.rank
        num_draws = -(-times_draws * training.num_bound_draws // self.processes.size)
        num_draws = max(2, num_draws)  # a single one has no standard error
        seed = derive_seed(training.seed, BOUND_DRAWS, *([rank] if rank else []))

        def estimate(strings) -> tuple[int, Estimate] | None:
            share = strings and strings.part(self.processes.share(len(strings)))
            if not share:
                return None
            return len(share), estimate_bound(diffusion, share, num_draws, seed, self.device, poll)

        shares = self.processes.gather(
            lambda: (estimate(self.train_subset), estimate(self.val_subset))
        )
        return dict(zip(("train", "val"), map(_pooled, zip(*shares, strict=True)), strict=True))

    def draw(self, diffusion: Diffusion, poll=lambda: None):
        """num_val_samples samples, always from the same noise."""
        training = self.config.training
        batches = sample(
            diffusion,
            self.length,
            self.processes.share(training.num_val_samples),
            derive_seed(training.seed, SAMPLES),
            training.num_val_steps,
            batch_size=training.val_batch_size,
            device=self.device,
            poll=poll,
        )
        to_data = diffusion.process.to_data
        shares = self.processes.gather(lambda: [self.kind.pack(to_data(x)) for x in batches])
        return self.kind.join([part for share in shares for part in share], self.length)


def _pooled(shares: tuple[tuple[int, Estimate] | None, ...]) -> Estimate | None:
    """The mean over all strings from those over shares of them, (how many, Estimate) each."""
    known = [share for share in shares if share]
    if len(known) < 2:
        return known[0][1] if known else None
    total = sum(count for count, _ in known)
    bits = sum(count * estimate.bits for count, estimate in known) / total
    errors = (count * estimate.standard_error / total for count, estimate in known)
    return Estimate(bits, math.hypot(*errors))
