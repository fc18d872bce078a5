"""A hidden Chow-Liu tree: the exact posterior of a tree of hidden states, by two sweeps over the tree.

Idea: the pairs of bits that say most about each other form a tree, the Chow-Liu tree. Each bit gets a
hidden state, one of num_states. The states depend on each other along the tree, and a bit depends on its
own state alone. For strings seen through noise, what the other bits say of bit i is then a sum over
all states. A sweep from the leaves to the root and one back find it for all bits together, exactly.
The noise of x_t is known, so no network is needed for the time: all that is learnt is the tree's
probabilities. prepare() finds the tree and starts from the Chow-Liu tree's own probabilities.
Logit i never sees bit i.

Source: Chow & Liu 1968, "Approximating discrete probability distributions with dependence trees"; Liu
& Van den Broeck 2021 (arXiv 2106.02264), who gave the tree hidden states; the sweeps are belief
propagation (Pearl 1988).

Helps where a bit depends on few others, and where data are few: on genetic sequences it is far ahead of
the MLP. No use for rules that join many bits (repeating patterns).
Cost: 4 L num_states^2 products a string, in two loops over the levels of the tree.
"""

import itertools

import torch
from torch import Tensor, nn

STEP = 10.0  # logits are parameters times this: they need longer steps than the weights of an MLP
SPREAD = 4.0  # of the random part of the logits of P(z_i | z_parent) before the first step
DIMENSIONS = 0, 2, 1  # over which root, move and bit sum to 1
MOST_ELEMENTS = 1 << 23  # of a tensor over bits, states and strings, in prepare()
LEAST = 1e-30  # float32 probabilities are kept above this before their logarithm is taken


