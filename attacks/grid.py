"""Every combination of evenly spaced parameters of a change: exact, as far as the grid is fine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

LARGEST = 100_000  # combinations


@dataclass(frozen=True)
class Grid(Attack[Iterate]):
    """Every combination of evenly spaced values of a transformation's parameters, the corners first
    (Engstrom et al. 2019, section 3.2).

    What it does not break no point of the grid breaks; between the points something may. Parameters are few
    where this can be done: an angle and two moves at 5 points each are 125 combinations.

    Parameters
    ----------
    points : int, default 5
        Values of each parameter, from the least to the largest, at least 2; an odd number holds the middle.

    Notes
    -----
    Cost: points ^ parameters forward passes at most.

    Examples
    --------
    >>> Grid(points=3).points
    3
    """

    points: Annotated[int, Range(2)] = 5

    name = "grid"
    access = Access.DECISION
    norms = frozenset[Norm]()
    threats = frozenset({"transform"})
    paper = "Engstrom et al. 2019, arXiv:1712.02779"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.points ** dimensions(model, threat) - 1)

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if refusal := super().refuses(model, threat, goal):
            return refusal
        if threat.over_inputs:
            return f"{self.name} tries values of parameters, and {threat} has none: its points are images"
        count = dimensions(model, threat)
        if self.points**count > LARGEST:
            return (
                f"{self.name} tries every combination: {self.points} ^ {count} under {threat}; "
                "pgd goes along gradients, noise draws at random"
            )
        return None

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=self._point(problem, 0))

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        problem.scores(state.z)
        return Iterate(z=self._point(problem, problem.step))

    def _point(self, problem: Problem, place: int) -> Tensor:
        """The combination at a place of the order (n, …)."""
        origin = problem.origin
        low, high = (
            problem.threat.linear_maximum(torch.full_like(origin, sign), problem.x0, problem.eps)
            for sign in (-1.0, 1.0)
        )
        share = _shares(self.points, origin[0].numel())[place].to(origin).reshape(origin.shape[1:])
        return problem.project(low + share * (high - low))


@lru_cache(8)
def _shares(points: int, count: int) -> Tensor:
    """All combinations (points ^ count, count) of shares of the way from the least to the largest.

    The outermost first, of those alike the largest: where parameters are at least 0 that changes most.
    """
    side = torch.linspace(0, 1, points, dtype=torch.float64)
    every = torch.cartesian_prod(*[side] * count).reshape(-1, count)
    every = every[every.sum(1).argsort(descending=True, stable=True)]
    return every[(every - 0.5).abs().sum(1).argsort(descending=True, stable=True)]


def dimensions(model: Model, threat: Threat) -> int:
    """How many parameters a change has."""
    return threat.origin(torch.zeros(1, *model.input_shape))[0].numel()
