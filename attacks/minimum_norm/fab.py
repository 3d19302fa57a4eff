"""FAB: between the sample and the iterate, both projected onto the boundary as it looks from the iterate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from robustbench_lite.attacks.minimum_norm.deepfool import elsewhere
from robustbench_lite.certify.halfspace import smallest_move
from robustbench_lite.core.parameters import Amount, Count, Fraction, Probability, Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate

EARLY = 3  # steps before a class is given up
FURTHER = 1.25  # the distance of a boundary, of the nearest found, at which its class is given up


@dataclass(frozen=True, kw_only=True)
class FABState(Iterate):
    """nearest (n,) float64: the distance of the row's own nearest adversarial point, inf while none is."""

    nearest: Tensor


@dataclass(frozen=True)
class FAB(Attack[FABState]):
    """The fast adaptive boundary attack: the smallest perturbation, class by class
    (Croce & Hein 2020, algorithm 1).

    x and the sample itself are projected onto the linearised boundary inside the box, a little beyond it
    (`overshoot`), and mixed, the sample's share at most `bias`; an adversarial x first goes back towards the
    sample (`backward`). A class whose boundary lies a quarter further than what another class has given is
    given up.

    Parameters
    ----------
    steps : int, default 100
        How many.
    targets : int, default 9
        Of the likeliest wrong classes, side by side, as in FAB-T; 0: the nearest rival at each step, for
        another forward pass.
    bias : float, default 0.1
        The largest share of the sample in the mix, in [0, 1].
    overshoot : float, default 1.05
        By which the way onto the boundary is multiplied, at least 1.
    backward : float, default 0.9
        The share of its perturbation that an adversarial x keeps as it goes back, between 0 and 1.

    Notes
    -----
    Cost: at most lanes · (steps + 1) forward passes, lanes · steps backward.

    Examples
    --------
    >>> FAB(overshoot=0.5)
    Traceback (most recent call last):
        ...
    robustbench_lite.core.errors.InvalidParameter: overshoot = 0.5: must be at least 1
    """

    steps: Count = 100
    targets: Amount = 9
    bias: Probability = 0.1
    overshoot: Annotated[float, Range(1)] = 1.05
    backward: Fraction = 0.9

    name = "fab"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Croce & Hein 2020, arXiv:1907.02044"
    minimum_norm = True
    passes_refusals = False

    def start(self, problem: Problem) -> FABState:
        return FABState(z=problem.x0, nearest=torch.full_like(problem.eps, torch.inf))

    def step(self, problem: Problem, state: FABState) -> FABState:
        x0 = problem.x0
        rival = problem.target if problem.target is not None else self._rival(problem, state.z)
        # In the model's own precision: fewer bits would put the boundary elsewhere.
        slopes, scores = problem.jacobian(state.z, rival[:, None], problem.y)
        scores = scores.nan_to_num()
        gradient = slopes[:, 0].double().flatten(1).nan_to_num(posinf=0, neginf=0)
        lead = (scores.gather(1, rival[:, None]) - scores.gather(1, problem.y[:, None]))[:, 0].double()
        lead = lead - problem.goal.margin
        across = problem.met(scores)
        x = torch.where(per_row(across, x0), x0 + self.backward * (state.z - x0), state.z)
        flat = (gradient == 0).all(1)

        def beyond(point: Tensor) -> tuple[Tensor, Tensor]:
            """The projection of a point, overshot, and how far it went."""
            threat = problem.threat
            norm = threat.norm
            assert norm is not None
            offset = (point.double() - state.z.double()).flatten(1)
            need = -(lead + (gradient * offset).sum(1)).nan_to_num()
            way = torch.where(need < 0, -1.0, 1.0)[:, None] * gradient
            onto = smallest_move(point, way, need.abs(), norm, threat.domain)
            return point + self.overshoot * (onto - point), threat.distance(onto, point)

        (near, first), (far, second) = beyond(x), beyond(x0)
        share = (first / (first + second).clamp_min(1e-12)).clamp_max(self.bias)
        mixed = near + per_row(share, x0) * (far - near)
        z = problem.threat.domain.clamp(torch.where(per_row(flat, x0), elsewhere(problem, state.z), mixed))
        here = torch.where(across, problem.threat.distance(state.z, x0), torch.inf)
        nearest, best = torch.minimum(state.nearest, here), problem.best_distance
        # How far a boundary seems is no proof: the class that leads is never given up.
        beaten = (second > FURTHER * best) & (nearest > best) & (problem.step > EARLY)
        return FABState(z=z, nearest=nearest, done=beaten)

    def _rival(self, problem: Problem, x: Tensor) -> Tensor:
        """The likeliest other class at x."""
        return problem.likeliest(problem.proposals(x), 1)[:, 0]
