"""NewtonFool: Newton's steps that lower the probability of the class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class NewtonFool(Attack[Iterate]):
    """Steps along the gradient of the class's probability, as long as would take it to 1/K if it were linear,
    or `eta` of the sample's length (Jang et al. 2017, algorithm 1).

    The step is min(eta · ||x0|| · |gradient|, p - 1/K) / |gradient|. With a target, its probability rises
    towards 1 instead. A sample is done at its first success.

    Parameters
    ----------
    steps : int, default 100
        At most.
    eta : float, default 0.01
        How far a step goes at most, relative to the sample's length.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> NewtonFool(steps=3).eta
    0.01
    """

    steps: Count = 100
    eta: Positive = 0.01

    name = "newtonfool"
    norms = frozenset({Norm.L2})
    paper = "Jang et al. 2017, doi:10.1145/3134600.3134635"
    minimum_norm = True
    fixed_budget = False

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.x0)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        found = problem.evaluate(state.z, _probability)
        gradient = problem.threat.domain.free(found.gradient)
        steep = size_of(gradient, 2).clamp_min(1e-12)
        # The loss is -p, or the target's p: what is missing to 1/K, or to 1.
        missing = -found.loss - 1 / found.scores.shape[1] if problem.target is None else 1 - found.loss
        most = self.eta * size_of(problem.x0, 2)
        size = torch.minimum(most, missing.clamp_min(1e-3) / steep)
        ahead = state.z + per_row(size / steep, gradient) * gradient
        return Iterate(z=problem.threat.domain.clamp(ahead), done=problem.found)


def _probability(scores: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """-p(y), or p(target) (n,)."""
    of, sign = (y, -1.0) if target is None else (target, 1.0)
    return sign * scores.softmax(1).gather(1, of[:, None])[:, 0]
