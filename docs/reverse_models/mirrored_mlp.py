"""The default network for data that mean the same with 0 and 1 exchanged; how to derive from it.

Idea: if a string and its complement are equally probable, the log-odds of a bit change sign when all
bits are flipped. The network is made to obey: half its answer for x_t, less half that for 1 - x_t.
Whatever it then learns from one string it knows of the complement too.

Source: group averaging, an old way to teach a network a symmetry. It starts from the package's own
network (a residual MLP told the time in every block; bernoulli_diffusion/reverse_model.py), which
needs no copy here: it is what a run folder without a reverse_model.py uses, and all its options
(width, num_blocks, dropout) are this one's too. If you edit that file, checkpoints of this network
change with it; to be safe from that, put its classes in the place of the import.

Helps for the Ising model without a field, for codes, for anything in which 0 and 1 are mere names.
Wrong for most other data: every single bit is then 1 in half of the samples.
Cost: two passes through the default network.
"""

from torch import Tensor

from bernoulli_diffusion import reverse_model


class ReverseModel(reverse_model.ReverseModel):
    """l(x_t) = (default(x_t) - default(1 - x_t)) / 2."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        return (super().forward(x_t, t) - super().forward(1 - x_t, t)) / 2
