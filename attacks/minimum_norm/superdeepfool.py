"""SuperDeepFool: DeepFool to the boundary, then back onto its normal, and so on until both agree."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.bisection import to_boundary
from robustbench_lite.attacks.minimum_norm.deepfool import elsewhere, of_class, rivals_of, towards
from robustbench_lite.attacks.minimum_norm.fmn import DUAL
from robustbench_lite.certify.halfspace import smallest_move
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, NonNegative
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

HALVINGS = 12  # of the way from the sample, at the end
NEARER = 0.999  # of the last crossing's distance, at most, for another to be worth the way


@dataclass(frozen=True, kw_only=True)
class SuperDeepFoolState(Iterate):
    """rivals (n, C): as DeepFool's; projected (n,): whether z was put onto the normal by the last step.

    crossed (n,) float64: the distance at which the class last changed.
    """

    rivals: Tensor
    projected: Tensor
    crossed: Tensor


@dataclass(frozen=True)
class SuperDeepFool(Attack[SuperDeepFoolState]):
    """DeepFool until the class changes, then the sample's projection onto the plane that is tangent there
    (Abdolahpourrostam et al. 2024, algorithm 2: SDF(inf, 1)).

    Both in any of three norms and inside the box. A sample is done once its projection is adversarial, or the
    class changes no nearer than it did before; a bisection then brings it to the boundary.

    Parameters
    ----------
    steps : int, default 100
        Of either kind, at most.
    candidates : int, default 9
        How many of the likeliest other classes are looked at.
    overshoot : float, default 0.02
        How far past the boundary a step of DeepFool goes, relative to itself.

    Notes
    -----
    Cost: at most steps + 14 forward passes, steps · candidates backward.

    Examples
    --------
    >>> SuperDeepFool(steps=3).overshoot
    0.02
    """

    steps: Count = 100
    candidates: Count = 9
    overshoot: NonNegative = 0.02

    name = "superdeepfool"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Abdolahpourrostam et al. 2024, arXiv:2303.12481"
    minimum_norm = True
    seeks_confidence = False
    passes_refusals = False
    fixed_budget = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, passes=self.steps * (1 + self.candidates) + HALVINGS + 2)

    def start(self, problem: Problem) -> SuperDeepFoolState:
        nowhere = torch.zeros_like(problem.row, dtype=torch.bool)
        return SuperDeepFoolState(
            z=problem.x0, rivals=rivals_of(problem, self.candidates), projected=nowhere,
            crossed=torch.full_like(problem.eps, torch.inf), done=nowhere,
        )  # fmt: skip

    def step(self, problem: Problem, state: SuperDeepFoolState) -> SuperDeepFoolState:
        threat, norm = problem.threat, problem.threat.norm
        assert norm is not None
        need, normal, scores = towards(problem, state.z, state.rivals)
        need = need + problem.goal.margin
        across = problem.met(scores)
        steepness = torch.linalg.vector_norm(normal.flatten(2), DUAL[norm], dim=2).clamp_min(1e-30)
        # Of the boundaries ahead the nearest; on the other side that of the class that leads.
        chosen = torch.where(across[:, None], need, need.clamp_min(0) / steepness).argmin(1, keepdim=True)
        way = of_class(normal, chosen)[:, 0].double().flatten(1)
        gap = need.gather(1, chosen)[:, 0].double()
        gained = (way * (state.z.double() - problem.x0.double()).flatten(1)).sum(1)
        begin = torch.where(per_row(across, state.z), problem.x0, state.z)
        ahead = torch.where(across, gained, (1 + self.overshoot) * gap).clamp_min(0)
        x = smallest_move(begin, way, ahead, norm, threat.domain)
        x = torch.where(per_row((way == 0).all(1), x), elsewhere(problem, state.z), x)
        distance = threat.distance(state.z, problem.x0)
        done = across & (state.projected | (distance >= NEARER * state.crossed))
        rows = done.nonzero()[:, 0]
        if len(rows):
            ending = problem[rows]
            x = x.index_copy(0, rows, to_boundary(ending, ending.best_z, HALVINGS))
        crossed = torch.where(across, distance, state.crossed)
        return replace(state, z=x, projected=across, crossed=crossed, done=done)
