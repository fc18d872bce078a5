"""The Gaussian forward process: how numbers drown in noise, and what that says about the way back.

It stands beside bits/process.py and answers the same questions. Inside, numbers
are standardised by the training data's mean and deviation; to_data undoes that. alpha_t here is what
Ho et al. 2020 write with a bar: the share of x_t's variance that is signal. Every function takes any
two times r < t, not only r = t - 1. docs/mathematics.md, section 14.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..schedule import SCHEDULES
from ..system.errors import UserError
from .data import FARTHEST, Aside, place_in_file, rounded

LARGEST_BETA = 0.5  # beyond, a noise prediction would have to tell x_0 from (almost) nothing
UNIFORM_SHARE = 0.2  # of the times drawn; the others are drawn by how much a step decides
LOG_2_PI = math.log(2 * math.pi)
LEAST_NOISE = 1e-12  # standardised variance of what is seen: less is none, 1 / this the most


def schedule_betas(schedule: str, T: int, beta_min: float, beta_max: float) -> Tensor:
    """beta_1 .. beta_T (float64), the share of variance that each step replaces by noise; at most 1/2.

    The first one of harmonic is beta_min at least (Sohl-Dickstein et al. 2015, appendix B.1).
    """
    alpha = torch.from_numpy(SCHEDULES[schedule](T, beta_min, beta_max))
    beta = 1 - alpha[1:] / alpha[:-1]
    if schedule == "harmonic":
        beta[0] = beta[0].clamp(min=beta_min)
    return beta.clamp(max=LARGEST_BETA)


def normal(u: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones, by the inverse of their distribution function."""
    return math.sqrt(2) * torch.special.erfinv((2 * u - 1).clamp(-1 + 2**-23, 1 - 2**-23))


