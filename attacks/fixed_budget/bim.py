"""The basic iterative method: FGSM in small steps; by two names, with two defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Length
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import EVERY_TASK, Attack, Iterate, Schedule

GREY = 1 / 255  # one grey level


@dataclass(frozen=True)
class Iterative(Attack[Iterate]):
    """Small steps along the steepest direction, each projected back (Kurakin et al. 2016, section 2).

    x = project(x + step_size · steepest(∇ cross-entropy)), from x0. With the goal `least_likely` this is
    their iterative least-likely class method, with `given` or `random` the targeted one.

    Parameters
    ----------
    steps : int, default 40
    step_size : float, optional
        In the units of x; None: eps / 4. `bim` is the same method with the paper's own steps.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> Iterative(steps=3).step_size is None
    True
    """

    steps: Count = 40
    step_size: Length | None = None

    name = "iterative"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    threats = frozenset({"ball", "transform"})
    tasks = EVERY_TASK
    paper = "Kurakin et al. 2016, arXiv:1607.02533"

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.origin)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        gradient = problem.evaluate(state.z, cross_entropy).gradient
        size = problem.size(0.25) if self.step_size is None else self.step_size
        return Iterate(z=problem.project(state.z + size * problem.threat.steepest(gradient)))


@dataclass(frozen=True)
class BIM(Iterative):
    """`iterative` in steps of one grey level, as many as Kurakin et al. 2016 take (section 2).

    Parameters
    ----------
    steps : int, optional
        None: min(255 eps + 4, 1.25 · 255 eps) rounded up, 10 at 8/255, and enough to cross eps.
    step_size : float, default 1 / 255
        In the units of x.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> BIM().step_size == 1 / 255
    True
    """

    steps: Count | None = None  # type: ignore[assignment]
    step_size: Length | None = GREY

    name = "bim"
    norms = frozenset({Norm.LINF})
    threats = frozenset({"ball"})
    revision = 2

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        if self.steps is not None:
            return Schedule(self.steps)
        eps = threat.eps or 0.0
        levels = 255 * eps
        crossing = math.ceil(eps / (self.step_size or GREY) - 1e-9)
        return Schedule(max(1, crossing, math.ceil(min(levels + 4, 1.25 * levels) - 1e-9)))
