"""Auto conjugate gradient: Auto-PGD whose directions remember those before."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.fixed_budget.apgd import APGD, APGDState, looked_at, shortened
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm

LEAST = 1e-12  # relative curvature below which the direction is the gradient's


@dataclass(frozen=True, kw_only=True)
class ACGState(APGDState):
    """way, gradient (n, …): the last direction, and the gradient at the point it was taken from."""

    way: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class ACG(APGD):
    """Conjugate directions instead of momentum, steps halved as in `apgd` (Yamamura et al. 2022).

    Algorithm 1: s = ∇ + β · s before, with β after Hestenes & Stiefel and at least 0; where a row goes back
    to its best point, β is 0.

    Notes
    -----
    Cost: as `apgd`.

    Examples
    --------
    >>> ACG(steps=3).loss
    'ce'
    """

    name = "acg"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Yamamura et al. 2022, arXiv:2206.09628"

    def start(self, problem: Problem) -> ACGState:
        state = super().start(problem)
        held = {f.name: getattr(state, f.name) for f in fields(state)}
        return ACGState(**held, way=torch.zeros_like(state.z), gradient=torch.zeros_like(state.z))

    def step(self, problem: Problem, state: APGDState) -> ACGState:
        assert isinstance(state, ACGState)
        found = problem.evaluate(state.z, problem.loss_named(self.loss))
        before = state.gradient
        looked = looked_at(state, found)
        gradient = found.gradient
        period = self._checked(problem.step)
        if period:
            looked, gradient = shortened(problem, looked, gradient, period)
        change, way = (before - gradient).flatten(1), state.way.flatten(1)
        across = (way * change).sum(1)
        curved = across.abs() > LEAST * torch.linalg.vector_norm(way, dim=1) * torch.linalg.vector_norm(
            change, dim=1
        )
        share = -(gradient.flatten(1) * change).sum(1) / torch.where(curved, across, torch.inf)
        returned = (looked.z != state.z).flatten(1).any(1)
        share = torch.where(returned, 0.0, share.nan_to_num(posinf=0.0, neginf=0.0).clamp_min(0))
        way = gradient + per_row(share, gradient) * state.way
        ahead = looked.z + per_row(looked.size, looked.z) * problem.threat.steepest(way)
        moved = replace(looked, z=problem.project(ahead.to(state.z)), before=looked.z)
        assert isinstance(moved, ACGState)
        return replace(moved, way=way, gradient=gradient)
