"""The 2015 paper's network: a small MLP shared by all times, and one read-out for each time.

Idea: what the noisy string shows is much the same at all times, what follows from it is not. So the
hidden layers never see t, and every t has a linear read-out of its own.

Source: Sohl-Dickstein et al. 2015 (arXiv 1503.03585) used such a perceptron with layers of 50 units
on the heartbeat data. github.com/horenbergerb/BernoulliDiffusion wrote it for PyTorch, and there
(1) a sigmoid turned the output into the probabilities of x_(t-1), so that each of the T read-outs
had to learn to copy x_t, and at first had no idea of it; here the output is what the *other* bits say
of x_0, and a read-out that says nothing costs nothing;
(2) one t served a whole batch, so that a step of training ran through all T times; here each row
picks the read-out of its own time;
(3) read-outs started at random; here they start at zero, where the bound is exactly L bits.

Helps as the historical point of comparison, with long training and a small T. Read-outs learn nothing
from their neighbours in time: each sees 1/T of the data.
Cost: fast to evaluate, but T L (width + 1) parameters, all of which every step of AdamW touches.
"""

import torch
from torch import Tensor, nn


class ReverseModel(nn.Module):
    """read_out[t](MLP(x_t))."""

    def __init__(self, sequence_length: int, T: int, width: int = 50):
        super().__init__()
        self.shared = nn.Sequential(
            nn.Linear(sequence_length, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        # for each time a matrix and, as its last row, a bias
        self.read_outs = nn.Parameter(torch.zeros(T, width + 1, sequence_length))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        h = self.shared(2 * x_t - 1)[:, None]  # (B, 1, width)
        read_out = self.read_outs[t - 1]  # (B, width + 1, L)
        return torch.baddbmm(read_out[:, -1:], h, read_out[:, :-1])[:, 0]  # (B, L)
