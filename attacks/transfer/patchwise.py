"""Patch-wise steps: what the ball cuts off at a pixel is handed to the pixels around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Model, reference_precision
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate

NOTHING = 1e-5  # of a step


@dataclass(frozen=True, kw_only=True)
class PIFGSMState(Iterate):
    """sum (n, …): of all steps taken, which may lie outside the ball."""

    sum: Tensor


@dataclass(frozen=True)
class PIFGSM(Attack[PIFGSMState]):
    """Long signed steps, of which the part outside the ball goes on to neighbouring pixels
    (Gao et al. 2020, algorithm 1).

    Parameters
    ----------
    steps : int, default 10
        How many.
    amplification : float, default 10.0
        Each step is amplification · eps / steps long.
    kernel : int, default 3
        The side of the square, without its middle, that is handed to.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> PIFGSM(steps=3).kernel
    3
    """

    steps: Count = 10
    amplification: Positive = 10.0
    kernel: Count = 3

    name = "pifgsm"
    norms = frozenset({Norm.LINF})
    paper = "Gao et al. 2020, arXiv:2007.06765"

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if len(model.input_shape) != 3:
            return f"pifgsm moves images (C, H, W); {model.name} takes {model.input_shape}"
        return super().refuses(model, threat, goal)

    def start(self, problem: Problem) -> PIFGSMState:
        return PIFGSMState(z=problem.x0, sum=torch.zeros_like(problem.x0))

    def step(self, problem: Problem, state: PIFGSMState) -> PIFGSMState:
        gradient = problem.threat.domain.free(problem.evaluate(state.z, cross_entropy).gradient)
        size = problem.size(self.amplification / self.steps)
        step = size * gradient.sign()
        total = state.sum + step
        cut = (total.abs() - problem.size()).clamp_min(0) * total.sign()
        around = problem.threat.domain.free(_around(cut, self.kernel))
        # What cancels leaves rounding, whose sign is no direction.
        handed = size * torch.where(around.abs() > NOTHING * size, around, 0.0).sign()
        return PIFGSMState(z=problem.project(state.z + step + handed), sum=total + handed)


def _around(x: Tensor, side: int) -> Tensor:
    """The sum over each pixel's square of neighbours, itself left out (n, C, H, W)."""
    kernel = x.new_ones(x.shape[1], 1, side, side)
    kernel[:, :, side // 2, side // 2] = 0
    with reference_precision():
        return functional.conv2d(x, kernel, padding="same", groups=x.shape[1])
