"""ASMA: an adaptive step on the scores of the positions that do not show the mask yet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.losses import AnswerLoss
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class MaskScores(AnswerLoss):
    """The sum of the target's scores where the prediction is not the target yet."""

    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        assert target is not None
        wanted = target.clamp_min(0)[:, None]
        own = scores.gather(1, wanted)[:, 0]
        best = scores.detach().amax(1)
        missing = (target >= 0) & (own.detach() < best)
        return (own * missing).flatten(1).sum(1)


@dataclass(frozen=True)
class ASMA(Attack[Iterate]):
    """Gradient ascent on the target's scores less the squared l2 distance, with a step that grows as the
    prediction comes to look like the mask (Ozbulak, Van Messem & De Neve 2019, section 3).

    Parameters
    ----------
    steps : int, default 500
        Theirs are 300.
    rate : float, default 0.01
        Of the step at a perfect overlap: step = rate · (mean IoU with the mask) + least. Theirs is 1e-6, for
        images of hundreds of pixels a side, whose scores sum up to more.
    least : float, default 1e-3
        Theirs is 1e-7.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> ASMA(steps=3).rate
    0.01
    """

    steps: Count = 500
    rate: Positive = 0.01
    least: Positive = 1e-3

    name = "asma"
    norms = frozenset({Norm.L2})
    tasks = frozenset({"segmentation"})
    paper = "Ozbulak, Van Messem & De Neve 2019, arXiv:1907.13124"
    minimum_norm = True
    fixed_budget = False

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if refusal := super().refuses(model, threat, goal):
            return refusal
        if not goal.targeted:
            return (
                f"{self.name} aims at a mask, such as goal class:0, least_likely or one given; not at {goal}"
            )
        return None

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.x0)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        assert problem.target is not None
        model, domain = problem.oracle.model, problem.threat.domain
        found = problem.evaluate(state.z, MaskScores())
        said = model.prediction(found.scores)
        overlap = 1 - model.task.error(said, problem.target, model.num_classes)
        size = self.rate * overlap * (problem.step > 1) + self.least
        slope = domain.free(found.gradient) - 2 * (state.z - problem.x0)
        return Iterate(z=domain.clamp(state.z + per_row(size, slope) * slope))
