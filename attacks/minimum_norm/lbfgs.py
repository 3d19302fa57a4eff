"""The first attack of all: box-constrained L-BFGS on distance and loss, the weight between them by search."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

MEMORY = 8  # pairs of steps and gradient changes


@dataclass(frozen=True, kw_only=True)
class LBFGSState(Iterate):
    """Where each row stands; x is the trial, d the number of features.

    at, slope, way (n, d): the point last accepted, its gradient, the direction tried; value (n,): there;
    length (n,): of the trial along it. steps, changes (n, m, d): the memory. weight, low, high (n,): of the
    distance, and those known to succeed and to fail; met (n,): whether this round has succeeded.
    """

    at: Tensor
    slope: Tensor
    way: Tensor
    value: Tensor
    length: Tensor
    steps: Tensor
    changes: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    met: Tensor


@dataclass(frozen=True)
class LBFGS(Attack[LBFGSState]):
    """Minimise weight · ||x - x0||² - log p(target) in the box; the largest weight that succeeds is sought
    (Szegedy et al. 2013, section 4.1, with the squared distance).

    An untargeted goal is sought through the likeliest wrong class. The quasi-Newton direction leaves out
    features that are held by the box; a trial that does not lower the objective enough is halved (Armijo).

    Parameters
    ----------
    steps : int, default 40
        Evaluations in every round.
    rounds : int, default 8
        Of the search for the weight.
    weight : float, default 0.1
        The first.

    Notes
    -----
    Cost: rounds · steps + 2 forward passes, rounds · steps backward.

    Examples
    --------
    >>> LBFGS(steps=3).rounds
    8
    """

    steps: Count = 40
    rounds: Count = 8
    weight: Positive = 0.1

    name = "lbfgs"
    norms = frozenset({Norm.L2})
    paper = "Szegedy et al. 2013, arXiv:1312.6199"
    minimum_norm = True
    fixed_budget = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.rounds * self.steps, targets=1)

    def start(self, problem: Problem) -> LBFGSState:
        nothing, origin = torch.zeros_like(problem.eps), problem.x0.flatten(1)
        inf, memory = nothing + torch.inf, 0 * origin[:, None].expand(-1, MEMORY, -1)
        return LBFGSState(
            z=problem.x0, at=origin, slope=0 * origin, way=0 * origin, value=inf,
            length=nothing, steps=memory, changes=memory, weight=nothing + self.weight, low=nothing, high=inf,
            met=torch.zeros_like(problem.row, dtype=torch.bool),
        )  # fmt: skip

    def step(self, problem: Problem, state: LBFGSState) -> LBFGSState:
        if problem.step > 1 and (problem.step - 1) % self.steps == 0:
            state = _next_round(problem, state)
        found = problem.evaluate(state.z, cross_entropy)
        x, origin = state.z.flatten(1), problem.x0.flatten(1)
        delta = x - origin
        value = state.weight * delta.double().square().sum(1) - found.loss.double()
        slope = 2 * per_row(state.weight, delta) * delta - found.gradient.flatten(1)
        slope = problem.threat.domain.free(slope.reshape(state.z.shape)).flatten(1)
        gained = (state.slope * (x - state.at)).sum(1).double().clamp_max(0)
        take = (value <= state.value + 1e-4 * gained) | (state.value == torch.inf)
        steps, changes = _remembered(state, x - state.at, slope - state.slope, take)
        at, kept = (torch.where(take[:, None], *p) for p in ((x, state.at), (slope, state.slope)))
        held = _held(problem, at, kept)
        way = torch.where(take[:, None], _direction(torch.where(held, 0.0, kept), steps, changes), state.way)
        first = 1 / torch.linalg.vector_norm(kept, dim=1).clamp_min(1).double()
        first = torch.where((steps != 0).flatten(1).any(1), 1.0, first)
        length = torch.where(take, first, state.length / 2)
        trial = problem.threat.domain.clamp((at + per_row(length, at) * way).reshape(state.z.shape))
        return replace(
            state, z=trial, at=at, slope=kept, way=way, value=torch.where(take, value, state.value),
            length=length, steps=steps, changes=changes, met=state.met | found.adversarial,
        )  # fmt: skip


def _next_round(problem: Problem, state: LBFGSState) -> LBFGSState:
    """A larger weight where this one succeeded, a smaller one where it failed; from x0 again."""
    low = torch.where(state.met, torch.maximum(state.low, state.weight), state.low)
    high = torch.where(state.met, state.high, torch.minimum(state.high, state.weight))
    between = torch.where(low > 0, (low + high) / 2, high / 10)
    weight = torch.where(high < torch.inf, between, state.weight * 10)
    return replace(
        state, z=problem.x0, at=problem.x0.flatten(1), value=torch.full_like(state.value, torch.inf),
        steps=0 * state.steps, changes=0 * state.changes, weight=weight, low=low, high=high,
        met=torch.zeros_like(state.met),
    )  # fmt: skip


def _held(problem: Problem, at: Tensor, slope: Tensor) -> Tensor:
    low, high = (b.expand_as(problem.x0).flatten(1) for b in problem.threat.domain.bounds(problem.x0))
    return ((at <= low) & (slope > 0)) | ((at >= high) & (slope < 0))


def _remembered(state: LBFGSState, step: Tensor, change: Tensor, take: Tensor) -> tuple[Tensor, Tensor]:
    """The memory with the newest pair last, where it was taken and bends upwards."""
    bends = (step * change).sum(1) > 1e-10 * change.square().sum(1)
    fresh = (take & bends & (state.value < torch.inf))[:, None, None]

    def longer(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(fresh, torch.cat([old[:, 1:], new[:, None]], 1), old)

    return longer(state.steps, step), longer(state.changes, change)


def _direction(slope: Tensor, steps: Tensor, changes: Tensor) -> Tensor:
    """Downhill from slope (n, d), bent by the last steps (n, m, d) and the changes of slope along them.

    The two-loop recursion (Nocedal & Wright 2006, algorithm 7.4); memory that is still empty is zero.
    """
    product = (steps * changes).sum(2)
    rho = torch.where(product > 0, 1 / product.clamp_min(1e-30), 0.0)
    way, alpha = -slope, []
    for i in reversed(range(steps.shape[1])):
        alpha.append(rho[:, i] * (steps[:, i] * way).sum(1))
        way = way - alpha[-1][:, None] * changes[:, i]
    last = changes[:, -1].square().sum(1)
    way = way * torch.where(last > 0, product[:, -1] / last.clamp_min(1e-30), 1.0)[:, None]
    for i in range(steps.shape[1]):
        beta = rho[:, i] * (changes[:, i] * way).sum(1)
        way = way + (alpha[-1 - i] - beta)[:, None] * steps[:, i]
    return way * (slope != 0)
