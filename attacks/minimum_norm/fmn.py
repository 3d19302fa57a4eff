"""Fast minimum norm: the ball is fitted to the boundary while the gradient moves inside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.parameters import Count, Fraction, Length
from robustbench_lite.core.problem import Evaluation, Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import ALL_NORMS, Norm
from robustbench_lite.search.attack import Attack, Iterate

DUAL = {Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: math.inf, Norm.L0: math.inf}


@dataclass(frozen=True, kw_only=True)
class FMNState(Iterate):
    """size (n,): of the ball that x was projected into."""

    size: Tensor


@dataclass(frozen=True)
class FMN(Attack[FMNState]):
    """Gradient steps on the margin, projected into a ball that follows the boundary
    (Pintor et al. 2021, algorithm 1).

    The ball shrinks by gamma when x is adversarial and grows when it is not; until something is found its
    size is the distance of the boundary as the gradient tells it.

    Parameters
    ----------
    steps : int, default 100
        How many.
    step_size : float, default 1.0
        The first, in the units of x, falling to a hundredth; the default grows with the box.
    gamma : float, default 0.05
        The first change of the ball, falling to a fiftieth; between 0 and 1.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> FMN(steps=3).gamma
    0.05
    """

    steps: Count = 100
    step_size: Length = 1.0
    gamma: Fraction = 0.05

    name = "fmn"
    norms = ALL_NORMS
    paper = "Pintor et al. 2021, arXiv:2102.12827"
    minimum_norm = True
    fixed_budget = False

    def start(self, problem: Problem) -> FMNState:
        return FMNState(z=problem.x0, size=torch.ones_like(problem.eps))

    def step(self, problem: Problem, state: FMNState) -> FMNState:
        threat = problem.threat
        found = problem.evaluate(state.z, margin)
        left = (1 + math.cos(math.pi * (problem.step - 1) / self.steps)) / 2
        gamma = self.gamma * (0.02 + 0.98 * left)
        size = self._fitted(problem, threat.norm, state, found, gamma)
        gradient = threat.domain.free(found.gradient)
        length = size_of(gradient, 2).clamp_min(1e-30)
        step = self.step_size * (0.01 + 0.99 * left)
        ahead = state.z + step * gradient / per_row(length, gradient)
        return FMNState(z=threat.project(ahead, problem.x0, size), size=size)

    def _fitted(
        self, problem: Problem, norm: Norm | None, state: FMNState, found: Evaluation, gamma: float
    ) -> Tensor:
        """The size of the next ball, no larger than the best distance known."""
        best = problem.best_distance
        smaller, larger = state.size * (1 - gamma), state.size * (1 + gamma)
        if norm is Norm.L0:
            smaller = torch.minimum(state.size - 1, smaller.floor())
            larger = torch.maximum(state.size + 1, larger.floor())
        else:
            steepness = size_of(found.gradient, DUAL[norm or Norm.L2]).double().clamp_min(1e-30)
            boundary = problem.threat.distance(state.z, problem.x0) + found.loss.double().abs() / steepness
            # A little past the boundary: on it, rounding decides.
            larger = torch.where(problem.found, larger, boundary * (1 + gamma))
        size = torch.where(found.adversarial, torch.minimum(smaller, best), larger)
        return size.nan_to_num(posinf=1e6).clamp(0.0, 1e6)
