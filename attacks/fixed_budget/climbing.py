"""Where auto-PGD stands, and its sparse steps in l1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.search.attack import Iterate


@dataclass(frozen=True, kw_only=True)
class Climbing(Iterate):
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


def sparser(problem: Problem, state: Climbing, gradient: Tensor, period: int) -> tuple[Climbing, Tensor]:
    """Shorten the step by a third, or start again from the best point where it became sparser."""
    changed = (state.best != problem.x0).flatten(1).sum(1).double()
    again = changed < 0.95 * state.sparsity
    size = torch.where(again, problem.eps, (state.size / 1.5).clamp_min(problem.eps / 10))
    back = per_row(again, state.x)
    state = replace(state, x=torch.where(back, state.best, state.x), size=size, sparsity=changed)
    return state, torch.where(back, state.best_gradient, gradient)


def sparse_step(problem: Problem, state: Climbing, gradient: Tensor) -> Tensor:
    """The signs of the largest entries of the gradient, as many as two thirds of the features changed."""
    domain = problem.threat.domain
    low, high = domain.bounds(state.x)
    # What the box already holds would be chosen again and again.
    blocked = ((state.x >= high) & (gradient > 0)) | ((state.x <= low) & (gradient < 0))
    gradient = torch.where(blocked, 0.0, gradient if domain.mask is None else gradient * domain.mask)
    strength = gradient.flatten(1).abs()
    d = strength.shape[1]
    share = torch.where(state.sparsity == d, 0.2 * d, state.sparsity / 1.5).long().clamp(1, d)
    least = strength.sort(1, descending=True).values.gather(1, share[:, None] - 1)
    signs = gradient.flatten(1).sign() * (strength >= least)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).reshape(gradient.shape)
