"""DeepFool: to the nearest face of the linearised decision region, again and again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, NonNegative
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True, kw_only=True)
class DeepFoolState(Iterate):
    """moved (n, …): the sum of the steps so far, before the overshoot and the box.

    rivals (n, C): the likeliest other classes at the sample itself, or what is likelier than the target.
    """

    moved: Tensor
    rivals: Tensor


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
    Cost: at most steps + 2 forward passes, steps · candidates backward.

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
    passes_refusals = False
    fixed_budget = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, passes=self.steps * (1 + min(self.candidates, model.num_classes - 1)))

    def start(self, problem: Problem) -> DeepFoolState:
        rivals = rivals_of(problem, self.candidates)
        return DeepFoolState(z=problem.x0, moved=torch.zeros_like(problem.x0), rivals=rivals)

    def step(self, problem: Problem, state: DeepFoolState) -> DeepFoolState:
        need, normal, _ = towards(problem, state.z, state.rivals)
        step = smallest_step(need + problem.goal.margin, normal, problem.threat)
        flat = per_row((normal == 0).flatten(1).all(1), step)
        step = torch.where(flat, elsewhere(problem, state.z) - state.z, step)
        moved = state.moved + torch.where(per_row(problem.found, step), torch.zeros_like(step), step)
        x = problem.threat.domain.clamp(problem.x0 + (1 + self.overshoot) * moved)
        return DeepFoolState(z=x, moved=moved, rivals=state.rivals, done=problem.found)


def rivals_of(problem: Problem, count: int) -> Tensor:
    """The likeliest classes at each sample that may stand on the other side (n, C): of y or of the target."""
    scores = problem.scores(problem.x0)
    if problem.target is None:
        return problem.likeliest(scores, count)
    others = scores.nan_to_num().scatter(1, problem.target[:, None], -torch.inf)
    return others.topk(min(count, scores.shape[1] - 1), dim=1).indices


def towards(problem: Problem, z: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is to be gained (n, C) along which normals (n, C, …) for a rival to lead, and the scores (n, K).

    With a target there is one: between the target and the rival that leads.
    """
    pivot = problem.y if problem.target is None else problem.target
    normal, scores = problem.jacobian(z, rivals, pivot)
    normal = problem.threat.domain.free(normal).nan_to_num(posinf=0, neginf=0)
    finite = scores.nan_to_num()
    need = finite.gather(1, pivot[:, None]) - finite.gather(1, rivals)
    if problem.target is None:
        return need, normal, scores
    leader = need.argmin(1, keepdim=True)
    return -need.gather(1, leader), -of_class(normal, leader), scores


def of_class(normals: Tensor, which: Tensor) -> Tensor:
    """Of normals (n, C, …) the one that stands at `which` (n, 1): (n, 1, …)."""
    place = which[:, :, None].expand(-1, -1, normals[0, 0].numel())
    return normals.flatten(2).gather(1, place).reshape(-1, 1, *normals.shape[2:])


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
    way = of_class(flat, nearest)[:, 0]
    steep = steepness.gather(1, nearest)
    unit = way.sign() if linf else way / steep
    # A little more than the distance, so that a step is never nothing.
    step: Tensor = (distance.gather(1, nearest) + 1e-4) * unit
    return step.reshape(normal[:, 0].shape)
