"""The Bernoulli forward process: how bits are erased, and what that says about the way back.

Symbols are those of Sohl-Dickstein et al. 2015 and of docs/mathematics.md: times t = 0..T, bits
x in {0,1}, their signs s = 2x - 1. Every function takes any two times r < t, not only r = t - 1.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

# log((1 + alpha_0) / (1 - alpha_0)) is infinite: x_0 tells itself with certainty. Wherever it is
# used it is multiplied by a probability that is exactly zero, so any finite number stands for it.
CERTAIN = 1e30


def signs(x: Tensor) -> Tensor:
    """s = 2x - 1: bits 0/1 as -1/+1."""
    return 2 * x - 1


class BernoulliProcess:
    """q(x_t | x_{t-1}): keep each bit with probability 1 - beta_t, else redraw it fairly.

    beta_t = 1 / (T - t + 1), the 2015 paper's schedule (section 2.4.1, appendix B.2), erases the
    same share of the signal at each step: alpha_t = prod_{r<=t} (1 - beta_r) = 1 - t/T.
    """

    def __init__(self, T: int, device: torch.device | str = "cpu"):
        self.T = T
        # In float64 wherever there is one: 1 - alpha_t / alpha_r is a small difference.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        alpha = 1 - torch.arange(T + 1, dtype=torch.float64) / T
        evidence = torch.log1p(alpha) - torch.log1p(-alpha)
        evidence[0] = CERTAIN
        self.alpha = alpha.to(device, dtype)  # (T + 1,), falls from 1 to 0
        self.evidence = evidence.to(device, torch.float32)  # (T + 1,), lambda_t in nats

    def sample_prior(self, u: Tensor) -> Tensor:
        """x_T: fair bits. u: (B, L) uniform on (0, 1)."""
        return (u < 0.5).float()

    def sample_x_t(self, x_0: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """q(x_t | x_0): each bit stays what it was with probability (1 + alpha_t) / 2.

        x_0: (B, L) bits; t: (B,) in 0..T; u: (B, L) uniform. Returns (B, L) float bits.
        """
        keep = ((1 + self.alpha[t]) / 2).float()[:, None]  # (B, 1)
        return torch.where(u < keep, x_0, 1 - x_0)

    def denoise(self, x_t: Tensor, logits: Tensor, t: Tensor) -> Tensor:
        """P(x_0 = 1 | x_t) per bit: what the others say (logits) plus what the bit itself says.

        x_t, logits: (B, L); t: (B,) in 1..T. Returns (B, L) probabilities.
        """
        return torch.sigmoid(logits + signs(x_t) * self.evidence[t][:, None])

    def flip_probability(self, x_t: Tensor, logits: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """p(x_r != x_t | x_t) per bit, f(c) = (beta/2) (1 - alpha_r c) / (1 + alpha_t c).

        beta = 1 - alpha_t / alpha_r and c = s_t tanh(logits / 2). 1 - c and 1 + c are formed from
        two sigmoids, never by subtraction, which in float32 would round small ones to zero.
        x_t, logits: (B, L); t, r: (B,) with r < t. Returns (B, L).
        """
        alpha_t, alpha_r = self.alpha[t][:, None], self.alpha[r][:, None]  # (B, 1)
        half_beta = ((1 - alpha_t / alpha_r) / 2).float()
        agreement = signs(x_t) * logits
        above = (1 - alpha_r).float() + 2 * alpha_r.float() * torch.sigmoid(-agreement)
        below = (1 - alpha_t).float() + 2 * alpha_t.float() * torch.sigmoid(agreement)
        return half_beta * above / below

    def posterior_flip_probability(self, x_t: Tensor, x_0: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """q(x_r != x_t | x_t, x_0) per bit: flip_probability with x_0 known, c = s_t s_0 = +-1."""
        alpha_t, alpha_r = self.alpha[t][:, None], self.alpha[r][:, None]  # (B, 1)
        half_beta = (1 - alpha_t / alpha_r) / 2
        agree = half_beta * (1 - alpha_r) / (1 + alpha_t)
        differ = half_beta * (1 + alpha_r) / (1 - alpha_t)
        return torch.where(x_t == x_0, agree.float(), differ.float())

    def reverse_step(self, x_t: Tensor, logits: Tensor, t: Tensor, r: Tensor, u: Tensor) -> Tensor:
        """Draw x_r ~ p(x_r | x_t). u: (B, L) uniform. Returns (B, L) float bits."""
        flip = u < self.flip_probability(x_t, logits, t, r)
        return torch.where(flip, 1 - x_t, x_t)

    def max_flip_probability(self) -> Tensor:
        """b_t >= p(x_{t-1} != x_t | x_t), whatever the network says: (T + 1,), b_0 = 0.

        flip_probability falls with c, so its largest value is at c = -1: a network that is certain
        that the bit is wrong.
        """
        alpha = self.alpha
        b = torch.zeros_like(alpha)
        b[1:] = (1 - alpha[1:] / alpha[:-1]) / 2 * (1 + alpha[:-1]) / (1 - alpha[1:])
        return b

    def step_divergence(
        self, x_0: Tensor, x_t: Tensor, logits: Tensor, t: Tensor, r: Tensor
    ) -> Tensor:
        """KL( q(x_r | x_t, x_0) || p(x_r | x_t) ) summed over bits, in bits.

        This is one term of the bound. Written with flip probabilities it is a difference of nearly
        equal logarithms; docs/mathematics.md (section 6) shows that it equals

            -log P(x_0 | x_t)  -  E_{x_r ~ q(.|x_t, x_0)} [ -log P(x_0 | x_r) ]

        with P(x_0 | x_.) = sigmoid(s_0 (logits + s_. lambda_.)) and the same logits in both: what the
        step teaches about the bit. It is exact, and stable for any finite logits.
        x_0, x_t, logits: (B, L); t, r: (B,) with r < t. Returns (B,).
        """
        s_0 = signs(x_0)
        margin = s_0 * logits  # how much the other bits speak for the true value
        c_0 = s_0 * signs(x_t)
        at_t = c_0 * self.evidence[t][:, None]
        at_r = c_0 * self.evidence[r][:, None]
        flip = self.posterior_flip_probability(x_t, x_0, t, r)
        nats = (
            softplus(-margin - at_t)
            - (1 - flip) * softplus(-margin - at_r)
            - flip * softplus(-margin + at_r)
        )
        return nats.sum(dim=1) / math.log(2)
