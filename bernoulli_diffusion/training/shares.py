"""Models compared on the same draws, and what share each should have in an ensemble of them."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion import Diffusion
from ..likelihood import ELEMENTS_PER_BATCH
from ..noise import derive_seed
from ..weights import InProportion
from .optimizer import AdamW

ELEMENTS = 1 << 21  # bits in the draws on which models are compared, at most
MOST_DRAWS = 1 << 14
LEAST_SHARE = 0.02  # a member with less is left out: it would cost more than it gives
FIT_STEPS, FIT_RATE = 80, 0.15
NEWTON_STEPS, ENOUGH = 6, 1 / 256  # at most, and until the confidence changes by less
NEAR = 0.05  # log-odds, near enough for derivatives
FIT, CHECK, BLUR = range(3)  # streams of random numbers derived from one seed


class Draws:
    """Noisy strings at random times, the same ones for every network.

    Two models' bounds on them differ by the models alone, so that their paired difference is known
    several times more precisely than either bound. As in likelihood.estimate_bound, times are strata
    of one draw, and standard errors are taken from neighbouring strata.
    """

    def __init__(self, process, strings, seed: int, device="cpu", num_draws: int = MOST_DRAWS):
        self.process, n = process, len(strings)
        total = max(2, min(num_draws, ELEMENTS // strings.length))
        generator = torch.Generator().manual_seed(derive_seed(seed))
        rounds = -(-total // n)
        row = torch.cat([torch.randperm(n, generator=generator) for _ in range(rounds)])[:total]
        if strings.weights is not None:  # each round a pass in proportion to them
            start = torch.rand(rounds, 1, generator=generator, dtype=torch.float64)
            start = start.expand(-1, n).flatten()[:total]
            row = torch.from_numpy(InProportion(strings.weights).rows(row.numpy(), start.numpy()))
        row = row[torch.randperm(total, generator=generator)]
        u = torch.rand(total, generator=generator, dtype=torch.float64)
        blur = derive_seed(seed, BLUR) + torch.arange(total)  # a line drawn again has another
        self.x_0 = strings.tensor(row.numpy(), device, blur[:, None])  # (N, L)
        self.u_t = ((torch.arange(total) + u) / total).float().to(device)  # (N,)
        self.u_x = torch.rand(self.x_0.shape, generator=generator).to(device)  # (N, L)

    def logits(self, diffusion: Diffusion) -> Tensor:
        """What the network says of each draw, (N, L)."""
        t, _ = self.process.times(self.u_t)
        x_t = self.process.sample_x_t(self.x_0, t, self.u_x)
        batch = max(1, ELEMENTS_PER_BATCH // self.x_0.shape[1])
        parts = zip(x_t.split(batch), t.split(batch), strict=True)
        with torch.inference_mode():
            logits = torch.cat([diffusion.reverse_model(*part).float() for part in parts])
        return logits.clone()  # outside of inference mode, so that gradients may pass

    def bits(self, logits: Tensor) -> Tensor:
        """The estimate of the bound from each draw, (N,), for what a network says."""
        said = Diffusion(self.process, lambda _x_t, _t: logits)
        return said.one_t_estimate(self.x_0, self.u_t, self.u_x)

    def slope(self, logits: Tensor) -> tuple[float, Tensor]:
        """The sum of bits, and its derivative by each of logits, (N, L)."""
        logits = logits.detach().requires_grad_()
        total = self.bits(logits).sum()
        return total.item(), torch.autograd.grad(total, logits)[0]


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of estimates from neighbouring strata, and its standard error."""
    values = values.double()
    variance = values.diff().square().mean().item() / 2
    return values.mean().item(), math.sqrt(variance / len(values))


@dataclass
class Fitted:
    """Shares, and what they reach on draws that did not choose them; all in bits per sample."""

    shares: list[float]
    bound: tuple[float, float]  # of the ensemble, with its standard error
    of_members: list[tuple[float, float]]
    gain: tuple[float, float]  # over the best member, by paired differences

    def report(self) -> dict:
        def pair(name: str, value: tuple[float, float]) -> dict:
            return {name: value[0], "standard_error": value[1]}

        return {
            "bound": pair("bits", self.bound),
            "bounds_of_members": [pair("bits", each) for each in self.of_members],
            "gain_over_best_member": pair("bits", self.gain),
        }


