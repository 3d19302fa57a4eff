"""Decoupled direction and norm: the gradient says where to, the norm is searched for by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.parameters import Count, Fraction, Length
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class DDNState(Iterate):
    """radius (n,): of the sphere around x0 that x was put on, before the box."""

    radius: Tensor


@dataclass(frozen=True)
class DDN(Attack[DDNState]):
    """Steps of a cosine schedule, then onto a sphere that shrinks by gamma when x is adversarial, else grows
    (Rony et al. 2018, algorithm 1, without quantisation).

    Parameters
    ----------
    steps : int, default 100
        How many.
    gamma : float, default 0.05
        Of the radius a step, between 0 and 1.
    radius : float, default 1.0
        The first, in the units of x; the default grows with the box.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> DDN(gamma=1.0)
    Traceback (most recent call last):
        ...
    robustbench_lite.core.errors.InvalidParameter: gamma = 1.0: must be between 0 and 1
    """

    steps: Count = 100
    gamma: Fraction = 0.05
    radius: Length = 1.0

    name = "ddn"
    norms = frozenset({Norm.L2})
    paper = "Rony et al. 2018, arXiv:1811.09600"
    minimum_norm = True
    fixed_budget = False

    def start(self, problem: Problem) -> DDNState:
        return DDNState(z=problem.x0, radius=torch.full_like(problem.eps, self.radius))

    def step(self, problem: Problem, state: DDNState) -> DDNState:
        found = problem.evaluate(state.z, cross_entropy)
        radius = state.radius * torch.where(found.adversarial, 1 - self.gamma, 1 + self.gamma)
        size = 0.01 + 0.99 * (1 + math.cos(math.pi * (problem.step - 1) / self.steps)) / 2
        moved = state.z - problem.x0 + size * problem.threat.steepest(found.gradient)
        length = size_of(moved, 2).clamp_min(1e-12)
        x = problem.x0 + moved * per_row(radius / length, moved)
        return DDNState(z=problem.threat.domain.clamp(x), radius=radius)
