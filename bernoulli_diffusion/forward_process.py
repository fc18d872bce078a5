"""The Bernoulli forward process: how bits are erased, and what that says about the way back.

Symbols are those of Sohl-Dickstein et al. 2015 and of docs/mathematics.md: times t = 0..T, bits
x in {0,1}, their signs s = 2x - 1. Every function takes any two times r < t, not only r = t - 1.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

CERTAIN = 1e30  # stands for log((1 + alpha_0) / (1 - alpha_0)), infinite: x_0 tells itself

# The sigmoid of such log-odds, and of these plus evidence, is a float32 number with all its digits.
# Beyond it a step's divergence is flat or, at r = 0, a straight line.
STEEPEST = 64.0

CACHED_ELEMENTS = 1 << 17  # of float32: a few such tensors stay in a core's cache


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
        # whether a bit flips, as 0 or 1: on a CPU several times as fast as by a mask
        flip = torch.ge(u, keep, out=torch.empty_like(u))
        return flip.sub_(x_0).abs_()

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

            E_{x_r ~ q(.|x_t, x_0)} [ log P(x_0 | x_r) ]  -  log P(x_0 | x_t)

        with P(x_0 | x_.) = sigmoid(s_0 (logits + s_. lambda_.)) and the same logits in both: what the
        step teaches about the bit. Its gradient is that of the logits alone.
        x_0, x_t, logits: (B, L); t, r: (B,) with r < t. Returns (B,).
        """
        alpha_t, alpha_r = self.alpha[t], self.alpha[r]
        half_beta = (1 - alpha_t / alpha_r) / 2
        # x_r is x_0 with this probability, if x_t is and if it is not
        stays = (1 - half_beta * (1 - alpha_r) / (1 + alpha_t)).float()
        returns = (half_beta * (1 + alpha_r) / (1 - alpha_t)).float()
        lambda_t, lambda_r, is_end = self.evidence[t], self.evidence[r], r == 0
        # if x_r is not x_0, which at r = 0 cannot be: any number will do
        lambda_wrong = lambda_r.masked_fill(is_end, 0)
        rows = torch.stack([stays, returns, lambda_t, lambda_r, lambda_wrong, is_end.float()], 1)
        return _StepDivergence.apply(logits, x_0, x_t, rows[:, :, None]) / math.log(2)


class _StepDivergence(torch.autograd.Function):
    """step_divergence in nats, and its gradient from the same three sigmoids.

    rows: (B, 6, 1), the numbers of step_divergence that belong to a row and not to a bit.
    """

    @staticmethod
    def forward(ctx, logits, x_0, x_t, rows):
        # On a CPU a block of rows at a time: what is computed on the way stays in the cache.
        block = max(1, CACHED_ELEMENTS // logits.shape[1]) if logits.is_cpu else len(logits)
        nats, gradient = logits.new_empty(len(logits)), torch.empty_like(logits)
        everything = (logits, x_0, x_t, rows, nats, gradient)
        for part in zip(*(tensor.split(block) for tensor in everything), strict=True):
            _divergence_and_gradient(*part)
        ctx.save_for_backward(gradient)
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output[:, None], None, None, None


def _divergence_and_gradient(logits, x_0, x_t, rows, nats, gradient) -> None:
    """Writes nats (B,) and gradient (B, L)."""
    stays, returns, lambda_t, lambda_r, lambda_wrong, is_end = rows.unbind(dim=1)  # (B, 1) each
    half_s_0 = x_0 - 0.5
    wrong = (x_t - x_0).abs_()  # (B, L) 1 where x_t is not x_0
    right_next = (wrong * (returns - stays)).add_(stays)  # q(x_r = x_0 | x_t, x_0)
    margin = (half_s_0 * logits).mul_(2)  # s_0 logits: how much the others speak for the truth
    m = margin.clamp_min(-STEEPEST)
    beyond = torch.sub(m, margin, out=margin).sum(dim=1)
    now = wrong.mul_(-2 * lambda_t).add_(lambda_t).add_(m).sigmoid_()  # P(x_0 | x_t)
    if_right = (m + lambda_r).sigmoid_()  # P(x_0 | x_r), if x_r is x_0
    if_wrong = m.sub_(lambda_wrong).sigmoid_()  # and if it is not
    next = torch.lerp(if_wrong, if_right, right_next)
    torch.mul(now.sub(next), half_s_0, out=gradient).mul_(2)
    log_next = torch.lerp(if_wrong.log_(), if_right.log_(), right_next, out=next)
    torch.sum(log_next.sub_(now.log_()), dim=1, out=nats)
    nats.addcmul_(beyond, is_end[:, 0])
