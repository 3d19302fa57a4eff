"""Brendel & Bethge: along the boundary, from an adversarial point towards the sample, by gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.bisection import to_boundary
from robustbench_lite.attacks.decision_based.starting import starting_points
from robustbench_lite.certify.halfspace import smallest_move
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Share
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

OVERSHOOT = 1.01  # of the way onto the tangent plane: on the boundary rounding decides
CLIMB = 0.05  # of the box, a step of a row that has not been adversarial yet


@dataclass(frozen=True, kw_only=True)
class BoundaryState(Iterate):
    """started (n,): whether x was adversarial once."""

    started: Tensor


@dataclass(frozen=True)
class BrendelBethge(Attack[BoundaryState]):
    """To the nearest point of the tangent plane, no further than a radius (Brendel et al. 2019, section 3).

    Their programme without the radius is the sample's projection onto a half-space in the box, which has a
    closed form in l1, l2 and linf; the way there is cut at the radius, which shrinks. It begins where
    HopSkipJump does, or climbs the gradient's sign until it is adversarial.

    Parameters
    ----------
    steps : int, default 200
        Theirs are 1,000.
    radius : float, default 0.3
        The first, as a share of the distance to the sample, falling along with the steps to a hundredth.
    tries : int, default 100
        Random points for the start.

    Notes
    -----
    Cost: steps + tries forward passes and about log2(features^1.5) for the start, steps backward.

    Examples
    --------
    >>> BrendelBethge(steps=3).radius
    0.3
    """

    steps: Count = 200
    radius: Share = 0.3
    tries: Count = 100

    name = "brendel_bethge"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Brendel et al. 2019, arXiv:1907.01003"
    minimum_norm = True
    seeks_confidence = False
    fixed_budget = False
    uses_starts = True

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=self.tries)

    def start(self, problem: Problem) -> BoundaryState:
        x, started = starting_points(problem, self.tries)
        rows = started.nonzero()[:, 0]
        return BoundaryState(z=x.index_copy(0, rows, to_boundary(problem[rows], x[rows])), started=started)

    def step(self, problem: Problem, state: BoundaryState) -> BoundaryState:
        threat, x0 = problem.threat, problem.x0
        assert threat.norm is not None
        found = problem.evaluate(state.z, margin)
        # Where x is on the right side its lead is given away, where it is not it is made up for.
        gradient = threat.domain.free(found.gradient).double().flatten(1)
        offset = (x0.double() - state.z.double()).flatten(1)
        need = -(found.loss.double() - problem.goal.margin + (gradient * offset).sum(1))
        onto = smallest_move(x0, gradient, need.clamp_min(0), threat.norm, threat.domain)
        way = x0 + OVERSHOOT * (onto - x0) - state.z
        left = self.radius * 0.1 ** (problem.step / self.steps)
        most = left * size_of(state.z - x0, 2)
        share = (most / size_of(way, 2).clamp_min(1e-12)).clamp_max(1.0)
        ahead = threat.domain.clamp(state.z + per_row(share, way) * way)
        low, high = threat.domain.bounds(x0)
        climbing = threat.domain.clamp(
            state.z + CLIMB * (high - low) * threat.domain.free(found.gradient).sign()
        )
        started = state.started | found.adversarial
        return BoundaryState(z=torch.where(per_row(started, x0), ahead, climbing), started=started)
