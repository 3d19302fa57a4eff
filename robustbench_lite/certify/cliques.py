"""Sums of trees by groups: the boxes in which their leaves meet, within a distance, and the most they add.

A point within eps of x falls into one leaf of every tree, and the leaves of a group of trees meet in a box
that is within eps of x itself. The most that any such box adds to the score of one class less that of
another, summed over the groups, is no less than what any point can reach (Chen, Zhang, Si, Li, Boning & Hsieh
2019, algorithm 1; in other norms than linf Wang, Zhang, Chen, Boning & Hsieh 2020, arXiv:2008.08755, section
4). How many trees make a group is chosen by the size of the trees, so that a sample's bound is its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustbench_lite.certify.ball import pixels_of
from robustbench_lite.certify.climb import size_of
from robustbench_lite.certify.leaves import Leaves, allowed
from robustbench_lite.certify.verifier import GRAIN
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.structure import Trees
from robustbench_lite.core.threat import Norm, norms

BOXES = 300_000  # leaves of a group that may meet, multiplied, at the usual effort
ROOM = 1 << 24  # numbers held at once
HALVINGS = 8
SURE = 1 + 1e-9  # by which a size is taken for larger, against rounding


@dataclass(frozen=True)
class Cliques:
    """The groups of one ensemble in a norm.

    Parameters
    ----------
    trees : Trees
    leaves : Leaves
        Of those trees.
    norm : Norm
    domain : Domain
    effort : float
    """

    trees: Trees
    leaves: Leaves
    norm: Norm
    domain: Domain
    effort: float

    @property
    def most(self) -> float:
        """How many boxes a group may have for a sample: as many as fit, at most."""
        return min(BOXES * self.effort, 4 * ROOM / self.leaves.features)

    @cached_property
    def groups(self) -> list[list[Tensor]]:
        """The leaves of each tree of each group: trees of one class together, as many as fit."""
        spread = torch.zeros(len(self.trees.roots), self.leaves.value.shape[1], dtype=torch.float64)
        spread.index_add_(0, self.leaves.tree, self.leaves.value.abs())
        order = spread.argmax(1).argsort(stable=True).tolist()
        groups: list[list[Tensor]] = []
        boxes = torch.inf
        for tree in order:
            own = (self.leaves.tree == tree).nonzero()[:, 0]
            boxes *= len(own)
            if boxes > self.most:
                groups.append([])
                boxes = len(own)
            groups[-1].append(own)
        return groups

    def largest(self, x0: Tensor, y: Tensor, sought: Tensor, proven: Tensor, found: Tensor) -> Tensor:
        """Distances (n,) below which nothing is, between those proven and found already; of l0 whole ones.

        x0 (n, …), y (n,), sought (n, K): as in a `Question`.
        """
        whole = float(self.norm is Norm.L0)
        low, high = allowed(x0, self.domain)
        width = norms(
            torch.maximum(high - x0.flatten(1), x0.flatten(1) - low).view_as(x0), self.domain, self.norm
        )
        held, failed = proven - whole, torch.minimum(found, width)  # of whole numbers: nothing at so many
        largest = max(math.prod(map(len, group)) for group in self.groups)
        most = max(1, int(4 * ROOM / (min(largest, self.most) * self.leaves.features)))
        rows = torch.arange(len(x0))
        for _ in range(HALVINGS):
            rows = rows[failed[rows] - held[rows] > (1 if whole else 1e-3 * held[rows])]
            if not len(rows):
                break
            eps = (held[rows] + failed[rows]) / 2
            eps = eps.floor() if whole else eps
            parts = zip(torch.split(rows, most), torch.split(eps, most), strict=True)
            safe = torch.cat([self.safe(x0[part], y[part], sought[part], far) for part, far in parts])
            held[rows] = torch.where(safe, eps, held[rows])
            failed[rows] = torch.where(safe, failed[rows], eps)
        return held + whole

    def safe(self, x0: Tensor, y: Tensor, sought: Tensor, eps: Tensor) -> Tensor:
        """Whether no point within eps (n,) is answered as sought (n,)."""
        part = _Part.of(self, x0, y, eps)
        tie = self.trees.rank[None] < self.trees.rank[y][:, None]
        room = torch.where(tie, GRAIN, -GRAIN) if not self.trees.rounding else self.trees.rounding
        total = self.trees.start - self.trees.start[y][:, None] + room
        for group in self.groups:
            total = total + part.most(group)
        return ~((total >= 0) & sought).any(1)


@dataclass(frozen=True)
class _Part:
    """Samples x (n, d), the box of each (n, d + 1), and the leaves within eps of each (n, L)."""

    cliques: Cliques
    x: Tensor
    y: Tensor
    eps: Tensor
    low: Tensor
    high: Tensor
    pixel: Tensor
    near: Tensor

    @classmethod
    def of(cls, cliques: Cliques, x0: Tensor, y: Tensor, eps: Tensor) -> _Part:
        """Of samples x0 (n, …)."""
        leaves, norm = cliques.leaves, cliques.norm
        low, high = allowed(x0, cliques.domain)
        low = torch.nextafter(low, torch.full_like(low, -torch.inf))  # exclusive, as those of leaves are
        end = low.new_full((len(low), 1), torch.inf)
        low, high = torch.cat([low, -end], 1), torch.cat([high, end], 1)
        limit = (eps.square() if norm is Norm.L2 else eps) * SURE
        held = cls(cliques, x0.flatten(1), y, limit, low, high, pixels_of(cliques.domain, x0), torch.empty(0))
        number = torch.arange(len(leaves.tree))
        near = []
        for some in torch.split(number, max(1, ROOM // (len(x0) * leaves.feature.shape[1]))):
            near.append(held.reached(some))
        return cls(cliques, held.x, y, limit, low, high, held.pixel, torch.cat(near, 1))

    def reached(self, leaf: Tensor) -> Tensor:
        """Which leaves (l,) lie in the box and within eps, as far as their own features tell (n, l)."""
        leaves = self.cliques.leaves
        feature = leaves.feature[leaf]
        low, high = leaves.low[leaf], leaves.high[leaf]
        possible = ((self.low[:, feature] < high) & (low < self.high[:, feature])).all(2)
        gap = _gap(torch.cat([self.x, self.x[:, :1]], 1)[:, feature], low, high)  # of what fills up 0
        norm = Norm.LINF if self.cliques.norm is Norm.L0 else self.cliques.norm
        size = size_of(gap.flatten(0, 1), norm).view(possible.shape)
        if self.cliques.norm is Norm.L0:  # a feature that has to move is a pixel at least
            size = (size > 0).double()
        return possible & (size <= self.eps[:, None])

    def most(self, group: list[Tensor]) -> Tensor:
        """The most that the group's trees add to each class less that of y (n, K)."""
        leaves = self.cliques.leaves
        row, place = self.near[:, group[0]].nonzero(as_tuple=True)
        leaf = group[0][place]
        low, high = self._met(self.low[row], self.high[row], leaf)
        value = leaves.value[leaf]
        for tree in group[1:]:
            parts = [
                self._merged(tree, row[some], low[some], high[some], value[some])
                for some in torch.split(
                    torch.arange(len(row)), max(1, ROOM // (len(tree) * leaves.feature.shape[1]))
                )
            ]
            row, low, high, value = (torch.cat(held) for held in zip(*parts, strict=True))
        value = value - value.gather(1, self.y[row][:, None])
        most = torch.full((len(self.x), value.shape[1]), -torch.inf, dtype=torch.float64)
        return most.scatter_reduce(0, row[:, None].expand_as(value), value, "amax")

    def _merged(
        self, tree: Tensor, row: Tensor, low: Tensor, high: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes with each leaf of a further tree that meets them, if that is within eps."""
        leaves = self.cliques.leaves
        feature = leaves.feature[tree]
        meets = (low[:, feature] < leaves.high[tree]) & (leaves.low[tree] < high[:, feature])
        held, place = (meets.all(2) & self.near[row][:, tree]).nonzero(as_tuple=True)
        leaf, row = tree[place], row[held]
        low, high = self._met(low[held], high[held], leaf)
        gap = _gap(self.x[row], low[:, :-1], high[:, :-1])
        if self.cliques.norm is Norm.L0:
            moved = torch.zeros(len(gap), int(self.pixel.max()) + 1, dtype=torch.float64)
            size = (moved.index_add(1, self.pixel, gap) > 0).sum(1)
        else:
            size = size_of(gap, self.cliques.norm)
        kept = size <= self.eps[row]
        return row[kept], low[kept], high[kept], (value[held] + leaves.value[leaf])[kept]

    def _met(self, low: Tensor, high: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (m, d + 1) and what leaves (m,) ask of them."""
        leaves = self.cliques.leaves
        feature = leaves.feature[leaf]
        return (
            low.scatter_reduce(1, feature, leaves.low[leaf], "amax"),
            high.scatter_reduce(1, feature, leaves.high[leaf], "amin"),
        )


def _gap(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far x is from low < value <= high (…), in float32 as a model sees it."""
    above = torch.nextafter(low, torch.full_like(low, torch.inf))
    return torch.maximum(above.double() - x, x - high.double()).clamp_min(0)
