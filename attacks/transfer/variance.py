"""Momentum attacks that take from each gradient what varies around the point it was taken at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.fixed_budget.mifgsm import MIFGSMState
from robustbench_lite.attacks.transfer.copies import CopiesFGSM
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Schedule


@dataclass(frozen=True, kw_only=True)
class VarianceState(MIFGSMState):
    """variance (n, …): the mean gradient around the last point less the gradient at it."""

    variance: Tensor


@dataclass(frozen=True)
class VMIFGSM(CopiesFGSM):
    """`mifgsm` with each gradient moved by how those around the last point differed from the one at it
    (Wang & He 2021, algorithm 1).

    The copies of `difgsm`, `tifgsm` and the others go with it: `vmifgsm:diversity=0.5,kernel=7`.

    Parameters
    ----------
    neighbours : int, default 20
        Points around each.
    reach : float, default 1.5
        How far they lie, as a multiple of eps.

    Notes
    -----
    Cost: steps · (neighbours + 1) forward and backward passes (times the copies), and one forward.

    Examples
    --------
    >>> VMIFGSM(steps=3).neighbours
    20
    """

    neighbours: Count = 20
    reach: Positive = 1.5

    name = "vmifgsm"
    paper = "Wang & He 2021, arXiv:2103.15571"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        copies = super().schedule(model, threat).points
        passes = 2 * self.steps * (self.neighbours + 1) * copies
        return Schedule(self.steps, points=self.neighbours * copies, passes=passes)

    def start(self, problem: Problem) -> VarianceState:
        none = torch.zeros_like(problem.x0)
        return VarianceState(z=problem.x0, velocity=none, variance=none)

    def step(self, problem: Problem, state: MIFGSMState) -> VarianceState:
        assert isinstance(state, VarianceState)
        at = self.ahead(problem, state)
        gradient = self.slope(problem, at)
        moved = self.along(problem, state, gradient + state.variance)
        wide = replace(problem.in_lanes(self.neighbours), explore=False)
        centre = at.repeat_interleave(self.neighbours, 0)
        around = problem.threat.random(wide.random("around"), centre, self.reach * wide.eps)
        mean = self.slope(wide, around).view(len(at), self.neighbours, *at.shape[1:]).mean(1)
        return VarianceState(z=moved.z, velocity=moved.velocity, variance=mean - gradient)


@dataclass(frozen=True)
class VNIFGSM(VMIFGSM):
    """`vmifgsm` with its gradients taken where the momentum leads next (Wang & He 2021, section 3.4).

    Examples
    --------
    >>> VNIFGSM(steps=3).lookahead
    True
    """

    lookahead: bool = True

    name = "vnifgsm"
