"""The trust region attack: steps whose length follows how well the margin was foretold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.bisection import to_boundary
from robustbench_lite.attacks.minimum_norm.deepfool import elsewhere, of_class, rivals_of, towards
from robustbench_lite.attacks.minimum_norm.fmn import DUAL
from robustbench_lite.certify.halfspace import smallest_move
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Length
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

HALVINGS = 12  # of the way from the sample, at the end
WELL, BADLY = 0.9, 0.5  # the share of the foretold gain above and below which the radius changes
WIDER = 1.5
LEAST = 0.1  # of the first radius


@dataclass(frozen=True, kw_only=True)
class TrustRegionState(Iterate):
    """rivals (n, C): as DeepFool's; radius (n,): of the next step; need (n,): to be gained before it.

    foretold (n,): the gain that the last step should have brought.
    """

    rivals: Tensor
    radius: Tensor
    need: Tensor
    foretold: Tensor


@dataclass(frozen=True)
class TrustRegion(Attack[TrustRegionState]):
    """Steps onto the nearest rival's boundary, each no longer than a radius
    (Yao et al. 2019, algorithm 1, adaptive).

    Nearest is what the slopes say. The radius grows where the margin fell nearly as far as they foretold, and
    shrinks where it fell by less than half. A sample is done at its first success, from where it is brought
    to the boundary.

    Parameters
    ----------
    steps : int, default 100
        At most.
    radius : float, default 0.01
        The first, in the units of x in linf; in l2 of a change of so much in every feature.
    candidates : int, default 9
        How many of the likeliest other classes are looked at.

    Notes
    -----
    Cost: at most steps + 14 forward passes, steps · candidates backward.

    Examples
    --------
    >>> TrustRegion(steps=3).radius
    0.01
    """

    steps: Count = 100
    radius: Length = 0.01
    candidates: Count = 9

    name = "trust_region"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Yao et al. 2019, arXiv:1812.06371"
    minimum_norm = True
    fixed_budget = False
    passes_refusals = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, passes=self.steps * (1 + 1 + min(self.candidates, model.num_classes - 1)))

    def start(self, problem: Problem) -> TrustRegionState:
        rivals, unknown = rivals_of(problem, self.candidates), torch.full_like(problem.eps, torch.nan)
        return TrustRegionState(
            z=problem.x0,
            rivals=rivals,
            radius=self._first(problem),
            need=unknown,
            foretold=unknown,
            done=torch.zeros_like(problem.found),
        )

    def step(self, problem: Problem, state: TrustRegionState) -> TrustRegionState:
        threat = problem.threat
        assert threat.norm is not None
        need, normal, scores = towards(problem, state.z, state.rivals)
        need = need + problem.goal.margin
        steepness = torch.linalg.vector_norm(normal.flatten(2), DUAL[threat.norm], dim=2).clamp_min(1e-12)
        chosen = (need.clamp_min(0) / steepness).argmin(1, keepdim=True)
        left = need.gather(1, chosen)[:, 0].double()
        ratio = (state.need - left) / state.foretold.clamp_min(1e-12)
        radius = torch.where(ratio > WELL, state.radius * WIDER, state.radius)
        radius = torch.where(ratio < BADLY, radius / WIDER, radius)
        radius = torch.maximum(radius, LEAST * self._first(problem))  # where the box stops a step
        way = of_class(normal, chosen)[:, 0]
        # Inside the box, a little past the boundary.
        onto = smallest_move(
            state.z, way.double().flatten(1), 1.02 * left.clamp_min(1e-4), threat.norm, threat.domain
        )
        share = (radius / threat.distance(onto, state.z).clamp_min(1e-12)).clamp_max(1.0)
        flat = per_row((way == 0).flatten(1).all(1), way)
        ahead = torch.where(
            flat, elsewhere(problem, state.z), state.z + per_row(share, way) * (onto - state.z)
        )
        x, across = threat.domain.clamp(ahead), problem.met(scores)
        assert state.done is not None
        rows = (across & ~state.done).nonzero()[:, 0]
        if len(rows):
            x = x.index_copy(0, rows, to_boundary(problem[rows], state.z[rows], HALVINGS))
        return TrustRegionState(
            z=x, rivals=state.rivals, radius=radius, need=left, foretold=share * left, done=across
        )

    def _first(self, problem: Problem) -> Tensor:
        """The first radius (n,)."""
        wide = problem.x0[0].numel() ** 0.5 if problem.threat.norm is Norm.L2 else 1.0
        return torch.full_like(problem.eps, self.radius * wide)
