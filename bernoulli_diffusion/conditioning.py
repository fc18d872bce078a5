"""Conditionals, likelihoods and denoising: questions to a model, answered by its own reverse process.

Evidence says, per bit, what is known of x_0 from elsewhere: log-odds that the bit is 1, 0 if nothing
is known, +-CERTAIN if all is (evidence_of of the process). By sequential Monte Carlo, particles walk
from noise to x_0 by reverse steps that lean towards the evidence; each carries the weight that makes
up for the leaning,

    w = prod_t p(x_r | x_t) / g(x_r | x_t)  x  P(observed | x_0),

whose mean is P(observed) without bias. Nothing here knows which process it serves.
docs/mathematics.md, section 13.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .diffusion import Diffusion
from .noise import Noise, derive_seed
from .sampling import ProposalTimes, all_times, grid_times, is_thinning_faster

# Times on the way at which a run looks whether its weights have become unequal. Without thinning they
# cost nothing: the walk needs the network at these times anyway.
CHECKS, CHECKS_THINNED = 100, 24
# What the bits of a string have in common is worth as much as one in so many of them (heed).
COMMON = 8
MAX_PARTICLES = 1 << 20  # of a run
MAX_RUNS = 1 << 20  # for one row of evidence
# Numbers of runs whose mean likelihood is extrapolated: fewer show too little, and more need it less.
EXTRAPOLATED = range(4, 33)
# streams of random numbers derived from one seed
WALK, RESAMPLING, DRAWING, DENOISING, REPLACING, BLUR = range(6)


class Runs(NamedTuple):
    """G independent runs of P particles each, at x_0.

    log_evidence estimates log P(observed) in nats; its exponential is unbiased. The effective sample
    size is the smallest that a run has seen on its way, at most P. ancestor says from which of the
    run's particles at time T each one descends.
    """

    x_0: Tensor  # (G, P, L) float bits
    log_weight: Tensor  # (G, P), the weights of a run add up to 1
    log_evidence: Tensor  # (G,) nats
    effective_sample_size: Tensor  # (G,)
    ancestor: Tensor  # (G, P)


@torch.inference_mode()
def run_particles(
    diffusion: Diffusion,
    evidence: Tensor,
    particles: int,
    seed: int,
    numbers: Tensor | None = None,
    steps: int | None = None,
    poll=lambda: None,
) -> Runs:
    """Sequential Monte Carlo: one run of `particles` particles for each row of evidence.

    At CHECKS times a run looks at its particles' weights times the look-ahead, how probable the denoiser
    finds what was observed. Where these leave an effective sample size below half of the particles, it
    is resampled (systematically), each particle in proportion to the power `heed` of them. Without the
    look-ahead the evidence would come too late, at t = 0; with all of it too soon.
    evidence: (G, L) log-odds in nats, or what evidence_of returns; numbers: (G,) the runs' numbers,
    0 .. G - 1 by default. What a run does is a function of seed, its number and its evidence alone.
    steps: as in sampling.walk; a grid has another law.
    """
    process, T = diffusion.process, diffusion.T
    (G, L), P, device = evidence.shape[:2], particles, evidence.device
    if numbers is None:
        numbers = torch.arange(G, device=device)
    evidence = evidence.repeat_interleave(P, dim=0)  # (G * P, L)
    each = torch.arange(P, device=device)
    rows = (numbers[:, None] * MAX_PARTICLES + each).flatten()  # (G * P,)
    dice = Noise(derive_seed(seed, RESAMPLING), numbers, 1)
    walk = Walk(diffusion, L, steps)

    x = process.sample_prior(Noise(derive_seed(seed, WALK, T), rows, L).uniform(0))
    logits = None
    log_w = torch.zeros(G, P, device=device, dtype=process.alpha.dtype)
    spent = torch.zeros_like(log_w)  # of the weights and the look-ahead, on resampling; nats
    log_evidence = log_w.new_zeros(G)
    smallest = log_w.new_full((G,), P)
    ancestor = each.repeat(G, 1)  # (G, P)
    share = process.known_share(evidence).to(log_w.dtype).view(G, P)[:, :1]  # (G, 1)
    for k, (t, r) in enumerate(itertools.pairwise(walk.check_times())):
        noise = Noise(derive_seed(seed, WALK, r), rows, L)
        x, gained = walk.down(x, evidence, t, r, noise, poll, logits)
        log_w = log_w + gained.view(G, P)
        if r == 0:
            log_w = log_w + process.evidence_at_0(x, evidence).view(G, P)
            smallest = torch.minimum(smallest, _effective_sample_size(log_w))
            break
        now = torch.full_like(rows, r)
        logits = diffusion.reverse_model(x, now)
        ahead = process.look_ahead(x, logits, evidence, now).view(G, P)
        priority = heed(process, r, L, share) * (log_w + ahead + spent) - spent
        size = _effective_sample_size(priority)
        smallest = torch.minimum(smallest, size)
        poor = (size < P / 2)[:, None]  # (G, 1)
        chosen = systematic(priority.softmax(dim=1), dice.uniform(k))
        chosen = torch.where(poor, chosen, each)  # (G, P)
        place = (chosen + P * torch.arange(G, device=device)[:, None]).flatten()
        x, logits = x[place], logits[place]
        ancestor = ancestor.gather(1, chosen)
        # A resampled particle stands for the mean, and gives back the priority that chose it.
        mean = priority.logsumexp(dim=1) - math.log(P)
        log_evidence = log_evidence + torch.where(poor[:, 0], mean, 0)
        price = torch.where(poor, priority.gather(1, chosen), 0)
        log_w, spent = log_w.gather(1, chosen) - price, spent.gather(1, chosen) + price
    total = log_w.logsumexp(dim=1)
    log_evidence = log_evidence + total - math.log(P)
    return Runs(x.view(G, P, L), log_w - total[:, None], log_evidence, smallest, ancestor)


def heed(process, t: int, L: int, share: Tensor) -> Tensor:
    """The power, 0 to 1, to which weights and look-ahead count when a run is resampled at time t.

    The look-ahead is a product over bits and counts for each of them what they have in common. Let the
    data hold I_y on it (what is known of it beside the prior), and x_t I_x: then the product is too sure
    by a factor near 1 + I_y / (1 + I_x), as for a Gaussian factor seen through many independent ones.
    I_y is share and I_x the signal-to-noise ratio at t, both times L / COMMON. share: (G, 1) of x_0.
    """
    common = L / COMMON
    told = 1 + common * process.signal_to_noise[t]
    return told / (told + common * share)


def _effective_sample_size(log_w: Tensor) -> Tensor:
    """1 / sum of the squared normalised weights. log_w: (G, P). Returns (G,)."""
    return 1 / log_w.softmax(dim=1).square().sum(dim=1)


def systematic(weight: Tensor, u: Tensor, count: int | None = None) -> Tensor:
    """Systematic resampling: indices such that i appears count * weight_i times, rounded up or down.

    weight: (G, P), rows add up to 1; u: (G, 1) uniform; count: P by default. Returns (G, count),
    rising.
    """
    P = weight.shape[1]
    count = P if count is None else count
    places = (torch.arange(count, device=weight.device) + u.to(weight.dtype)) / count  # (G, count)
    edges = weight.cumsum(dim=1)
    return torch.searchsorted(edges / edges[:, -1:], places).clamp_(max=P - 1)


class Walk:
    """Down the times with evidence, by every step of a grid or by thinning (as in sampling.py)."""

    def __init__(self, diffusion: Diffusion, length: int, steps: int | None = None):
        self.diffusion, T = diffusion, diffusion.T
        exact = steps is None or steps >= T
        self.times = all_times(T) if exact else grid_times(T, steps)
        self.proposals = None
        if exact and is_thinning_faster(diffusion, length):
            self.proposals = ProposalTimes(diffusion.process.flips.max_flip_probability())

    def check_times(self) -> list[int]:
        """From T to 0: at most CHECKS steps, by times that the walk visits."""
        T = self.times[0]
        wanted = grid_times(T, CHECKS_THINNED if self.proposals else CHECKS)
        return sorted({min(self.times, key=lambda s: abs(s - t)) for t in wanted}, reverse=True)

    def down(
        self,
        x: Tensor,
        evidence: Tensor,
        t: int,
        r: int,
        noise: Noise,
        poll=lambda: None,
        logits: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """From x_t to x_r. x, evidence: (B, L); logits: the network's at x_t, if they are there already.

        Returns x_r and log p / g (B,) in nats.
        """
        if self.proposals:
            return self._thinned(x, evidence, t, r, noise, poll)
        return self._every_step(x, evidence, t, r, noise, poll, logits)

    def _every_step(self, x, evidence, t, r, noise, poll, logits) -> tuple[Tensor, Tensor]:
        process = self.diffusion.process
        log_w = torch.zeros(len(x), device=x.device, dtype=process.alpha.dtype)
        visited = [s for s in self.times if r <= s <= t]
        for k, (s, next_s) in enumerate(itertools.pairwise(visited)):
            poll()
            now, then = torch.full_like(noise.rows, s), torch.full_like(noise.rows, next_s)
            if logits is None:
                logits = self.diffusion.reverse_model(x, now)
            x, gained = process.guided_step(x, logits, evidence, now, then, noise.uniform(k))
            logits = None
            log_w += gained
        return x, log_w

    def _thinned(self, x, evidence, t, r, noise, poll) -> tuple[Tensor, Tensor]:
        """A particle's weight changes only at proposals of bits that there is evidence about."""
        process = self.diffusion.process
        log_w = torch.zeros(len(x), device=x.device, dtype=process.alpha.dtype)
        x = x.clone()
        index = torch.arange(len(x), device=x.device)  # the rows that are under way
        # Proposals are coins tossed for each time by itself: those above t need not be known.
        when = self.proposals.next(torch.full(x.shape, t, device=x.device), noise.uniform(0))
        call = 1
        while True:
            poll()
            now = when.amax(dim=1)  # (B,)
            active = now > r
            if not active.all():
                index, when, now = index[active], when[active], now[active]
                noise = noise.select(active)
            if not len(index):
                return x, log_w
            logits = self.diffusion.reverse_model(x[index], now)
            row, bit = (when == now[:, None]).nonzero(as_tuple=True)  # (n,) the proposals
            s, place = now[row], (index[row], bit)
            flip, gained = process.flips.guided_flip(
                x[place], logits[row, bit], evidence[place], s, noise.uniform_at(call, row, bit)
            )
            x[place] = torch.where(flip, 1 - x[place], x[place])
            log_w.index_add_(0, index[row], gained.to(log_w.dtype))
            later = self.proposals.next(s - 1, noise.uniform_at(call + 1, row, bit))
            when[row, bit] = torch.where(s > 1, later, 0)
            call += 2


