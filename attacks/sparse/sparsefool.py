"""SparseFool: DeepFool's tangent plane, reached by changing the fewest features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.minimum_norm.deepfool import (
    elsewhere,
    of_class,
    rivals_of,
    smallest_step,
    towards,
)
from robustbench_lite.certify.halfspace import smallest_move
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, NonNegative
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True, kw_only=True)
class SparseFoolState(Iterate):
    """rivals (n, C): as DeepFool's; base (n, …): the sparse point so far, from which DeepFool set out.

    settled (n,): whether z is such a point rather than one of DeepFool's.
    """

    rivals: Tensor
    base: Tensor
    settled: Tensor


@dataclass(frozen=True)
class SparseFool(Attack[SparseFoolState]):
    """DeepFool to the boundary, then to the tangent plane by the features that gain most
    (Modas et al. 2019, algorithms 1 and 2).

    Each feature goes as far as the box allows. Again from there, until that is adversarial by itself.

    Parameters
    ----------
    steps : int, default 100
        Of either kind, at most.
    candidates : int, default 9
        How many of the likeliest other classes are looked at.
    reach : float, default 1.5
        How far the plane is put, in lengths of DeepFool's way to the boundary; theirs are 1 to 3.
    overshoot : float, default 0.02
        How far past the boundary a step of DeepFool goes, relative to itself.

    Notes
    -----
    Cost: at most steps + 2 forward passes, steps · candidates backward.

    Examples
    --------
    >>> SparseFool(steps=3).reach
    1.5
    """

    steps: Count = 100
    candidates: Count = 9
    reach: NonNegative = 1.5
    overshoot: NonNegative = 0.02

    name = "sparsefool"
    norms = frozenset({Norm.L0, Norm.L1})
    paper = "Modas et al. 2019, arXiv:1811.02248"
    minimum_norm = True
    fixed_budget = False
    passes_refusals = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, passes=self.steps * (1 + 1 + min(self.candidates, model.num_classes - 1)))

    def start(self, problem: Problem) -> SparseFoolState:
        settled = torch.ones_like(problem.found)
        rivals = rivals_of(problem, self.candidates)
        return SparseFoolState(z=problem.x0, rivals=rivals, base=problem.x0, settled=settled)

    def step(self, problem: Problem, state: SparseFoolState) -> SparseFoolState:
        threat = problem.threat
        assert threat.norm is not None
        need, normal, scores = towards(problem, state.z, state.rivals)
        need = need + problem.goal.margin
        across = problem.met(scores)
        ahead = (1 + self.overshoot) * smallest_step(need, normal, threat)
        flat = per_row((normal == 0).flatten(1).all(1), ahead)
        on = threat.domain.clamp(torch.where(flat, elsewhere(problem, state.z), state.z + ahead))
        # On the other side the plane lies at z, with the normal of the class that leads.
        leader = need.argmin(1, keepdim=True)
        way = of_class(normal, leader)[:, 0].double().flatten(1)
        beyond = state.z.double() + (self.reach - 1) * (state.z.double() - state.base.double())
        gain = (way * (beyond - state.base.double()).flatten(1)).sum(1).clamp_min(0)
        sparse = smallest_move(state.base, way, gain, threat.norm, threat.domain)
        crossed, side = across & ~state.settled, per_row(across & ~state.settled, on)
        base = torch.where(side, sparse, state.base)
        z = torch.where(side, sparse, on)
        return replace(state, z=z, base=base, settled=crossed, done=across & state.settled)
