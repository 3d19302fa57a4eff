"""Tuples of leaves, one of each tree: the local search over them for a nearer point of another class.

What a sum of trees answers is constant on the intersection of one leaf of each tree. From a point that is
answered as sought, the search changes one leaf at a time to the nearest intersection that still is (Zhang,
Zhang & Hsieh 2020, algorithm 1), for many samples at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.structure import Trees
from robustbench_lite.core.threat import Norm

ROOM = 1 << 23  # numbers held at once
LESSER = 1e-6  # weight of the sum of all moves, where the norm is their largest or their number
NEARER = 1e-9  # relative: by how much a step has to come nearer
STEPS = 200  # of leaves, at most


@dataclass(frozen=True)
class Leaves:
    """The leaves of all trees, in order: what they ask of the few features they look at.

    Parameters
    ----------
    tree : Tensor
        (L,): the tree of each.
    feature : Tensor
        (L, D): the features it looks at; d, one more than there are, fills up.
    low, high : Tensor
        (L, D) float32: low < x[feature] <= high.
    value : Tensor
        (L, K) float64.
    number : Tensor
        (m,): of each node of the table, its place among the leaves; -1 for others.
    features : int
        d.
    """

    tree: Tensor
    feature: Tensor
    low: Tensor
    high: Tensor
    value: Tensor
    number: Tensor
    features: int

    @classmethod
    def of(cls, trees: Trees, features: int) -> Leaves:
        """The leaves of a table of nodes."""
        left, feature = trees.left.cpu().tolist(), trees.feature.cpu().tolist()
        threshold = trees.threshold.cpu().tolist()
        asked: list[dict[int, tuple[float, float]]] = []
        nodes: list[int] = []
        owner: list[int] = []
        for tree, root in enumerate(trees.roots.tolist()):
            waiting: list[tuple[int, dict[int, tuple[float, float]]]] = [(root, {})]
            while waiting:
                node, box = waiting.pop()
                if left[node] == node:
                    nodes.append(node)
                    asked.append(box)
                    owner.append(tree)
                    continue
                f, t = feature[node], threshold[node]
                low, high = box.get(f, (-torch.inf, torch.inf))
                waiting.append((left[node], {**box, f: (low, min(high, t))}))
                waiting.append((left[node] + 1, {**box, f: (max(low, t), high)}))
        device, wide = trees.left.device, max(1, max(map(len, asked)))
        table = torch.full((len(nodes), wide), features, dtype=torch.int64)
        least, most = (torch.full((len(nodes), wide), sign * torch.inf) for sign in (-1, 1))
        for i, box in enumerate(asked):
            if box:
                table[i, : len(box)] = torch.tensor(list(box))
                bounds = torch.tensor(list(box.values()))
                least[i, : len(box)], most[i, : len(box)] = bounds[:, 0], bounds[:, 1]
        number = torch.full((len(left),), -1)
        number[torch.tensor(nodes)] = torch.arange(len(nodes))
        return cls(
            torch.tensor(owner, device=device), table.to(device), least.to(device), most.to(device),
            trees.value[torch.tensor(nodes, device=device)], number.to(device), features,
        )  # fmt: skip

    def at(self, trees: Trees, x: Tensor) -> Tensor:
        """The leaf of every tree that each row of x (n, d) falls into (n, T)."""
        return self.number[trees.leaves(x)]


@dataclass(frozen=True)
class Wanted:
    """Which answers will do: sought (n, K), the classes; rank (K,) decides between equal scores."""

    sought: Tensor
    rank: Tensor

    def __getitem__(self, rows: Tensor) -> Wanted:
        return Wanted(self.sought[rows], self.rank)

    def height(self, scores: Tensor) -> Tensor:
        """The best class sought over the best that is not (n,), in units of scores (n, K)."""
        best = scores.masked_fill(~self.sought, -torch.inf).amax(1)
        return best - scores.masked_fill(self.sought, -torch.inf).amax(1)

    def met(self, scores: Tensor) -> Tensor:
        """Whether the class of scores (n, …, K) is one that is sought (n, …)."""
        shape = (len(scores), *[1] * (scores.dim() - 2), scores.shape[-1])
        sought = self.sought.view(shape)
        best = scores.masked_fill(~sought, -torch.inf).amax(-1, keepdim=True)
        rival = scores.masked_fill(sought, -torch.inf).amax(-1, keepdim=True)
        first = self.rank.masked_fill(~sought | (scores < best), len(self.rank)).amin(-1)
        second = self.rank.masked_fill(sought | (scores < rival), len(self.rank)).amin(-1)
        return (best > rival)[..., 0] | ((best == rival)[..., 0] & (first < second))


def nearer(
    trees: Trees, leaves: Leaves, x: Tensor, start: Tensor, box: tuple[Tensor, Tensor], wanted: Wanted,
    norm: Norm,
) -> Tensor:  # fmt: skip
    """Points (n, d) at a local minimum of the distance to x, from points that are answered as sought.

    Parameters
    ----------
    trees : Trees
    leaves : Leaves
        Of those trees.
    x : Tensor
        (n, d).
    start : Tensor
        (n, d): rows whose answer is not sought stay as they are.
    box : tuple of Tensor
        (n, d) each: low <= x <= high.
    wanted : Wanted
    norm : Norm

    Returns
    -------
    Tensor
        (n, d).
    """
    size = max(1, ROOM // (leaves.feature.numel() + len(trees.roots) * leaves.features))
    parts = []
    for rows in torch.split(torch.arange(len(x), device=x.device), size):
        low, high = (side[rows] for side in box)
        low = torch.nextafter(low, torch.full_like(low, -torch.inf))
        descent = _Descent(trees, leaves, x[rows], low, high, wanted[rows], norm)
        parts.append(descent.run(start[rows], STEPS))
    return torch.cat(parts) if parts else start


def allowed(x0: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
    """What the domain allows of each sample (n, …), but for steps and choices: low <= x <= high (n, d)."""
    least, most = (bound.expand_as(x0).flatten(1) for bound in domain.bounds(x0))
    if domain.mask is not None:
        fixed, x = ~domain.mask.expand_as(x0).flatten(1), x0.flatten(1)
        least, most = torch.where(fixed, x, least), torch.where(fixed, x, most)
    return least, most


@dataclass(frozen=True)
class _Descent:
    trees: Trees
    leaves: Leaves
    x: Tensor
    low: Tensor
    high: Tensor
    wanted: Wanted
    norm: Norm

    def run(self, start: Tensor, steps: int) -> Tensor:
        """The points (n, d) that the descent ends at."""
        held = self.leaves.at(self.trees, start)
        scores = self.trees.start + self.leaves.value[held].sum(1)
        found = start.clone()
        rows = self.wanted.met(scores).nonzero()[:, 0]
        low, high, *_ = self._boxes(rows, held[rows])
        best = self._size(self._gaps(low, high, rows))
        for _ in range(steps):
            if not len(rows):
                break
            leaf, size = self._step(rows, held[rows], scores[rows])
            better = size < best * (1 - NEARER)
            rows, leaf, best = rows[better], leaf[better], size[better]
            tree = self.leaves.tree[leaf]
            gained = self.leaves.value[leaf] - self.leaves.value[held[rows, tree]]
            scores[rows] = scores[rows] + gained
            held[rows, tree] = leaf
        every = torch.arange(len(start), device=start.device)
        low, high, *_ = self._boxes(every, held)
        above = torch.nextafter(low, torch.full_like(low, torch.inf))
        nearest = torch.minimum(torch.maximum(self.x, above), high)
        sought = self.wanted.met(self.trees.start + self.leaves.value[held].sum(1))
        return torch.where(sought[:, None], nearest, found)

    def _boxes(self, rows: Tensor, held: Tensor) -> tuple[Tensor, ...]:
        """What tuples of leaves (m, T) ask: low and high (m, d), who asks, what is asked without those."""
        low, low_owner, low_next = self._tightest(self.leaves.low, self.low[rows], held, 1)
        high, high_owner, high_next = self._tightest(self.leaves.high, self.high[rows], held, -1)
        return low, high, low_owner, high_owner, low_next, high_next

    def _tightest(self, table: Tensor, own: Tensor, held: Tensor, sign: int) -> tuple[Tensor, Tensor, Tensor]:
        m, d, trees = len(held), self.leaves.features, len(self.trees.roots)
        where = self.leaves.feature[held].flatten(1)  # (m, T · D)
        asked = (sign * table[held]).flatten(1)
        tree = torch.arange(trees, device=held.device).repeat_interleave(table.shape[1]).expand(m, -1)
        base = torch.cat(
            [sign * own, own.new_full((m, 1), torch.inf)], 1
        )  # the last column takes the filling
        first = base.scatter_reduce(1, where, asked, "amax")
        asks = (asked == first.gather(1, where)) & (asked > base.gather(1, where))
        none = torch.full((m, d + 1), -1, device=held.device)
        owner = none.scatter_reduce(1, where, torch.where(asks, tree, -1), "amax")
        others = torch.where(tree == owner.gather(1, where), -torch.inf, asked)
        second = base.scatter_reduce(1, where, others, "amax")
        return sign * first[:, :d], owner[:, :d], sign * second[:, :d]

    def _gaps(self, low: Tensor, high: Tensor, rows: Tensor) -> Tensor:
        """How far each feature has to move into low < x <= high, as many leading axes as low has."""
        x = self.x[rows].view(len(rows), *[1] * (low.dim() - 2), self.x.shape[1])
        return torch.maximum(low - x, x - high).clamp_min(0).double()

    def _size(self, gaps: Tensor) -> Tensor:
        """The norm of moves (…, d), the sum of all weighing a little where they do not count."""
        match self.norm:
            case Norm.LINF:
                return gaps.amax(-1) + LESSER * gaps.sum(-1)
            case Norm.L2:
                return gaps.square().sum(-1)
            case Norm.L1:
                return gaps.sum(-1)
            case Norm.L0:
                return (gaps > 0).sum(-1) + LESSER * gaps.sum(-1)

    def _step(self, rows: Tensor, held: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The leaf that comes nearest when it takes its tree's place (m,), and how near that is."""
        low, high, low_owner, high_owner, low_next, high_next = self._boxes(rows, held)
        tree = torch.arange(len(self.trees.roots), device=held.device)[:, None]
        free_low = torch.where(low_owner[:, None] == tree, low_next[:, None], low[:, None])  # (m, T, d)
        free_high = torch.where(high_owner[:, None] == tree, high_next[:, None], high[:, None])
        gaps = self._gaps(free_low, free_high, rows)
        size = self._size(gaps)[:, self.leaves.tree]  # (m, L): without what the leaf itself asks
        whole = (free_low, free_high, gaps)
        place = self.leaves.tree[:, None], self.leaves.feature.clamp_max(self.leaves.features - 1)
        least, most, gap = (part[:, place[0], place[1]] for part in whole)  # (m, L, D)
        asks = self.leaves.feature < self.leaves.features
        least, most = torch.maximum(least, self.leaves.low), torch.minimum(most, self.leaves.high)
        possible = ((least < most) | ~asks).all(2)
        x = self.x[rows][:, place[1]]
        moved = torch.where(asks, torch.maximum(least - x, x - most).clamp_min(0), 0.0).double()
        gap = torch.where(asks, gap, 0.0)
        match self.norm:
            case Norm.LINF:
                largest = moved.amax(2)
                size = torch.maximum(size, largest) + LESSER * (moved - gap).sum(2)
            case Norm.L2:
                size = size + (moved.square() - gap.square()).sum(2)
            case Norm.L1:
                size = size + (moved - gap).sum(2)
            case Norm.L0:
                size = (
                    size + ((moved > 0).double() - (gap > 0).double()).sum(2) + LESSER * (moved - gap).sum(2)
                )
        new = scores[:, None] + self.leaves.value - self.leaves.value[held][:, self.leaves.tree]
        part = self.wanted[rows]
        size = torch.where(possible & part.met(new), size, torch.inf)
        best = size.min(1)
        return best.indices, best.values
