"""Diffusion = forward process + reverse model: the training loss and the bound.

Nothing here knows which process it serves.
"""

import torch
from torch import Tensor, nn

from .noise import rand_like


def stratified(count: int, device: torch.device | str = "cpu") -> Tensor:
    """(count,) numbers, one uniform in each of count equal parts of [0, 1], in random order."""
    return (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count


class Diffusion:
    """A forward process and the network that runs it backwards.

    process: the forward process (as kinds.Process describes it); reverse_model: (x_t, t) -> logits.
    """

    def __init__(self, process, reverse_model: nn.Module):
        self.process, self.reverse_model = process, reverse_model

    @property
    def T(self) -> int:
        return self.process.T

    def bound_term(self, x_0: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """The term of the bound at times t, with x_t ~ q(x_t | x_0) drawn from u, in bits.

        Less what the process knows of it in closed form (beside_steps), if anything.
        x_0: (B, L); t: (B,) in 1..T; u: (B, L) uniform. Returns (B,).
        """
        x_t = self.process.sample_x_t(x_0, t, u)
        logits = self.reverse_model(x_t, t).float()  # its precision may be lower while it trains
        divergence = self.divergence(x_0, x_t, logits, t)
        beside = self.process.beside_steps
        return divergence if beside is None else divergence - beside.control(x_0, x_t, t)

    def divergence(self, x_0: Tensor, x_t: Tensor, logits: Tensor, t: Tensor) -> Tensor:
        """KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) ) in bits, logits the network's of x_t. (B,)"""
        return self.process.step_divergence(x_0, x_t, logits, t, t - 1)

    def one_t_estimate(self, x_0: Tensor, u_t: Tensor, u_x: Tensor) -> Tensor:
        """An unbiased estimate of each row's bound from a single time each, in bits.

        -log2 p(x_0) <= sum_{t=1..T} E_q[ step divergence ] (Sohl-Dickstein et al. 2015, eq. 14), plus
        terms that no step changes, if the process has any.
        x_0: (B, L); u_t: (B,) uniform, the time; u_x: (B, L) uniform, the noise. Returns (B,).
        """
        t, probability = self.process.times(u_t)
        estimate = self.bound_term(x_0, t, u_x) / probability
        beside = self.process.beside_steps
        if beside is None:
            return estimate
        return estimate + beside.control_total(x_0) + beside.fixed_terms(x_0)

    def loss(self, x_0: Tensor, num_sample_steps: int = 1) -> Tensor:
        """The training loss: the batch's mean bound in bits, from num_sample_steps times a row.

        Or the mean of the process's simple loss at uniform times, if that was asked for. All times
        of the batch are strata of one draw. Uses torch's random state. Returns a scalar.
        """
        if num_sample_steps > 1:
            x_0 = x_0.repeat(num_sample_steps, 1)  # (B * num_sample_steps, L)
        u_t = stratified(len(x_0), x_0.device)
        if self.process.simple_loss is None:
            return self.one_t_estimate(x_0, u_t, rand_like(x_0)).mean()
        t = 1 + (u_t * self.T).long().clamp_max(self.T - 1)
        x_t = self.process.sample_x_t(x_0, t, rand_like(x_0))
        return self.process.simple_loss(x_0, x_t, self.reverse_model(x_t, t).float(), t).mean()

    def reverse_step(self, x_t: Tensor, t: Tensor, r: Tensor, u: Tensor) -> Tensor:
        """Draw x_r ~ p(x_r | x_t): one network call. t, r: (B,); u: (B, L) uniform."""
        return self.process.reverse_step(x_t, self.reverse_model(x_t, t), t, r, u)
