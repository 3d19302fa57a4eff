"""Cells between thresholds: the answer of trees changes only from one to the next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustbench_lite.certify.leaves import Leaves
from robustbench_lite.core.structure import Trees

ROOM = 1 << 22  # numbers held at once


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

    @cached_property
    def leaves(self) -> Leaves:
        """The leaves of the trees."""
        return Leaves.of(self.trees, self.features)

    @property
    def at_once(self) -> int:
        """Of how many rows all moves are looked at together."""
        return max(1, ROOM // (self.leaves.feature.numel() + self.table[0].numel() * len(self.trees.start)))

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

    def at(self, x: Tensor) -> Tensor:
        """The cell that each feature of x (n, d) lies in; C for features that no tree looks at."""
        feature, low, _ = self.table
        passed = (x[:, feature] > low).long()
        count = torch.zeros(x.shape, dtype=torch.int64, device=x.device).index_add_(1, feature, passed)
        return torch.where(count > 0, self._begin[:-1] + count - 1, len(low))

    @cached_property
    def spans(self) -> tuple[Tensor, Tensor]:
        """The first cell of each feature of each leaf (L, D), and the one past the last; 0 for fillings."""
        feature, low, high = self.table
        leaves, begin = self.leaves, self._begin.tolist()
        first, last = torch.zeros_like(leaves.feature), torch.zeros_like(leaves.feature)
        for number in torch.unique(feature).tolist():
            cells = slice(begin[number], begin[number + 1])
            here = leaves.feature == number
            first[here] = cells.start + torch.searchsorted(low[cells], leaves.low[here])
            last[here] = cells.start + torch.searchsorted(high[cells], leaves.high[here], right=True)
        return first, last

    @cached_property
    def lookers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each feature the leaves that look at it (d, E): leaf, place among its features, first, last.

        As in `spans`; filled up with leaves that are at home in every cell.
        """
        leaves = self.leaves
        leaf, place = (leaves.feature < self.features).nonzero(as_tuple=True)
        feature, order = leaves.feature[leaf, place].sort(stable=True)
        leaf, place = leaf[order], place[order]
        number = torch.bincount(feature, minlength=self.features)
        rank = torch.arange(len(feature), device=feature.device) - (number.cumsum(0) - number)[feature]
        shape = self.features, max(1, int(number.max()))
        everywhere = len(self.table[0]) + 1
        held = [torch.full(shape, fill, device=feature.device) for fill in (0, 0, 0, everywhere)]
        for part, values in zip(held, (leaf, place, *(s[leaf, place] for s in self.spans)), strict=True):
            part[feature, rank] = values
        return held[0], held[1], held[2].int(), held[3].int()

    @cached_property
    def _begin(self) -> Tensor:
        """Of each feature the first cell (d + 1)."""
        every = torch.arange(self.features + 1, device=self.table[0].device)
        return torch.searchsorted(self.table[0], every)


@dataclass
class Standing:
    """Where points stand among the cells, and how far that is from home for every leaf.

    A leaf is at home with what its features are asked for. That of which one feature alone is away is reached
    by moving that feature.

    Parameters
    ----------
    cells : Cells
    point : Tensor
        (n, d).
    place : Tensor
        (n, d): the cell of each feature.
    away : Tensor
        (n, L) int16: how many of the features of each leaf are away.
    which : Tensor
        (n, L) int16: their places among the features of the leaf, added up.
    """

    cells: Cells
    point: Tensor
    place: Tensor
    away: Tensor
    which: Tensor

    @classmethod
    def of(cls, cells: Cells, point: Tensor) -> Standing:
        """Of points (n, d)."""
        leaves, place = cells.leaves, cells.at(point)
        first, last = cells.spans
        at = torch.cat([place, place[:, :1]], 1)[:, leaves.feature]  # (n, L, D)
        away = ((at < first) | (at >= last)) & (leaves.feature < cells.features)
        number = torch.arange(away.shape[2], dtype=torch.int16, device=point.device)
        which = (away * number).sum(2, dtype=torch.int16)
        return cls(cells, point.clone(), place, away.sum(2, dtype=torch.int16), which)

    def __getitem__(self, rows: Tensor) -> Standing:
        """A copy of rows (m,)."""
        return Standing(self.cells, self.point[rows], self.place[rows], self.away[rows], self.which[rows])

    def put(self, rows: Tensor, other: Standing) -> None:
        """Take over those of other (m, …) at rows (m,)."""
        for own, theirs in zip(self._parts, other._parts, strict=True):
            own[rows] = theirs

    def move(self, row: Tensor, feature: Tensor, cell: Tensor, value: Tensor) -> None:
        """Move a feature of each row (k,) into a cell, to a value there; a row's features each once."""
        leaf, place, first, last = (part[feature] for part in self.cells.lookers)  # (k, E)
        was, now = (at[:, None] for at in (self.place[row, feature].int(), cell.int()))
        here, there = ((at < first) | (at >= last) for at in (was, now))
        move, entry = (here ^ there).nonzero(as_tuple=True)
        change = there[move, entry].short() * 2 - 1
        at = row[move] * self.away.shape[1] + leaf[move, entry]
        self.away.view(-1).index_add_(0, at, change)
        self.which.view(-1).index_add_(0, at, change * place[move, entry].short())
        self.place[row, feature] = cell
        self.point[row, feature] = value

    def held(self) -> Tensor:
        """The leaf of every tree (n, T)."""
        return (self.away == 0).nonzero()[:, 1].view(len(self.away), -1)

    def scores(self) -> Tensor:
        """The scores (n, K), but for rounding."""
        return self.cells.trees.start + self.cells.leaves.value[self.held()].sum(1)

    def scores_of_moves(self) -> Tensor:
        """The scores (n, C, K) after a move of one feature into each cell, the others staying where they are.

        What the tree of a leaf that is so reached then says instead is added from the first to the last cell
        of that leaf's span.
        """
        leaves, cells, held, base = self.cells.leaves, len(self.cells.table[0]), self.held(), self.scores()
        row, leaf = (self.away == 1).nonzero(as_tuple=True)
        which = self.which[row, leaf].long()
        changed = leaves.value[leaf] - leaves.value[held[row, leaves.tree[leaf]]]
        sums = changed.new_zeros(len(self.away) * (cells + 1), base.shape[1])
        for span, sign in zip(self.cells.spans, (1, -1), strict=True):
            sums.index_add_(0, row * (cells + 1) + span[leaf, which], changed, alpha=sign)
        moved: Tensor = base[:, None] + sums.view(len(self.away), cells + 1, -1).cumsum(1)[:, :cells]
        return moved

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.point, self.place, self.away, self.which
