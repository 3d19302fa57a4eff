"""Auto-PGD: gradient steps that choose their own size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.fixed_budget.odi import diversified_start
from robustbench_lite.core.parameters import Amount, Count, LossName
from robustbench_lite.core.problem import Evaluation, Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import EVERY_TASK, Attack, Iterate

MOMENTUM = 0.75  # the weight of the new step against the last one
RISING = 0.75  # the share of steps between checkpoints that ought to raise the loss


@dataclass(frozen=True, kw_only=True)
class APGDState(Iterate):
    """Where each row stands.

    before (n, …): the iterate before; best, best_gradient (n, …), best_loss (n,): of the highest loss met.
    size (n,): of a step, in the units of x. loss (n,): at the last evaluation; rises (n,): how often it rose
    since the checkpoint; best_at_check (n,); halved (n,): whether the last checkpoint shortened the step.
    sparsity (n,): features changed at the last checkpoint, for l1.
    """

    before: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    size: Tensor
    loss: Tensor
    rises: Tensor
    best_at_check: Tensor
    halved: Tensor
    sparsity: Tensor


@dataclass(frozen=True)
class APGD(Attack[APGDState]):
    """Projected gradient with momentum, the step halved where it stops paying, from the best point so far
    (Croce & Hein 2020, algorithm 1).

    In l1 with sparse steps (Croce & Hein 2021, algorithm 1).

    Parameters
    ----------
    steps : int, default 100
        How many.
    restarts : int, default 1
        Side by side.
    loss : {"ce", "dlr", "margin", "houdini"}, default "ce"
        That the steps raise.
    diversified : int, default 0
        Steps of eps along a random mixture of the scores before the first (ODI; its authors take 2).
    targets : int, default 0
        How many of the likeliest wrong classes an untargeted goal is sought through, side by side (0: as it
        is); with `dlr` this is APGD-T.

    Notes
    -----
    Cost: lanes · (diversified + steps + 1) forward passes, lanes · (diversified + steps) backward.

    Examples
    --------
    >>> str(APGD(loss="dlr", targets=9))
    'apgd:loss=dlr,targets=9'
    """

    steps: Count = 100
    restarts: Count = 1
    loss: LossName = "ce"
    diversified: Amount = 0
    targets: Amount = 0

    name = "apgd"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    threats = frozenset({"ball", "transform"})
    tasks = EVERY_TASK
    paper = "Croce & Hein 2020, arXiv:2003.01690"

    def start(self, problem: Problem) -> APGDState:
        x = diversified_start(problem, self.diversified)
        nothing = torch.zeros_like(problem.eps)
        low = torch.full_like(problem.eps, -torch.inf)
        features = torch.full_like(problem.eps, float(x[0].numel()))
        first = 1.0 if _is_l1(problem) else 2.0
        return APGDState(
            z=x,
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

    def step(self, problem: Problem, state: APGDState) -> APGDState:
        found = problem.evaluate(state.z, problem.loss_named(self.loss))
        state = looked_at(state, found)
        gradient = found.gradient
        period = self._checked(problem.step, _is_l1(problem))
        if period:
            state, gradient = (_sparser if _is_l1(problem) else shortened)(problem, state, gradient, period)
        if _is_l1(problem):
            step = _sparse_step(problem, state, gradient)
            ahead = problem.project(state.z + per_row(state.size, state.z) * step)
            return replace(state, z=ahead, before=state.z)
        ahead = problem.project(state.z + per_row(state.size, state.z) * problem.threat.steepest(gradient))
        weight = MOMENTUM if problem.step > 1 else 1.0
        mixed = state.z + weight * (ahead - state.z) + (1 - weight) * (state.z - state.before)
        return replace(state, z=problem.project(mixed), before=state.z)

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


def looked_at(state: APGDState, found: Evaluation) -> APGDState:
    loss = found.loss.double()
    better = loss > state.best_loss
    return replace(
        state,
        best=torch.where(per_row(better, state.z), state.z, state.best),
        best_gradient=torch.where(per_row(better, state.z), found.gradient, state.best_gradient),
        best_loss=torch.where(better, loss, state.best_loss),
        rises=state.rises + ((loss > state.loss) & (state.loss > -torch.inf)),
        loss=loss,
    )


def shortened(problem: Problem, state: APGDState, gradient: Tensor, period: int) -> tuple[APGDState, Tensor]:
    """Halve the step and go back to the best point where the loss rose too rarely, or not at all."""
    stuck = ~state.halved & (state.best_at_check >= state.best_loss)
    halve = (state.rises <= RISING * period) | stuck
    back = per_row(halve, state.z)
    state = replace(
        state,
        z=torch.where(back, state.best, state.z),
        size=torch.where(halve, state.size / 2, state.size),
        rises=torch.zeros_like(state.rises),
        best_at_check=state.best_loss,
        halved=halve,
    )
    return state, torch.where(back, state.best_gradient, gradient)


def _is_l1(problem: Problem) -> bool:
    return problem.threat.norm is Norm.L1


def _sparser(problem: Problem, state: APGDState, gradient: Tensor, period: int) -> tuple[APGDState, Tensor]:
    """Shorten the step by a third, or start again from the best point where it became sparser."""
    changed = (state.best != problem.x0).flatten(1).sum(1).double()
    again = changed < 0.95 * state.sparsity
    size = torch.where(again, problem.eps, (state.size / 1.5).clamp_min(problem.eps / 10))
    back = per_row(again, state.z)
    state = replace(state, z=torch.where(back, state.best, state.z), size=size, sparsity=changed)
    return state, torch.where(back, state.best_gradient, gradient)


def _sparse_step(problem: Problem, state: APGDState, gradient: Tensor) -> Tensor:
    """The signs of the largest entries of the gradient, as many as two thirds of the features changed."""
    domain = problem.threat.domain
    low, high = domain.bounds(state.z)
    # What the box already holds would be chosen again and again.
    blocked = ((state.z >= high) & (gradient > 0)) | ((state.z <= low) & (gradient < 0))
    gradient = torch.where(blocked, 0.0, domain.free(gradient))
    strength = gradient.flatten(1).abs()
    d = strength.shape[1]
    share = torch.where(state.sparsity == d, 0.2 * d, state.sparsity / 1.5).long().clamp(1, d)
    least = strength.sort(1, descending=True).values.gather(1, share[:, None] - 1)
    signs = gradient.flatten(1).sign() * (strength >= least)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).reshape(gradient.shape)
