"""From an adversarial point back towards the sample, by decisions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm


def to_boundary(problem: Problem, x: Tensor, halvings: int | None = None) -> Tensor:
    """The adversarial point nearest to x0 on the way from x, by bisection; x itself is adversarial.

    As often as HopSkipJump's authors do, or as told.
    """
    d = x[0].numel() if len(x) else 1
    high = torch.ones_like(problem.eps)
    low = torch.zeros_like(high)
    distance = problem.threat.distance(x, problem.x0)

    def part_way(share: Tensor) -> Tensor:
        if is_linf(problem):
            radius = per_row(share * distance, x)
            return torch.minimum(torch.maximum(x, problem.x0 - radius), problem.x0 + radius)
        return torch.where(per_row(share == 1, x), x, problem.x0 + per_row(share, x) * (x - problem.x0))

    if halvings is None:  # Chen, Jordan & Wainwright 2019, section 3.3
        halvings = math.ceil(math.log2((d**2 if is_linf(problem) else d**1.5) + 1))
    for _ in range(halvings):
        middle = (low + high) / 2
        succeeds = problem.decisions(part_way(middle))
        low, high = torch.where(succeeds, low, middle), torch.where(succeeds, middle, high)
    return part_way(high)


def is_linf(problem: Problem) -> bool:
    """Whether distances are largest changes of a feature."""
    return problem.threat.norm is Norm.LINF
