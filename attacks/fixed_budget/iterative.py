"""The basic iterative method: FGSM in small steps."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.core.errors import require
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class Iterative(Attack):
    """Small steps along the steepest direction, each projected back (Kurakin et al. 2016, section 2).

    x = project(x + step_size · steepest(∇ cross-entropy)), from x0. With the goal `least_likely` this is
    their iterative least-likely class method, with `given` or `random` the targeted one.

    steps: how many. step_size: in the units of x; None: eps / 4. Theirs is 1/255, with
    min(255 eps + 4, 319 eps) steps. Cost: steps + 1 forward passes, steps backward.
    """

    steps: int = 40
    step_size: float | None = None

    name = "iterative"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Kurakin et al. 2016, arXiv:1607.02533"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.step_size is None or self.step_size > 0, "step_size", self.step_size, "above 0")

    def start(self, problem: Problem) -> Iterate:
        return Iterate(x=problem.x0)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        gradient = problem.evaluate(state.x, cross_entropy).gradient
        size = problem.size(0.25) if self.step_size is None else self.step_size
        return Iterate(x=problem.project(state.x + size * problem.threat.steepest(gradient)))
