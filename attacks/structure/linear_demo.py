"""The exact adversarial example of a linear model, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.structure import Linear
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True)
class LinearDemo(Attack[Iterate]):
    """The point of the ball where one class gains most on the true one (Goodfellow et al. 2014, section 3).

    The score of class j less y's is linear, (w_j - w_y)·x + b_j - b_y, so in linf it is highest at
    x0 + eps · sign(w_j - w_y), inside the box; in every norm at the projection of a point far along that.
    Every class but y is tried, so no admissible point can do what none of these does: the answer is exact.

    Notes
    -----
    Cost: K forward passes (targeted: 2).

    Examples
    --------
    >>> LinearDemo().access.name
    'STRUCTURE'
    """

    name = "linear_demo"
    access = Access.STRUCTURE
    paper = "Goodfellow et al. 2014, arXiv:1412.6572"

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        refusal = super().refuses(model, threat, goal)
        if refusal is None and not isinstance(model.structure, Linear):
            return f"linear_demo needs a linear model; {model.name} is not one"
        return refusal

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(passes=1 + model.num_classes)

    def start(self, problem: Problem) -> Iterate:
        structure = problem.oracle.model.structure
        assert isinstance(structure, Linear)
        weight = structure.weight.to(problem.x0.device)
        classes = len(structure.bias)
        offsets = [None] if problem.target is not None else range(1, classes)
        for offset in offsets:
            to = problem.target if offset is None else (problem.y + offset) % classes
            assert to is not None
            direction = (weight[to] - weight[problem.y]).reshape(problem.x0.shape)
            problem.scores(problem.threat.linear_maximum(direction, problem.x0, problem.eps))
        return Iterate(z=problem.best_z)
