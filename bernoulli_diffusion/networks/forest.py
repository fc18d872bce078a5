"""A forest: trees of questions about single bits, and in each leaf bits that depend on each other.

Idea: a tree asks for the value of one bit, then of another, and so on, until few training strings are
left. In a leaf the bits that were asked for are known, and all others depend on each other along a
Chow-Liu tree, the same in all leaves of a tree, with probabilities of each leaf's own. Many trees, whose
questions are the best of a few drawn at random, are a mixture with equal shares. Seen through noise, two
sweeps along the Chow-Liu tree tell for all leaves together how probable each is, and what bit i is.
prepare() grows the forest. A string that is like none before is left to one more tree, without questions
and ties. All that training changes are the shares of the trees, and that last one.
Logit i never sees bit i.

Source: cutset networks (Rahman, Kothalkar & Gogate 2014), and ensembles of random ones (Di Mauro et al.
2017); one tree for all leaves is the tree-augmented naive Bayes of Friedman, Geiger & Goldszmidt 1997.

Helps with thousands of strings and more, where what one bit tells of another depends on a third; in an
ensemble beside an MLP, which errs elsewhere. No use for rules that join many bits at once.
Cost: about 30 num_trees num_leaves L operations a string, many times those of an MLP.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bernoulli_diffusion.networks.hidden_tree import rooted, spanning_tree

STEP = 10.0  # logs are parameters times this: they need longer steps than the weights of an MLP
RARE = -0.6  # times STEP, the log of the share of independent bits to begin with, beside a tree's
LEAST_SPLIT = 50  # strings that a leaf must have to be divided
LEAST_LEAF = 5  # strings in each part
QUESTIONS = 2  # bits drawn at random for each question, of which the best is asked for
STRINGS = 1.0  # that what is known from elsewhere counts for, beside a leaf's own
SURE = 1e-5  # a probability is never closer to 0 or 1, but for bits that were asked for
ABSENT = -1e30  # the log of the probability of a leaf that is not there
AT_A_TIME = 1 << 22  # values of (nodes, strings, leaves): few enough for the memory


class ReverseModel(nn.Module):
    """P(x) = sum over trees P(tree) sum over leaves P(leaf) prod_i P(x_i | x_parent(i), leaf)."""

    def __init__(self, sequence_length: int, T: int, num_trees: int = 8, num_leaves: int = 256):
        super().__init__()
        self.T, L, M, K = T, sequence_length, num_trees, num_leaves
        self.share = nn.Parameter(torch.tensor([0.0] * M + [RARE]))  # log-share of each tree ...
        self.bits = nn.Parameter(torch.zeros(L))  # ... and of independent bits, with these log-odds
        # A node is a bit of a tree. Nodes stand in the order of their levels, the M roots first; a
        # root is its own parent. Until prepare() has grown trees, all bits hang on the first.
        root = torch.arange(M)
        self.register_buffer("bit", torch.arange(L).repeat_interleave(M))  # (N,), N = M L
        self.register_buffer("parent", root.repeat(L))  # (N,)
        self.register_buffer("tree", root.repeat(L), persistent=False)  # (N,)
        self.register_buffer("place", root.repeat(L), persistent=False)  # of the parent, in a group
        self.register_buffer("one", torch.full((2, M * L, K), 0.5))  # P(x = 1 | parent's x, leaf)
        self.register_buffer("leaf", torch.full((M, K), -torch.tensor(float(K)).log().item()))
        self.register_buffer("frequency", torch.full((L,), 0.5))  # of a 1 in the data
        self.register_buffer("confidence", torch.ones(()))  # chosen on val, after training
        self.set_groups()
        self.register_load_state_dict_post_hook(lambda model, _: model.set_groups())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        alpha = 1 - t / self.T
        certainty = alpha.log1p() - (-alpha).log1p()  # (B,)
        own = certainty[:, None] * (2 * x_t - 1)  # (B, L) log-odds of x_0 by its own x_t
        rows = max(1, AT_A_TIME // (len(self.bit) * self.most_leaves))
        with torch.no_grad():
            parts = [self.told(part) for part in own.split(rows)]
        log_p, p = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
        free = own + STEP * self.bits  # (B, L) log-odds
        log_free = softplus(free).sum(dim=1) - softplus(STEP * self.bits).sum()
        log_p, p = torch.cat([log_p, log_free[None]]), torch.cat([p, both(free)[None]])
        tree = (STEP * self.share[:, None] + log_p).softmax(dim=0)  # (M + 1, B) P(tree | x_t)
        one, zero = (tree[:, :, None, None] * p).sum(dim=0).clamp_min(1e-30).log().unbind(dim=1)
        logits = one - zero - own  # (B, L)
        return logits if self.training else self.frequency.logit().lerp(logits, self.confidence)

    def told(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """What each tree says of strings seen through noise; own: (b, L) log-odds of each bit by itself.

        Returns log P(x_t | tree), but for what is the same for all trees, (M, b), and P(x_0,i = 1) and
        P(x_0,i = 0) given all of x_t and the tree, (M, b, 2, L).
        """
        leaf, table = self.leaf[:, : self.most_leaves], self.one[:, :, : self.most_leaves]
        (M, K), (b, L) = leaf.shape, own.shape
        own = own.T[self.bit][:, :, None]  # (N, b, 1)
        # From the far ends to the roots: what lies below a node says of it, (n, b, K) log-odds, and
        # how probable that is by the value of its parent, seen: (2, n, b, K).
        below = [
            own.new_zeros(group.nodes.stop - group.nodes.start, b, K) if group.is_inner else 0.0
            for group in self.groups
        ]
        chance = own.new_zeros(M, b, K)  # log P(x_t | leaf)
        odds, seen = [None] * len(self.groups), [None] * len(self.groups)
        for g, group in reversed(list(enumerate(self.groups))):
            given = table[:, group.nodes, None]  # (2, n, 1, K)
            odds[g] = (own[group.nodes] + below[g]).clamp_(-60, 60).exp_()
            seen[g] = torch.addcmul(1 - given, given, odds[g])
            log_zero, log_one = seen[g].log()
            chance.index_add_(0, self.tree[group.nodes], log_zero)
            if g:
                place = self.place[group.nodes]
                below[group.above].index_add_(0, place, log_one.sub_(log_zero))
        log_p = (leaf[:, None] + chance).logsumexp(dim=2)  # (M, b)
        # Back again: P(leaf, x_0 of a node | x_t). A root is asked as if its parent were 0.
        p = own.new_empty(M, L, b, 2)
        leaf = (leaf[:, None] + chance - log_p[:, :, None]).exp_()  # (M, b, K)
        values = [None] * len(self.groups)  # (2, n, b, K), of being 0 and 1
        for g, group in enumerate(self.groups):
            given = table[:, group.nodes, None]
            if g:
                above = values[group.above][:, self.place[group.nodes]].div_(seen[g])
            else:
                above = torch.stack([leaf, torch.zeros_like(leaf)]).div_(seen[g])
            if group.is_inner:
                values[g] = torch.empty_like(seen[g])
                for value, chances in enumerate((1 - given, given)):
                    torch.mul(above[0], chances[0], out=values[g][value])
                    values[g][value].addcmul_(above[1], chances[1])
                values[g][1].mul_(odds[g])
                found = values[g].sum(dim=3).flip(0).permute(1, 2, 0)  # (n, b, 2)
            else:
                chances = torch.stack([given, 1 - given], dim=4)[:, :, 0]  # (2, n, K, 2)
                found = (above @ chances).sum(dim=0)
                found[:, :, :1] *= odds[g]
            p[self.tree[group.nodes], self.bit[group.nodes]] = found
        return log_p, p.permute(0, 2, 3, 1)

    # ------------------------------------------------------------------------------- the trees

    @torch.no_grad()
    def prepare(self, x_0: Tensor) -> None:
        """Grow the trees on x_0, (n, L) float 0/1, and 0.5 where a bit is unknown: then it is drawn."""
        known = x_0 != 0.5
        self.frequency.copy_(((x_0 == 1).sum(dim=0) + 0.5) / (known.sum(dim=0) + 1))
        self.bits.copy_(self.frequency.logit() / STEP)
        x = torch.where(known, x_0, (torch.rand_like(x_0) < self.frequency).float())
        bits, parents, ones = [], [], []
        for tree, leaf in enumerate(self.leaf):
            leaf.fill_(ABSENT)
            grown = grow(x, len(leaf))
            leaf[: len(grown)] = torch.stack([log_share for _, _, log_share in grown])
            weight = sum(len(rows) * mutual_information(x[rows]) for rows, _, _ in grown)
            bit, parent = (torch.tensor(each) for each in rooted(spanning_tree(weight)))
            one = self.one.new_full((2, len(bit), len(leaf)), 0.5)
            one[:, :, : len(grown)] = conditionals(x, grown, bit, parent, self.frequency)
            bits.append(bit)
            parents.append(parent * len(self.leaf) + tree)  # nodes of all trees in turn
            ones.append(one)
        self.bit.copy_(torch.stack(bits, dim=1).flatten())
        self.parent.copy_(torch.stack(parents, dim=1).flatten())
        self.one.copy_(torch.stack(ones, dim=2).flatten(1, 2))
        self.sort_nodes()

    def sort_nodes(self) -> None:
        """Put the nodes, of which each stands behind its parent, into the order of their groups."""
        order = keys(self.parent.tolist()).argsort(stable=True).to(self.bit.device)
        self.bit.copy_(self.bit[order])
        self.one.copy_(self.one[:, order])
        self.parent.copy_(order.argsort()[self.parent[order]])
        self.set_groups()

    def set_groups(self) -> None:
        """Find the groups of the nodes. Raises ValueError if bit and parent hold no trees."""
        parent, M = self.parent.tolist(), len(self.leaf)
        is_tree = all(up == node if node < M else 0 <= up < node for node, up in enumerate(parent))
        key = keys(parent) if is_tree else None
        if key is None or (key.diff() < 0).any():
            raise ValueError("parent does not describe trees in the order of their levels")
        tree = list(range(M))
        for up in parent[M:]:
            tree.append(tree[up])
        everything = itertools.product(range(M), range(len(parent) // M))
        if sorted(zip(tree, self.bit.tolist(), strict=True)) != list(everything):
            raise ValueError("bit does not hold each bit once for each tree")
        self.tree.copy_(torch.tensor(tree))
        values, counts = key.unique_consecutive(return_counts=True)
        ends = [0, *counts.cumsum(0).tolist()]
        self.most_leaves = int((self.leaf > ABSENT / 2).sum(dim=1).max())  # of a tree
        self.groups, number = [], values.tolist()
        for k, *span in zip(number, ends[:-1], ends[1:], strict=True):
            above = number.index(k // 2 * 2 - 2) if k > 1 else 0
            group = Group(slice(*span), k % 2 == 0, above)
            self.place[group.nodes] = self.parent[group.nodes] - ends[above]
            self.groups.append(group)


def both(log_odds: Tensor) -> Tensor:
    """Probabilities of 1 and of 0. (B, 2, L)"""
    return torch.stack([log_odds, -log_odds], dim=1).sigmoid()


class Group(NamedTuple):
    """Nodes of one level: those with others below them, or those without."""

    nodes: slice
    is_inner: bool
    above: int  # the group that their parents are in


def keys(parent: list[int]) -> Tensor:
    """Twice the level of each node, which stands behind its parent, and 1 more if nothing is below it.

    A root is its own parent.
    """
    key, inner = [], set()
    for node, up in enumerate(parent):
        key.append(0 if up == node else key[up] + 2)
        if up != node:
            inner.add(up)
    return torch.tensor([k + (node not in inner) for node, k in enumerate(key)])


def grow(x: Tensor, num_leaves: int) -> list[tuple[Tensor, dict[int, int], Tensor]]:
    """The leaves of a tree: rows of x, the bits asked for and their values, and the log of P(leaf).

    The largest leaf is divided, until there are num_leaves or all are small. x: (n, L) 0/1.
    """
    open_, leaves = [(torch.arange(len(x), device=x.device), {}, x.new_zeros(()))], []
    while open_ and len(open_) + len(leaves) < num_leaves:
        rows, asked, log_share = open_.pop(max(range(len(open_)), key=lambda i: len(open_[i][0])))
        bit = best_question(x[rows], asked) if len(rows) >= LEAST_SPLIT else None
        if bit is None:
            leaves.append((rows, asked, log_share))
            continue
        is_one = x[rows, bit] == 1
        p = (is_one.sum() + 0.5) / (len(rows) + 1)
        open_.append((rows[is_one], asked | {bit: 1}, log_share + p.log()))
        open_.append((rows[~is_one], asked | {bit: 0}, log_share + (1 - p).log()))
    return leaves + open_


def best_question(x: Tensor, asked: dict[int, int]) -> int | None:
    """Of a few bits drawn at random the one that says most about the others; None if none divides x."""
    count = x.sum(dim=0)
    may_be = torch.minimum(count, len(x) - count) >= LEAST_LEAF
    may_be[list(asked)] = False
    bits = may_be.nonzero()[:, 0]
    if not len(bits):
        return None
    bits = bits[torch.randperm(len(bits))[:QUESTIONS].to(bits.device)]
    return int(bits[mutual_information(x, bits).sum(dim=0).argmax()])


def mutual_information(x: Tensor, bits: Tensor | slice = slice(None)) -> Tensor:
    """(L, len(bits)) nats, of each bit of x (n, L) and those of bits; 0 with itself."""
    p, each = x.mean(dim=0), torch.arange(x.shape[1], device=x.device)
    both, one, other = x.T @ x[:, bits] / len(x), p[:, None], p[None, bits]
    information = sum(
        torch.special.xlogy(joint, joint / (first * second).clamp_min(1e-30))
        for joint, first, second in (
            (both, one, other),
            ((one - both).clamp_min(0), one, 1 - other),
            ((other - both).clamp_min(0), 1 - one, other),
            ((1 - one - other + both).clamp_min(0), 1 - one, 1 - other),
        )
    )
    return information.masked_fill(each[:, None] == each[bits], 0).clamp_min(0)


def conditionals(x: Tensor, grown: list, bit: Tensor, parent: Tensor, frequency: Tensor) -> Tensor:
    """(2, L, leaves) P(x_i = 1 | the parent's x, leaf), i = bit[node]; bits asked for are certain.

    Where a leaf has few strings, half of what counts is its own frequency of the bit, half what the
    parent tells of it in all leaves together. The root has no parent.
    """
    x = x[:, bit.to(x.device)]  # (n, L) by node
    values = torch.stack([1 - x[:, parent], x[:, parent]])  # (2, n, L)
    values[:, :, 0] = 1
    member = x.new_zeros(len(grown), len(x))
    for leaf, (rows, _, _) in enumerate(grown):
        member[leaf, rows] = 1
    n, ones = (member @ values), (member @ (values * x))  # (2, leaves, L) strings
    mean = frequency[bit.to(x.device)]
    size = member.sum(dim=1, keepdim=True)
    of_leaf = (member @ x + STRINGS * mean) / (size + STRINGS)  # (leaves, L)
    of_all = (ones.sum(dim=1) + STRINGS * mean) / (n.sum(dim=1) + STRINGS)  # (2, L)
    prior = (of_leaf + of_all[:, None]) / 2
    one = ((ones + STRINGS * prior) / (n + STRINGS)).clamp(SURE, 1 - SURE)
    place = bit.argsort().tolist()
    for leaf, (_, asked, _) in enumerate(grown):
        for i, value in asked.items():
            one[:, leaf, place[i]] = value
    return one.transpose(1, 2)
