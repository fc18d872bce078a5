"""Bits with schedules other than the 2015 paper's: process, bound and samplers against enumeration."""

import exact
import pytest
import torch

from bernoulli_diffusion.bits import check_config
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.conditioning import denoised
from bernoulli_diffusion.config import Config
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import exact_law
from bernoulli_diffusion.noise import Noise
from bernoulli_diffusion.sampling import grid_times, sample
from bernoulli_diffusion.system.errors import UserError

L, T = 3, 6
BETAS = {"cosine": exact.cosine_betas(T), "linear": exact.linear_betas(T, 0.05, 0.4)}
Z_LIMIT = 4.5
pytestmark = pytest.mark.parametrize("schedule", BETAS)


def build(schedule: str) -> Diffusion:
    process = BernoulliDiffusionProcess(T, schedule=schedule, beta_min=0.05, beta_max=0.4)
    return Diffusion(process, exact.random_model(L, T, seed=3, chain=BETAS[schedule]))


def test_alpha_falls_from_1_to_0(schedule):
    process = build(schedule).process
    torch.testing.assert_close(process.alpha, exact.alphas(BETAS[schedule]), rtol=0, atol=1e-14)
    assert process.alpha[0] == 1
    assert process.alpha[-1] == 0
    assert (process.alpha.diff() < 0).all()


def test_times_have_their_probability(schedule):
    process = build(schedule).process
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    t, probability = process.times(u)
    share = torch.bincount(t, minlength=T + 1)[1:].double() / len(t)
    by_time = process.times((process.alpha[:-1] + process.alpha[1:]).div(-2).add(1).sqrt())
    assert by_time[0].tolist() == list(range(1, T + 1))
    torch.testing.assert_close(share, by_time[1], rtol=0, atol=2e-5)
    assert (1 / probability).mean().item() == pytest.approx(T, rel=1e-3)  # sum of P (1 / P)


def test_bound_is_exact(schedule):
    """The mean of the terms over all x_t is the enumerated bound, at every time."""
    diffusion = build(schedule)
    model, x = diffusion.reverse_model, exact.states(L).float()
    x_0, x_t = x.repeat_interleave(2**L, 0), x.repeat(2**L, 1)
    for step, expected in enumerate(exact.bound_terms(model), 1):
        t = torch.full((len(x_t),), step)
        terms = diffusion.process.step_divergence(x_0, x_t, model(x_t, t), t, t - 1).double()
        weight = exact.forward_kernel(L, BETAS[schedule], 0, step)
        got = (weight * terms.view(2**L, 2**L)).sum(dim=1)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_law_and_samples_are_exact(schedule):
    diffusion = build(schedule)
    law = exact.law(diffusion.reverse_model)
    torch.testing.assert_close(exact_law(diffusion, L), law, rtol=1e-5, atol=1e-7)
    for sampler in ("ancestral", "thinned"):
        x_0 = torch.cat(list(sample(diffusion, L, range(50_000), 5, sampler=sampler)))
        assert abs(exact.chi_square_z(exact.index(x_0), law)) < Z_LIMIT
    grid = exact.law(diffusion.reverse_model, grid_times(T, 3))
    x_0 = torch.cat(list(sample(diffusion, L, range(50_000), 6, 3, sampler="ancestral")))
    assert abs(exact.chi_square_z(exact.index(x_0), grid)) < Z_LIMIT


def test_flips_are_bounded_and_the_bound_is_reached(schedule):
    process = build(schedule).process
    x, t = torch.ones(T, 1), torch.arange(1, T + 1)
    wrong = process.flip_probability(x, torch.full((T, 1), -200.0), t, t - 1).squeeze(1)
    torch.testing.assert_close(process.max_flip_probability()[1:].float(), wrong)


def test_a_channel_ends_between_two_times(schedule):
    process = build(schedule).process
    for t in range(1, T + 1):
        flips = ((1 - process.alpha[t]) / 2).item()
        assert process.time_of_channel(flips) == t
        assert process.time_of_channel(flips - 1e-6) == t
        if t < T:
            assert process.time_of_channel(flips + 1e-6) == t + 1
    assert process.time_of_channel(0.0) == 0


def test_denoised_strings_have_the_law_of_the_chain(schedule):
    """At a channel that is x_t for some t, those of the reverse chain from there."""
    diffusion, t = build(schedule), 4
    flips = ((1 - diffusion.process.alpha[t]) / 2).item()
    y = torch.tensor([[1.0, 0.0, 1.0]]).expand(50_000, L)
    x_0 = denoised(diffusion, y, flips, Noise(7, torch.arange(len(y)), L))
    law = torch.zeros(2**L, dtype=torch.float64)
    law[exact.index(y[0])] = 1
    for step in range(t, 0, -1):
        law = law @ exact.reverse_kernel(diffusion.reverse_model, step, step - 1)
    assert abs(exact.chi_square_z(exact.index(x_0), law)) < Z_LIMIT


def test_a_schedule_that_loses_nothing_or_all_is_refused(schedule):
    config = Config()
    config.model.schedule = schedule
    check_config(config, "config.yaml")
    config.model.schedule, config.model.T, config.model.beta_max = "linear", 100_000, 0.5
    with pytest.raises(UserError, match=r"config.yaml: model.schedule: linear .* smaller beta_max"):
        check_config(config, "config.yaml")
