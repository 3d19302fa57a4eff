"""Auto-PGD: gradient steps that choose their own size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.fixed_budget.climbing import Climbing, sparse_step, sparser
from robustbench_lite.core.errors import require
from robustbench_lite.core.losses import loss_named
from robustbench_lite.core.problem import Evaluation, Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate
from robustbench_lite.threats.ball import Lp

MOMENTUM = 0.75  # the weight of the new step against the last one
RISING = 0.75  # the share of steps between checkpoints that ought to raise the loss


@dataclass(frozen=True)
class APGD(Attack):
    """Projected gradient with momentum, the step halved where it stops paying, from the best point so far.

    Croce & Hein 2020, algorithm 1; in l1 with sparse steps (Croce & Hein 2021, algorithm 1).

    steps: how many. restarts: side by side. loss: `ce`, `dlr` or `margin`. targets: how many of the
    likeliest wrong classes an untargeted goal is sought through, side by side (0: as it is); with `dlr`
    this is APGD-T. Cost: lanes · (steps + 1) forward passes, lanes · steps backward.
    """

    steps: int = 100
    restarts: int = 1
    loss: str = "ce"
    targets: int = 0

    name = "apgd"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Croce & Hein 2020, arXiv:2003.01690"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.restarts >= 1, "restarts", self.restarts, "at least 1")
        require(self.targets >= 0, "targets", self.targets, "at least 0")
        loss_named(self.loss)

    @property
    def aims(self) -> int:
        return self.targets

    def start(self, problem: Problem) -> Climbing:
        x = problem.random_start()
        nothing = torch.zeros_like(problem.eps)
        low = torch.full_like(problem.eps, -torch.inf)
        features = torch.full_like(problem.eps, float(x[0].numel()))
        first = 1.0 if _is_l1(problem) else 2.0
        return Climbing(
            x=x,
            before=x,
            best=x,
            best_gradient=torch.zeros_like(x),
            best_loss=low,
            size=first * problem.eps,
            loss=low,
            rises=nothing,
            best_at_check=low,
            halved=torch.ones_like(problem.row, dtype=torch.bool),
            sparsity=features,
        )

    def step(self, problem: Problem, state: Iterate) -> Climbing:
        assert isinstance(state, Climbing)
        found = problem.evaluate(state.x, loss_named(self.loss))
        state = _looked_at(state, found)
        gradient = found.gradient
        period = self._checked(problem.step, _is_l1(problem))
        if period:
            state, gradient = (sparser if _is_l1(problem) else _shorter)(problem, state, gradient, period)
        if _is_l1(problem):
            step = sparse_step(problem, state, gradient)
            ahead = problem.project(state.x + per_row(state.size, state.x) * step)
            return replace(state, x=ahead, before=state.x)
        ahead = problem.project(state.x + per_row(state.size, state.x) * problem.threat.steepest(gradient))
        weight = MOMENTUM if problem.step > 1 else 1.0
        mixed = state.x + weight * (ahead - state.x) + (1 - weight) * (state.x - state.before)
        return replace(state, x=problem.project(mixed), before=state.x)

    def _checked(self, step: int, is_l1: bool = False) -> int:
        """The length of the period that ends at this step; 0 where none does.

        The first is 22 % of the steps, each later one 3 % shorter, down to 6 %; in l1 each is 4 %.
        """
        shares = (0.04, 0.04, 0.0) if is_l1 else (0.22, 0.06, 0.03)
        period, least, shrink = (max(1, int(share * self.steps)) for share in shares)
        end = period
        while end < step - 1:
            period = max(period - shrink, least)
            end += period
        return period if end == step - 1 else 0


def _looked_at(state: Climbing, found: Evaluation) -> Climbing:
    loss = found.loss.double()
    better = loss > state.best_loss
    return replace(
        state,
        best=torch.where(per_row(better, state.x), state.x, state.best),
        best_gradient=torch.where(per_row(better, state.x), found.gradient, state.best_gradient),
        best_loss=torch.where(better, loss, state.best_loss),
        rises=state.rises + ((loss > state.loss) & (state.loss > -torch.inf)),
        loss=loss,
    )


def _shorter(problem: Problem, state: Climbing, gradient: Tensor, period: int) -> tuple[Climbing, Tensor]:
    """Halve the step and go back to the best point where the loss rose too rarely, or not at all."""
    stuck = ~state.halved & (state.best_at_check >= state.best_loss)
    halve = (state.rises <= RISING * period) | stuck
    back = per_row(halve, state.x)
    state = replace(
        state,
        x=torch.where(back, state.best, state.x),
        size=torch.where(halve, state.size / 2, state.size),
        rises=torch.zeros_like(state.rises),
        best_at_check=state.best_loss,
        halved=halve,
    )
    return state, torch.where(back, state.best_gradient, gradient)


def _is_l1(problem: Problem) -> bool:
    return isinstance(problem.threat, Lp) and problem.threat.norm is Norm.L1