class ReverseModel(nn.Module):
    """P(x) = sum over states z of P(z_root) prod P(z_i | z_parent(i)) prod P(x_i | z_i)."""

    def __init__(self, sequence_length: int, T: int, num_states: int = 16, em_steps: int = 100):
        super().__init__()
        self.em_steps = em_steps  # of expectation maximisation, in prepare()
        self.T, L, K = T, sequence_length, num_states
        # Nodes stand in the order of their levels, the root first. order: the bit of each node;
        # parent: the node above it; place: the parent's number within its level. prepare() puts the
        # tree of the data in place of this one, in which neighbours mean nothing.
        parents = [max(0, (node - 1) // 2) for node in range(L)]
        self.register_buffer("order", torch.arange(L))
        self.register_buffer("parent", torch.tensor(parents))
        self.register_buffer("place", torch.zeros(L, dtype=torch.long), persistent=False)
        self.set_levels(parents)
        self.register_load_state_dict_post_hook(lambda model, _: model.check_tree())
        self.root = nn.Parameter(torch.zeros(K))  # P(z_root)
        # P(z_i | z_parent), the root's is idle
        self.move = nn.Parameter(torch.empty(L, K, K).uniform_(-1 / STEP, 1 / STEP))
        self.bit = nn.Parameter(torch.zeros(L, K))  # P(x_i = 1 | z_i), by node
        self.register_buffer("frequency", torch.full((L,), 0.5))  # of a 1 in the data
        self.register_buffer("confidence", torch.ones(()))  # chosen on val, after training

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, L) float 0/1; t: (B,) int in 1..T. Returns (B, L) log-odds that x_0 is 1."""
        alpha = (1 - t / self.T)[:, None]  # (B, 1)
        seen = (alpha * (2 * x_t - 1)).T[self.order, None]  # (L, 1, B)
        bit, move = STEP * self.bit, (STEP * self.move).softmax(dim=2)  # (L, K), (L, K, K)
        # log P(x_t,i | z_i) for all states, but for a constant
        own = (torch.tanh(bit / 2)[:, :, None] * seen).clamp_min(-1 + 1e-6).log1p()  # (L, K, B)

        below, told = self.sweep_up(own, move)
        # Root to leaves: what the rest of the tree says of a node's state, its own bit left out.
        states = [(STEP * self.root).log_softmax(dim=0)[None, :, None] + below[0]]  # (1, K, B)
        for i, level in enumerate(self.levels[1:], start=1):
            from_parent = (states[-1] + own[self.levels[i - 1]])[self.place[level]] - told[i]
            states.append(log_product(move[level].mT, from_parent) + below[i])
        rest = torch.cat(states)  # (L, K, B)

        p = torch.stack([torch.sigmoid(bit), torch.sigmoid(-bit)], dim=1)  # (L, 2, K)
        one, zero = log_product(p, rest).unbind(dim=1)  # (L, B)
        logits = torch.zeros_like(one).index_copy(0, self.order, one - zero).T
        return logits if self.training else self.frequency.logit().lerp(logits, self.confidence)

    def sweep_up(self, own: Tensor, move: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Leaves to root, by level: what the bits below each node say of its state, and tell its parent.

        own: (L, K, B), what each bit says of its state, in logarithms; move: (L, K, K) probabilities.
        """
        below, told = [None] * len(self.levels), [None] * len(self.levels)
        below[-1] = torch.zeros_like(own[self.levels[-1]])
        for i in range(len(self.levels) - 1, 0, -1):
            level = self.levels[i]
            told[i] = log_product(move[level], below[i] + own[level])
            above = torch.zeros_like(own[self.levels[i - 1]])
            below[i - 1] = above.index_add(0, self.place[level], told[i])
        return below, told

    # ------------------------------------------------------------------------------- the tree

    @torch.no_grad()
    def prepare(self, x_0: Tensor) -> None:
        """Take the Chow-Liu tree of x_0 and fit its probabilities to x_0 itself.

        x_0: (n, L) float 0/1, and 0.5 where a bit is unknown.

        A state begins as one of the values 0 and 1 of its bit. Random numbers make states differ that
        stand for the same value, and expectation maximisation finds out what for. That takes seconds;
        training goes on from there.
        """
        ones, known = (x_0 == 1).sum(dim=0), (x_0 != 0.5).sum(dim=0)
        self.frequency.copy_((ones + 0.5) / (known + 1))
        joint = pair_frequencies(x_0)  # (L, L, 2, 2)
        bits, parents = rooted(spanning_tree(mutual_information(joint)))
        self.order.copy_(torch.tensor(bits))
        self.parent.copy_(torch.tensor(parents))
        self.check_tree()

        (L, K), device = self.bit.shape, x_0.device
        value = torch.arange(K, device=device) % 2  # of the bit that a state begins as
        pairs = joint[self.order[self.parent], self.order]  # (L, 2, 2), each bit with that above it
        move = pairs.log()[:, value][:, :, value]  # (L, K, K)
        move = move + SPREAD * torch.randn(L, K, K, device=device)
        root = pairs[0].diagonal().log()[value]  # (K,)
        sharp = (2 * value - 1) * (1.5 + 2 * torch.rand(L, K, device=device))
        logs = [root, move, torch.stack([-sharp, sharp], dim=1)]
        logs = [log.log_softmax(dim=d) for log, d in zip(logs, DIMENSIONS, strict=True)]
        root, move, bit = self.fit(x_0, logs)
        self.root.copy_(root / STEP)
        self.move.copy_(move / STEP)
        self.bit.copy_((bit[:, 1] - bit[:, 0]) / STEP)

    def fit(self, x_0: Tensor, logs: list[Tensor]) -> list[Tensor]:
        """Make x_0 more probable by expectation maximisation, a batch at a time (Cappe & Moulines 2009).

        logs: log P(z_root) (K,), log P(z_i | z_parent) (L, K, K), log P(x_i = 0, 1 | z_i) (L, 2, K).
        """
        n, (L, K) = len(x_0), self.bit.shape
        batch = min(n, 512, max(1, MOST_ELEMENTS // (L * K)))
        order = torch.cat([torch.randperm(n) for _ in range(1 + self.em_steps * batch // n)])
        means = [torch.zeros_like(log) for log in logs]
        for step, rows in enumerate(order.split(batch)[: self.em_steps]):
            logs = [log.detach().requires_grad_() for log in logs]
            with torch.enable_grad():
                root, move, bit = logs
                zero, one = bit[:, :, :, None].unbind(dim=1)  # (L, K, 1)
                x = x_0[rows].T[self.order, None]  # (L, 1, B)
                own = torch.lerp(zero, one, x) * (
                    x != 0.5
                )  # (L, K, B); what is unknown says nothing
                below, _ = self.sweep_up(own, move.exp())
                log_p = (root[:, None] + below[0][0] + own[0]).logsumexp(dim=0)  # but for constants
                # The slope of log P by a log-probability is how often, as the model sees it, that
                # probability is at work.
                shares = torch.autograd.grad(log_p.mean(), logs, materialize_grads=True)
            weight = max(batch / n, (step + 1) ** -0.3)  # what was counted long ago is out of date
            means = [m.lerp(s, weight) for m, s in zip(means, shares, strict=True)]
            a_little = 0.3 / (n * K)  # so that nothing is impossible
            logs = [
                (mean + a_little).log().log_softmax(dim=d)
                for mean, d in zip(means, DIMENSIONS, strict=True)
            ]
        return logs

    def check_tree(self) -> None:
        """Find the levels of the tree in order and parent. Raises ValueError if they hold no tree."""
        order, parent = self.order.tolist(), self.parent.tolist()
        is_tree = all(0 <= up < node for node, up in enumerate(parent) if node)
        if sorted(order) != list(range(len(order))) or not is_tree:
            raise ValueError("order and parent do not describe a tree")
        self.set_levels(parent)

    def set_levels(self, parent: list[int]) -> None:
        """levels: the slice of the nodes of each, the root's first; and each node's place."""
        depth = [0] * len(parent)
        for node, up in enumerate(parent[1:], start=1):
            depth[node] = depth[up] + 1
        if depth != sorted(depth):
            raise ValueError("the nodes of the tree do not stand in the order of their levels")
        starts = [depth.index(d) for d in range(depth[-1] + 1)] + [len(parent)]
        self.levels = [slice(*ends) for ends in itertools.pairwise(starts)]
        place = [up - starts[max(0, d - 1)] for up, d in zip(parent, depth, strict=True)]
        self.place.copy_(torch.tensor(place))


def log_product(probabilities: Tensor, logs: Tensor) -> Tensor:
    """log(probabilities @ exp(logs)), but for a constant in each column.

    probabilities: (n, M, K); logs: (n, K, B). Returns (n, M, B).
    """
    logs = logs - logs.detach().amax(dim=1, keepdim=True)
    return (probabilities @ logs.exp()).clamp_min(LEAST).log()


def pair_frequencies(x_0: Tensor) -> Tensor:
    """(L, L, 2, 2): how often bits i and j have these values where both are known, a little above 0."""
    zero, one = (x_0 == 0).float(), (x_0 == 1).float()
    mixed = zero.T @ one  # (L, L), i is 0 and j is 1
    counts = torch.stack([zero.T @ zero, mixed, mixed.T, one.T @ one], dim=2) + 0.25
    return (counts / counts.sum(dim=2, keepdim=True)).view(*mixed.shape, 2, 2)


def mutual_information(joint: Tensor) -> Tensor:
    """(L, L) nats, from pair_frequencies."""
    first, second = joint.sum(dim=3, keepdim=True), joint.sum(dim=2, keepdim=True)
    return (joint * (joint / (first * second)).log()).sum(dim=(2, 3))


def spanning_tree(weight: Tensor) -> list[list[int]]:
    """The neighbours of each node in the spanning tree of the largest total weight (Prim 1957)."""
    L = len(weight)
    neighbours = [[] for _ in range(L)]
    best, link = weight[0].clone(), torch.zeros(L, dtype=torch.long)  # to the tree built so far
    best[0] = -torch.inf
    for _ in range(L - 1):
        node = int(best.argmax())
        neighbours[node].append(int(link[node]))
        neighbours[int(link[node])].append(node)
        closer = (weight[node] > best) & (best > -torch.inf)
        best[closer], link[closer.cpu()] = weight[node][closer], node
        best[node] = -torch.inf
    return neighbours


def rooted(neighbours: list[list[int]]) -> tuple[list[int], list[int]]:
    """The nodes level by level from the middle of the longest path, and the place of each one's parent.

    The root comes first and has the parent 0.
    """
    end = levels_from(neighbours, 0)[0][-1]
    nodes, parents = levels_from(neighbours, end)
    path = [len(nodes) - 1]  # places, from the other end
    while path[-1]:
        path.append(parents[path[-1]])
    return levels_from(neighbours, nodes[path[len(path) // 2]])


def levels_from(neighbours: list[list[int]], root: int) -> tuple[list[int], list[int]]:
    nodes, parents, known = [root], [0], {root}
    for place, node in enumerate(nodes):  # which grows
        for other in neighbours[node]:
            if other not in known:
                known.add(other)
                nodes.append(other)
                parents.append(place)
    return nodes, parents
