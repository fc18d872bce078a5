"""A forest: trees of questions about single bits, and in each leaf bits that depend on each other.

Idea: a tree asks for the value of one bit, then of another, and so on, until few training strings are
left. In a leaf the bits that were asked for are known, and all others depend on each other along the
leaf's own Chow-Liu tree. Many trees, whose questions are the best of a few drawn at random, are a mixture
with equal shares. Seen through noise, two sweeps along the Chow-Liu trees tell for all leaves together
how probable each is, and what bit i is. prepare() grows the forest; some of its strings, held out, say
how many leaves there should be. A string that is like none before is left to one more tree, without
questions and ties. Training ends before the first step: only the shares of the trees could gain by it.
Logit i never sees bit i.

Source: cutset networks (Rahman, Kothalkar & Gogate 2014), and ensembles of random ones (Di Mauro et al.
2017).

Helps with thousands of strings and more, where what one bit tells of another depends on a third; in an
ensemble beside an MLP, which errs elsewhere. No use for rules that join many bits at once.
Cost: about 50 operations for each bit of each leaf, many times those of an MLP.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import threshold

STEP = 10.0  # logs are parameters times this: they need longer steps than the weights of an MLP
RARE = -0.6  # times STEP, the log of the share of independent bits to begin with, beside a tree's
LEAVES, STRINGS = (4, 16, 64, 256), (1.0, 8.0)  # of a tree, and beside a leaf's own: see choose()
TRIAL_TREES, HELD_OUT, MOST_HELD_OUT = 5, 0.1, 2000  # for that; the share and number of strings
MOST_NODES = 1 << 19  # bits of leaves in all, for the time
LEAST_SPLIT = 50  # strings that a leaf must have to be divided
LEAST_LEAF = 5  # strings in each part
QUESTIONS = 2  # bits drawn at random for each question, of which the best is asked for
SURE = 1e-5  # a probability is never closer to 0 or 1, but for bits that were asked for
LEAST = 1e-30  # probability that is not divided by
ABSENT = -1e30  # the log of the probability of a leaf that is not there
LEAST_SHARE = 1e-25  # of a leaf in a tree; smaller products are slow
NODES_AT_A_TIME, STRINGS_AT_A_TIME = 1 << 17, 64  # few enough for the memory
PAIRS_AT_A_TIME = 1 << 22  # of bits of leaves, while the trees grow
PRODUCTS = 6  # of probabilities of SURE and more, that are still no less than LEAST


class ReverseModel(nn.Module):
    """P(x) = sum over trees P(tree) sum over leaves P(leaf) prod_i P(x_i | x_parent(i, leaf), leaf)."""

    trains = False  # prepare() finds all that matters, and a step takes long

    def __init__(
        self, sequence_length: int, T: int, num_trees: int = 20, num_leaves: int | None = None
    ):
        super().__init__()
        self.T, L, M = T, sequence_length, num_trees
        K = num_leaves or max(1, min(LEAVES[-1], MOST_NODES // (M * L)))
        self.share = nn.Parameter(torch.tensor([0.0] * M + [RARE]))  # log-share of each tree ...
        self.bits = nn.Parameter(torch.zeros(L))  # ... and of independent bits, with these log-odds
        self.register_buffer("leaf", torch.full((M, K), ABSENT))  # log P(leaf | tree)
        # Of each leaf: the bit that each bit depends on, the root on itself, and P(x_i = 1 | its x).
        self.register_buffer("parent", torch.arange(L, dtype=torch.int32).repeat(M * K, 1))
        self.register_buffer("one", torch.full((2, M * K, L), 0.5))
        self.leaf[:, 0] = 0
        self.register_buffer("frequency", torch.full((L,), 0.5))  # of a 1 in the data
        self.register_buffer("confidence", torch.ones(()))  # chosen on val, after training
        self.set_parts()
        self.register_load_state_dict_post_hook(lambda model, _: model.set_parts())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        alpha = 1 - t / self.T
        certainty = alpha.log1p() - (-alpha).log1p()  # (B,)
        own = certainty[:, None] * (2 * x_t - 1)  # (B, L) log-odds of x_0 by its own x_t
        with torch.no_grad():
            told = [self.told(some) for some in both(own).split(STRINGS_AT_A_TIME, dim=2)]
        log_p, p = (torch.cat(each, dim=-1) for each in zip(*told, strict=True))
        free = both(STEP * self.bits[None]) * both(own)  # (2, L, B)
        total = free.sum(dim=0)
        log_p = torch.cat([log_p, total.log().sum(dim=0)[None]])  # (M + 1, B)
        p = torch.cat([p, (free / total)[None]])  # (M + 1, 2, L, B)
        tree = (STEP * self.share[:, None] + log_p).softmax(dim=0)  # P(tree | x_t)
        zero, one = (tree[:, None, None] * p).sum(dim=0).clamp_min(LEAST).log().transpose(1, 2)
        logits = one - zero - own  # (B, L)
        return logits if self.training else self.frequency.logit().lerp(logits, self.confidence)

    def told(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """What each tree says of strings seen through noise: see Trees."""
        log_p, p = zip(*(trees(own) for trees in self.parts), strict=True)
        return torch.cat(log_p), torch.cat(p)

    @torch.no_grad()
    def prepare(self, x_0: Tensor) -> None:
        """Grow the trees on x_0, (n, L) float 0/1, and 0.5 where a bit is unknown: then it is drawn."""
        known = x_0 != 0.5
        self.frequency.copy_(((x_0 == 1).sum(dim=0) + 0.5) / (known.sum(dim=0) + 1))
        self.bits.copy_(self.frequency.logit() / STEP)
        x = torch.where(known, x_0, (torch.rand_like(x_0) < self.frequency).float()).cpu()
        (M, K), L = self.leaf.shape, x.shape[1]
        num_leaves, strings = choose(x, K)
        all_pairs = pair_frequencies(x)
        self.leaf.fill_(ABSENT)
        parent, one = self.parent.view(M, K, L), self.one.view(2, M, K, L)
        for tree in range(M):
            leaves = grow(x, num_leaves)
            k = len(leaves)
            self.leaf[tree, :k] = torch.stack([leaf.log_share for leaf in leaves])
            parent[tree, :k], one[:, tree, :k] = tie(x, leaves, strings, all_pairs)
        self.set_parts()

    def set_parts(self) -> None:
        """Make ready what looks at all trees. Raises ValueError if parent holds no trees."""
        (M, K), L = self.leaf.shape, len(self.bits)
        most = int((self.leaf > ABSENT / 2).sum(dim=1).max())  # leaves of a tree
        trees = max(1, NODES_AT_A_TIME // (max(1, most) * L))
        parent, one = self.parent.view(M, K, L), self.one.view(2, M, K, L)
        self.parts = nn.ModuleList(
            Trees(self.leaf[some], parent[some].flatten(0, 1), one[:, some].flatten(1, 2))
            for some in (slice(start, start + trees) for start in range(0, M, trees))
        )


def both(log_odds: Tensor) -> Tensor:
    """(B, L) log-odds as probabilities of 0 and of 1. (2, L, B)"""
    return torch.stack([-log_odds.T, log_odds.T]).sigmoid()


class Level(NamedTuple):
    """Nodes that are as far from their roots."""

    nodes: slice
    num_inner: int  # the first so many have children
    children: list[int]  # how many have at least one, two, ...


class Trees(nn.Module):
    """Some trees of a forest, ready to be looked at through noise.

    A node is a bit of a leaf. Nodes stand in the order of their levels, the roots first, and in a level
    those with the most children first, so that children of the same rank are multiplied into a slice.
    """

    def __init__(self, leaf: Tensor, parent: Tensor, one: Tensor):
        """leaf, parent and one as in ReverseModel, of these trees. Raises ValueError if they are none."""
        super().__init__()
        K, L, device = leaf.shape[1], parent.shape[1], leaf.device
        row = (leaf.flatten() > ABSENT / 2).nonzero()[:, 0].cpu()  # of the leaves that are there
        up = parent.cpu()[row].long()
        if len(row) == 0 or up.min() < 0 or up.max() >= L:
            raise ValueError("parent does not describe trees")
        depth = depths(up).flatten()
        up = (torch.arange(len(row))[:, None] * L + up).flatten()
        children = up[up != torch.arange(len(up))].bincount(minlength=len(up))
        order = (depth * (L + 1) - children).argsort(stable=True)
        up, children = order.argsort()[up[order]], children[order]
        place, by_rank, self.levels = torch.zeros_like(up), torch.zeros_like(up), []
        start = above = 0
        for size in depth.bincount().tolist():
            nodes, ranks = slice(start, start + size), []
            if start:
                place[nodes] = up[nodes] - above
                rank = ranks_among_equals(place[nodes])  # among the children of the same parent
                by_rank[nodes] = (rank * start + place[nodes]).argsort()
                ranks = rank.bincount().tolist()
                self.levels[-1] = self.levels[-1]._replace(children=ranks)
            self.levels.append(Level(nodes, int((children[nodes] > 0).sum()), []))
            start, above = start + size, start
        leaf_of, bit = row[order // L], order % L
        one = one[:, row.to(device)].flatten(1)[:, order.to(device), None]
        for name, value in (
            ("leaf", leaf),
            ("bit", bit),  # (N,) of each node
            ("leaf_of", leaf_of),
            ("bit_of_tree", leaf_of // K * L + bit),
            ("place", place),  # of its parent in the level above
            ("by_rank", by_rank),  # of a level: first all first children, then all second ones
            ("table", torch.stack([1 - one, one])),  # (2, 2, N, 1) P(x | the parent's x)
        ):
            self.register_buffer(name, value.to(device), persistent=False)

    def forward(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """What each tree says of strings seen through noise.

        own: (2, L, b) the probability that a bit is 0, and that it is 1, by itself. Returns
        log P(x_t | tree), but for what is the same for all trees, (M, b), and (M, 2, L, b), the
        probabilities of x_0,i = 0 and 1 given all of x_t and the tree.
        """
        (M, K), (_, L, b) = self.leaf.shape, own.shape
        chance = self.leaf.flatten()[:, None].repeat(1, b)  # (M K, b) log P(leaf, x_t)
        # From the far ends to the roots. Of the nodes of each level, (2, n, b): what their bits are by
        # themselves and by all below them; and how probable that is by the value of the parent.
        below, seen, nodes = [], [], None
        for level in reversed(self.levels):
            if nodes:
                factors = seen[-1].index_select(1, self.by_rank[nodes])
            nodes = level.nodes
            here = own.index_select(1, self.bit[nodes])
            inner, leaf = here[:, : level.num_inner], self.leaf_of[nodes][: level.num_inner]
            for k, count in enumerate(level.children):  # the k-th child of each node that has one
                inner[:, :count] *= factors[:, :count]
                factors = factors[:, count:]
                if (k + 1) % PRODUCTS == 0 or k + 1 == len(level.children):
                    total = inner.sum(dim=0)
                    inner /= total
                    chance.index_add_(0, leaf, total.log_())
            zero, one = self.table[:, :, nodes]  # (2, n, 1) by the parent's value
            by_parent = zero * here[0]
            by_parent += one * here[1]
            below.append(here)
            seen.append(by_parent.clamp_min_(LEAST))
        chance.index_add_(0, self.leaf_of[nodes], by_parent[0].log())  # a root: as if below a 0
        chance = chance.view(M, K, b)
        log_p = chance.logsumexp(dim=1)
        # Back again: (2, n, b) P(leaf, x_0 of a node | x_t).
        p = own.new_zeros(2, M * L, b)
        leaf = (chance - log_p[:, None]).exp_().flatten(0, 1)  # (M K, b)
        leaf = threshold(leaf, LEAST_SHARE, 0.0)  # what is less would only be slow
        values = None
        for level in self.levels:
            nodes = level.nodes
            chances = self.table[:, :, nodes]  # (2, 2, n, 1)
            if values is None:
                above = leaf.index_select(0, self.leaf_of[nodes]).div_(seen.pop()[0])
                values = chances[:, 0] * above
            else:
                above = values.index_select(1, self.place[nodes]).div_(seen.pop())
                values = chances[:, 0] * above[0]
                values += chances[:, 1] * above[1]
            values *= below.pop()
            for each, value in zip(p, values, strict=True):
                each.index_add_(0, self.bit_of_tree[nodes], value)
        return log_p, p.view(2, M, L, b).transpose(0, 1)


def depths(parent: Tensor) -> Tensor:
    """(P, L) of each node below its root, which is its own parent. Raises ValueError if there is none."""
    depth, ancestor = torch.zeros_like(parent), torch.arange(parent.shape[1]).expand_as(parent)
    for _ in range(parent.shape[1]):
        higher = parent.gather(1, ancestor)
        if higher.equal(ancestor):
            return depth
        depth += higher != ancestor
        ancestor = higher
    raise ValueError("parent does not describe trees")


def ranks_among_equals(values: Tensor) -> Tensor:
    """How many before it are equal to each value. (n,)"""
    order = values.argsort(stable=True)
    _, counts = values[order].unique_consecutive(return_counts=True)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.empty_like(values).scatter_(0, order, torch.arange(len(values)) - first)


# ----------------------------------------------------------------------------------- growing


class Leaf(NamedTuple):
    rows: Tensor  # of the training strings that are in it
    asked: dict[int, int]  # bits and their values
    log_share: Tensor  # log P(leaf | tree)


def choose(x: Tensor, most_leaves: int) -> tuple[int, float]:
    """The number of leaves of a tree, and for how many strings counts what is known from elsewhere.

    Those with which a few trees, grown on a part of x, give the rest of it the highest probability.
    """
    held_out = min(MOST_HELD_OUT, int(HELD_OUT * len(x)))
    order = torch.randperm(len(x))
    test, train = x[order[:held_out]], x[order[held_out:]]
    all_pairs = pair_frequencies(train)
    best = -torch.inf, 1, max(STRINGS)
    for num_leaves in sorted({min(most_leaves, k) for k in LEAVES}) if held_out else ():
        trees = [grow(train, num_leaves) for _ in range(TRIAL_TREES)]
        found = []
        for strings in STRINGS:
            laws = [
                log_law(test, leaves, *tie(train, leaves, strings, all_pairs)) for leaves in trees
            ]
            law = torch.stack(laws).logsumexp(dim=0).mean().item()
            found.append((law, num_leaves, strings))
        if max(found) < best:  # and still more leaves would be worse
            break
        best = max(found)
    return best[1:]


def grow(x: Tensor, num_leaves: int) -> list[Leaf]:
    """The leaves of a tree. The largest is divided, until there are num_leaves or all are small.

    x: (n, L) 0/1.
    """
    open_, leaves = [Leaf(torch.arange(len(x)), {}, torch.zeros(()))], []
    while open_ and len(open_) + len(leaves) < num_leaves:
        leaf = open_.pop(max(range(len(open_)), key=lambda i: len(open_[i].rows)))
        rows, asked, log_share = leaf
        bit = best_question(x[rows], asked) if len(rows) >= LEAST_SPLIT else None
        if bit is None:
            leaves.append(leaf)
            continue
        is_one = x[rows, bit] == 1
        p = (is_one.sum() + 0.5) / (len(rows) + 1)
        open_.append(Leaf(rows[is_one], asked | {bit: 1}, log_share + p.log()))
        open_.append(Leaf(rows[~is_one], asked | {bit: 0}, log_share + (1 - p).log()))
    return leaves + open_


def best_question(x: Tensor, asked: dict[int, int]) -> int | None:
    """Of a few bits drawn at random the one that says most about the others; None if none divides x."""
    count, n = x.sum(dim=0), len(x)
    may_be = torch.minimum(count, n - count) >= LEAST_LEAF
    may_be[list(asked)] = False
    bits = may_be.nonzero()[:, 0]
    if not len(bits):
        return None
    bits = bits[torch.randperm(len(bits))[:QUESTIONS]]
    each = torch.arange(x.shape[1])[:, None] == bits
    told = mutual_information(x.T @ x[:, bits] / n, count[:, None] / n, count[bits] / n)
    return int(bits[told.masked_fill(each, 0).sum(dim=0).argmax()])


def mutual_information(both: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Nats, of two bits, by the probabilities that both are 1, that the one is, and that the other is."""
    information = sum(
        torch.special.xlogy(joint, joint / (first * second).clamp_min(1e-30))
        for joint, first, second in (
            (both, one, other),
            ((one - both).clamp_min(0), one, 1 - other),
            ((other - both).clamp_min(0), 1 - one, other),
            ((1 - one - other + both).clamp_min(0), 1 - one, 1 - other),
        )
    )
    return information.clamp_min(0)


