"""Moves past thresholds, feature by feature: climbs to another answer, and descents to nearer ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustbench_lite.certify.cells import Cells, Standing
from robustbench_lite.certify.leaves import LESSER, NEARER, Wanted, allowed, nearer
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.threat import Norm

TIED = 1e-12  # by how much two scores are apart that may be equal
GAINED = 1e-9  # by how much a score has to rise to have risen
EXCHANGES = 10  # of a feature for others, at most
FAR = 1e18  # what a move gains that is enough, before any that is not


@dataclass(frozen=True)
class Climb:
    """Samples, and the points near them that are looked for.

    Parameters
    ----------
    cells : Cells
    x : Tensor
        (n, d) what is attacked.
    low, high : Tensor
        (n, d), the box.
    wanted : Wanted
    norm : Norm, default Norm.LINF
    """

    cells: Cells
    x: Tensor
    low: Tensor
    high: Tensor
    wanted: Wanted
    norm: Norm = Norm.LINF

    @classmethod
    def near(cls, cells: Cells, x0: Tensor, wanted: Wanted, norm: Norm, domain: Domain) -> Climb:
        """Near samples x0 (n, …), within what the domain allows but for steps and choices."""
        return cls(cells, x0.flatten(1), *allowed(x0, domain), wanted, norm)

    def __getitem__(self, rows: Tensor) -> Climb:
        wanted = self.wanted[rows]
        return Climb(self.cells, self.x[rows], self.low[rows], self.high[rows], wanted, self.norm)

    def climbed(self) -> Tensor:
        """Points (n, d) of the boxes where a climb from x ended."""

        def of(part: Climb) -> Tensor:
            standing = part.standing
            part.climb(standing)
            return standing.point

        return self._in_parts(of)

    def descended(self, start: Tensor) -> Tensor:
        """Points (n, d) nearer to x than those of start, by descents and, but in linf, by exchanges.

        Those that are not answered as wanted stay as they are.
        """

        def of(part: Climb, begin: Tensor) -> Tensor:
            if part.norm is not Norm.LINF:
                box, leaves = (part.low, part.high), part.cells.leaves
                begin = nearer(part.cells.trees, leaves, part.x, begin, box, part.wanted, part.norm)
            standing = Standing.of(part.cells, begin)
            part.descend(standing)
            part.exchange(standing)
            return standing.point

        return self._in_parts(of, start)

    def nearest(self, halvings: int = 10) -> Tensor:
        """Points (n, d) that climbs within half of what is left come to, and descents from there.

        What no climb from x leads to stays at x.
        """
        return self._in_parts(lambda part: part._nearest(halvings))

    @cached_property
    def standing(self) -> Standing:
        """Where x stands."""
        return Standing.of(self.cells, self.x)

    def climb(self, standing: Standing, radius: Tensor | None = None, steps: int = 60) -> Tensor:
        """Move points within the boxes until they are answered as wanted, or no move gains anything.

        In linf all moves that gain something, where that gains more than the best one; in other norms that
        which gains most for what it costs.

        Parameters
        ----------
        standing : Standing
            Where they begin, within the radius; they are moved.
        radius : Tensor, optional
            (n,) that the norm may not pass, squared for l2; None: the boxes are the only limit.
        steps : int, default 60
            At most.

        Returns
        -------
        Tensor of bool
            (n,): whether they ended there.
        """
        x, feature = self.x, self.cells.table[0]
        scores = self.cells.scores(standing.point)
        done, height = self.wanted.met(scores), self.wanted.height(scores)
        rows = (~done).nonzero()[:, 0]
        for _ in range(steps if len(feature) else 0):  # trees that ask nothing have no moves
            if not len(rows):
                break
            held = standing[rows]
            gap = (held.point.double() - x[rows].double()).abs()
            size = moved_size(gap, feature, self._far[rows], self.norm)
            some = self._possible[rows] & (self._value[rows] != held.point[:, feature])
            if radius is not None:
                some &= size <= radius[rows, None]
            scores = held.scores_of_moves()
            new, met = self._heights(scores, some, rows)
            gain = new - height[rows, None]
            if self.norm is not Norm.LINF:
                cost = size_of(gap, self.norm)
                gain = torch.where(gain > GAINED, gain / (size - cost[:, None]).clamp_min(1e-9), -torch.inf)
            best = torch.where(met, FAR - size, gain).max(1)
            better = best.values > GAINED
            stuck = ~better
            moved, found = self._by_two(standing, rows[stuck], scores[stuck], height, radius)
            height[moved], done[moved] = self.wanted[moved].height(found), self.wanted[moved].met(found)
            rows, cell, place = rows[better], best.indices[better], better.nonzero()[:, 0]
            height[rows], done[rows] = new[place, cell], met[place, cell]
            row, move = rows, cell
            if self.norm is Norm.LINF and len(rows):
                row, move = self._together(standing, rows, gain[place], height, done, cell)
            standing.move(row, feature[move], move, self._value[row, move])
            rows = torch.cat([rows, moved])
            rows = rows[~done[rows]]
        ended = done.nonzero()[:, 0]  # scores as they are summed up decide ties
        done[ended] = self.wanted[ended].met(self.cells.scores(standing.point[ended]))
        return done

    def descend(self, standing: Standing, steps: int = 200) -> None:
        """Move points that are answered as wanted nearer to x, one feature at a time, as long as they are.

        In linf those features only that are furthest from x.
        """
        x, feature = self.x, self.cells.table[0]
        rows = self.wanted.met(self.cells.scores(standing.point)).nonzero()[:, 0]
        for _ in range(steps if len(feature) else 0):
            if not len(rows):
                break
            held = standing[rows]
            gap = (held.point.double() - x[rows].double()).abs()
            new = self._far[rows]
            back = self._possible[rows] & (new < gap[:, feature])
            if self.norm is Norm.LINF:
                back &= gap[:, feature] >= gap.amax(1, keepdim=True)
            height, met = self._heights(held.scores_of_moves(), back, rows)
            best = torch.where(met, moved_size(gap, feature, new, self.norm), torch.inf).min(1)
            found = best.values < torch.inf
            even = found & (height.gather(1, best.indices[:, None])[:, 0].abs() <= TIED)
            if bool(even.any()):  # scores as they are summed up decide ties
                tied, cell = even.nonzero()[:, 0], best.indices[even]
                moved = held.point[tied]
                moved[torch.arange(len(tied), device=x.device), feature[cell]] = self._value[rows[tied], cell]
                found[tied] = self.wanted[rows[tied]].met(self.cells.scores(moved))
            rows, cell = rows[found], best.indices[found]
            standing.move(rows, feature[cell], cell, self._value[rows, cell])

    def exchange(self, standing: Standing) -> None:
        """Move points nearer to x: a feature goes back whole, others go out, but in linf.

        As `descend`; every changed feature is tried, and the best exchange is kept.
        """
        if self.norm is Norm.LINF:
            return
        x, home = self.x, self.standing.place
        rows = self.wanted.met(self.cells.scores(standing.point)).nonzero()[:, 0]
        for _ in range(EXCHANGES):
            if not len(rows):
                break
            size = size_of((standing.point[rows].double() - x[rows].double()).abs(), self.norm)
            row, feature = (standing.point[rows] != x[rows]).nonzero(as_tuple=True)
            new = torch.full((len(row),), torch.inf, dtype=torch.float64, device=x.device)
            found = standing.point[rows[row]]
            for some in torch.split(torch.arange(len(row), device=x.device), self.cells.at_once):
                every, away = rows[row[some]], feature[some]
                part, begin = self[every], standing[every]
                begin.move(torch.arange(len(some), device=x.device), away, home[every, away], x[every, away])
                radius = size[row[some]] * (1 - NEARER) - (0.5 if self.norm is Norm.L0 else 0.0)
                there = part.climb(begin, radius)
                part.descend(begin)
                reached = size_of((begin.point.double() - part.x.double()).abs(), self.norm)
                new[some], found[some] = torch.where(there, reached, torch.inf), begin.point
            best = size.scatter_reduce(0, row, new, "amin")
            number = torch.arange(len(row), device=x.device)
            tied = torch.where(new == best[row], number, len(row))
            first = torch.full_like(rows, len(row)).scatter_reduce(0, row, tied, "amin")
            better = best < size
            rows = rows[better]
            standing.put(rows, Standing.of(self.cells, found[first[better]]))

    def _nearest(self, halvings: int) -> Tensor:
        x = self.x
        every = torch.arange(len(x), device=x.device)
        below = self.standing[every]  # where climbs begin
        found = self.standing[every]
        proven = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        met = self.wanted.met(self.cells.scores(x))
        for _ in range(halvings):
            most = size_of((found.point.double() - x.double()).abs(), self.norm)
            middle = (proven + most) / 2
            tried = below[every]
            there = self.climb(tried, torch.where(met, middle, torch.inf))
            if self.norm is Norm.LINF:  # where moves cost nothing, and the next half descends
                failed = (~there).nonzero()[:, 0]
                below.put(failed, tried[failed])
            else:
                self.descend(tried)
            reached = size_of((tried.point.double() - x.double()).abs(), self.norm)
            nearer = (there & (~met | (reached < most))).nonzero()[:, 0]
            found.put(nearer, tried[nearer])
            met, proven = met | there, torch.where(there, proven, middle)
        self.descend(found)
        self.exchange(found)
        return found.point

    @cached_property
    def _points(self) -> tuple[Tensor, Tensor]:
        return self.cells.points(self.x, self.low, self.high)

    @property
    def _value(self) -> Tensor:
        """Of each cell the value nearest to x (n, C)."""
        return self._points[0]

    @property
    def _possible(self) -> Tensor:
        """Whether the box reaches into each cell (n, C)."""
        return self._points[1]

    @cached_property
    def _far(self) -> Tensor:
        """How far from x each cell begins (n, C) float64."""
        return (self._value.double() - self.x[:, self.cells.table[0]].double()).abs()

    def _together(
        self, standing: Standing, rows: Tensor, gain: Tensor, height: Tensor, done: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rows and cells (k,) to move to: of every feature the best, where that is higher than cell (m,)."""
        feature = self.cells.table[0]
        shape = len(rows), self.cells.features
        best = gain.new_full(shape, GAINED).scatter_reduce(1, feature.expand_as(gain), gain, "amax")
        number = torch.arange(len(feature), device=gain.device)
        first = torch.where((gain == best[:, feature]) & (gain > GAINED), number, -1)
        none = torch.full(shape, -1, device=gain.device)
        chosen = none.scatter_reduce(1, feature.expand_as(gain), first, "amax")
        place, at = (chosen >= 0).nonzero(as_tuple=True)
        move = chosen[place, at]
        point = standing.point[rows]
        point[place, at] = self._value[rows[place], move]
        scores = self.cells.scores(point)
        wanted = self.wanted[rows]
        higher = (wanted.height(scores) > height[rows]) & ~done[rows]
        height[rows[higher]] = wanted.height(scores)[higher]
        done[rows[higher]] = wanted.met(scores)[higher]
        alone, whole = (~higher).nonzero()[:, 0], higher[place]
        return torch.cat([rows[alone], rows[place[whole]]]), torch.cat([cell[alone], move[whole]])

    def _by_two(
        self, standing: Standing, rows: Tensor, scores: Tensor, height: Tensor, radius: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Move rows (m,) to a leaf of which two features are away, where that is higher; which, and scores.

        scores: of the moves of one. Of each row the move is tried that promises most: what either feature
        brings alone, and the leaf.
        """
        held, cells, leaves = standing[rows], self.cells, self.cells.leaves
        row, leaf = (held.away == 2).nonzero(as_tuple=True)
        if not len(row):
            return rows[:0], scores[:0, 0]
        first, last = (span[leaf] for span in cells.spans)
        feature, every = leaves.feature[leaf], rows[row][:, None]
        at = torch.cat([held.place, held.place[:, :1]], 1)[row[:, None], feature]
        away = ((at < first) | (at >= last)) & (feature < cells.features)
        two = away.nonzero()[:, 1].view(-1, 2)
        first, last, feature = (part.gather(1, two) for part in (first, last, feature))
        cell = torch.minimum(torch.maximum(self.standing.place[every, feature], first), last - 1)
        gap = (held.point.double() - self.x[rows].double()).abs()
        own = held.held()
        promised = scores[row[:, None], cell].sum(1) - held.scores()[row]
        promised += leaves.value[leaf] - leaves.value[own[row, leaves.tree[leaf]]]
        gain = self.wanted[every[:, 0]].height(promised) - height[every[:, 0]]
        before = size_of(gap, self.norm)[row]
        size = _size_after(before, gap[row[:, None], feature], self._far[every, cell], self.norm)
        if self.norm is not Norm.LINF:
            gain = torch.where(gain > GAINED, gain / (size - before).clamp_min(1e-9), -torch.inf)
        some = self._possible[every, cell].all(1)
        if radius is not None:
            some &= size <= radius[every[:, 0]]
        best = _best_of(row, torch.where(some, gain, -torch.inf), len(rows))
        tried = (best >= 0).nonzero()[:, 0]
        feature, cell = feature[best[tried]], cell[best[tried]]
        value = self._value[rows[tried][:, None], cell]
        point = held.point[tried]
        point[torch.arange(len(tried), device=row.device)[:, None], feature] = value
        found = cells.scores(point)
        higher = self.wanted[rows[tried]].height(found) > height[rows[tried]] + GAINED
        kept = rows[tried[higher]]
        for side in (0, 1):
            standing.move(kept, feature[higher, side], cell[higher, side], value[higher, side])
        return kept, found[higher]

    def _heights(self, scores: Tensor, allowed: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where each move of a feature of rows leads to (m, C), and whether the answer there is wanted.

        scores (m, C, K) of the moves; -inf where a move is not allowed.
        """
        height = torch.full(allowed.shape, -torch.inf, dtype=torch.float64, device=allowed.device)
        met = torch.zeros_like(allowed)
        row, cell = allowed.nonzero(as_tuple=True)
        wanted, scores = self.wanted[rows[row]], scores[row, cell]
        found = wanted.height(scores)
        there = found > TIED
        even = (found.abs() <= TIED).nonzero()[:, 0]  # where the ranks of classes decide
        there[even] = wanted[even].met(scores[even])
        height[row, cell], met[row, cell] = found, there
        return height, met

    def _in_parts(self, of: Callable[..., Tensor], *others: Tensor) -> Tensor:
        every = torch.arange(len(self.x), device=self.x.device)
        parts = [
            of(self[rows], *(o[rows] for o in others)) for rows in torch.split(every, self.cells.at_once)
        ]
        return torch.cat(parts) if parts else self.x


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


def _best_of(row: Tensor, gain: Tensor, rows: int) -> Tensor:
    """The place of the most that each row (rows,) gains by its entries (k,); -1 where none gains."""
    best = gain.new_full((rows,), GAINED).scatter_reduce(0, row, gain, "amax")
    number = torch.arange(len(row), device=row.device)
    ahead = torch.where((gain == best[row]) & (gain > GAINED), number, -1)
    return torch.full((rows,), -1, device=row.device).scatter_reduce(0, row, ahead, "amax")


def _size_after(size: Tensor, old: Tensor, new: Tensor, norm: Norm) -> Tensor:
    """Norms (k,), as in `size_of`, after two features that were old (k, 2) far are new; linf: at most."""
    match norm:
        case Norm.L1:
            return size - old.sum(1) + new.sum(1)
        case Norm.L2:
            return size - old.square().sum(1) + new.square().sum(1)
        case Norm.L0:
            return size - (old > 0).sum(1) + (new > 0).sum(1)
        case Norm.LINF:
            return torch.maximum(size, new.amax(1))


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
