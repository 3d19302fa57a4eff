"""Sparse random search: a set of pixels that exchanges its members for better ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.attacks.sparse.pixels import Pixels
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Share
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate

# From which of 10,000 steps on the share of pixels exchanged is divided by how much (the authors' schedule).
SCHEDULE = ((0, 2), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15), (8000, 20))


@dataclass(frozen=True, kw_only=True)
class SparseRSState(Iterate):
    """changed (n, pixels): the set; colour (n, C, pixels): of every pixel if it were in it; reached (n,)."""

    changed: Tensor
    colour: Tensor
    reached: Tensor


@dataclass(frozen=True)
class SparseRS(Attack[SparseRSState]):
    """k pixels at corners of the colour box; some leave, others come, and what raises the margin stays
    (Croce et al. 2022, algorithm 1 for l0).

    k is the threat's eps.

    Parameters
    ----------
    steps : int, default 1000
        Queries.
    share : float, default 0.3
        Of the pixels exchanged at first, halved at once and less and less later; above 0, at most 1.
    restarts : int, default 1
        Side by side.

    Notes
    -----
    Cost: restarts · (steps + 1) forward passes.

    Examples
    --------
    >>> SparseRS(share=2.0)
    Traceback (most recent call last):
        ...
    robustbench_lite.core.errors.InvalidParameter: share = 2.0: must be in (0, 1]
    """

    steps: Count = 1000
    share: Share = 0.3
    restarts: Count = 1

    name = "sparse_rs"
    access = Access.SCORE
    norms = frozenset({Norm.L0})
    paper = "Croce et al. 2022, arXiv:2006.12834"

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if threat.eps is None or threat.eps < 1:
            return f"sparse_rs needs a number of pixels, such as l0:5; not {threat}"
        return super().refuses(model, threat, goal)

    def start(self, problem: Problem) -> SparseRSState:
        grid = Pixels.of_problem(problem)
        count = min(int(problem.threat.eps or 1), grid.count)
        free = _may_change(problem, grid)
        changed = _some_of(free, count, problem.random("set").uniform((grid.count,)))
        colour = _corners(problem, grid)
        x = _painted(problem, changed, colour)
        return SparseRSState(z=x, changed=changed, colour=colour, reached=problem.margins(x))

    def step(self, problem: Problem, state: SparseRSState) -> SparseRSState:
        grid = Pixels.of_problem(problem)
        count = min(int(problem.threat.eps or 1), grid.count)
        passed = (problem.step - 1) / self.steps * 10_000
        divisor = next(by for first, by in reversed(SCHEDULE) if passed >= first)
        few = max(1, int(self.share / divisor * count))
        leave = _some_of(state.changed, few, problem.random("leave").uniform((grid.count,)))
        others = _may_change(problem, grid) & ~state.changed
        come = _some_of(others, few, problem.random("come").uniform((grid.count,)))
        # Where nothing else may change, the pixels that leave come back in another colour.
        come = torch.where(others.any(1, keepdim=True), come, leave)
        changed = (state.changed & ~leave) | come
        colour = torch.where(come[:, None], _corners(problem, grid), state.colour)
        x = _painted(problem, changed, colour)
        reached = problem.margins(x)
        better = reached >= state.reached
        return SparseRSState(
            z=torch.where(per_row(better, x), x, state.z),
            changed=torch.where(better[:, None], changed, state.changed),
            colour=torch.where(better[:, None, None], colour, state.colour),
            reached=torch.maximum(reached, state.reached),
        )


def _may_change(problem: Problem, grid: Pixels) -> Tensor:
    """Which pixels the threat allows to change (n, pixels)."""
    mask = problem.threat.domain.mask
    if mask is None:
        return torch.ones(len(problem), grid.count, dtype=torch.bool, device=problem.x0.device)
    whole = mask.expand(problem.x0.shape[1:]).reshape(grid.channels, grid.count)
    return whole.any(0).expand(len(problem), -1)


def _some_of(legal: Tensor, count: int, draw: Tensor) -> Tensor:
    """A mask of count of the legal places of each row (n, pixels), by the highest draws; fewer if fewer."""
    draw = torch.where(legal, draw, -1.0)
    best = draw.topk(min(count, draw.shape[1]), dim=1).indices
    return torch.zeros_like(legal).scatter(1, best, True) & legal


def _corners(problem: Problem, grid: Pixels) -> Tensor:
    """A random corner of the colour box for every pixel (n, C, pixels)."""
    bits = problem.random("colour").integers(2, (grid.channels, grid.count)).to(problem.x0)
    return grid.low[:, None] + (grid.high - grid.low)[:, None] * bits


def _painted(problem: Problem, changed: Tensor, colour: Tensor) -> Tensor:
    x0 = problem.x0.reshape(colour.shape)
    x = torch.where(changed[:, None], colour, x0).reshape(problem.x0.shape)
    domain = problem.threat.domain
    return domain.clamp(domain.kept(x, problem.x0))
