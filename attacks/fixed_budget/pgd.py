"""Projected gradient descent, the attack that others are held against."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.core.losses import loss_named
from robustbench_lite.core.parameters import Count, Length, LossName
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class PGD(Attack[Iterate]):
    """Steps along the steepest direction from a random point of the ball (Madry et al. 2018, section 2.1).

    x = project(x + step_size · steepest(∇ loss)), from a point uniform in the ball of any norm.

    Parameters
    ----------
    steps : int, default 40
        How many.
    restarts : int, default 1
        From as many points, side by side.
    step_size : float, optional
        In the units of x; None: 2.5 eps / steps, which can cross the ball.
    loss : {"ce", "dlr", "margin"}, default "ce"
        That the steps raise.
    random_start : bool, default True
        False begins at x0.

    Notes
    -----
    Cost: restarts · (steps + 1) forward passes, restarts · steps backward.

    Examples
    --------
    >>> PGD(steps=3).restarts
    1
    """

    steps: Count = 40
    restarts: Count = 1
    step_size: Length | None = None
    loss: LossName = "ce"
    random_start: bool = True

    name = "pgd"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    threats = frozenset({"ball", "rotation"})
    paper = "Madry et al. 2018, arXiv:1706.06083"

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.random_start() if self.random_start else problem.origin)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        gradient = problem.evaluate(state.z, loss_named(self.loss)).gradient
        size = problem.size(2.5 / self.steps) if self.step_size is None else self.step_size
        return Iterate(z=problem.project(state.z + size * problem.threat.steepest(gradient)))
