"""Bernoulli diffusion: learn the distribution of binary strings of fixed length, and sample it.

Sohl-Dickstein et al. 2015, "Deep Unsupervised Learning using Nonequilibrium Thermodynamics"
(arXiv 1503.03585), with Bernoulli noise.
"""

import contextlib
import ctypes
import os
import sys

# Before torch is imported: how long GNU OpenMP's threads wait for each other awake. Always asleep
# (PASSIVE) doubles the time of a training step; as long as is the default, they take the core from
# whoever else needs it, and all get slower still.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# A training step's memory serves the next one. By default the GNU C library gives it back to the
# system after each step, which hands it out again zeroed, page by page: at L = 784 two thousand
# pages, 6% of the time.
if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most there may be
        mallopt(M_TRIM_THRESHOLD, 256 << 20)

__version__ = "1.0.0"
