"""HopSkipJump: along the boundary towards the sample, by decisions alone."""

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

HALVINGS = 20  # of a step that leaves the class sought, before the row stays where it is


@dataclass(frozen=True)
class HopSkipJump(Walk[Walking]):
    """The boundary's normal from decisions around a point, a step along it, back to the boundary
    (Chen, Jordan & Wainwright 2019, algorithm 2).

    Estimate (equation 15), geometric step (section 3.3), binary search.

    Parameters
    ----------
    steps : int, default 40
        How many.
    tries : int, default 100
        Random points for the start, as in `Walk`.
    queries : int, default 100
        For the first estimate, at least 2; √t times as many at step t.
    side : int, optional
        Of the coarse images that the points of an estimate differ by; None: of the image itself.

    Notes
    -----
    Cost: about (2/3 · queries · √steps + log2(features^1.5) + 3) · steps forward passes.

    Examples
    --------
    >>> HopSkipJump(queries=1)
    Traceback (most recent call last):
        ...
    robustbench_lite.core.errors.InvalidParameter: queries = 1: must be at least 2
    """

    steps: Count = 40
    queries: Annotated[int, Range(2)] = 100
    side: Count | None = None

    name = "hopskipjump"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Chen, Jordan & Wainwright 2019, arXiv:1904.02144"

    def points(self) -> int:
        return self._estimates(self.steps)

    def begun(self, problem: Problem, x: Tensor, started: Tensor) -> Walking:
        return Walking(z=x, started=started)

    def walk(self, problem: Problem, state: Walking) -> Walking:
        x = state.z
        distance = problem.threat.distance(x, problem.x0)
        normal = boundary_normal(problem, x, self._estimates(problem.step), self._side(x))
        normal = problem.threat.steepest(normal)
        ahead, moved = _as_far_as_possible(problem, x, normal, distance / math.sqrt(problem.step))
        return replace(state, z=torch.where(per_row(moved, x), to_boundary(problem, ahead), x))

    def _estimates(self, step: int) -> int:
        return int(self.queries * math.sqrt(step))

    def _side(self, x: Tensor) -> int | None:
        return self.side


@dataclass(frozen=True)
class QEBA(HopSkipJump):
    """`hopskipjump` with its estimates among coarse images, enlarged (Li et al. 2020, QEBA-S, section 3.2).

    Parameters
    ----------
    side : int, optional
        Of those images; None: a quarter of the image's, and at least 4.

    Notes
    -----
    Cost: as `hopskipjump`.

    Examples
    --------
    >>> QEBA(steps=3).queries
    100
    """

    name = "qeba"
    paper = "Li et al. 2020, arXiv:2005.14137"

    def _side(self, x: Tensor) -> int | None:
        return self.side or max(4, min(x.shape[2:], default=1) // 4)


def _as_far_as_possible(problem: Problem, x: Tensor, normal: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The longest step of size, size/2, size/4 … that stays adversarial (n, …), and whether there was one."""
    ahead, moved = x, torch.zeros_like(problem.row, dtype=torch.bool)
    for _ in range(HALVINGS):
        rows = (~moved).nonzero()[:, 0]
        if not len(rows):
            break
        points = problem.threat.domain.clamp(x[rows] + per_row(size[rows], x) * normal[rows])
        good = problem.decisions(points, rows)
        ahead = ahead.index_copy(0, rows[good], points[good])
        moved = moved.index_fill(0, rows[good], True)
        size = size / 2
    return ahead, moved
