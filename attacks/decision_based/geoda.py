"""GeoDA: where the boundary is nearly flat, its normal at one point leads from the sample to the nearest."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.bisection import to_boundary
from robustbench_lite.attacks.decision_based.normal import boundary_normal
from robustbench_lite.attacks.decision_based.walk import Walk, Walking
from robustbench_lite.core.parameters import Count, Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm

GROWTH = 0.6 ** (-2 / 3)  # of the queries from estimate to estimate (section 3.3)
REACHES = 10  # of 1.5 times the distance before, the next 1.5 times as far, that a normal is followed to


@dataclass(frozen=True, kw_only=True)
class GeoDAState(Walking):
    """normal (n, …): the sum of the estimates so far."""

    normal: Tensor


@dataclass(frozen=True)
class GeoDA(Walk[GeoDAState]):
    """Estimates of the boundary's normal, each followed from the sample to the boundary
    (Rahmati et al. 2020, algorithm 1).

    Parameters
    ----------
    steps : int, default 10
        Estimates.
    tries : int, default 100
        Random points for the start, as in `Walk`.
    queries : int, default 100
        For the first estimate, at least 2; 1.4 times as many for each after it.
    side : int, optional
        Of the coarse images that the points of an estimate differ by; None: of the image itself.

    Notes
    -----
    Cost: about 2.5 · queries · (1.4^steps - 1) + 25 · steps forward passes; 7,400 at the defaults.

    Examples
    --------
    >>> GeoDA(steps=3).queries
    100
    """

    steps: Annotated[int, Range(1, 30)] = 10
    queries: Annotated[int, Range(2)] = 100
    side: Count | None = None

    name = "geoda"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Rahmati et al. 2020, arXiv:2003.06468"

    def points(self) -> int:
        return self._estimates(self.steps)

    def begun(self, problem: Problem, x: Tensor, started: Tensor) -> GeoDAState:
        return GeoDAState(z=x, started=started, normal=torch.zeros_like(x))

    def walk(self, problem: Problem, state: GeoDAState) -> GeoDAState:
        x, domain = state.z, problem.threat.domain
        distance = problem.threat.distance(x, problem.x0)
        normal = boundary_normal(problem, x, self._estimates(problem.step), self.side)
        normal = state.normal + problem.threat.steepest(normal)
        way = problem.threat.steepest(normal)
        reach, met = distance / 4, torch.zeros_like(problem.row, dtype=torch.bool)
        ahead = x
        for _ in range(REACHES):
            rows = (~met).nonzero()[:, 0]
            if not len(rows):
                break
            points = domain.clamp(problem.x0[rows] + per_row(reach[rows], x) * way[rows])
            good = problem.decisions(points, rows)
            ahead = ahead.index_copy(0, rows[good], points[good])
            met = met.index_fill(0, rows[good], True)
            reach = reach * 1.5
        rows = met.nonzero()[:, 0]
        ahead = ahead.index_copy(0, rows, to_boundary(problem[rows], ahead[rows]))
        nearer = met & (problem.threat.distance(ahead, problem.x0) < distance)
        return replace(state, z=torch.where(per_row(nearer, x), ahead, x), normal=normal)

    def _estimates(self, step: int) -> int:
        return math.ceil(self.queries * GROWTH ** (step - 1))
