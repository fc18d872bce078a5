"""Records that are valid: the bits of a column are drawn together, as one of its codes.

The network speaks of single bits. A perfect one knows P(x_0,i = 1 | x_t) exactly, and then the
probabilities of a column's codes too: of one-hot bits they are those of its bits, of a thermometer
the differences of neighbours, for bit i says that the code is above i. So a code can be drawn whole,
and no record is invalid.
"""

import numpy as np
import torch
from torch import Tensor

from .encoding import Encoding


class Groups:
    """The bits of each column, as index tensors for all columns at once.

    G columns with bits, of at most K codes each; L bits.
    """

    def __init__(self, encoding: Encoding, device: torch.device | str = "cpu"):
        L, G = encoding.length, len(encoding.coded)
        K = max(c.num_codes for c in encoding.coded)
        is_gap, first, last, one_hot = np.zeros(L, bool), [], [], []
        zero, one = L, L + 1  # places behind the bits, where a 0 and a 1 stand
        plus, minus, gap = (np.full((G, K), zero) for _ in range(3))
        for g, (column, place) in enumerate(zip(encoding.coded, encoding.slices, strict=True)):
            k, start = len(column.texts), place.start
            if column.is_one_hot:
                plus[g, :k] = start + np.arange(k)
                first += [len(one_hot)] * column.width
                one_hot += range(place.start, place.stop)
                last += [len(one_hot) - 1] * column.width
            else:
                plus[g, 0] = one
                plus[g, 1:k] = minus[g, : k - 1] = start + np.arange(k - 1)
                if column.has_missing_code:
                    gap[g, 0] = place.stop - 1
                    is_gap[place.stop - 1] = True
            if column.has_missing_code:
                plus[g, k] = place.stop - 1
        self.plus, self.minus, self.gap = (
            torch.from_numpy(i).to(device) for i in (plus, minus, gap)
        )
        # of each bit: its column, and whether it says that a thermometer has no value
        of_bit = np.repeat(np.arange(G), [c.width for c in encoding.coded])
        self.column, self.is_gap = (torch.from_numpy(i).to(device) for i in (of_bit, is_gap))
        # the bits of one-hot columns and, among these, the first and the last one of each bit's column
        self.one_hot, self.first, self.last = (
            torch.tensor(i, dtype=torch.int64, device=device) for i in (one_hot, first, last)
        )
        self.exists = torch.from_numpy(plus != zero).to(device)  # (G, K) bool

    def probabilities(self, p: Tensor) -> Tensor:
        """P(code) of each column from those of its bits. p: (B, L). Returns (B, G, K), each sums to 1."""
        p = torch.cat([p, p.new_zeros(len(p), 1), p.new_ones(len(p), 1)], dim=1)
        codes = p[:, self.plus] - p[:, self.minus] - p[:, self.gap]
        codes = codes.clamp_min_(1e-9) * self.exists  # a network's differences may be below 0
        return codes / codes.sum(dim=2, keepdim=True)

    def draw_bits(self, p: Tensor, u: Tensor) -> Tensor:
        """The bits of a code of each column, drawn together. p: (B, L) of a 1; u: (B, G). (B, L) float.

        Of a thermometer, the bits whose probability is above u. They are a code's if the probabilities of
        a column are those of its codes; a network's may be not quite so.
        """
        u = u[:, self.column]
        x = torch.where(self.is_gap, u >= 1 - p, u < p).float()
        if len(self.one_hot):
            ends = p[:, self.one_hot].cumsum(dim=1)
            starts = torch.cat([ends.new_zeros(len(ends), 1), ends[:, :-1]], dim=1)
            start, end = starts[:, self.first], ends[:, self.last]
            mark = start + u[:, self.one_hot] * (end - start)
            x[:, self.one_hot] = ((starts <= mark) & (mark < ends)).float()
        return x

    def draw(self, probability: Tensor, u: Tensor) -> Tensor:
        """A code of each column. probability: (B, G, K), need not add up to 1; u: (B, G). (B, G)."""
        ends = probability.cumsum(dim=2)
        codes = (ends < u[:, :, None] * ends[:, :, -1:]).sum(dim=2)
        # rounding must not end on a code that cannot be
        possible = (probability > 0) * torch.arange(ends.shape[2], device=u.device)
        return torch.minimum(codes, possible.amax(dim=2))
