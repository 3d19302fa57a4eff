"""Projected gradient descent whose steps are those of an optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustbench_lite.attacks.adam import adam, steps_so_far
from robustbench_lite.attacks.fixed_budget.odi import diversified_start
from robustbench_lite.core.parameters import Amount, Count, LossName, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate

MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class UPGDState(Iterate):
    """mean, square (n, …): running means of the gradients, each of norm 1, and of their squares."""

    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class UPGD(Attack[UPGDState]):
    """Steps of an optimiser on gradients of norm 1, projected, from random points.

    Parameters
    ----------
    optimizer : {"adam", "momentum", "nesterov", "sgd"}, default "adam"
        `adam` (Kingma & Ba 2015); `momentum` and `nesterov` with 0.9; `sgd`, the gradient.
    steps : int, default 40
        How many.
    restarts : int, default 1
        From as many points, side by side.
    step_size : float, default 0.5
        The first step as a share of eps; it falls to 0 along a cosine. In linf the largest change of a
        feature, in l2 and l1 the length of the step.
    loss : {"ce", "dlr", "margin", "houdini"}, default "ce"
        That the steps raise.
    diversified : int, default 0
        As in `pgd`.

    Notes
    -----
    Cost: restarts · (diversified + steps + 1) forward passes, restarts · (diversified + steps) backward.

    Source: Madry et al. 2018, section 2.1, with the optimisers that libraries offer for it.

    Examples
    --------
    >>> UPGD(steps=3).optimizer
    'adam'
    """

    optimizer: Literal["adam", "momentum", "nesterov", "sgd"] = "adam"
    steps: Count = 40
    restarts: Count = 1
    step_size: Positive = 0.5
    loss: LossName = "ce"
    diversified: Amount = 0

    name = "upgd"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    threats = frozenset({"ball", "transform"})
    paper = "Madry et al. 2018, arXiv:1706.06083"

    def start(self, problem: Problem) -> UPGDState:
        x = diversified_start(problem, self.diversified)
        return UPGDState(z=x, mean=torch.zeros_like(x), square=torch.zeros_like(x))

    def step(self, problem: Problem, state: UPGDState) -> UPGDState:
        gradient = problem.threat.domain.free(
            problem.evaluate(state.z, problem.loss_named(self.loss)).gradient
        )
        gradient = gradient / per_row(size_of(gradient, 2).clamp_min(1e-30), gradient)
        mean, square = state.mean, state.square
        match self.optimizer:
            case "adam":
                step, mean, square = adam(gradient, mean, square, steps_so_far(problem.step, gradient))
            case "sgd":
                step = gradient
            case _:
                mean = MOMENTUM * mean + gradient
                step = gradient + MOMENTUM * mean if self.optimizer == "nesterov" else mean
        norm = problem.threat.norm
        length = size_of(step, math.inf if norm is Norm.LINF else 1 if norm is Norm.L1 else 2)
        step = step / per_row(length.clamp_min(1e-30), step)
        left = self.step_size * (1 + math.cos(math.pi * (problem.step - 1) / self.steps)) / 2
        return UPGDState(z=problem.project(state.z + problem.size(left) * step), mean=mean, square=square)
