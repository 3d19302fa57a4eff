"""Dense adversary generation: the positions that are not changed yet, all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.losses import AnswerLoss
from robustbench_lite.core.parameters import Count, Length
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.task import Task
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate

SMALL = 0.003
DENSE = frozenset({"segmentation", "sequence", "multilabel"})


@dataclass(frozen=True)
class LeftOver(AnswerLoss):
    """The sum of the margins of the positions that are not changed yet."""

    task: Task

    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        gaps, labelled = self.task.gaps(scores, y, target)
        return torch.where(labelled, gaps.clamp_max(0), 0.0).sum(1)


@dataclass(frozen=True)
class DAG(Attack[Iterate]):
    """Steps along the normalised gradient of the margins of all positions that are not changed yet
    (Xie et al. 2017, algorithm 1).

    It ends at the first point that is broken. Without an eps that point is what it finds; in a ball each step
    is projected.

    Parameters
    ----------
    steps : int, default 200
        At most.
    step_size : float, optional
        Of each in the threat's norm, in the units of x; None: .003 in linf, and as much for every feature in
        l2. Theirs is half a grey level, .002.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward, at most.

    Examples
    --------
    >>> DAG(steps=3).step_size is None
    True
    """

    steps: Count = 200
    step_size: Length | None = None

    name = "dag"
    norms = frozenset({Norm.L2, Norm.LINF})
    tasks = DENSE
    paper = "Xie et al. 2017, arXiv:1703.08603"
    minimum_norm = True

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.x0)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        found = problem.evaluate(state.z, LeftOver(problem.oracle.model.task))
        gradient, l2 = problem.threat.domain.free(found.gradient), problem.threat.norm is Norm.L2
        length = size_of(gradient, 2.0 if l2 else torch.inf).clamp_min(1e-30)
        usual = SMALL * math.sqrt(gradient[0].numel()) if l2 else SMALL
        size = usual if self.step_size is None else self.step_size
        ahead = problem.project(state.z + size * gradient / per_row(length, gradient))
        done = found.adversarial if state.done is None else state.done | found.adversarial
        return Iterate(z=torch.where(per_row(done, ahead), state.z, ahead), done=done)