def pair_frequencies(x: Tensor) -> Tensor:
    """(L, L) how often two bits are both 1 in x (n, L); on the diagonal, how often each is."""
    frequencies = (x.T @ x + 0.25) / (len(x) + 1)
    frequencies.diagonal().copy_((x.sum(dim=0) + 0.5) / (len(x) + 1))
    return frequencies


def tie(x: Tensor, leaves: list[Leaf], strings: float, all_pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The Chow-Liu tree of each leaf: parent (K, L), and (2, K, L) P(x_i = 1 | the parent's x).

    What is known from elsewhere counts for so many strings: of pairs of bits, their frequencies in all of
    x, all_pairs; of a bit given its parent, half that, half the frequency of the bit in the leaf. A root
    is its own parent. Bits asked for are roots, and certain.
    """
    L, mean = x.shape[1], all_pairs.diagonal()
    parents, ones = [], []
    at_a_time = max(1, PAIRS_AT_A_TIME // L**2)
    for start in range(0, len(leaves), at_a_time):
        part = leaves[start : start + at_a_time]
        size = torch.tensor([len(leaf.rows) for leaf in part])[:, None]  # (k, 1)
        pairs = torch.stack([x[leaf.rows].T @ x[leaf.rows] for leaf in part])  # (k, L, L) strings
        count = pairs.diagonal(dim1=1, dim2=2)  # (k, L)
        p = (pairs + strings * all_pairs) / (size + strings)[:, None]
        one = p.diagonal(dim1=1, dim2=2)
        weight = mutual_information(p, one[:, :, None], one[:, None])
        asked = torch.zeros(len(part), L, dtype=torch.bool)
        value = torch.zeros(len(part), L)
        for k, leaf in enumerate(part):
            asked[k, list(leaf.asked)] = True
            value[k, list(leaf.asked)] = torch.tensor(list(leaf.asked.values())).float()
        weight.masked_fill_(asked[:, :, None] | asked[:, None], 0)
        parent = spanning_trees(weight)
        of_both = pairs.gather(2, parent[:, :, None])[:, :, 0]  # (k, L) strings
        of_parent = count.gather(1, parent)
        both, up = all_pairs[torch.arange(L), parent], mean[parent]
        in_all = torch.stack([(mean - both) / (1 - up), both / up])  # (2, k, L)
        in_leaf = (count + strings * mean) / (size + strings)
        ones_of = torch.stack([count - of_both, of_both])
        strings_of = torch.stack([size - of_parent, of_parent])
        one = (ones_of + strings * (in_all + in_leaf) / 2) / (strings_of + strings)
        one = torch.where(parent == torch.arange(L), in_leaf, one).clamp(SURE, 1 - SURE)
        parents.append(parent)
        ones.append(torch.where(asked, value, one))
    return torch.cat(parents), torch.cat(ones, dim=1)


def spanning_trees(weight: Tensor) -> Tensor:
    """(K, L) the parent of each node in the spanning tree of the largest total weight (Prim 1957).

    weight: (K, L, L) of each tree. The root is the node with the largest weights. A node that no weight
    ties to those before it is another root.
    """
    K, L, _ = weight.shape
    each = torch.arange(K)
    parent = torch.arange(L).repeat(K, 1)
    best, link = torch.zeros(K, L), torch.zeros(K, L, dtype=torch.long)  # to the tree built so far
    node = weight.sum(dim=2).argmax(dim=1)
    for _ in range(L):
        best[each, node] = -torch.inf
        closer = (weight[each, node] > best) & (best > -torch.inf)
        best = torch.where(closer, weight[each, node], best)
        link = torch.where(closer, node[:, None], link)
        node = best.argmax(dim=1)
        tied = best[each, node] > 0
        parent[each, node] = torch.where(tied, link[each, node], parent[each, node])
    return parent


def log_law(x: Tensor, leaves: list[Leaf], parent: Tensor, one: Tensor) -> Tensor:
    """(n,) log P(x | tree) in nats."""
    law = torch.empty(len(x))
    for leaf, up, p in zip(leaves, parent, one.unbind(dim=1), strict=True):
        bits, values = list(leaf.asked), torch.tensor(list(leaf.asked.values()))
        rows = (x[:, bits] == values).all(dim=1).nonzero()[:, 0]
        z = x[rows]
        p = torch.where(z[:, up] == 1, p[1], p[0])
        law[rows] = leaf.log_share + torch.where(z == 1, p, 1 - p).log().sum(dim=1)
    return law
