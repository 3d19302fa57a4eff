"""DeepFool: to the nearest face of the linearised decision region, again and again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.errors import require
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate
from robustbench_lite.threats.ball import Lp


@dataclass(frozen=True, kw_only=True)
class Travelled(Iterate):
    """moved (n, …): the sum of the steps so far, before the overshoot and the box.

    classes (n, C): y and its rivals at the sample itself, or the target and its rivals.
    """

    moved: Tensor
    classes: Tensor


@dataclass(frozen=True)
class DeepFool(Attack):
    """The smallest step to the nearest class if the model were linear here, until the class changes.

    Moosavi-Dezfooli et al. 2016, algorithm 2; in linf with the dual norm (section 3.3). A sample is done at
    its first success; with a target only that class is sought.

    steps: at most. candidates: how many of the likeliest other classes are looked at. overshoot: how far
    past the boundary, relative to the whole perturbation. Cost: steps + 1 forward passes,
    steps · (candidates + 1) backward.
    """

    steps: int = 50
    candidates: int = 9
    overshoot: float = 0.02

    name = "deepfool"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599"
    minimal = True
    fixed = False

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.candidates >= 1, "candidates", self.candidates, "at least 1")
        require(self.overshoot >= 0, "overshoot", self.overshoot, "at least 0")

    def start(self, problem: Problem) -> Travelled:
        scores = problem.scores(problem.x0)
        pivot = (problem.y if problem.target is None else problem.target)[:, None]
        rivals = scores.nan_to_num().scatter(1, pivot, -torch.inf)
        classes = torch.cat([pivot, rivals.topk(min(self.candidates, scores.shape[1] - 1), dim=1).indices], 1)
        return Travelled(x=problem.x0, moved=torch.zeros_like(problem.x0), classes=classes)

    def step(self, problem: Problem, state: Iterate) -> Travelled:
        assert isinstance(state, Travelled)
        gradient, scores = problem.jacobian(state.x, state.classes)
        if problem.threat.domain.mask is not None:
            gradient = gradient * problem.threat.domain.mask
        score = scores.gather(1, state.classes).nan_to_num()
        ahead, normal = score[:, :1] - score[:, 1:], gradient[:, 1:] - gradient[:, :1]
        if problem.target is not None:  # only the rival that leads stands between x and the target
            leader = (-ahead).argmax(1, keepdim=True)
            way = leader[:, :, None].expand(-1, -1, normal[0, 0].numel())
            normal = -normal.flatten(2).gather(1, way).reshape(-1, 1, *state.x.shape[1:])
            ahead = -ahead.gather(1, leader)
        step = smallest_step(ahead + problem.goal.margin, normal, problem.threat)
        moved = state.moved + torch.where(per_row(problem.found, step), torch.zeros_like(step), step)
        x = problem.threat.domain.clamp(problem.x0 + (1 + self.overshoot) * moved)
        return Travelled(x=x, moved=moved, classes=state.classes, done=problem.found)


def smallest_step(need: Tensor, normal: Tensor, threat: Threat) -> Tensor:
    """The smallest step (n, …) that gains `need` (n, C) along one of the normals (n, C, …)."""
    flat = normal.flatten(2)
    linf = isinstance(threat, Lp) and threat.norm is Norm.LINF
    steepness = torch.linalg.vector_norm(flat, 1.0 if linf else 2.0, dim=2).clamp_min(1e-12)
    distance = need.clamp_min(0).to(flat) / steepness
    nearest = distance.argmin(1, keepdim=True)
    way = flat.gather(1, nearest[:, :, None].expand(-1, -1, flat.shape[2]))[:, 0]
    steep = steepness.gather(1, nearest)
    unit = way.sign() if linf else way / steep
    # A little more than the distance, so that a step is never nothing.
    step: Tensor = (distance.gather(1, nearest) + 1e-4) * unit
    return step.reshape(normal[:, 0].shape)
