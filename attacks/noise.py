"""Random noise: the control that every benchmark should show beside its attacks."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.core.errors import require
from robustbench_lite.core.model import Access
from robustbench_lite.core.problem import Problem
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class Noise(Attack):
    """Random points, uniform in the ball, then projected into the box (Carlini et al. 2019, section 4.4).

    steps: further draws after the first. Cost: steps + 1 forward passes.
    """

    steps: int = 9

    name = "noise"
    access = Access.DECISION
    paper = "Carlini et al. 2019, arXiv:1902.06705"

    def __post_init__(self) -> None:
        require(self.steps >= 0, "steps", self.steps, "at least 0")

    def start(self, problem: Problem) -> Iterate:
        return Iterate(x=problem.random_start())

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        problem.scores(state.x)
        return Iterate(x=problem.random_start())
