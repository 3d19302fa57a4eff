"""DeepFool: to the nearest face of the linearised decision region, again and again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, NonNegative
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class DeepFoolState(Iterate):
    """moved (n, …): the sum of the steps so far, before the overshoot and the box.

    classes (n, C): y and its rivals at the sample itself, or the target and its rivals.
    """

    moved: Tensor
    classes: Tensor


@dataclass(frozen=True)
class DeepFool(Attack[DeepFoolState]):
    """The smallest step to the nearest class if the model were linear here, until the class changes
    (Moosavi-Dezfooli et al. 2016, algorithm 2).

    In linf with the dual norm (section 3.3). A sample is done at its first success; with a target only that
    class is sought.

    Parameters
    ----------
    steps : int, default 50
        At most.
    candidates : int, default 9
        How many of the likeliest other classes are looked at.
    overshoot : float, default 0.02
        How far past the boundary, relative to the whole perturbation.

    Notes
    -----
    Cost: steps + 1 forward passes, steps · (candidates + 1) backward.

    Examples
    --------
    >>> DeepFool(steps=3).overshoot
    0.02
    """

    steps: Count = 50
    candidates: Count = 9
    overshoot: NonNegative = 0.02

    name = "deepfool"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599"
    minimum_norm = True
    fixed_budget = False

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if model.task.reject is not None and not goal.rejection:
            return (
                f"deepfool knows no class that refuses, and would stop at {model.name}'s; fmn or cw pass it"
            )
        return super().refuses(model, threat, goal)

    def start(self, problem: Problem) -> DeepFoolState:
        scores = problem.scores(problem.x0)
        if problem.target is None:
            pivot, rivals = problem.y[:, None], problem.likeliest(scores, self.candidates)
        else:
            pivot = problem.target[:, None]
            others = scores.nan_to_num().scatter(1, pivot, -torch.inf)
            rivals = others.topk(min(self.candidates, scores.shape[1] - 1), dim=1).indices
        classes = torch.cat([pivot, rivals], 1)
        return DeepFoolState(z=problem.x0, moved=torch.zeros_like(problem.x0), classes=classes)

    def step(self, problem: Problem, state: DeepFoolState) -> DeepFoolState:
        gradient, scores = problem.jacobian(state.z, state.classes)
        gradient = problem.threat.domain.free(gradient).nan_to_num(posinf=0, neginf=0)
        score = scores.gather(1, state.classes).nan_to_num()
        ahead, normal = score[:, :1] - score[:, 1:], gradient[:, 1:] - gradient[:, :1]
        if problem.target is not None:  # only the rival that leads stands between x and the target
            leader = (-ahead).argmax(1, keepdim=True)
            way = leader[:, :, None].expand(-1, -1, normal[0, 0].numel())
            normal = -normal.flatten(2).gather(1, way).reshape(-1, 1, *state.z.shape[1:])
            ahead = -ahead.gather(1, leader)
        step = smallest_step(ahead + problem.goal.margin, normal, problem.threat)
        flat = per_row((normal == 0).flatten(1).all(1), step)
        step = torch.where(flat, elsewhere(problem, state.z) - state.z, step)
        moved = state.moved + torch.where(per_row(problem.found, step), torch.zeros_like(step), step)
        x = problem.threat.domain.clamp(problem.x0 + (1 + self.overshoot) * moved)
        return DeepFoolState(z=x, moved=moved, classes=state.classes, done=problem.found)


def elsewhere(problem: Problem, x: Tensor) -> Tensor:
    """A random point a tenth of eps from x (n, …), or a hundredth of the box: where no slope shows."""
    low, high = problem.threat.domain.bounds(x)
    way = problem.threat.domain.free(
        problem.steady("elsewhere", problem.step // 10).gaussian(tuple(x.shape[1:])).to(x)
    )
    unit = problem.threat.steepest(way)
    far = (
        0.01 * float((high - low).amax()) * (1.0 if problem.threat.norm is Norm.LINF else x[0].numel() ** 0.5)
    )
    size = torch.where(problem.eps < torch.inf, 0.1 * problem.eps, far)
    return problem.threat.domain.clamp(x + per_row(size, x) * unit)


def smallest_step(need: Tensor, normal: Tensor, threat: Threat) -> Tensor:
    """The smallest step (n, …) that gains `need` (n, C) along one of the normals (n, C, …)."""
    flat = normal.flatten(2)
    linf = threat.norm is Norm.LINF
    steepness = torch.linalg.vector_norm(flat, 1.0 if linf else 2.0, dim=2).clamp_min(1e-12)
    distance = need.clamp_min(0).to(flat) / steepness
    nearest = distance.argmin(1, keepdim=True)
    way = flat.gather(1, nearest[:, :, None].expand(-1, -1, flat.shape[2]))[:, 0]
    steep = steepness.gather(1, nearest)
    unit = way.sign() if linf else way / steep
    # A little more than the distance, so that a step is never nothing.
    step: Tensor = (distance.gather(1, nearest) + 1e-4) * unit
    return step.reshape(normal[:, 0].shape)
