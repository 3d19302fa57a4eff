"""Projected gradient descent, the attack that others are held against."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustbench_lite.attacks.fixed_budget.odi import diversified_start
from robustbench_lite.core.parameters import Amount, Count, Length, LossName
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.task import Loss
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import EVERY_TASK, Attack, Iterate


@dataclass(frozen=True)
class PGD(Attack[Iterate]):
    """Steps along the steepest direction from a random point of the ball (Madry et al. 2018, section 2.1).

    x = project(x + step_size · steepest(∇ loss)), from a point uniform in the ball of any norm. Theirs has
    equal steps (`step_size`).

    Parameters
    ----------
    steps : int, default 40
        How many.
    restarts : int, default 1
        From as many points, side by side.
    step_size : float, optional
        In the units of x; None: eps, falling to 0 along a cosine. The best point is remembered, so that large
        steps cost nothing, and on networks break more than equal ones of eps / 4 or 2.5 eps / steps.
    loss : {"ce", "dlr", "margin", "houdini"}, default "ce"
        That the steps raise.
    random_start : bool, default True
        False begins at x0, without diversified steps.
    diversified : int, default 0
        Steps of eps along a random mixture of the scores before the first (ODI; its authors take 2).

    Notes
    -----
    Cost: restarts · (diversified + steps + 1) forward passes, restarts · (diversified + steps) backward.

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
    diversified: Amount = 0

    name = "pgd"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    threats = frozenset({"ball", "transform"})
    tasks = EVERY_TASK
    paper = "Madry et al. 2018, arXiv:1706.06083"
    revision = 2

    def start(self, problem: Problem) -> Iterate:
        start = diversified_start(problem, self.diversified) if self.random_start else problem.origin
        return Iterate(z=start)

    def objective(self, problem: Problem) -> Loss:
        """What the steps raise."""
        return problem.loss_named(self.loss)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        gradient = problem.evaluate(state.z, self.objective(problem)).gradient
        left = (1 + math.cos(math.pi * (problem.step - 1) / self.steps)) / 2
        size = problem.size(left) if self.step_size is None else self.step_size
        return Iterate(z=problem.project(state.z + size * problem.threat.steepest(gradient)))
