"""Bernoulli diffusion: learn the distribution of binary strings of fixed length, and sample it.

Sohl-Dickstein et al. 2015, "Deep Unsupervised Learning using Nonequilibrium Thermodynamics"
(arXiv 1503.03585), with Bernoulli noise.
"""

__version__ = "1.0.0"
