"""FGSM in steps that remember where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.errors import require
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class Moving(Iterate):
    """velocity (n, …): the decaying sum of the gradients so far."""

    velocity: Tensor


@dataclass(frozen=True)
class MIFGSM(Attack):
    """Steps along a decaying sum of gradients, each of L1 norm 1 (Dong et al. 2018, algorithm 1).

    steps: how many, each of eps / steps. decay: of the sum at each step. lookahead: take the gradient where
    the sum would lead next (Nesterov; Lin et al. 2020, NI-FGSM). Cost: steps + 1 forward, steps backward.
    """

    steps: int = 10
    decay: float = 1.0
    lookahead: bool = False

    name = "mifgsm"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Dong et al. 2018, arXiv:1710.06081"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.decay >= 0, "decay", self.decay, "at least 0")

    def start(self, problem: Problem) -> Moving:
        return Moving(x=problem.x0, velocity=torch.zeros_like(problem.x0))

    def step(self, problem: Problem, state: Iterate) -> Moving:
        assert isinstance(state, Moving)
        size = problem.size(1 / self.steps)
        at = problem.project(state.x + size * self.decay * state.velocity) if self.lookahead else state.x
        gradient = problem.evaluate(at, cross_entropy).gradient
        length = size_of(gradient, 1).clamp_min(1e-30)
        velocity = self.decay * state.velocity + gradient / per_row(length, gradient)
        return Moving(
            x=problem.project(state.x + size * problem.threat.steepest(velocity)), velocity=velocity
        )
