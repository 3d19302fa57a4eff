"""Projected gradient descent, the attack that others are held against."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.core.errors import require
from robustbench_lite.core.losses import loss_named
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class PGD(Attack):
    """Steps along the steepest direction from a random point of the ball (Madry et al. 2018, section 2.1).

    x = project(x + step_size · steepest(∇ loss)), from a point uniform in the ball of any norm.

    steps: how many. restarts: from as many points, side by side. step_size: in the units of x; None:
    2.5 eps / steps, which can cross the ball. loss: `ce`, `dlr` or `margin`. random_start: False begins at
    x0. Cost: restarts · (steps + 1) forward passes, restarts · steps backward.
    """

    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    loss: str = "ce"
    random_start: bool = True

    name = "pgd"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Madry et al. 2018, arXiv:1706.06083"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.restarts >= 1, "restarts", self.restarts, "at least 1")
        require(self.step_size is None or self.step_size > 0, "step_size", self.step_size, "above 0")
        loss_named(self.loss)

    def start(self, problem: Problem) -> Iterate:
        return Iterate(x=problem.random_start() if self.random_start else problem.x0)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        gradient = problem.evaluate(state.x, loss_named(self.loss)).gradient
        size = problem.size(2.5 / self.steps) if self.step_size is None else self.step_size
        return Iterate(x=problem.project(state.x + size * problem.threat.steepest(gradient)))
