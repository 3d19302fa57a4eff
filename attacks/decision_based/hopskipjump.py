"""HopSkipJump: along the boundary towards the sample, by decisions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.bisection import is_linf, to_boundary
from robustbench_lite.attacks.decision_based.starting import at_random, starting_points
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

HALVINGS = 20  # of a step that leaves the class sought, before the row stays where it is


@dataclass(frozen=True, kw_only=True)
class HopSkipJumpState(Iterate):
    """started (n,): whether x is adversarial, at the boundary; until then x is x0."""

    started: Tensor


@dataclass(frozen=True)
class HopSkipJump(Attack[HopSkipJumpState]):
    """The boundary's normal from decisions around a point, a step along it, back to the boundary
    (Chen, Jordan & Wainwright 2019, algorithm 2).

    Estimate (equation 15), geometric step (section 3.3), binary search. The start is the best
    point known, else the nearest of the random points of the box that succeed; where none does, of the
    nearest training samples of other classes (with a target, of that class).

    Parameters
    ----------
    steps : int, default 40
        How many.
    queries : int, default 100
        For the first estimate, at least 2; √t times as many at step t.
    tries : int, default 100
        Random points for the start, and some more in every step while there is none.

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
    tries: Count = 100

    name = "hopskipjump"
    access = Access.DECISION
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Chen, Jordan & Wainwright 2019, arXiv:1904.02144"
    minimum_norm = True
    uses_starts = True

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=max(self.tries, self._estimates(self.steps)))

    def start(self, problem: Problem) -> HopSkipJumpState:
        return _begun(problem, *starting_points(problem, self.tries))

    def step(self, problem: Problem, state: HopSkipJumpState) -> HopSkipJumpState:
        if not bool(state.started.all()):
            lost = (~state.started).nonzero()[:, 0]
            late = problem[lost]
            begun = _begun(late, *at_random(late, state.z[lost], state.started[lost]))
            state = HopSkipJumpState(
                z=state.z.index_copy(0, lost, begun.z),
                started=state.started.index_copy(0, lost, begun.started),
            )
        rows = state.started.nonzero()[:, 0]
        if not len(rows):
            return state
        walking, x = problem[rows], state.z[rows]
        distance = walking.threat.distance(x, walking.x0)
        normal = self._normal(walking, x, distance)
        ahead, moved = _as_far_as_possible(walking, x, normal, distance / math.sqrt(problem.step))
        x = torch.where(per_row(moved, x), to_boundary(walking, ahead), x)
        return replace(state, z=state.z.index_copy(0, rows, x))

    def _estimates(self, step: int) -> int:
        return int(self.queries * math.sqrt(step))

    def _normal(self, problem: Problem, x: Tensor, distance: Tensor) -> Tensor:
        """The direction in which decisions turn adversarial, estimated from points around x."""
        n, count, shape = len(x), self._estimates(problem.step), tuple(x.shape[1:])
        noise = problem.random("around")
        draw = 2 * noise.uniform((count, *shape)) - 1 if is_linf(problem) else noise.gaussian((count, *shape))
        unit = draw / draw.flatten(2).norm(dim=2).clamp_min(1e-12).reshape(n, count, *[1] * len(shape))
        low, high = problem.threat.domain.bounds(x)
        first = torch.full_like(distance, 0.1) * float((high - low).amax())
        radius = first if problem.step == 1 else distance / math.prod(shape)
        radius = per_row(radius, unit)
        centre = x[:, None]
        around = problem.threat.domain.clamp((centre + radius * unit).flatten(0, 1)).view_as(unit)
        around = problem.threat.domain.kept(around, centre)
        rows = torch.arange(n, device=x.device).repeat_interleave(count)
        inside = problem.decisions(around.flatten(0, 1), rows).view(n, count).to(x.dtype) * 2 - 1
        mean = inside.mean(1, keepdim=True)
        weight = torch.where(mean.abs() == 1, inside, inside - mean)
        normal = torch.einsum("nb,nbd->nd", weight, ((around - centre) / radius.clamp_min(1e-12)).flatten(2))
        return problem.threat.steepest(normal.reshape(x.shape))


def _begun(problem: Problem, x: Tensor, started: Tensor) -> HopSkipJumpState:
    """Rows with a start, brought to the boundary."""
    rows = started.nonzero()[:, 0]
    return HopSkipJumpState(z=x.index_copy(0, rows, to_boundary(problem[rows], x[rows])), started=started)


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
