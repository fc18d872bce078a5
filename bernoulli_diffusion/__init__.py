"""Bernoulli diffusion: learn the distribution of binary strings of fixed length, and sample it.

Sohl-Dickstein et al. 2015, "Deep Unsupervised Learning using Nonequilibrium Thermodynamics"
(arXiv 1503.03585), with Bernoulli noise.
"""

import sys

__all__ = ["BernoulliDiffusion", "__version__"]
__version__ = "2.0.0"

# Before modules that an older Python cannot even parse.
if sys.version_info < (3, 10):  # noqa: UP036
    sys.stderr.write("error: Python 3.10 or newer is needed; this is " + sys.version.split()[0])
    sys.stderr.write(" (" + sys.executable + ")\n")
    sys.exit(2)


def __getattr__(name: str):
    """BernoulliDiffusion, which imports torch, only when it is asked for."""
    if name == "BernoulliDiffusion":
        from .estimator import BernoulliDiffusion

        return BernoulliDiffusion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
