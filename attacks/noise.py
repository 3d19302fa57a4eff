"""Random noise: the control that every benchmark should show beside its attacks."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.core.model import Access
from robustbench_lite.core.parameters import Amount
from robustbench_lite.core.problem import Problem
from robustbench_lite.search.attack import EVERY_TASK, Attack, Iterate


@dataclass(frozen=True)
class Noise(Attack[Iterate]):
    """Random points, uniform in the ball, then projected into the box (Carlini et al. 2019, section 4.4).

    Parameters
    ----------
    steps : int, default 9
        Further draws after the first.

    Notes
    -----
    Cost: steps + 1 forward passes.

    Examples
    --------
    >>> Noise().steps
    9
    """

    steps: Amount = 9

    name = "noise"
    access = Access.DECISION
    control = True
    threats = frozenset({"ball", "box", "transform"})
    tasks = EVERY_TASK
    paper = "Carlini et al. 2019, arXiv:1902.06705"

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.random_start())

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        problem.scores(state.z)
        return Iterate(z=problem.random_start())
