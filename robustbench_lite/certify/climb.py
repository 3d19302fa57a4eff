"""Moves past thresholds: the answer of trees changes only there, so that a search needs no other places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustbench_lite.certify.leaves import LESSER, NEARER, Leaves, Wanted
from robustbench_lite.core.structure import Trees
from robustbench_lite.core.threat import Norm

ROOM = 1 << 22  # numbers held at once
TIED = 1e-12  # by how much two scores are apart that may be equal
EXCHANGES = 10  # of a feature for others, at most
FAR = 1e18  # what a move gains that is enough, before any that is not


@dataclass(frozen=True)
class Cells:
    """Between the thresholds of a feature lie cells, low < x <= high, in which no answer changes.

    Parameters
    ----------
    trees : Trees
    features : int
        How many an input has.
    """

    trees: Trees
    features: int

    @cached_property
    def table(self) -> tuple[Tensor, Tensor, Tensor]:
        """feature (C,), low and high (C,) float32 of all cells, in order."""
        trees = self.trees
        inner = trees.left != torch.arange(len(trees.left), device=trees.left.device)
        feature, low, high = [], [], []
        for number in torch.unique(trees.feature[inner]).tolist():
            at = torch.unique(trees.threshold[inner & (trees.feature == number)])
            end = at.new_full((1,), torch.inf)
            feature.append(torch.full((len(at) + 1,), number, device=at.device))
            low.append(torch.cat([-end, at]))
            high.append(torch.cat([at, end]))
        if not feature:
            return trees.feature[:0], trees.threshold[:0], trees.threshold[:0]
        return torch.cat(feature), torch.cat(low), torch.cat(high)

    def points(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """In each cell the value nearest to x (n, d) within low <= value <= high (n, C); if there is."""
        feature, below, most = self.table
        above = torch.nextafter(below, torch.full_like(below, torch.inf))
        least = torch.maximum(low[:, feature], above)
        most = torch.minimum(high[:, feature], most)
        return torch.minimum(torch.maximum(x[:, feature], least), most), least <= most

    def distances(self, x: Tensor, low: Tensor, high: Tensor) -> list[Tensor]:
        """How far from x (n, d) each cell of a feature begins, each distance once, in order; from 0 on."""
        value, possible = self.points(x, low, high)
        apart = (value.double() - x[:, self.table[0]].double()).abs()
        return [
            torch.unique(torch.cat([row.new_zeros(1), row[some]]))
            for row, some in zip(apart, possible, strict=True)
        ]

    def scores(self, x: Tensor) -> Tensor:
        """The scores of x (m, d), (m, K) float64."""
        trees = self.trees
        return trees.start + trees.value[trees.leaves(x)].sum(1)

    def climb(
        self,
        x: Tensor,
        low: Tensor,
        high: Tensor,
        wanted: Wanted,
        norm: Norm = Norm.LINF,
        radius: Tensor | None = None,
        start: Tensor | None = None,
        steps: int = 60,
    ) -> tuple[Tensor, Tensor]:
        """Points of boxes (n, d) that are answered as wanted, by one move of a feature after the other.

        In linf the move that gains most; in other norms that which gains most for what it costs.

        Parameters
        ----------
        x : Tensor
            (n, d) what is attacked.
        low, high : Tensor
            (n, d).
        wanted : Wanted
        norm : Norm, default Norm.LINF
        radius : Tensor, optional
            (n,) that the norm may not pass, squared for l2; None: the boxes are the only limit.
        start : Tensor, optional
            (n, d) where to begin, in the boxes; by default at x.
        steps : int, default 60
            At most.

        Returns
        -------
        Tensor, Tensor of bool
            (n, d) where the climb ended, and whether the answer there is wanted (n,).
        """
        point, feature = (x if start is None else start).clone(), self.table[0]
        scores = self.scores(point)
        done = wanted.met(scores)
        height = wanted.height(scores)
        rows = (~done).nonzero()[:, 0]
        value, possible = self.points(x, low, high)
        far = (value.double() - x[:, feature].double()).abs()
        cost = size_of((point.double() - x.double()).abs(), norm)
        for _ in range(steps):
            if not len(rows):
                break
            gap = (point[rows].double() - x[rows].double()).abs()
            size = moved_size(gap, feature, far[rows], norm)
            some = possible[rows] & (value[rows] != point[rows][:, feature])
            if radius is not None:
                some &= size <= radius[rows, None]
            new, met = self._heights(point[rows], some, wanted[rows])
            gain = new - height[rows, None]
            if norm is not Norm.LINF:
                gain = gain / (size - cost[rows, None]).clamp_min(1e-9)
            best = torch.where(met, FAR - size, gain).max(1)
            better = best.values > 0
            rows, cell = rows[better], best.indices[better]
            point[rows, feature[cell]] = value[rows, cell]
            scores = self.scores(point[rows])  # as they are summed up, which decides a tie
            height[rows], done[rows] = wanted[rows].height(scores), wanted[rows].met(scores)
            cost[rows] = size[better].gather(1, cell[:, None])[:, 0]
            rows = rows[~done[rows]]
        return point, done

    def exchange(
        self, x: Tensor, start: Tensor, low: Tensor, high: Tensor, wanted: Wanted, norm: Norm
    ) -> Tensor:
        """Points (n, d) nearer to x than those answered as wanted: a feature goes back whole, others go out.

        As `descend`; every changed feature is tried, and the best exchange is kept.
        """
        point = start.clone()
        rows = wanted.met(self.scores(point)).nonzero()[:, 0]
        for _ in range(EXCHANGES):
            if not len(rows):
                break
            row, feature = (point[rows] != x[rows]).nonzero(as_tuple=True)
            every = rows[row]
            begin = point[every].clone()
            begin[torch.arange(len(every), device=x.device), feature] = x[every, feature]
            size = size_of((point[rows].double() - x[rows].double()).abs(), norm)
            origin, least, most, part = x[every], low[every], high[every], wanted[every]
            radius = size[row] * (1 - NEARER) - (0.5 if norm is Norm.L0 else 0.0)
            found, there = self.climb(origin, least, most, part, norm, radius, begin)
            found = self.descend(origin, found, least, most, part, norm)
            new = torch.where(there, size_of((found.double() - origin.double()).abs(), norm), torch.inf)
            best = size.scatter_reduce(0, row, new, "amin")
            chosen = there & (new == best[row])
            point[every[chosen]] = found[chosen]
            rows = rows[best < size]
        return point

    def shrink(
        self,
        x: Tensor,
        start: Tensor,
        low: Tensor,
        high: Tensor,
        wanted: Wanted,
        norm: Norm,
        halvings: int = 8,
    ) -> Tensor:
        """Points (n, d) nearer to x than those answered as wanted: climbs within half of what is left.

        As `descend`, which follows each climb that succeeds.
        """
        point, proven = start.clone(), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        met = wanted.met(self.scores(point))
        for _ in range(halvings):
            most = size_of((point.double() - x.double()).abs(), norm)
            middle = (proven + most) / 2
            radius = torch.where(met, middle, torch.inf)
            found, there = self.climb(x, low, high, wanted, norm, radius)
            if norm is Norm.LINF:  # from what is left of the point that is known, too
                rows = (~there).nonzero()[:, 0]
                far, own = radius[rows, None].to(x), x[rows]
                begin = torch.minimum(torch.maximum(point[rows], own - far), own + far)
                found[rows], there[rows] = self.climb(
                    own, low[rows], high[rows], wanted[rows], norm, radius[rows], begin
                )
            found = self.descend(x, found, low, high, wanted, norm)
            nearer = there & (~met | (size_of((found.double() - x.double()).abs(), norm) < most))
            point = torch.where(nearer[:, None], found, point)
            met, proven = met | there, torch.where(there, proven, middle)
        return point if norm is Norm.LINF else self.exchange(x, point, low, high, wanted, norm)

    def descend(
        self,
        x: Tensor,
        start: Tensor,
        low: Tensor,
        high: Tensor,
        wanted: Wanted,
        norm: Norm,
        steps: int = 200,
    ) -> Tensor:
        """Points (n, d) nearer to x than those answered as wanted: one feature at a time goes back.

        Parameters
        ----------
        x, start : Tensor
            (n, d); starts that are not answered as wanted stay as they are.
        low, high : Tensor
            (n, d), the box.
        wanted : Wanted
        norm : Norm
        steps : int, default 200
            At most.

        Returns
        -------
        Tensor
            (n, d).
        """
        point, feature = start.clone(), self.table[0]
        rows = wanted.met(self.scores(point)).nonzero()[:, 0]
        value, possible = self.points(x, low, high)
        for _ in range(steps):
            if not len(rows):
                break
            gap = (point[rows].double() - x[rows].double()).abs()
            new = (value[rows].double() - x[rows][:, feature].double()).abs()
            back = possible[rows] & (new < gap[:, feature])
            size = moved_size(gap, feature, new, norm)
            _, met = self._heights(point[rows], back, wanted[rows])
            best = torch.where(met, size, torch.inf).min(1)
            found = best.values < torch.inf
            rows, chosen = rows[found], best.indices[found]
            moved = point[rows].clone()
            moved[torch.arange(len(rows), device=x.device), feature[chosen]] = value[rows, chosen]
            rows, moved = (part[wanted[rows].met(self.scores(moved))] for part in (rows, moved))
            point[rows] = moved
        return point

    @cached_property
    def leaves(self) -> Leaves:
        """The leaves of the trees."""
        return Leaves.of(self.trees, self.features)

    @cached_property
    def spans(self) -> tuple[Tensor, Tensor]:
        """The first cell of each feature of each leaf (L, D), and the one past the last; 0 for fillings."""
        feature, low, high = self.table
        leaves, device = self.leaves, low.device
        begin = torch.searchsorted(feature, torch.arange(self.features + 1, device=device))
        first, last = torch.zeros_like(leaves.feature), torch.zeros_like(leaves.feature)
        for number in torch.unique(feature).tolist():
            cells = slice(int(begin[number]), int(begin[number + 1]))
            here = leaves.feature == number
            first[here] = cells.start + torch.searchsorted(low[cells], leaves.low[here])
            last[here] = cells.start + torch.searchsorted(high[cells], leaves.high[here], right=True)
        return first, last

    def _heights(self, point: Tensor, allowed: Tensor, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """Where each move of a feature leads to (m, C), and whether the answer there is wanted.

        -inf where a move is not allowed.
        """
        size = max(1, ROOM // (self.leaves.feature.numel() + allowed.shape[1] * len(self.trees.start)))
        height = torch.full(allowed.shape, -torch.inf, dtype=torch.float64, device=point.device)
        met = torch.zeros_like(allowed)
        for rows in torch.split(torch.arange(len(point), device=point.device), size):
            row, cell = allowed[rows].nonzero(as_tuple=True)
            scores = self._scores_of_moves(point[rows])[row, cell]
            row = rows[row]
            found = wanted[row].height(scores)
            there = found > TIED
            even = (found.abs() <= TIED).nonzero()[:, 0]  # where the ranks of classes decide
            there[even] = wanted[row[even]].met(scores[even])
            height[row, cell], met[row, cell] = found, there
        return height, met

    def _scores_of_moves(self, point: Tensor) -> Tensor:
        """The scores (m, C, K) after a move of one feature into each cell, the others staying where they are.

        A leaf of which one feature alone is not at home is reached by moving that feature: what its tree then
        says instead is added from the first to the last cell of its span.
        """
        leaves = self.leaves
        held = leaves.at(self.trees, point)
        base = self.trees.start + leaves.value[held].sum(1)
        at = torch.cat([point, point[:, :1]], 1)[:, leaves.feature]  # (m, L, D)
        away = ((at <= leaves.low) | (at > leaves.high)) & (leaves.feature < self.features)
        row, leaf = (away.sum(2) == 1).nonzero(as_tuple=True)
        which = away[row, leaf].byte().argmax(1)
        changed = leaves.value[leaf] - leaves.value[held[row, leaves.tree[leaf]]]
        cells = len(self.table[0])
        sums = point.new_zeros(len(point), cells + 1, base.shape[1], dtype=torch.float64)
        first, last = (span[leaf, which] for span in self.spans)
        sums.index_put_((row, first), changed, accumulate=True)
        sums.index_put_((row, last), -changed, accumulate=True)
        return base[:, None] + sums.cumsum(1)[:, :cells]


def size_of(gap: Tensor, norm: Norm) -> Tensor:
    """The norm of gaps (n, d), squared for l2 (n,)."""
    match norm:
        case Norm.L1:
            return gap.sum(1)
        case Norm.L2:
            return gap.square().sum(1)
        case Norm.L0:
            return (gap > 0).sum(1).double()
        case Norm.LINF:
            return gap.amax(1)


def moved_size(gap: Tensor, feature: Tensor, new: Tensor, norm: Norm) -> Tensor:
    """The norm (n, C) of gaps (n, d) when feature c's becomes new (n, C), their sum weighing a little."""
    old = gap[:, feature]
    total = gap.sum(1, keepdim=True) - old + new
    match norm:
        case Norm.L1:
            return total
        case Norm.L2:
            return gap.square().sum(1, keepdim=True) - old.square() + new.square()
        case Norm.L0:
            return (gap > 0).sum(1, keepdim=True) - (old > 0).double() + (new > 0).double() + LESSER * total
        case Norm.LINF:
            top = gap.topk(min(2, gap.shape[1]), dim=1)
            second = top.values[:, -1:] if gap.shape[1] > 1 else torch.zeros_like(top.values)
            others = torch.where(feature == top.indices[:, :1], second, top.values[:, :1])
            return torch.maximum(others, new) + LESSER * total
