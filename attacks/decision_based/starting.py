"""Where decision-based attacks begin: at adversarial points, however far."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row

HANDFUL = 10  # points that a row without a start looks at, of the training samples and in every later step


def starting_points(problem: Problem, tries: int) -> tuple[Tensor, Tensor]:
    """An adversarial point for each row (n, …), and whether there is one (n,); x0 where there is none.

    The best that is known; else the nearest of so many random points of the box that succeeds; else of the
    nearest training samples of other classes (with a target, of that class).
    """
    started = problem.found
    best = torch.where(per_row(started, problem.x0), problem.best_z, problem.x0)
    if problem.target is not None:  # it may have been found on the way to another class
        started = started & problem.decisions(best)
        best = torch.where(per_row(started, best), best, problem.x0)
    x, started = at_random(problem, best, started, tries)
    lost = (~started).nonzero()[:, 0]
    points, rows = problem[lost].starts(HANDFUL)
    return _nearest(problem, x, started, points, lost[rows])


def at_random(problem: Problem, x: Tensor, started: Tensor, tries: int = HANDFUL) -> tuple[Tensor, Tensor]:
    """Rows without a start look at random points of the box."""
    rows = (~started).nonzero()[:, 0]
    lost = problem[rows]
    shape = tuple(lost.x0.shape[1:])
    low, high = lost.threat.domain.bounds(lost.x0)
    points = low + (high - low) * lost.random("start").uniform((tries, *shape), lost.x0.dtype)
    points = lost.threat.domain.kept(points, lost.x0[:, None])
    return _nearest(problem, x, started, points.flatten(0, 1), rows.repeat_interleave(tries))


def _nearest(
    problem: Problem, x: Tensor, started: Tensor, points: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows (m,) begin at the nearest of their points (m, …) that succeeds, where one does."""
    succeeds = problem.decisions(points, rows)
    distance = problem[rows].threat.distance(points, problem.x0[rows])
    distance = torch.where(succeeds, distance, torch.inf)
    nearest = torch.full_like(problem.eps, torch.inf).scatter_reduce(0, rows, distance, "amin")
    chosen = succeeds & (distance == nearest[rows])
    place = torch.arange(len(rows), device=rows.device)
    none = torch.full_like(problem.row, len(rows))
    first = none.scatter_reduce(0, rows[chosen], place[chosen], "amin")
    found = (first < none).nonzero()[:, 0]
    return x.index_copy(0, found, points[first[found]]), started.index_fill(0, found, True)