# ------------------------------------------------------------------------------- samples


class Conditional(NamedTuple):
    """What is drawn for one row of evidence, and how far it can be trusted."""

    samples: Tensor  # (N, L) float bits
    mean: Tensor  # (L,) P(x_0 = 1 | observed) per bit, from all particles
    log_evidence: float  # nats
    effective_sample_size: float  # of all runs together, for each of them
    ancestors: int  # how many different particles at time T the samples descend from


@torch.inference_mode()
def conditional_samples(
    diffusion: Diffusion,
    evidence: Tensor,
    N: int,
    seed: int,
    particles: int = 256,
    independent: bool = False,
    steps: int | None = None,
    batch_size: int = 4096,
    poll=lambda: None,
) -> Iterator[Conditional]:
    """N draws of x_0 given the evidence, for each row of evidence (M, L) in nats.

    For every eighth part of `particles` draws there is a run of so many, and the draws come from all
    their particles by one systematic resampling, so that they are rarely copies of one another. A run
    counts by its evidence, without which the answer would stay off by some 1 / particles, however many
    runs there are. independent: a run for each draw, which stays off by that much.
    batch_size: particles that walk together, at least a run.
    """
    runs = N if independent else -(-N // max(1, particles // 8))
    runs, at_a_time = max(1, runs), max(1, batch_size // particles)
    count = len(evidence) * runs
    waiting = []  # runs, until those of a row are complete
    for first in range(0, count, at_a_time):
        which = torch.arange(first, min(first + at_a_time, count), device=evidence.device)
        row = which // runs
        numbers = row * MAX_RUNS + which % runs
        part = run_particles(diffusion, evidence[row], particles, seed, numbers, steps, poll)
        waiting += zip(numbers, *part, strict=True)
        while len(waiting) >= runs:
            numbers, *fields = zip(*waiting[:runs], strict=True)
            yield _draw(torch.stack(numbers), Runs(*map(torch.stack, fields)), N, seed, independent)
            del waiting[:runs]


def _draw(numbers: Tensor, runs: Runs, N: int, seed: int, independent: bool) -> Conditional:
    """N draws from the runs of one row, whose numbers are (R,)."""
    R, P, L = runs.x_0.shape
    share = _share_of_runs(runs.log_evidence)  # (R,)
    own = runs.log_weight.exp().nan_to_num(1 / P)  # (R, P); NaN where a run has no evidence at all
    together = share[:, None] * own
    # rows of weights that are resampled each by itself: those of every run, or all in one
    weight, numbers = (own, numbers) if independent else (together.view(1, R * P), numbers[:1])
    count = N // len(weight)
    dice = Noise(derive_seed(seed, DRAWING), numbers, count + 1).uniform(0)
    chosen = systematic(weight, dice[:, :1], count)
    chosen = chosen.gather(1, dice[:, 1:].argsort(dim=1))  # neighbours are alike: mix them
    first = weight.shape[1] * torch.arange(len(weight), device=chosen.device)[:, None]
    place = (first + chosen).flatten()  # (N,)
    # a particle of run k is another one than that of run j
    ancestor = runs.ancestor + MAX_PARTICLES * torch.arange(R, device=chosen.device)[:, None]
    sizes = runs.effective_sample_size.nan_to_num(1.0)  # at least 1, also without any evidence
    size = 1 / (share.square() / sizes).sum()
    return Conditional(
        samples=runs.x_0.view(R * P, L)[place],
        mean=(together[:, :, None] * runs.x_0).sum(dim=(0, 1)),
        log_evidence=(runs.log_evidence.logsumexp(dim=0) - math.log(R)).item(),
        effective_sample_size=size.item() / R,
        ancestors=len(ancestor.flatten()[place].unique()),
    )


def _share_of_runs(log_evidence: Tensor) -> Tensor:
    """What each run counts, (R,), together 1: its estimate of P(observed); equal if none has any."""
    if log_evidence.isneginf().all():
        log_evidence = torch.zeros_like(log_evidence)
    return log_evidence.softmax(dim=0)


# ------------------------------------------------------------------------------- replacement


@torch.inference_mode()
def replaced(
    diffusion: Diffusion,
    evidence: Tensor,
    noise: Noise,
    repeats: int = 1,
    steps: int | None = None,
    poll=lambda: None,
) -> Tensor:
    """Approximate draws of x_0 given evidence: one walk each, and nothing that makes up for the leaning.

    Replacement with resampling (RePaint, Lugmayr et al. 2022, algorithm 1): known bits follow the true
    posterior, and each step is undone by the forward process and taken again, `repeats` times in all, so
    that the others come to terms with them. Not the law of the model, which conditional_samples has:
    what is unlikely together is not weighed against what is likely.
    evidence: (B, L) log-odds in nats, or what evidence_of returns; noise: of B rows; steps: None for
    all T, or a grid of so many. Returns (B, L).
    """
    process, T = diffusion.process, diffusion.T
    times = all_times(T) if steps is None or steps >= T else grid_times(T, steps)
    x = process.sample_prior(noise.uniform(0))
    for t, r in itertools.pairwise(times):
        now, then = torch.full_like(noise.rows, t), torch.full_like(noise.rows, r)
        dice = Noise(derive_seed(noise.seed, REPLACING, t), noise.rows, noise.length)
        for k in range(repeats if r else 1):
            poll()
            if k:
                x = process.forward_step(x, then, now, dice.uniform(2 * k - 1))
            logits = diffusion.reverse_model(x, now)
            x, _ = process.guided_step(x, logits, evidence, now, then, dice.uniform(2 * k))
    return x


# ------------------------------------------------------------------------------- denoising


def has_channel(diffusion: Diffusion) -> bool:
    """Whether a noisy sample is x_t of this process at some t, so that `denoised` starts at it."""
    return diffusion.process.flips is not None


@torch.inference_mode()
def denoised(
    diffusion: Diffusion,
    y: Tensor,
    flip_probability: float,
    noise: Noise,
    steps: int | None = None,
    poll=lambda: None,
) -> Tensor:
    """x_0 ~ p(x_0 | x_t = y), the reverse process started at y, where 1 - alpha_t = 2 flip_probability.

    That is what was sent through a channel that flips each bit with flip_probability: exactly so if
    the network is perfect, and independent draws always. (run_particles with the evidence of y has
    the exact posterior under the model's law p(x_0), whatever the network.) Between two times t
    the network is asked at the later one.
    y: (B, L) bits; flip_probability in [0, 0.5]; noise: of B rows. Returns (B, L).
    """
    process = diffusion.process
    t = process.flips.time_of_channel(flip_probability)
    if t == 0:
        return y.clone()
    walk = Walk(diffusion, y.shape[1], steps)
    r = max(s for s in walk.times if s < t)
    now, then = torch.full_like(noise.rows, t), torch.full_like(noise.rows, r)
    logits = diffusion.reverse_model(y, now)
    x = process.flips.channel_step(y, logits, flip_probability, then, noise.uniform(0))
    below = Noise(derive_seed(noise.seed, DENOISING), noise.rows, noise.length)
    return walk.down(x, torch.zeros_like(x), r, 0, below, poll)[0]


@torch.inference_mode()
def denoised_mean(diffusion: Diffusion, y: Tensor, flip_probability: float) -> Tensor:
    """P(x_0 = 1 | y) per bit, by one network call: the mean of denoised under a perfect network.

    y: (B, L) bits; flip_probability in [0, 0.5]. Returns (B, L) probabilities.
    """
    process = diffusion.process
    t = torch.full(
        (len(y),), max(1, process.flips.time_of_channel(flip_probability)), device=y.device
    )
    logits = diffusion.reverse_model(y, t)
    return torch.sigmoid(logits + process.evidence_of(y, flip_probability))


@torch.inference_mode()
def leave_one_out(diffusion: Diffusion, x_0: Tensor) -> Tensor:
    """P(x_0,i | all other bits of x_0) per bit, as the network says it at t = 1, next to 0.

    x_0: (B, L) bits. Returns (B, L) probabilities of the values that the bits have.
    """
    t = torch.ones(len(x_0), dtype=torch.int64, device=x_0.device)
    return torch.sigmoid((2 * x_0 - 1) * diffusion.reverse_model(x_0, t))


# ------------------------------------------------------------------------------- likelihood


class Likelihoods(NamedTuple):
    """Estimates for n strings, each from R runs; all (n,) float64 on the CPU."""

    log2_p: Tensor  # of the mean over runs, without most of the logarithm's bias
    standard_error: Tensor  # of log2_p; NaN if there is one run
    spread: Tensor  # standard deviation of log2 of the single runs' estimates; NaN for one run
    effective_sample_size: Tensor  # mean over runs


def log2_likelihoods(
    diffusion: Diffusion,
    strings,
    particles: int,
    repeats: int,
    seed: int,
    device: torch.device | str = "cpu",
    batch_size: int = 4096,
) -> Iterator[Likelihoods]:
    """log2 p(x_0) of every line of strings, block by block, by runs with every bit or number known.

    Each of `repeats` runs of `particles` particles estimates p(x_0) without bias; of blurred numbers
    it is the mean density over their cells, since each run has a blur of its own. The logarithm of a
    mean over few runs is too low on average, by an amount that falls with their number: _log_mean
    finds that in the means of fewer of them, and takes it off.
    """
    lines = max(1, batch_size // (particles * repeats))
    for first in range(0, len(strings), lines):
        rows = np.arange(first, min(first + lines, len(strings))).repeat(repeats)
        run = torch.arange(len(rows))
        blur = derive_seed(seed, BLUR) + run % repeats
        x_0 = strings.tensor(rows, device, blur[:, None])
        evidence, run = diffusion.process.evidence_of_x_0(x_0), run.to(device)
        numbers = (first + run // repeats) * MAX_RUNS + run % repeats
        runs = run_particles(diffusion, evidence, particles, seed, numbers)
        log_p = runs.log_evidence.cpu().double().view(-1, repeats)
        mean, error = _log_mean(log_p)
        yield Likelihoods(
            mean / math.log(2),
            error / math.log(2),
            _deviation(log_p) / math.log(2),
            runs.effective_sample_size.cpu().double().view(-1, repeats).mean(dim=1),
        )


def _log_mean(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """log of the mean of each row of p, and its standard error by the jackknife. log_p: (n, R)."""
    R = log_p.shape[1]
    if R == 1:
        return log_p[:, 0], torch.full_like(log_p[:, 0], math.nan)
    if R in EXTRAPOLATED:
        mean = _extrapolated(log_p)
        others = [torch.cat([log_p[:, :i], log_p[:, i + 1 :]], dim=1) for i in range(R)]
        without = torch.stack([_extrapolated(rest) for rest in others], dim=1)
    else:
        mean, without = _jackknife(log_p), _means_without_each(log_p)
    apart = without - without.mean(dim=1, keepdim=True)  # (n, R)
    return mean, ((R - 1) / R * apart.square().sum(dim=1)).sqrt()


def _extrapolated(log_p: Tensor) -> Tensor:
    """log of the mean of each row of p (n, R), less the bias that the jackknife leaves.

    Now and then a run finds far more than the others, and what the jackknife leaves then falls with R
    no faster than 1 / R. How much it leaves of two runs, all pairs together tell. Of a row in which a
    run found nothing (-inf) it is the plain mean.
    """
    R = log_p.shape[1]
    first, second = torch.triu_indices(R, R, offset=1)
    pairs = torch.stack([log_p[:, first], log_p[:, second]], dim=2)  # (n, R (R - 1) / 2, 2)
    of_pairs = _jackknife(pairs.flatten(0, 1)).view(len(log_p), -1).mean(dim=1)
    found = (R * _jackknife(log_p) - 2 * of_pairs) / (R - 2)
    return found.where(log_p.isfinite().all(dim=1), log_p.logsumexp(dim=1) - math.log(R))


def _jackknife(log_p: Tensor) -> Tensor:
    """log of the mean of each row of p (n, R), less its bias in 1 / R (Quenouille 1956)."""
    R = log_p.shape[1]
    mean = log_p.logsumexp(dim=1) - math.log(R)
    return R * mean - (R - 1) * _means_without_each(log_p).mean(dim=1)


def _means_without_each(log_p: Tensor) -> Tensor:
    """log of the mean of each row of p without each of its numbers. log_p: (n, R). Returns (n, R)."""
    R = log_p.shape[1]
    left_out = log_p[:, None].masked_fill(torch.eye(R, dtype=torch.bool), -math.inf)  # (n, R, R)
    return left_out.logsumexp(dim=2) - math.log(R - 1)


def _deviation(x: Tensor) -> Tensor:
    """Standard deviations of the rows of x (n, R), NaN if R is 1."""
    return x.std(dim=1) if x.shape[1] > 1 else x.new_full((len(x),), math.nan)
