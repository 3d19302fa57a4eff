"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import EVERY_TASK, Attack, Iterate


@dataclass(frozen=True)
class FGSM(Attack[Iterate]):
    """One step of size eps along the steepest direction (Goodfellow et al. 2014, section 4).

    x = project(x0 + eps · steepest(∇ cross-entropy)); in linf the direction is the gradient's sign.

    Notes
    -----
    Cost: 2 forward passes, 1 backward.

    Examples
    --------
    >>> FGSM().name
    'fgsm'
    """

    name = "fgsm"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    tasks = EVERY_TASK
    paper = "Goodfellow et al. 2014, arXiv:1412.6572"

    def start(self, problem: Problem) -> Iterate:
        gradient = problem.evaluate(problem.x0, cross_entropy).gradient
        return Iterate(z=problem.project(problem.x0 + problem.size() * problem.threat.steepest(gradient)))
