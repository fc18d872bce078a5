"""Bernoulli diffusion: learn the distribution of binary strings of fixed length, and sample it.

Sohl-Dickstein et al. 2015, "Deep Unsupervised Learning using Nonequilibrium Thermodynamics"
(arXiv 1503.03585), with Bernoulli noise.
"""

import os

# Before torch is imported. OpenMP's threads wait for each other by spinning, which on a core that
# somebody else needs too makes small networks up to a hundred times slower. Let them sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "1.0.0"
