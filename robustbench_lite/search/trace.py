"""The path of an attack: what the model said of every iterate whose gradient was asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import AnyAttack, Composite, Fitted


class Trace:
    """An observer of a problem that keeps the scores of every batch asked for gradients, one row a lane.

    truth: ask the true model about each point too, beside what the search asks, and keep the inputs; no
    sample pays for it.
    """

    def __init__(self, truth: bool = False) -> None:
        self.truth = truth
        self.path: list[Tensor] = []
        self.inputs: list[Tensor] = []

    def asked(self) -> None:
        """Scores alone are no part of a path."""

    def evaluated(self, problem: Problem, z: Tensor, scores: Tensor) -> None:
        """Keep the scores of z (m, …), one point a row."""
        if self.truth:
            inputs = problem.threat.render(z, problem.x0)
            scores = problem.oracle.truth(inputs)[0]
            self.inputs.append(inputs.detach().cpu())
        self.path.append(scores.detach().cpu())

    def steps(self, count: int) -> Tensor:
        """The scores (steps, rows, K) of the last `count` questions that were about the same rows."""
        return _last(self.path, count)

    def points(self, count: int) -> Tensor:
        """The inputs (steps, rows, …) that those were about, where the truth was asked."""
        return _last(self.inputs, count)


def _last(path: list[Tensor], count: int) -> Tensor:
    same = [one for one in path if len(one) == len(path[-1])]
    return torch.stack(same[-count:]) if same else torch.empty(0, 1, 1)


def can_be_traced(attack: AnyAttack, model: Model, threat: Threat, goal: Goal) -> bool:
    """Whether a path says something: many steps along gradients, of a model that stands still."""
    single = not isinstance(attack, Composite | Fitted) and attack.access is Access.GRADIENT
    many = single and attack.schedule(model, threat).steps > 1
    return many and not goal.targeted and not model.stochastic
