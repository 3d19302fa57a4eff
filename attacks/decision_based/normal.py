"""The boundary's normal, from decisions at points around one that lies on it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustbench_lite.attacks.coarse import coarse_shape, enlarged
from robustbench_lite.attacks.decision_based.bisection import is_linf
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row


def boundary_normal(problem: Problem, x: Tensor, count: int, side: int | None = None) -> Tensor:
    """The direction in which decisions turn adversarial around x (n, …), from `count` of them
    (Chen, Jordan & Wainwright 2019, equation 15).

    side: of the coarse images that the points differ by (Li et al. 2020, section 3.2); None: of x itself.
    """
    n, shape = len(x), tuple(x.shape[1:])
    distance = problem.threat.distance(x, problem.x0)
    noise = problem.random("around")
    coarse = coarse_shape(shape, side)
    draw = 2 * noise.uniform((count, *coarse)) - 1 if is_linf(problem) else noise.gaussian((count, *coarse))
    draw = enlarged(draw.flatten(0, 1), shape).view(n, count, *shape)
    unit = draw / draw.flatten(2).norm(dim=2).clamp_min(1e-12).reshape(n, count, *[1] * len(shape))
    low, high = problem.threat.domain.bounds(x)
    first = torch.full_like(distance, 0.1) * float((high - low).amax())
    radius = first if problem.step == 1 else distance / math.prod(shape)
    radius = per_row(radius, unit)
    centre = x[:, None]
    around = problem.threat.domain.clamp((centre + radius * unit).flatten(0, 1)).view_as(unit)
    around = problem.threat.domain.kept(around, centre)
    rows = torch.arange(n, device=x.device).repeat_interleave(count)
    inside = problem.decisions(around.flatten(0, 1), rows).view(n, count).to(x.dtype) * 2 - 1
    mean = inside.mean(1, keepdim=True)
    weight = torch.where(mean.abs() == 1, inside, inside - mean)
    normal = torch.einsum("nb,nbd->nd", weight, ((around - centre) / radius.clamp_min(1e-12)).flatten(2))
    return normal.reshape(x.shape)
