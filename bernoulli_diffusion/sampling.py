"""Samplers: from noise to samples. A new sampler is a function here and a line in SAMPLERS.

Each draws its random numbers from a Noise (noise.py), so a sample is a function of its seed and its
number alone, whatever the batch.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .diffusion import Diffusion
from .estimate import evenly_spaced
from .noise import Noise
from .system.cuda_graph import recorded

RECORDED_STEPS = 16  # recording takes about as long as a few of them


def all_times(T: int) -> list[int]:
    """T, T - 1, ..., 0."""
    return list(range(T, -1, -1))


def grid_times(T: int, K: int, power: float = 3) -> list[int]:
    """A grid of K steps from T to 0, t_k = round(T (k/K)^power), dense near 0 where bits are decided.

    Fewer than K steps where T is too small for K distinct times of this form.
    """
    if K >= T:
        return all_times(T)
    times = {round(T * (k / K) ** power) for k in range(K + 1)}
    # the smallest ones coincide: take the lowest free times instead, so that there are K steps
    free = (t for t in range(T + 1) if t not in times)
    while len(times) < K + 1:
        times.add(next(free))
    return sorted(times, reverse=True)


Step = Callable[[Tensor, Tensor, Tensor], Tensor]  # x_t (B, L), t (B,), r (B,) -> x_r (B, L)


@torch.inference_mode()
def descend(
    diffusion: Diffusion, noise: Noise, times: list[int], step: Step
) -> Iterator[tuple[int, Tensor]]:
    """x_T from the prior, then x_r = step(x_t, t, r) down the times, which fall from T to 0.

    step makes no use of anything but tensors. Yields (t, x_t) at every time.
    """
    # one number seen B times: a network may look at it once
    of_all = {t: noise.rows.new_full((1,), t).expand(len(noise.rows)) for t in times}
    x = diffusion.process.sample_prior(noise.uniform(0))
    yield times[0], x
    if len(times) > RECORDED_STEPS:
        step = recorded(step, x, of_all[times[0]], of_all[times[1]])
    for t, r in itertools.pairwise(times):
        x = step(x, of_all[t], of_all[r])
        yield r, x


def ancestral(
    diffusion: Diffusion, noise: Noise, times: list[int] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Ancestral sampling: x_T from the prior, then x_r ~ p(x_r | x_t) down the times.

    times: falling, from T to 0; all of them by default, which defines the model's law p(x_0).
    Yields (t, x_t) at every visited time, x_t (B, L) float bits.
    """

    def step(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        # by r, so that any two grids share the noise they can
        return diffusion.reverse_step(x_t, t, r, noise.uniform(diffusion.T - r[0]))

    return descend(diffusion, noise, times or all_times(diffusion.T), step)


def deterministic(
    diffusion: Diffusion, noise: Noise, times: list[int]
) -> Iterator[tuple[int, Tensor]]:
    """DDIM (Song et al. 2021): x_T from the prior, then no more noise. For real numbers.

    The last step is to E[x_0 | x_t]. times: falling, from T to 0. Yields (t, x_t), x_t (B, D).
    """

    def step(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return diffusion.process.deterministic_step(x_t, diffusion.reverse_model(x_t, t), t, r)

    return descend(diffusion, noise, times, step)


def draw_together(probability: Tensor, u_order: Tensor, u: Tensor) -> Tensor:
    """Coins of given probabilities whose number, in each row, is as near its mean as can be.

    Systematic sampling in random order (Madow 1949): lay a row's probabilities end to end, in the
    order of u_order, and mark the points u, u + 1, u + 2, ...; a coin falls if its piece holds one.
    Each falls with its own probability, and if they add up to 1 or less, never two of them.
    probability, u_order: (B, L), u: (B, 1), both uniform on (0, 1). Returns (B, L) bool.
    """
    order = orders(u_order)
    ends = probability.gather(1, order).cumsum(1) + (1 - u)  # (B, L)
    marks = ends.floor()
    marks[:, 1:] -= marks[:, :-1].clone()  # points within each piece; there is none below 1 - u
    return torch.zeros_like(marks).scatter_(1, order, marks) > 0.5


def balanced(diffusion: Diffusion, noise: Noise, times: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Large steps: ancestral sampling, but the bits that flip in a step are drawn together.

    The network knows how likely each bit is to flip, not which go together. When two bits disagree
    that should agree, it wants either to flip; flipped independently, both or none do half of the
    time, and the string stays wrong. Drawn together, just one does. Each bit's flip probability is
    that of ancestral; as the steps get short, so is the law.
    times: falling, from T to 0. Yields (t, x_t) at every time, x_t (B, L) float bits.
    """
    flips, T, rows = diffusion.process.flips, diffusion.T, noise.rows
    here, first = torch.arange(len(rows), device=rows.device), torch.zeros_like(rows)

    def step(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        f = flips.flip_probability(x_t, diffusion.reverse_model(x_t, t), t, r)
        u = noise.uniform_at(2 * T - r[0], here, first)[:, None]  # ancestral uses steps up to T
        # summed in float64, where there is one, or else pieces are lost at the end of a long row
        flip = draw_together(f.to(diffusion.process.alpha.dtype), noise.uniform(T - r[0]), u)
        return torch.where(flip, 1 - x_t, x_t)

    return descend(diffusion, noise, times, step)


def orders(u: Tensor) -> Tensor:
    """The stable argsort of each row. u: (B, L) float32 above 0. Returns (B, L) int64.

    On a CPU numbers are sorted together with their places, as whole numbers: a fifth of the time of
    torch's argsort, which would be a third of a sampler's.
    """
    if u.device.type != "cpu":
        return u.argsort(dim=1, stable=True)
    keys = u.contiguous().numpy().view(np.int32).astype(np.int64) << 32  # rises with u
    keys |= np.arange(u.shape[1])
    keys.sort(axis=1)
    keys &= 0xFFFFFFFF
    return torch.from_numpy(keys)


class ProposalTimes:
    """When a bit may flip next: a bit of x_t flips on the way to t - 1 with probability at most b_t.

    Whether a bit is proposed at t is a coin with probability b_t, for each t on its own. So the next
    proposal below time t is at the largest s <= t whose coin falls: one uniform number and a search
    in the cumulative sum of -log(1 - b_s) say which.
    """

    def __init__(self, max_flip_probability: Tensor):
        b = max_flip_probability  # (T + 1,), b_0 = 0, b_1 = 1: at t = 1 every bit proposes
        self.b = b.float()
        # hazard[s] = sum_{s' > s} -log(1 - b_s'), falls with s to 0 at T; infinite at s = 0
        steps = -torch.log1p(-b[1:])
        self.hazard = torch.cat([steps.flip(0).cumsum(0).flip(0), steps.new_zeros(1)])
        self.rising = self.hazard.flip(0).contiguous()  # by T - s

    def next(self, t: Tensor, u: Tensor) -> Tensor:
        """The next proposal's time in 1..t. t: times; u: uniform; both of any one shape."""
        # No proposal in (s, t] has probability exp(-(hazard[s] - hazard[t])).
        target = self.hazard[t] - torch.log(u.to(self.hazard.dtype))
        steps_down = torch.searchsorted(self.rising, target)  # the first s, from T, to exceed it
        return (len(self.rising) - steps_down).clamp_(min=1)

    def expected_network_calls(self, length: int) -> float:
        """Expected number of times at which a row of `length` bits has at least one proposal."""
        return float((1 - (1 - self.b[1:]) ** length).sum())


@torch.inference_mode()
def thinned(
    diffusion: Diffusion, noise: Noise, times: tuple[int, ...] = (0,), poll=lambda: None
) -> Iterator[tuple[int, Tensor]]:
    """Exactly the law of ancestral over all T steps, with far fewer network calls when L is small.

    Proposals to flip come with the largest probability b_t that any network could ask for; a row
    needs the network only at the times at which one of its bits has a proposal, and accepts it with
    probability f / b_t (thinning, as for point processes: Lewis & Shedler 1979). Each row advances
    at its own pace, and between its proposals it does not change.
    Yields (t, x_t) for the times, falling and ending with 0, all at the end. poll is called at every
    step.
    """
    flips = diffusion.process.flips
    proposals = ProposalTimes(flips.max_flip_probability())
    device, (B, L) = noise.rows.device, (len(noise.rows), noise.length)
    shown_times = torch.tensor(times, device=device)
    states = torch.empty(len(times), B, L, device=device)
    index = torch.arange(B, device=device)  # the rows that are under way
    x = diffusion.process.sample_prior(noise.uniform(0))
    top = torch.full((B, L), diffusion.T, device=device)
    when = proposals.next(top, noise.uniform(1))  # (B, L) each bit's next proposal
    last = torch.full((B,), diffusion.T + 1, device=device)  # (B,) the row's last proposal
    call = 2
    while len(index):
        poll()
        t = when.amax(dim=1)  # (B,) no bit of the row changes before it comes down to t
        if len(times) > 1:
            row, frame = ((t[:, None] <= shown_times) & (shown_times < last[:, None])).nonzero().T
            states[frame, index[row]] = x[row]
        logits = diffusion.reverse_model(x, t)
        row, bit = (when == t[:, None]).nonzero(as_tuple=True)  # (n,) the proposals
        s = t[row]
        f = flips.flip_probability(x[row, bit, None], logits[row, bit, None], s, s - 1).squeeze(1)
        accepted = noise.uniform_at(call, row, bit) * proposals.b[s] < f
        x[row, bit] = torch.where(accepted, 1 - x[row, bit], x[row, bit])
        # a bit that proposed draws its next proposal below t
        when[row, bit] = proposals.next(s - 1, noise.uniform_at(call + 1, row, bit))
        last = t
        call += 2
        active = t > 1  # at t = 1 every bit proposes, and then the row is done
        if not active.all():
            states[-1, index[~active]] = x[~active]
            x, when, last, index = x[active], when[active], last[active], index[active]
            noise = noise.select(active)
    yield from zip(times, states, strict=True)


class Sampler(NamedTuple):
    """A way from noise to samples: walk(diffusion, noise, times) yields (t, x_t) down the times."""

    walk: Callable[..., Iterator[tuple[int, Tensor]]]
    needs: str = ""  # the optional member of the process (kinds.Process) that it cannot do without
    # always by all T steps; then times are only those at which x_t is asked for
    is_exact: bool = False


SAMPLERS = {
    "ancestral": Sampler(ancestral),
    "thinned": Sampler(thinned, needs="flips", is_exact=True),
    "balanced": Sampler(balanced, needs="flips"),
    "deterministic": Sampler(deterministic, needs="deterministic_step"),
}


def samplers_for(diffusion: Diffusion, steps: int | None = None) -> list[str]:
    """The names of those that suit the process; with steps, of those that can walk a grid."""
    return [
        name
        for name, sampler in SAMPLERS.items()
        if (not sampler.needs or getattr(diffusion.process, sampler.needs) is not None)
        and not (sampler.is_exact and steps and steps < diffusion.T)
    ]


def default_sampler(diffusion: Diffusion, length: int, steps: int | None = None) -> str:
    """The model's exact law by whichever is faster; on a grid of fewer steps, the best for those."""
    if steps is None or steps >= diffusion.T:
        return "thinned" if is_thinning_faster(diffusion, length) else "ancestral"
    return "ancestral" if diffusion.process.flips is None else "balanced"


def is_thinning_faster(diffusion: Diffusion, length: int) -> bool:
    """Whether thinned is expected to beat a network call at every step."""
    flips = diffusion.process.flips
    if flips is None:
        return False
    calls = ProposalTimes(flips.max_flip_probability()).expected_network_calls(length)
    return 1.25 * calls < diffusion.T  # a thinned step costs up to a quarter more than a plain one


def network_calls(
    diffusion: Diffusion, length: int, steps: int | None = None, sampler: str | None = None
) -> int | None:
    """How often walk calls the network for a batch; None if that is for thinning to find out."""
    if (sampler or default_sampler(diffusion, length, steps)) == "thinned":
        return None
    return len(grid_times(diffusion.T, steps or diffusion.T)) - 1


def walk(
    diffusion: Diffusion,
    noise: Noise,
    steps: int | None = None,
    shown: tuple[int, ...] = (0,),
    poll=lambda: None,
    sampler: str | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """From noise to samples: yields (t, x_t) at those times of shown that the sampler visits.

    steps=None makes all T steps; steps=K makes K network calls, on a grid. sampler: a name in
    SAMPLERS; by default as default_sampler says. shown: falling times that end with 0. poll is
    called at every step.
    """
    chosen = SAMPLERS[sampler or default_sampler(diffusion, noise.length, steps)]
    if chosen.is_exact:
        yield from chosen.walk(diffusion, noise, shown, poll)
        return
    for t, x_t in chosen.walk(diffusion, noise, grid_times(diffusion.T, steps or diffusion.T)):
        poll()
        if t in shown:
            yield t, x_t


def sample(
    diffusion: Diffusion,
    length: int,
    rows: range,
    seed: int,
    steps: int | None = None,
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
    poll=lambda: None,
    sampler: str | None = None,
) -> Iterator[Tensor]:
    """Samples number rows.start .. rows.stop - 1 of this seed, in batches of (B, L) float bits.

    steps, poll, sampler: as in walk.
    """
    for first in range(rows.start, rows.stop, batch_size):
        numbers = torch.arange(first, min(first + batch_size, rows.stop), device=device)
        noise = Noise(seed, numbers, length)
        for _, x_0 in walk(diffusion, noise, steps, (0,), poll, sampler):
            yield x_0


def trajectory(
    diffusion: Diffusion,
    noise: Noise,
    steps: int | None = None,
    frames: int = 60,
    poll=lambda: None,
    sampler: str | None = None,
    most: int | None = None,
) -> tuple[list[int], np.ndarray]:
    """The same walk, for a picture: the times shown and the states (F, B, L) at them, as data.

    All visited times if steps is given, else `frames` of them, dense near 0; of these `most`, evenly
    spaced, if that is given. steps, poll, sampler: as in walk.
    """
    shown = tuple(grid_times(diffusion.T, min(steps or frames, diffusion.T)))
    if most and len(shown) > most:
        shown = tuple(shown[k] for k in evenly_spaced(len(shown), most))
    visited = walk(diffusion, noise, steps, shown, poll, sampler)
    times, states = zip(*visited, strict=True)
    return list(times), diffusion.process.to_data(torch.stack(states))
