"""The Bernoulli forward process: how bits are erased, and what that says about the way back.

Symbols are those of Sohl-Dickstein et al. 2015 and of docs/mathematics.md: times t = 0..T, bits
x in {0,1}, their signs s = 2x - 1. Every function takes any two times r < t, not only r = t - 1.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from ..schedule import SCHEDULES
from .data import UNKNOWN

CERTAIN = 1e30  # stands for log((1 + alpha_0) / (1 - alpha_0)), infinite: x_0 tells itself

SURE = 1e4  # log-odds with which a bit costs nothing
LOG2_E = 1 / math.log(2)  # bits in a nat

# 2 to this power, and times any odds of the process, is a float32 number. Where the log-odds, in bits,
# are larger, a step's divergence is flat or, at r = 0, a straight line.
STEEPEST = 92.0

CACHED_ELEMENTS = 1 << 18  # of float32: so many are worth waking threads for, and stay in the cache


def signs(x: Tensor) -> Tensor:
    """s = 2x - 1: bits 0/1 as -1/+1."""
    return 2 * x - 1


class BernoulliDiffusionProcess:
    """q(x_t | x_{t-1}): keep each bit with probability 1 - beta_t, else redraw it fairly.

    alpha_t = prod_{r<=t} (1 - beta_r) falls from 1 to 0. With beta_t = 1 / (T - t + 1), the 2015
    paper's schedule (section 2.4.1, appendix B.2), it is 1 - t/T: each step erases as much. Any other
    of schedule.py is shifted and stretched to end at 0: (alpha_t - alpha_T) / (1 - alpha_T).
    """

    simple_loss = None  # training lowers the bound
    deterministic_step = None
    beside_steps = None  # alpha_T = 0 leaves nothing to add, and x_0 needs no units
    least_bits = 0.0  # a bit, to which a bound's precision is relative
    output_name = "log-odds of x_0"
    input_name = "fair bits"

    def __init__(
        self,
        T: int,
        device: torch.device | str = "cpu",
        *,
        schedule: str = "harmonic",
        beta_min: float = 1e-4,
        beta_max: float = 0.02,
    ):
        self.T = T
        self.may_be_unknown = False  # whether bits of x_0 may be UNKNOWN; see sample_x_t
        # In float64 wherever there is one: 1 - alpha_t / alpha_r is a small difference.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        alpha = torch.from_numpy(SCHEDULES[schedule](T, beta_min, beta_max))
        alpha = (alpha - alpha[-1]) / (1 - alpha[-1])
        root = (1 - alpha).sqrt()
        self._root_lost = root.to(device, dtype)  # (T + 1,), rises from 0 to 1
        # sqrt(1 - alpha_t) - sqrt(1 - alpha_{t-1}) without the difference of two close numbers
        self._probability = ((alpha[:-1] - alpha[1:]) / (root[1:] + root[:-1])).to(device, dtype)
        evidence = torch.log1p(alpha) - torch.log1p(-alpha)
        evidence[0] = CERTAIN
        self.alpha = alpha.to(device, dtype)  # (T + 1,), falls from 1 to 0
        self.evidence = evidence.to(device, torch.float32)  # (T + 1,), lambda_t in nats
        squared = alpha.square()
        self.signal_to_noise = (squared / (1 - squared)).tolist()  # of signs, T + 1; infinite at 0

    @property
    def flips(self) -> "BernoulliDiffusionProcess":
        """What a step does: this process has it all itself."""
        return self

    def state(self) -> dict:
        """What a checkpoint must keep beside the config: nothing."""
        return {}

    def output_width(self, length: int) -> int:
        """Numbers that the network returns for a string."""
        return length

    def to_data(self, x: Tensor) -> np.ndarray:
        """x (..., L) float bits -> uint8."""
        return x.byte().cpu().numpy()

    as_written = to_data

    def mean_as_written(self, mean: Tensor) -> Tensor:
        """Means of x_0 in the data's units: probabilities, as they are."""
        return mean

    def sample_prior(self, u: Tensor) -> Tensor:
        """x_T: fair bits. u: (B, L) uniform on (0, 1)."""
        return (u < 0.5).float()

    def sample_x_t(self, x_0: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """q(x_t | x_0): each bit stays what it was with probability (1 + alpha_t) / 2.

        An unknown bit is a fair one at every t.
        x_0: (B, L) bits; t: (B,) in 0..T; u: (B, L) uniform. Returns (B, L) float bits.
        """
        keep = ((1 + self.alpha[t]) / 2).float()[:, None]  # (B, 1)
        # 0 and 1 in float32 and not in bool: on a CPU several times as fast
        flip = torch.ge(u, keep, out=torch.empty_like(u))
        if self.may_be_unknown:
            return torch.where(x_0 == UNKNOWN, (u < 0.5).float(), torch.ne(flip, x_0).float())
        return torch.ne(flip, x_0, out=flip)

    def forward_step(self, x_r: Tensor, r: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """Draw q(x_t | x_r): a bit flips with probability beta / 2. t, r: (B,) with r < t."""
        half_beta = ((1 - self.alpha[t] / self.alpha[r]) / 2).float()[:, None]  # (B, 1)
        return torch.where(u < half_beta, 1 - x_r, x_r)

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

    def reverse_step(self, x_t: Tensor, logits: Tensor, t: Tensor, r: Tensor, u: Tensor) -> Tensor:
        """Draw x_r ~ p(x_r | x_t). u: (B, L) uniform. Returns (B, L) float bits."""
        flip = u < self.flip_probability(x_t, logits, t, r)
        return torch.where(flip, 1 - x_t, x_t)

    def posterior_step(self, x_t: Tensor, x_0: Tensor, t: Tensor, r: Tensor, u: Tensor) -> Tensor:
        """Draw q(x_r | x_t, x_0). x_t, x_0: (B, L) bits; t, r: (B,) with r < t; u: (B, L) uniform.

        The flip probability of reverse_step where the network is certain. Returns (B, L) float bits.
        """
        if_right, if_wrong = (p.float()[:, None] for p in self.posterior_flips(t, r))
        flip = u < torch.where(x_t == x_0, if_right, if_wrong)
        return torch.where(flip, 1 - x_t, x_t)

    def posterior_flips(self, t: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """q(x_r != x_t | x_t, x_0) of a bit, where x_t is x_0 and where it is not: (B,) float64 each."""
        alpha_t, alpha_r = self.alpha[t], self.alpha[r]
        half_beta = (1 - alpha_t / alpha_r) / 2
        if_right = half_beta * (1 - alpha_r) / (1 + alpha_t)
        return if_right, half_beta * (1 + alpha_r) / (1 - alpha_t)

    def max_flip_probability(self) -> Tensor:
        """b_t >= p(x_{t-1} != x_t | x_t), whatever the network says: (T + 1,), b_0 = 0.

        flip_probability falls with c, so its largest value is at c = -1: a network that is certain
        that the bit is wrong.
        """
        b = torch.zeros_like(self.alpha)
        t = torch.arange(1, len(b), device=b.device)
        b[1:] = self.posterior_flips(t, t - 1)[1]
        return b

    def step_divergence(
        self, x_0: Tensor, x_t: Tensor, logits: Tensor, t: Tensor, r: Tensor
    ) -> Tensor:
        """KL( q(x_r | x_t, x_0) || p(x_r | x_t) ) summed over bits, in bits.

        This is one term of the bound. Written with flip probabilities it is a difference of nearly
        equal logarithms; docs/mathematics.md (section 6) shows that it equals

            E_{x_r ~ q(.|x_t, x_0)} [ log P(x_0 | x_r) ]  -  log P(x_0 | x_t)

        with P(x_0 | x_.) = sigmoid(s_0 (logits + s_. lambda_.)) and the same logits in both: what the
        step teaches about the bit. Its gradient is that of the logits alone. Unknown bits are not
        counted (docs/mathematics.md, section 15).
        x_0, x_t, logits: (B, L); t, r: (B,) with r < t. Returns (B,).
        """
        if self.may_be_unknown:  # what is told with certainty costs nothing
            unknown = x_0 == UNKNOWN
            logits, x_0 = logits.masked_fill(unknown, SURE), x_0.masked_fill(unknown, 1)
        alpha_t, alpha_r = self.alpha[t], self.alpha[r]
        # x_r is x_0 with this probability, if x_t is and if it is not
        if_right, if_wrong = self.posterior_flips(t, r)
        stays, returns = (1 - if_right).float(), if_wrong.float()
        # the odds that a bit of x_t, and of x_r, is wrong: exp(-lambda)
        odds_t, odds_r = (1 - alpha_t) / (1 + alpha_t), (1 - alpha_r) / (1 + alpha_r)
        is_end = r == 0
        # if x_r is not x_0, which at r = 0 cannot be: any number will do
        odds_wrong = 1 / odds_r.masked_fill(is_end, 1)
        odds = [odds_t, 1 / odds_t, odds_r, odds_wrong]
        rows = torch.stack([stays, returns, *(o.float() for o in odds), is_end.float()], dim=1)
        return _StepDivergence.apply(logits, x_0, x_t, rows[:, :, None])

    def times(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The time by which a share u^2 of the signal is lost, and the probability of that.

        P(t) = sqrt(1 - alpha_t) - sqrt(1 - alpha_{t-1}); with alpha_t = 1 - t/T, t = ceil(T u^2). The
        terms of the bound grow towards t = 0, where bits are decided. Times drawn more often there, and
        weighted by 1/P(t), have several times less variance than uniform times while a network learns
        (docs/mathematics.md, section 8, has a table).
        u: any shape, in [0, 1]. Returns t (int64 in 1..T) and P(t), both of u's shape.
        """
        t = torch.searchsorted(self._root_lost, u.to(self._root_lost.dtype)).clamp_(1, self.T)
        return t, self._probability[t - 1].to(u.dtype)

    def control_variate(self, x_0: Tensor, x_t: Tensor, logits: Tensor, t: Tensor) -> Tensor:
        """How far step_divergence to t - 1 is off its mean over q(x_t | x_0), were logits constant; bits.

        It knows what a wrong bit costs, and that by chance there are more or fewer of them:
        sum_i (wrong_i - P(wrong)) (cost if wrong - cost if right). Its mean is exactly zero.
        x_0, x_t: (B, L); logits: (B, L) that do not depend on x_t; t: (B,) in 1..T. Returns (B,).
        """
        margin = signs(x_0) * logits
        alpha_t, alpha_r = self.alpha[t][:, None], self.alpha[t - 1][:, None]  # (B, 1)
        half_beta = (1 - alpha_t / alpha_r) / 2
        at_t, at_r = self.evidence[t][:, None], self.evidence[t - 1][:, None]

        def cost(c_0: int) -> Tensor:
            flip = (half_beta * (1 - c_0 * alpha_r) / (1 + c_0 * alpha_t)).float()
            later = (1 - flip) * logsigmoid(margin + c_0 * at_r)
            return later + flip * logsigmoid(margin - c_0 * at_r) - logsigmoid(margin + c_0 * at_t)

        wrong = (x_t != x_0).float() - ((1 - alpha_t) / 2).float()
        if self.may_be_unknown:
            wrong = wrong.masked_fill(x_0 == UNKNOWN, 0)
        return (wrong * (cost(-1) - cost(1))).sum(dim=1) / math.log(2)

    # --- With evidence: what is known of x_0 from elsewhere, as log-odds that each bit is 1

    def evidence_of(self, known: Tensor, flip_probability: float = 0.0) -> Tensor:
        """Log-odds of x_0 = 1 given by observed bits, each flipped with flip_probability.

        known: (..., L) of 0 and 1, and anything else (-1) where a bit is unknown; flip_probability
        in [0, 0.5]. Returns (..., L) float nats: 0 says nothing, +-CERTAIN all there is to say.
        """
        p = flip_probability
        log_odds = math.log1p(-p) - math.log(p) if p > 0 else CERTAIN
        evidence = ((known == 1).float() - (known == 0).float()) * log_odds
        return evidence.to(self.alpha.device)

    def evidence_of_x_0(self, x_0: Tensor) -> Tensor:
        """Evidence that says all of x_0. x_0: (..., L) bits."""
        return self.evidence_of(x_0)

    def known_share(self, evidence: Tensor) -> Tensor:
        """How much of x_0 evidence tells, as a share of all: the mean of E[s_0]^2. Returns (B,)."""
        return torch.tanh(evidence / 2).square().mean(dim=1)

    def time_of_channel(self, flip_probability: float) -> int:
        """The first time t by which a bit is flipped with at least flip_probability in [0, 0.5]."""
        lost = 2 * flip_probability - 1e-9 / self.T  # of the signal, but for rounding
        return min(int((1 - self.alpha < lost).sum()), self.T)

    def channel_step(
        self, y: Tensor, logits: Tensor, flip_probability: float, r: Tensor, u: Tensor
    ) -> Tensor:
        """reverse_step from y, seen through a channel that flips bits: alpha_t = 1 - 2 flip_probability.

        y, logits, u: (B, L); r: (B,) with alpha_r >= alpha_t. Returns x_r (B, L) float bits.
        """
        alpha_t, alpha_r = 1 - 2 * flip_probability, self.alpha[r][:, None]  # (B, 1)
        agreement = signs(y) * logits
        above = (1 - alpha_r).float() + 2 * alpha_r.float() * torch.sigmoid(-agreement)
        below = (1 - alpha_t) + 2 * alpha_t * torch.sigmoid(agreement)
        half_beta = ((1 - alpha_t / alpha_r) / 2).float()
        return torch.where(u < half_beta * above / below, 1 - y, y)

    def evidence_at_0(self, x_0: Tensor, evidence: Tensor) -> Tensor:
        """log P(observed | x_0) summed over the bits with evidence, in nats. Returns (B,)."""
        log_p = logsigmoid(signs(x_0) * evidence)
        return torch.where(evidence == 0, 0, log_p).sum(dim=1)

    def look_ahead(self, x_t: Tensor, logits: Tensor, evidence: Tensor, t: Tensor) -> Tensor:
        """log prod_i P(observed_i | x_t) as the denoiser sees it, in nats.

        x_t, logits, evidence: (B, L); t: (B,) in 0..T. Returns (B,).
        """
        return self._look_ahead(x_t, logits, evidence, t[:, None]).sum(dim=1)

    def _look_ahead(self, x_t: Tensor, logits: Tensor, evidence: Tensor, t: Tensor) -> Tensor:
        """log P(observed | x_t) = log sum_{x_0} P(x_0 | x_t) P(observed | x_0), bit by bit."""
        log_odds = logits + signs(x_t) * self.evidence[t]
        one = logsigmoid(log_odds) + logsigmoid(evidence)
        zero = logsigmoid(-log_odds) + logsigmoid(-evidence)
        return torch.where(evidence == 0, 0, torch.logaddexp(one, zero))

    def guided_step(
        self, x_t: Tensor, logits: Tensor, evidence: Tensor, t: Tensor, r: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A reverse step that leans towards the evidence, and the weight that makes up for it.

        x_r ~ g(x_r | x_t), the reverse step with logits + evidence: known bits move by the true
        posterior, unknown ones as in the model. But where all of x_0 is known, evidence is believed no
        more before the last step than a channel with the noise of this step allows: coarse steps would
        hardly ever draw what the model takes back later. log p(x_r | x_t) / g(x_r | x_t) is the
        look-ahead at x_t less the one at x_r, both with the logits of x_t (docs/mathematics.md,
        section 13).
        x_t, logits, evidence, u: (B, L); t, r: (B,) with r < t.
        Returns x_r (B, L) and log p / g (B,) in nats.
        """
        kept = (self.alpha[t] / self.alpha[r]).float()[:, None]  # 1 - beta of the step
        is_doubted = (evidence.abs() == CERTAIN).all(dim=1) & (r > 0)
        most = ((1 + kept).log() - (1 - kept).log()).where(is_doubted[:, None], math.inf)
        evidence = evidence.clamp(-most, most)
        x_r = self.reverse_step(x_t, logits + evidence, t, r, u)
        before = self.look_ahead(x_t, logits, evidence, t)
        return x_r, before - self.look_ahead(x_r, logits, evidence, r)

    def guided_flip(
        self, x_t: Tensor, logits: Tensor, evidence: Tensor, t: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """guided_step from t to t - 1 for single bits that were proposed with probability b_t.

        The model accepts a proposal with probability f / b_t. Here it is accepted with probability
        a ~ (f / b_t) P(observed | flipped), where it is rejected with (1 - f / b_t) P(observed | not).
        With f = f(c) and b_t = f(-1) there are no differences of close numbers in either:
        b_t - f = (beta/2) (alpha_t + alpha_r) (1 + c) / ((1 - alpha_t) (1 + alpha_t c)).
        All arguments (n,). Returns flip (n,) bool and the log weight (n,) in nats.
        """
        alpha_t, alpha_r = self.alpha[t].float(), self.alpha[t - 1].float()
        lost_t, lost_r = (1 - self.alpha[t]).float(), (1 - self.alpha[t - 1]).float()
        agreement = signs(x_t) * logits
        below = (1 + alpha_r).log() + _log_mixture(lost_t, alpha_t, agreement)
        accept = lost_t.log() + _log_mixture(lost_r, alpha_r, -agreement) - below
        reject = (2 * (alpha_t + alpha_r)).log() + logsigmoid(agreement) - below
        if_flipped = self._look_ahead(1 - x_t, logits, evidence, t - 1)
        if_not = self._look_ahead(x_t, logits, evidence, t - 1)
        total = torch.logaddexp(accept + if_flipped, reject + if_not)
        flip = u.log() < accept + if_flipped - total
        return flip, total - torch.where(flip, if_flipped, if_not)


def _log_mixture(lost: Tensor, alpha: Tensor, agreement: Tensor) -> Tensor:
    """log(1 - alpha + 2 alpha sigmoid(agreement)), lost = 1 - alpha, which does not underflow."""
    return torch.logaddexp(lost.log(), (2 * alpha).log() + logsigmoid(agreement))


class _StepDivergence(torch.autograd.Function):
    """step_divergence, and its gradient from the same three probabilities.

    rows: (B, 7, 1), the numbers of step_divergence that belong to a row and not to a bit.
    """

    @staticmethod
    def forward(ctx, logits, x_0, x_t, rows):
        # On a CPU a block of rows at a time, all in the same memory, which stays in the cache.
        block = len(logits)
        if logits.is_cpu:
            block = min(block, max(1, CACHED_ELEMENTS // logits.shape[1]))
        scratch = logits.new_empty(8, block, logits.shape[1])
        divergence, gradient = logits.new_empty(len(logits)), torch.empty_like(logits)
        everything = (logits, x_0, x_t, rows, divergence, gradient)
        for part in zip(*(tensor.split(block) for tensor in everything), strict=True):
            _divergence_and_gradient(*part, scratch[:, : len(part[0])])
        ctx.save_for_backward(gradient)
        return divergence

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * (LOG2_E * grad_output)[:, None], None, None, None


def _divergence_and_gradient(logits, x_0, x_t, rows, divergence, gradient, scratch) -> None:
    """Writes divergence (B,) in bits and its gradient (B, L) in nats. scratch: (8, B, L).

    With the odds against the truth, P(x_0 | x_.) = 1 / (1 + odds): one power of 2 serves all three.
    Operations on a batch of bits are few, because each goes through the memory and wakes the threads.
    """
    stays, returns, odds_t, odds_t_wrong, odds_r, odds_r_wrong, is_end = rows.unbind(1)  # (B, 1)
    odds, logs, right_next, others = scratch[:3], scratch[3:6], scratch[6], scratch[7]
    now, if_right, if_wrong = odds  # (B, L) each
    # how much the others speak against x_0, -s_0 logits, in bits: exp2 is much faster than exp
    log_odds = torch.addcmul(logits, logits, x_0, value=-2, out=logs[0]).mul_(LOG2_E)
    torch.clamp_max(log_odds, STEEPEST, out=others)
    beyond = log_odds.sub_(others).sum(dim=1)
    others.exp2_()
    wrong = torch.ne(x_t, x_0, out=now)
    torch.mul(wrong, returns - stays, out=right_next).add_(stays)  # q(x_r = x_0 | x_t, x_0)
    now.mul_(odds_t_wrong - odds_t).add_(odds_t).mul_(others)
    torch.mul(others, odds_r, out=if_right)
    torch.mul(others, odds_r_wrong, out=if_wrong)
    log_now, log_if_right, log_if_wrong = torch.log1p(odds, out=logs)
    later = torch.lerp(log_if_wrong, log_if_right, right_next, out=log_if_wrong)
    torch.sum(log_now.sub_(later), dim=1, out=divergence)
    divergence.mul_(LOG2_E).addcmul_(beyond, is_end[:, 0])
    odds.add_(1).reciprocal_()
    later = torch.lerp(if_wrong, if_right, right_next, out=if_wrong)
    torch.addcmul(later.sub_(now), later, x_0, value=-2, out=gradient)