def fit_shares(
    diffusions: list[Diffusion],
    strings,
    seed: int = 0,
    device: torch.device | str = "cpu",
    num_draws: int = MOST_DRAWS,
) -> Fitted:
    """The shares, none negative and 1 in all, with the least bound on strings, by gradient descent.

    Then, on fresh draws, the ensemble is compared with its best member, and if it is not better, that
    member alone gets everything.
    """
    process = diffusions[0].process
    draws = Draws(process, strings, derive_seed(seed, FIT), device, num_draws)
    logits = torch.stack([draws.logits(diffusion) for diffusion in diffusions])  # (M, N, L)
    kept = list(range(len(diffusions)))
    while True:
        fitted = _descend(draws, logits[kept])
        if min(fitted) >= LEAST_SHARE:
            break
        kept = [m for m, share in zip(kept, fitted, strict=True) if share >= LEAST_SHARE]
    shares = torch.zeros(len(diffusions), device=device)
    shares[kept] = torch.tensor(fitted, device=device)

    draws = Draws(process, strings, derive_seed(seed, CHECK), device, num_draws)
    logits = torch.stack([draws.logits(diffusion) for diffusion in diffusions])
    each = [draws.bits(one) for one in logits]  # of (N,)
    together = draws.bits(torch.einsum("m,mnl->nl", shares, logits))
    best = min(range(len(each)), key=lambda m: each[m].double().mean().item())
    if together.double().mean() >= each[best].double().mean():
        shares = torch.zeros_like(shares)
        shares[best], together = 1.0, each[best]
    shares = shares.double() / shares.double().sum()
    return Fitted(
        shares.tolist(),
        mean_and_error(together),
        [mean_and_error(bits) for bits in each],
        mean_and_error(each[best] - together),
    )


def fit_confidence(draws: Draws, parts: Tensor, independent: Tensor, start: Tensor) -> Tensor:
    """How much of each part, none negative and at most 1 in all, the bound of draws is least with. (M,)

    parts: (M, N, L) log-odds; independent: (N, L), what the rest of the confidence goes to. By Newton's
    method, from start (M,). A part with less than LEAST_SHARE is left out.
    """
    towards = (parts - independent).flatten(1)  # (M, N L)
    confidence, best, least = start.double(), start.double(), math.inf
    for _ in range(NEWTON_STEPS):
        logits = independent + (confidence.float() @ towards).view_as(independent)
        # a bit's part of the bound depends on its own log-odds alone
        (above, rising), (below, falling) = (draws.slope(logits + d) for d in (NEAR, -NEAR))
        if not above + below < least:
            confidence = (best + confidence) / 2
            continue
        best, least = confidence, above + below
        slope, curvature = (rising + falling) / 2, (rising - falling) / (2 * NEAR)
        gradient = (towards @ slope.flatten()).double()
        hessian = ((towards * curvature.flatten()) @ towards.T).double()
        confidence = _least(hessian, gradient - hessian @ confidence)
        if (confidence - best).abs().max() < ENOUGH:
            break
    return torch.where(best < LEAST_SHARE, 0.0, best).float()


def mixed(parts: Tensor, independent: Tensor, confidence: Tensor) -> Tensor:
    """What a network says with a confidence (M,) in its parts (M, N, L); independent: with none."""
    return torch.einsum("m,mnl->nl", confidence, parts - independent) + independent


def _least(A: Tensor, b: Tensor) -> Tensor:
    """c, none negative and at most 1 in all, with the least c A c / 2 + b c; A: (M, M), b: (M,), M small.

    What is positive in it, and whether the sum is 1, is tried out: then it solves linear equations.
    """
    M = len(b)
    A = A + 1e-9 * A.diagonal().max().clamp_min(1e-30) * torch.eye(M, device=A.device)
    best, least = torch.zeros_like(b), 0.0
    for is_free in itertools.product((False, True), repeat=M):
        free = torch.tensor(is_free, device=A.device).nonzero()[:, 0]
        if not len(free):
            continue
        to_b, to_one = torch.linalg.solve(
            A[free][:, free], torch.stack([-b[free], torch.ones_like(b[free])], dim=1)
        ).unbind(dim=1)
        for c in (to_b, to_b + (1 - to_b.sum()) / to_one.sum() * to_one):  # its sum free, and 1
            c = torch.zeros_like(b).index_copy(0, free, c)
            value = (c @ A @ c / 2 + b @ c).item()
            if c.min() >= 0 and c.sum() <= 1 + 1e-9 and value < least:
                best, least = c, value
    return best


def _descend(draws: Draws, logits: Tensor) -> list[float]:
    """Shares of logits (M, N, L) that lower the mean bound of draws, from equal ones."""
    free = torch.zeros(len(logits), device=logits.device, requires_grad=True)
    optimizer = AdamW([free], lr=FIT_RATE, weight_decay=0.0)
    for step in range(FIT_STEPS if len(logits) > 1 else 0):
        optimizer.lr = FIT_RATE * (1 - step / FIT_STEPS)
        optimizer.zero_grad()
        draws.bits(torch.einsum("m,mnl->nl", free.softmax(dim=0), logits)).mean().backward()
        optimizer.step()
    return free.detach().softmax(dim=0).tolist()
