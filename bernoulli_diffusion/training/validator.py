"""What is measured of a model while it trains: its bound, and how its samples compare with the data."""

import numpy as np
import torch

from ..config import Config
from ..diffusion import Diffusion
from ..estimate import Estimate
from ..kinds import kind_of
from ..likelihood import Draws, bound_draws, draws_per_line, estimate_of, joined
from ..noise import derive_seed
from ..sampling import sample
from .distributed import Processes

# Streams of random numbers. The same noise serves every validation, so that two epochs differ by the
# model alone. Only that of SAMPLES depends on the run's seed.
SUBSET, BOUND_DRAWS, SAMPLES = 1, 3, 4
# Values times steps that the samples at the end may take by the exact law: some 15 seconds of one core.
MOST_EXACT = 150_000_000


class Validator:
    """Bounds on train and val, samples, and what the process has to say of these (measures).

    The work is shared out to all processes, and all of them know the outcome.
    """

    def __init__(self, train, val, config: Config, device: torch.device, processes: Processes):
        self.processes = processes
        self.config, self.device, self.length = config, device, train.length
        self.train, self.val = train, val
        self.train_subset = self._subset(train)
        self.val_subset = self._subset(val) if val else None
        self.kind = kind_of(config)
        self.measures = self.kind.Measures(train, val, config, self.val_subset or self.train_subset)

    def _subset(self, samples, times_draws: int = 1):
        """As many lines as there are draws for, in random order, always the same of the same file."""
        count = len(samples) if samples.weights is None else np.count_nonzero(samples.weights)
        size = min(count, times_draws * self.config.training.num_bound_draws)
        rows = np.random.default_rng(SUBSET).choice(count, size, replace=False)
        return samples.part(
            rows if samples.weights is None else np.flatnonzero(samples.weights)[rows]
        )

    def bounds(
        self, diffusion: Diffusion, poll=lambda: None, times_draws: int = 1
    ) -> dict[str, Estimate | None]:
        """The bound on train and on val, None without val.txt; from times_draws as many draws.

        Lines with weights count by these. Which lines are drawn, and with which random numbers, depends
        on the data and on training.num_bound_draws alone: two validations, and two runs on the same
        data, can be subtracted line by line.
        """
        num_draws = times_draws * self.config.training.num_bound_draws
        seed = derive_seed(BOUND_DRAWS, times_draws)
        subsets = [self.train_subset, self.val_subset]
        if times_draws > 1:
            subsets = [data and self._subset(data, times_draws) for data in (self.train, self.val)]

        def draws(samples) -> Draws | None:
            if samples is None:
                return None
            R, lines = draws_per_line(len(samples), num_draws), self.processes.share(len(samples))
            return bound_draws(diffusion, samples, R, seed, self.device, lines, poll)

        def estimate(samples, shares: tuple[Draws | None, ...]) -> Estimate | None:
            return None if samples is None else estimate_of(joined(shares), samples.weights)

        shares = zip(*self.processes.gather(lambda: [draws(part) for part in subsets]), strict=True)
        return dict(zip(("train", "val"), map(estimate, subsets, shares), strict=True))

    @property
    def num_final_steps(self) -> int | None:
        """Network calls behind the samples at the end; None, the exact law, unless it takes too long.

        A few calls are near the law, but not so near that rare things are as frequent.
        """
        training = self.config.training
        work = training.num_val_samples * self.length * self.config.model.T
        return training.num_val_steps if work > MOST_EXACT else None

    def draw(self, diffusion: Diffusion, poll=lambda: None, *, at_the_end: bool = False):
        """num_val_samples samples, always from the same noise."""
        training = self.config.training
        batches = sample(
            diffusion,
            self.length,
            self.processes.share(training.num_val_samples),
            derive_seed(training.seed, SAMPLES),
            self.num_final_steps if at_the_end else training.num_val_steps,
            batch_size=training.val_batch_size,
            device=self.device,
            poll=poll,
        )
        to_data = diffusion.process.to_data
        shares = self.processes.gather(lambda: [self.kind.pack(to_data(x)) for x in batches])
        return self.kind.join([part for share in shares for part in share], self.length)
