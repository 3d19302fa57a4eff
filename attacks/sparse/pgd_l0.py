"""PGD in l0: gradient steps on all pixels, of which the fewest allowed are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustbench_lite.core.parameters import Count, LossName, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class PGDL0(Attack[Iterate]):
    """x = project(x + step · gradient / ||gradient||_1), the projection keeping eps pixels
    (Croce & Hein 2019, section 3).

    It begins at random pixels of random values.

    Parameters
    ----------
    steps : int, default 100
        How many; theirs are 20 from ten starts.
    restarts : int, default 1
        Side by side.
    step_size : float, default 64.0
        The l1 length of a step, in half widths of the box for every pixel allowed.
    loss : {"ce", "dlr", "margin", "houdini"}, default "ce"
        That the steps raise.

    Notes
    -----
    Cost: restarts · (steps + 1) forward passes, restarts · steps backward.

    Examples
    --------
    >>> PGDL0(steps=3).restarts
    1
    """

    steps: Count = 100
    restarts: Count = 1
    step_size: Positive = 64.0
    loss: LossName = "ce"

    name = "pgd_l0"
    norms = frozenset({Norm.L0})
    paper = "Croce & Hein 2019, arXiv:1909.05040"

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.random_start())

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        gradient = problem.threat.domain.free(
            problem.evaluate(state.z, problem.loss_named(self.loss)).gradient
        )
        low, high = problem.threat.domain.bounds(state.z)
        length = self.step_size * problem.eps * float((high - low).amax()) / 2
        length = length / size_of(gradient, 1).clamp_min(1e-30)
        return Iterate(z=problem.project(state.z + per_row(torch.nan_to_num(length), gradient) * gradient))
