"""A crowd of small probabilistic automata: the exact posterior, if one of them wrote the data.

Idea: an automaton reads a string bit by bit and changes its state with each; how it ends says how
welcome the string is. For strings seen through noise, what the other bits say of bit i is a sum over
all paths of states, and one pass from the left and one from the right find it. The noise of x_t is
known, so the time needs no network: all that is learnt is the automata. Logit i never sees bit i.

A wrong automaton gives no slope towards the right one: to all but the right one the multiples of 5,
say, look random. So there are many at once, and each starts close to a random permutation of its
states for each bit, which forgets nothing on the way. Those that explain something by chance, or nearly
do, gain weight; gradient descent does the rest. Of pairs of permutations of 5 states one in 120 is the
rule for multiples of 5.

Source: the forward-backward algorithm of hidden Markov models (Rabiner 1989, "A tutorial on hidden
Markov models and selected applications in speech recognition"), used here as a layer.

Helps where a rule runs through the whole string and a few states are all it needs to remember:
remainders, parities, beats, grammars. No use where much must be remembered (patterns that repeat).
Cost: 4 L num_automata num_states^2 products a string, in two loops over the L bits.
"""

import torch
from torch import Tensor, nn


class ReverseModel(nn.Module):
    """P(x) = sum over automata and paths: P(next bit | state) P(next state | state, bit) P(end)."""

    def __init__(
        self,
        sequence_length: int,
        T: int,
        num_states: int = 5,
        num_automata: int = 64,
        sharpness: float = 5.0,
    ):
        super().__init__()
        self.T = T
        K, S = num_automata, num_states
        self.share = nn.Parameter(torch.zeros(K))  # log-weight of each automaton
        self.bit = nn.Parameter(torch.zeros(K, S))  # log-odds that the next bit is 1
        target = torch.rand(K, 2, S).argsort(dim=2)  # a permutation of the states for each bit
        start = nn.functional.one_hot(target, S).float() * sharpness
        self.move = nn.Parameter(start)  # (K, bit, state, next state), logits
        self.end = nn.Parameter(torch.zeros(K, S))  # log-weight of ending in each state

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        (K, S), B = self.end.shape, len(t)
        alpha = (1 - t / self.T)[:, None]  # (B, 1)
        one = (1 + alpha * (2 * x_t - 1)) / 2  # (B, L) P(x_t | x_0 = 1)
        seen = torch.stack([1 - one, one])[:, None].unbind(dim=3)  # for each bit (2, 1, B)
        p = torch.stack([torch.sigmoid(-self.bit), torch.sigmoid(self.bit)], dim=1)  # (K, 2, S)
        step = p[..., None] * self.move.softmax(dim=3)  # (K, 2, S, S)
        ahead = step.transpose(2, 3).reshape(K, 2 * S, S)  # to (bit, next state) from a state
        back = step.transpose(1, 2).reshape(K, S, 2 * S)  # to a state from (bit, next state)

        first = nn.functional.pad(self.share.softmax(dim=0)[:, None], (0, S - 1))  # (K, S), state 0
        left = normalised(first[:, :, None].expand(K, S, B))
        moved = []  # for each bit, what is on its left: the probability of (bit, state after it)
        for evidence in seen:
            moved.append((ahead @ left).view(K, 2, S, B))
            left = normalised((moved[-1] * evidence).sum(dim=1))
        right = normalised(self.end.softmax(dim=1)[:, :, None].expand(K, S, B))
        logits = []
        for before, evidence in zip(reversed(moved), reversed(seen), strict=True):
            zero, one = (before * right[:, None]).sum(dim=(0, 2)).clamp_min(1e-30).log()  # (B,)
            logits.append(one - zero)
            right = normalised(back @ (right[:, None] * evidence).view(K, 2 * S, B))
        return torch.stack(logits[::-1], dim=1)


def normalised(message: Tensor) -> Tensor:
    """(K, S, B) -> the same with a sum of 1 for each string, so that long products stay in range."""
    return message / message.sum(dim=(0, 1))
