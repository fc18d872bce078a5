"""Bernoulli diffusion: learn the distribution of binary strings of fixed length, and sample it.

Sohl-Dickstein et al. 2015, "Deep Unsupervised Learning using Nonequilibrium Thermodynamics"
(arXiv 1503.03585), with Bernoulli noise.
"""

import os

# Before torch is imported: how long GNU OpenMP's threads wait for each other awake. Always asleep
# (PASSIVE) doubles the time of a training step; as long as is the default, they take the core from
# whoever else needs it, and all get slower still.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "1.0.0"
