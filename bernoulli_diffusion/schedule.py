"""Schedules: alpha_t, how much of the data is left at time t. A new one is a function and its name.

Each takes (T, beta_min, beta_max) and returns alpha_0 .. alpha_T, (T + 1,) float64, falling from 1.
What it means is the process's: of bits, the share that was never redrawn; of numbers, the share of
the variance that is signal (a bar over it in Ho et al. 2020). Bits end at alpha_T = 0 whatever the
schedule, numbers lose half of the variance in one step at most.
"""

import numpy as np


def harmonic(T: int, beta_min: float, beta_max: float) -> np.ndarray:
    """beta_t = 1 / (T - t + 1), so alpha_t = 1 - t/T (Sohl-Dickstein et al. 2015, appendix B)."""
    return 1 - np.arange(T + 1) / T


def linear(T: int, beta_min: float, beta_max: float) -> np.ndarray:
    """beta_t from beta_min to beta_max (Ho et al. 2020, section 4)."""
    kept = 1 - np.linspace(beta_min, beta_max, T)
    return np.concatenate([[1.0], kept.cumprod()])


def cosine(T: int, beta_min: float, beta_max: float) -> np.ndarray:
    """A squared cosine that begins a little later than at 0 (Nichol & Dhariwal 2021, eq. 17)."""
    angle = (np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2
    alpha = np.cos(angle) ** 2
    return alpha / alpha[0]


SCHEDULES = {"harmonic": harmonic, "linear": linear, "cosine": cosine}
