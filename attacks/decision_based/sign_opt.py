"""OPT and Sign-OPT: the direction along which the boundary lies nearest, found by zeroth-order steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.walk import BISECTION, Walk, Walking
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm

WIDENINGS = 10  # of 5 % each, until a radius is adversarial again; as many of 5 % the other way
HALVINGS = 7  # of the 5 % in between
LENGTHS = (4.0, 2.0, 1.0, 0.5, 0.25)  # steps tried, as multiples of the last one that was taken


@dataclass(frozen=True, kw_only=True)
class OptState(Walking):
    """length (n,): of the last step taken, as a share of the direction."""

    length: Tensor


@dataclass(frozen=True)
class SignOpt(Walk[OptState]):
    """Steps against the mean of random directions, each with the sign by which it moves the boundary away,
    which one query tells (Cheng et al. 2020, algorithm 1).

    The point moves where the boundary along the new direction lies nearer.

    Parameters
    ----------
    steps : int, default 50
        How many.
    tries : int, default 100
        Random points for the start, as in `Walk`.
    queries : int, default 100
        Directions for each gradient.
    reach : float, default 0.01
        How far they lie from the direction, as a share of it.
    step_size : float, default 0.2
        The first step's, likewise.

    Notes
    -----
    Cost: about (queries + 25) · steps forward passes.

    Examples
    --------
    >>> SignOpt(steps=3).queries
    100
    """

    steps: Count = 50
    queries: Count = 100
    reach: Positive = 0.01
    step_size: Positive = 0.2

    name = "sign_opt"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Cheng et al. 2020, arXiv:1909.10773"

    def points(self) -> int:
        return self.queries

    def begun(self, problem: Problem, x: Tensor, started: Tensor) -> OptState:
        return OptState(z=x, started=started, length=torch.full_like(problem.eps, self.step_size))

    def walk(self, problem: Problem, state: OptState) -> OptState:
        x = state.z
        out = x - problem.x0
        distance = problem.threat.distance(x, problem.x0)
        way = out / per_row(size_of(out, 2).clamp_min(1e-12), x)
        slope = self.slope(problem, way, distance)
        slope = slope / per_row(size_of(slope, 2).clamp_min(1e-12), x)
        best, length, left = x, state.length, torch.arange(len(x), device=x.device)
        for multiple in LENGTHS:  # the first that brings the boundary nearer
            if not len(left):
                break
            rows = problem[left]
            tried = way[left] - per_row(multiple * state.length[left], x) * slope[left]
            # A query a little nearer than the best known point tells whether the boundary is.
            point = _along(rows, tried, 0.999 * distance[left])
            nearer = rows.decisions(point)
            found = left[nearer]
            reached = _to_boundary(problem[found], tried[nearer], 0.999 * distance[found])
            best = best.index_copy(0, found, reached)
            length = length.index_copy(0, found, multiple * state.length[found])
            left = left[~nearer]
        length = length.index_copy(0, left, state.length[left] / 4).clamp(1e-6, 1.0)
        return replace(state, z=best, length=length)

    def slope(self, problem: Problem, way: Tensor, distance: Tensor) -> Tensor:
        """In which direction the boundary goes away (n, …)."""
        around, rows = self._around(problem, way)
        tried = (way[:, None] + self.reach * around).flatten(0, 1)
        wide = problem[rows]
        inside = wide.decisions(_along(wide, tried, distance[rows])).view(len(way), -1)
        return torch.einsum("nb,nbd->nd", 1 - 2 * inside.to(way), around.flatten(2)).reshape(way.shape)

    def _around(self, problem: Problem, way: Tensor) -> tuple[Tensor, Tensor]:
        """Random unit directions (n, Q, …), and the row of each."""
        around = problem.random("around").gaussian((self.queries, *way.shape[1:])).to(way)
        around = problem.threat.domain.free(around)
        length = around.flatten(2).norm(dim=2).clamp_min(1e-12)
        around = around / length.reshape(*length.shape, *[1] * (way.dim() - 1))
        return around, torch.arange(len(way), device=way.device).repeat_interleave(self.queries)


@dataclass(frozen=True)
class Opt(SignOpt):
    """As `sign_opt`, with the distance of the boundary measured along each direction
    (Cheng et al. 2019, algorithm 1).

    Parameters
    ----------
    steps : int, default 50
        How many.
    tries : int, default 100
        Random points for the start, as in `Walk`.
    queries : int, default 10
        Directions for each gradient.
    reach : float, default 0.01
        How far they lie from the direction, as a share of it.
    step_size : float, default 0.2
        The first step's, likewise.

    Notes
    -----
    Cost: about (12 · queries + 25) · steps forward passes.

    Examples
    --------
    >>> Opt(steps=3).queries
    10
    """

    queries: Count = 10

    name = "opt"
    paper = "Cheng et al. 2019, arXiv:1807.04457"

    def passes_of_step(self) -> int:
        return 12 * self.queries + BISECTION  # each direction is followed to the boundary

    def slope(self, problem: Problem, way: Tensor, distance: Tensor) -> Tensor:
        around, rows = self._around(problem, way)
        tried = (way[:, None] + self.reach * around).flatten(0, 1)
        point = _to_boundary(problem[rows], tried, distance[rows])
        change = problem[rows].threat.distance(point, problem.x0[rows]) - distance[rows]
        return torch.einsum("nb,nbd->nd", change.view(len(way), -1).to(way), around.flatten(2)).reshape(
            way.shape
        )


def _along(problem: Problem, way: Tensor, distance: Tensor) -> Tensor:
    """The point at a distance from the sample on a way (n, …)."""
    unit = problem.threat.distance(problem.x0 + way, problem.x0).clamp_min(1e-12)
    return problem.threat.domain.clamp(problem.x0 + per_row(distance / unit, way) * way)


def _to_boundary(problem: Problem, way: Tensor, distance: Tensor) -> Tensor:
    """The boundary on a way (n, …), looked for around a distance: outwards, else inwards, then between.

    Where it lies further out than that, the last point looked at.
    """
    low, high = distance, distance
    seeking = torch.arange(len(way), device=way.device)
    inside = problem.decisions(_along(problem, way, distance))
    out, back = seeking[~inside], seeking[inside]
    for _ in range(WIDENINGS):
        if not len(out) and not len(back):
            break
        high = high.index_copy(0, out, high[out] * 1.05)
        low = low.index_copy(0, back, low[back] / 1.05)
        rows = torch.cat([out, back])
        asked = torch.cat([high[out], low[back]])
        stays = problem.decisions(_along(problem[rows], way[rows], asked), rows)
        further, nearer = stays[: len(out)], stays[len(out) :]
        low = low.index_copy(0, out[~further], high[out[~further]])
        high = high.index_copy(0, back[nearer], low[back[nearer]])
        out, back = out[~further], back[nearer]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        stays = problem.decisions(_along(problem, way, middle))
        low, high = torch.where(stays, low, middle), torch.where(stays, middle, high)
    return _along(problem, way, high)