class GaussianDiffusionProcess:
    """q(x_t | x_{t-1}) = N( sqrt(1 - beta_t) x_{t-1}, beta_t ), number by number.

    So x_t = sqrt(alpha_t) x_0 + sqrt(1 - alpha_t) eps with alpha_t = prod_{r<=t} (1 - beta_r). The
    network predicts eps. variance says that of a reverse step: "beta" (right if the data are standard
    normal) or "posterior" (right if they are a single point), as in Ho et al. 2020, or "learned",
    between and around these: the network then returns eps and, behind it, as many numbers more.
    loss: what training lowers, the "bound" or the "simple" squared error of eps.
    mean, deviation: (D,) of the training data. width: of the noise by which they were blurred.
    bounds: what written samples are never below and never above, where there is such a limit.
    aside: columns of files that stand beside the D numbers; what is written has them, and what is
    known may have them.
    """

    flips = None  # nothing flips
    least_bits = 1.0  # a number, to which precision is relative: the bound itself may be 0
    output_name = "noise predictions eps"
    input_name = "standard normal numbers"

    def __init__(
        self,
        T: int,
        device: torch.device | str,
        mean: Tensor,
        deviation: Tensor,
        *,
        schedule: str = "harmonic",
        beta_min: float = 1e-4,
        beta_max: float = 0.02,
        variance: str = "beta",
        loss: str = "bound",
        width: float = 0.0,
        bounds: tuple[float | None, float | None] = (None, None),
        aside: Aside | None = None,
    ):
        self.aside = aside
        self.T, self.variance, self.width, self.bounds = T, variance, width, bounds
        self.simple_loss = self.squared_error if loss == "simple" else None
        self.mean, self.deviation = mean.double().cpu(), deviation.double().cpu()
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        beta = schedule_betas(schedule, T, beta_min, beta_max)
        log_alpha = torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0)])
        alpha, lost = log_alpha.exp(), -torch.expm1(log_alpha)
        self.log_alpha = log_alpha.to(device, dtype)  # (T + 1,)
        self.alpha = alpha.to(device, dtype)  # (T + 1,), falls from 1
        self.lost = lost.to(device, dtype)  # (T + 1,), 1 - alpha
        self.signal_to_noise = (alpha / lost).tolist()  # T + 1; infinite at 0
        # How much each step decides, were the data Gaussian: log(deviation of the noise) falls by it.
        decided = torch.full((T,), 1.0, dtype=torch.float64)
        if T > 1:
            decided[1:] = (lost[2:] / lost[1:-1]).log()
            decided[0] = decided[1:].max()
        probability = (1 - UNIFORM_SHARE) * decided / decided.sum() + UNIFORM_SHARE / T
        self._probability = probability.to(device, dtype)  # (T,), of t = 1 .. T
        self._cumulative = probability.cumsum(0).to(device, dtype)
        # of |eps - output|^2 in a term, with the variance fixed as learned ones begin; bits
        t = torch.arange(1, T + 1, device=device)
        beta, posterior, weight = (part.squeeze(1) for part in self._step(t, t - 1))
        width = posterior if variance == "posterior" else beta
        scale = weight.square() * self.lost[1:] / self.alpha[1:] / (2 * math.log(2))
        scale /= torch.cat([beta[:1], width[1:]])
        self._control_scale = torch.cat([scale[:1], scale])  # (T + 1,)

    @property
    def beside_steps(self) -> "GaussianDiffusionProcess":
        """What the bound holds beside its steps: this process has it all itself."""
        return self

    @property
    def log2_deviations(self) -> float:
        """What a standardised sample's density in bits lacks to that in the data's own units."""
        return self.deviation.log2().sum().item()

    def state(self) -> dict:
        """What a checkpoint must keep beside the config."""
        state = {"mean": self.mean, "deviation": self.deviation}
        if self.aside:
            state["aside_columns"] = torch.from_numpy(self.aside.columns)
            state["aside_values"] = torch.from_numpy(self.aside.values)
        return state

    def output_width(self, length: int) -> int:
        """Numbers that the network returns for a sample of so many."""
        return 2 * length if self.variance == "learned" else length

    def to_data(self, x: Tensor) -> np.ndarray:
        """Numbers in the data's own units. x: (..., D) standardised. Returns float64."""
        return (x.double().cpu() * self.deviation + self.mean).numpy()

    def as_written(self, x: Tensor) -> np.ndarray:
        """Samples as the data's file has them: blurred numbers back in their cells, else rounded."""
        values = self.to_data(x)
        if self.width:
            values = np.floor(values / self.width) * self.width + 0.0  # no -0
        else:
            values = rounded(values, self.deviation.numpy())
        return self._as_in_file(values)

    def _as_in_file(self, values: np.ndarray) -> np.ndarray:
        """Within the bounds, and with the columns that were kept aside."""
        if self.bounds != (None, None):
            values = np.clip(values, *self.bounds)
        return self.aside.put_back(values) if self.aside else values

    def mean_as_written(self, mean: Tensor) -> np.ndarray:
        """Means of x_0 in the data's units, without what blurring adds."""
        means = rounded(self.to_data(mean) - self.width / 2, self.deviation.numpy())
        return self._as_in_file(means)

    # --- Forwards

    def sample_prior(self, u: Tensor) -> Tensor:
        """x_T: standard normal. u: (B, D) uniform on (0, 1)."""
        return normal(u)

    def sample_x_t(self, x_0: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """q(x_t | x_0). x_0: (B, D); t: (B,) in 0..T; u: (B, D) uniform. Returns (B, D)."""
        signal, noise = self.alpha[t].sqrt().float(), self.lost[t].sqrt().float()
        return signal[:, None] * x_0 + noise[:, None] * normal(u)

    def forward_step(self, x_r: Tensor, r: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """Draw q(x_t | x_r) = N( sqrt(1 - beta) x_r, beta ). t, r: (B,) with r < t."""
        log_kept = (self.log_alpha[t] - self.log_alpha[r])[:, None]  # (B, 1)
        signal, noise = (log_kept / 2).exp().float(), (-torch.expm1(log_kept)).sqrt().float()
        return signal * x_r + noise * normal(u)

    def noise_in(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """eps with x_t = sqrt(alpha_t) x_0 + sqrt(1 - alpha_t) eps. Returns (B, D)."""
        signal, noise = self.alpha[t].sqrt().float(), self.lost[t].sqrt().float()
        return (x_t - signal[:, None] * x_0) / noise[:, None]

    # --- Backwards

    def predict_x_0(self, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] as the network sees it, (x_t - sqrt(1 - alpha_t) eps) / sqrt(alpha_t)."""
        signal, noise = self.alpha[t].sqrt().float(), self.lost[t].sqrt().float()
        return (x_t - noise[:, None] * self._eps(output, x_t)) / signal[:, None]

    def _eps(self, output: Tensor, x_t: Tensor) -> Tensor:
        return output[:, : x_t.shape[1]]

    def _step(self, t: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """beta from r to t, the posterior's variance and its weight of x_0, (B, 1) each.

        q(x_r | x_t, x_0) = N( weight x_0 + ... x_t, variance ) (Ho et al. 2020, eq. 6 and 7).
        """
        alpha_r = self.alpha[r][:, None]
        lost_t, lost_r = self.lost[t][:, None], self.lost[r][:, None]
        beta = -torch.expm1(self.log_alpha[t] - self.log_alpha[r])[:, None]
        return beta, beta * lost_r / lost_t, alpha_r.sqrt() * beta / lost_t

    def reverse_mean(self, x_t: Tensor, output: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """The mean of p(x_r | x_t), (x_t - beta / sqrt(1 - alpha_t) eps) / sqrt(1 - beta)."""
        alpha_t, alpha_r = self.alpha[t][:, None], self.alpha[r][:, None]
        beta, _, _ = self._step(t, r)
        pull = (beta / self.lost[t][:, None].sqrt()).float()
        return (alpha_r / alpha_t).sqrt().float() * (x_t - pull * self._eps(output, x_t))

    def log_reverse_variance(self, x_t: Tensor, output: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """log of the variance of p(x_r | x_t), (B, 1) or, if it is learned, (B, D).

        The last step's true variance depends on how rough the data are; fixed ones take beta there.
        """
        beta, posterior, _ = self._step(t, r)
        is_end = (r == 0)[:, None]
        if self.variance == "posterior":
            return torch.where(is_end, beta, posterior).log().float()
        if self.variance == "beta":
            return beta.log().float()
        least = torch.where(is_end, beta / 2, posterior)
        span = (beta / least).log().float()
        return least.log().float() + 2 * torch.sigmoid(output[:, x_t.shape[1] :]) * span

    def reverse_step(self, x_t: Tensor, output: Tensor, t: Tensor, r: Tensor, u: Tensor) -> Tensor:
        """Draw x_r ~ p(x_r | x_t). x_t, u: (B, D); t, r: (B,) with r < t. Returns (B, D)."""
        deviation = (self.log_reverse_variance(x_t, output, t, r) / 2).exp()
        return self.reverse_mean(x_t, output, t, r) + deviation * normal(u)

    def deterministic_step(self, x_t: Tensor, output: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """x_r with the same eps as x_t has (DDIM: Song et al. 2021, eq. 12 without noise)."""
        signal, noise = self.alpha[r].sqrt().float(), self.lost[r].sqrt().float()
        x_0 = self.predict_x_0(x_t, output, t)
        return signal[:, None] * x_0 + noise[:, None] * self._eps(output, x_t)

    # --- The bound

    def times(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Times and their probabilities: by how much a step decides, and a fifth of them uniform.

        u: any shape, in [0, 1]. Returns t (int64 in 1..T) and P(t), of u's shape.
        """
        index = torch.searchsorted(self._cumulative, u.to(self._cumulative.dtype))
        index = index.clamp_(max=self.T - 1)
        return index + 1, self._probability[index].float()

    def step_divergence(
        self, x_0: Tensor, x_t: Tensor, output: Tensor, t: Tensor, r: Tensor
    ) -> Tensor:
        """KL( q(x_r | x_t, x_0) || p(x_r | x_t) ) summed over the numbers, in bits.

        At r = 0, where q is certain, it is -log2 of the density p(x_0 | x_t).
        x_0, x_t: (B, D); t, r: (B,) with r < t. Returns (B,).
        """
        beta, posterior, weight = self._step(t, r)
        is_end = (r == 0)[:, None]
        log_variance = self.log_reverse_variance(x_t, output, t, r)
        off_by = (weight * (self.lost[t] / self.alpha[t]).sqrt()[:, None]).float()
        error = self._eps(output, x_t) - self.noise_in(x_0, x_t, t)
        squared = (off_by * error).square() * (-log_variance).exp()
        # log(variance / posterior) + posterior / variance - 1, or at r = 0 log(2 pi variance)
        log_posterior = torch.where(is_end, beta, posterior).log().float()
        ratio = log_variance - log_posterior
        spread = torch.where(is_end, log_variance + LOG_2_PI, ratio + torch.expm1(-ratio))
        return (squared + spread).sum(dim=1) / (2 * math.log(2))

    def fixed_terms(self, x_0: Tensor) -> Tensor:
        """What the bound holds beside the steps, in bits: KL( q(x_T | x_0) || N(0, 1) ) and the units.

        x_0: (B, D). Returns (B,).
        """
        alpha, lost = self.alpha[-1].float(), self.lost[-1].float()
        nats = (alpha * x_0.square() - alpha - lost.log()) / 2
        return nats.sum(dim=1) / math.log(2) + self.log2_deviations

    def squared_error(self, x_0: Tensor, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The squared error of the noise prediction, summed over the numbers. Returns (B,)."""
        return (self._eps(output, x_t) - self.noise_in(x_0, x_t, t)).square().sum(dim=1)

    def control(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The squared error's share of a term of the bound if the model were standard normal, in bits.

        It can be taken off each term and put back as control_total, where nothing of it is random. Other
        data are not so different: a tenth of the variance, or less, is left.
        x_0, x_t: (B, D); t: (B,) in 1..T. Returns (B,).
        """
        alpha, cross = self.alpha[t].float(), (self.alpha[t] * self.lost[t]).sqrt().float()
        error = alpha[:, None] * self.noise_in(x_0, x_t, t) - cross[:, None] * x_0
        return self._control_scale[t].float() * error.square().sum(dim=1)

    def control_total(self, x_0: Tensor) -> Tensor:
        """The sum over t of the means of control over x_t: (B,) bits. x_0: (B, D)."""
        scale, alpha, lost = self._control_scale[1:], self.alpha[1:], self.lost[1:]
        eps, signal = (scale * alpha.square()).sum(), (scale * alpha * lost).sum()
        return (eps * x_0.shape[1] + signal * x_0.square().sum(dim=1)).float()

    def control_variate(self, x_0: Tensor, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """control less its mean over x_t, whatever the network says of x_0 itself. (B,) bits."""
        alpha, cross = self.alpha[t], self.alpha[t] * self.lost[t]
        mean = alpha.square() * x_0.shape[1] + cross * x_0.square().sum(dim=1)
        return self.control(x_0, x_t, t) - (self._control_scale[t] * mean).float()

    # --- With evidence: what is known of x_0 from elsewhere, a value and its noise's variance

    def evidence_of(self, known: Tensor, noise: float = 0.0) -> Tensor:
        """Values seen through Gaussian noise. known: (..., D) in the data's units, NaN if unknown.

        noise: standard deviation in the data's units, 0 for exact values. Blurred numbers are taken
        at the middle of their cells. Returns (..., D, 2) float32 on the device: the standardised
        value and the variance of its noise, infinite where nothing is known.
        Raises UserError for a value that is too far away for float32.
        """
        if self.aside and known.shape[-1] == len(self.mean) + len(self.aside.columns):
            known = self._without_aside(known.cpu().numpy(), noise)
        unknown = known.isnan().cpu()
        # in float64, since data may vary little around a large mean
        value = (known.cpu().double() + self.width / 2 - self.mean) / self.deviation
        value = value.masked_fill(unknown, 0)
        if len(far := (value.abs() > FARTHEST).nonzero()):
            *row, column = far[0].tolist()
            raise UserError(
                f"{f'pattern {row[0] + 1}, ' if row else ''}"
                f"number {place_in_file(column, self.aside) + 1}:"
                f" {known[tuple(far[0])]:g} is more than a million deviations from the training data's"
                f" mean, {self.mean[column]:g}; write ? if it is not known"
            )
        share = (noise / self.deviation).square()
        share = share.masked_fill(share < LEAST_NOISE, 0).clamp(max=1 / LEAST_NOISE)
        variance = share.expand_as(value).masked_fill(unknown, math.inf)
        return torch.stack([value, variance], dim=-1).float().to(self.alpha.device)

    def _without_aside(self, known: np.ndarray, noise: float) -> Tensor:
        """known (..., D + k) without the columns kept aside. Raises UserError for other values."""
        lines = known.reshape(-1, known.shape[-1])
        if not noise and (other := self.aside.first_other(lines)):
            row, k = other
            column = self.aside.columns[k]
            raise UserError(
                f"{f'pattern {row + 1}, ' if len(lines) > 1 else ''}number {column + 1}:"
                f" {lines[row, column]:g}, but it is {self.aside.values[k]:g} in all training data"
            )
        return torch.from_numpy(self.aside.taken_off(known))

    def evidence_of_x_0(self, x_0: Tensor) -> Tensor:
        """Evidence that says all of x_0. x_0: (..., D) standardised."""
        return torch.stack([x_0, torch.zeros_like(x_0)], dim=-1)

    def known_share(self, evidence: Tensor) -> Tensor:
        """How much of x_0 evidence tells, as a share of all: the mean of 1 / (1 + variance). (B,)"""
        return (1 / (1 + evidence[..., 1])).mean(dim=1)

    def evidence_at_0(self, x_0: Tensor, evidence: Tensor) -> Tensor:
        """log of the density of what was observed given x_0, in nats and the data's units. (B,)

        Exact values are not counted here but where they are reached, in guided_step.
        """
        value, variance = evidence.unbind(dim=-1)
        noisy = (variance > 0) & variance.isfinite()
        variance = torch.where(noisy, variance, 1)
        log_p = -((x_0 - value).square() / variance + variance.log() + LOG_2_PI) / 2
        log_p = torch.where(noisy, log_p, 0) - self._log_units(evidence)
        return log_p.double().sum(dim=1).to(self.alpha.dtype)

    def _log_units(self, evidence: Tensor) -> Tensor:
        """log of the deviations of the numbers that something is known of, else 0. (B, D)"""
        log_deviation = self.deviation.log().to(evidence)
        return torch.where(evidence[..., 1].isfinite(), log_deviation, 0)

    def _belief(self, x_t, output, t, r) -> tuple[Tensor, Tensor]:
        """E[x_0 | x_t] and its variance, number by number: (B, D) and (B, 1) or (B, D).

        The variance is that of the step to r, less the posterior's, as far as it was learned; else
        that for standard normal data, 1 - alpha_t (as in Song et al. 2023, PiGDM).
        """
        x_0 = self.predict_x_0(x_t, output, t)
        generic = self.lost[t][:, None].float()
        if self.variance != "learned":
            return x_0, generic
        _, posterior, weight = self._step(t, r)
        variance = self.log_reverse_variance(x_t, output, t, r).exp() - posterior.float()
        return x_0, (variance / weight.square().float()).clamp(min=1e-3 * generic)

    def look_ahead(self, x_t: Tensor, output: Tensor, evidence: Tensor, t: Tensor) -> Tensor:
        """log of the density of what was observed given x_t, as the denoiser sees it; nats. (B,)"""
        x_0, variance = self._belief(x_t, output, t, t - 1)
        value, noise = evidence.unbind(dim=-1)
        known = noise.isfinite()
        variance = variance + torch.where(known, noise, 0)
        log_p = -((value - x_0).square() / variance + variance.log() + LOG_2_PI) / 2
        log_p = torch.where(known, log_p, 0) - self._log_units(evidence)
        return log_p.double().sum(dim=1).to(self.alpha.dtype)

    def guided_step(
        self, x_t: Tensor, output: Tensor, evidence: Tensor, t: Tensor, r: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A reverse step that leans towards the evidence, and the weight that makes up for it.

        x_r ~ g(x_r | x_t), what the step would be if the belief about x_0 took the evidence in: known
        numbers move by the true posterior, unknown ones as in the model. Numbers known exactly
        arrive at r = 0 at their value, with weight p(value | x_t).
        x_t, u: (B, D); evidence: (B, D, 2); t, r: (B,) with r < t.
        Returns x_r (B, D) and log p / g (B,) in nats.
        """
        mean = self.reverse_mean(x_t, output, t, r)
        variance = self.log_reverse_variance(x_t, output, t, r).exp().expand_as(x_t)
        x_0, belief = self._belief(x_t, output, t, r)
        value, noise = evidence.unbind(dim=-1)
        known = noise.isfinite()
        noise = torch.where(known, noise, 0)
        _, posterior, weight = (part.float() for part in self._step(t, r))
        heed = belief / (belief + noise)  # 1: the evidence is all
        lean_mean = torch.where(known, mean + weight * heed * (value - x_0), mean)
        lean_variance = posterior + weight.square() * heed * noise
        lean_variance = torch.where(known, lean_variance, variance)
        z = normal(u)
        arrived = lean_variance == 0  # exactly known, and r = 0: no density to divide by
        x_r = torch.where(arrived, value, lean_mean + lean_variance.sqrt() * z)
        # -2 log p and -2 log g, both less log(2 pi)
        cost_p = (x_r - mean).square() / variance + variance.log()
        cost_g = z.square() + torch.where(arrived, 1, lean_variance).log()
        cost_g = torch.where(arrived, -LOG_2_PI, cost_g)
        gained = torch.where(known, cost_g - cost_p, 0) / 2
        return x_r, gained.double().sum(dim=1).to(self.alpha.dtype)
