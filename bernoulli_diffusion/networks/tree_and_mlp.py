"""A tractable network and what is missing: the log-odds of a tree or a mixture plus those of an MLP.

Idea: log-odds of independent hints add up. prepare() fits the base, a hidden Chow-Liu tree or a mixture
of products, to the data in seconds. Then the base stays as it is, and the MLP, whose output starts at
zero, learns what it lacks. So training starts where the base ends.

Source: residual learning (He et al. 2015, arXiv 1512.03385), with another kind of model as the shortcut.

Helps where the base alone is good and not all: the start is better than the end of an MLP on small data.
Cost: one call of the base beside the MLP's training step; its gradient is not needed.
"""

import torch
from torch import Tensor, nn

from bernoulli_diffusion import reverse_model
from bernoulli_diffusion.networks import hidden_tree, mixture

BASES = {"hidden_tree": hidden_tree, "mixture": mixture}


class ReverseModel(nn.Module):
    """base(x_t, t) + MLP(x_t, t); base: hidden_tree or mixture, with base_options."""

    def __init__(
        self,
        sequence_length: int,
        T: int,
        base: str = "hidden_tree",
        base_options: dict | None = None,
        **options,
    ):
        super().__init__()
        self.T = T
        if base not in BASES:
            raise ValueError(f"base: expected one of {', '.join(BASES)}, found {base!r}")
        self.base = BASES[base].ReverseModel(sequence_length, T, **(base_options or {}))
        self.base.requires_grad_(False)
        self.mlp = reverse_model.ReverseModel(sequence_length, T, companions=(), **options)
        # what the MLP says of each bit before it is trained: the base says that already
        self.register_buffer("known", torch.zeros(sequence_length))
        self.register_buffer("confidence", torch.ones(()))  # chosen on val, after training

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        logits = self.base(x_t, t) + self.mlp(x_t, t) - self.known
        return logits if self.training else self.known.lerp(logits, self.confidence)

    def prepare(self, x_0: Tensor) -> None:
        """Fit the base to x_0, (n, L) float 0/1, and let the MLP look at it."""
        self.base.prepare(x_0)
        if hasattr(self.mlp, "prepare"):
            self.mlp.prepare(x_0)
            with torch.no_grad():
                self.known.copy_(self.mlp(x_0[:1], torch.full((1,), self.T))[0])
