"""FAB: between the sample and the iterate, both projected onto the boundary as it looks from the iterate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.certify.halfspace import smallest_move
from robustbench_lite.core.errors import require
from robustbench_lite.core.model import Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate
from robustbench_lite.threats.ball import Lp


@dataclass(frozen=True)
class FAB(Attack):
    """The fast adaptive boundary attack: the smallest perturbation, class by class (Croce & Hein 2020).

    Algorithm 1: x and the sample itself are projected onto the linearised boundary inside the box, a little
    beyond it (`overshoot`), and mixed, the sample's share at most `bias`; an adversarial x first goes back
    towards the sample (`backward`).

    steps: how many. targets: of the likeliest wrong classes, side by side, as in FAB-T; 0: the nearest rival
    at each step, for another forward pass. Cost: lanes · (steps + 1) forward passes, 2 · lanes · steps
    backward.
    """

    steps: int = 100
    targets: int = 9
    bias: float = 0.1
    overshoot: float = 1.05
    backward: float = 0.9

    name = "fab"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Croce & Hein 2020, arXiv:1907.02044"
    minimal = True

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.targets >= 0, "targets", self.targets, "at least 0")
        require(0 <= self.bias <= 1, "bias", self.bias, "in [0, 1]")
        require(self.overshoot >= 1, "overshoot", self.overshoot, "at least 1")
        require(0 < self.backward < 1, "backward", self.backward, "between 0 and 1")

    @property
    def aims(self) -> int:
        return self.targets

    def refuses(self, model: Model, threat: Threat) -> str | None:
        if not isinstance(threat, Lp):
            return f"fab seeks the nearest point of a norm, such as l2:min; not {threat}"
        return super().refuses(model, threat)

    def start(self, problem: Problem) -> Iterate:
        return Iterate(x=problem.x0)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        x0 = problem.x0
        rival = problem.target if problem.target is not None else self._rival(problem, state.x)
        # In the model's own precision: fewer bits would put the boundary elsewhere.
        slopes, scores = problem.jacobian(state.x, torch.stack([problem.y, rival], 1))
        scores = scores.nan_to_num()
        gradient = (slopes[:, 1] - slopes[:, 0]).double().flatten(1)
        lead = (scores.gather(1, rival[:, None]) - scores.gather(1, problem.y[:, None]))[:, 0].double()
        lead = lead - problem.goal.margin
        across = problem.met(scores)
        x = torch.where(per_row(across, x0), x0 + self.backward * (state.x - x0), state.x)

        def beyond(point: Tensor) -> tuple[Tensor, Tensor]:
            """The projection of a point, overshot, and how far it went."""
            threat = problem.threat
            assert isinstance(threat, Lp)
            offset = (point.double() - state.x.double()).flatten(1)
            need = -(lead + (gradient * offset).sum(1)).nan_to_num()
            way = torch.where(need < 0, -1.0, 1.0)[:, None] * gradient
            onto = smallest_move(point, way, need.abs(), threat)
            return point + self.overshoot * (onto - point), threat.distance(onto, point)

        (near, first), (far, second) = beyond(x), beyond(x0)
        share = (first / (first + second).clamp_min(1e-12)).clamp_max(self.bias)
        mixed = near + per_row(share, x0) * (far - near)
        return Iterate(x=problem.threat.domain.clamp(mixed))

    def _rival(self, problem: Problem, x: Tensor) -> Tensor:
        """The likeliest other class at x."""
        return problem.proposals(x).scatter(1, problem.y[:, None], -torch.inf).argmax(1)
