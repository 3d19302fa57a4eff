"""RayS: the nearest boundary among directions that are corners, by decisions alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.model import Access
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate

FINE = 1e-3  # of the box, to which a radius is found


@dataclass(frozen=True, kw_only=True)
class RaySState(Iterate):
    """corner (n, …): of signs; radius (n,): at which x0 + radius · corner is adversarial, inf at first.

    block (n,): which of the blocks of this level is turned next; level (n,): their number is 2^level.
    low, high (n,): what is known of the radius of the corner `tried` (n, …), which is being measured; high is
    -1 where none is.
    """

    corner: Tensor
    radius: Tensor
    block: Tensor
    level: Tensor
    low: Tensor
    high: Tensor
    tried: Tensor


@dataclass(frozen=True)
class RayS(Attack[RaySState]):
    """Signs turned block by block, the blocks halved again and again (Chen & Gu 2020, algorithm 3).

    A turn stays where the boundary comes nearer, which one query tells and bisection then measures.

    Parameters
    ----------
    steps : int, default 5000
        Queries, at most.

    Notes
    -----
    Cost: steps + 1 forward passes.

    Examples
    --------
    >>> RayS(steps=3).steps
    3
    """

    steps: Count = 5000

    name = "rays"
    access = Access.DECISION
    norms = frozenset({Norm.LINF})
    paper = "Chen & Gu 2020, arXiv:2006.12792"
    minimum_norm = True

    def start(self, problem: Problem) -> RaySState:
        corner, none = torch.ones_like(problem.x0), torch.zeros_like(problem.row)
        unknown = torch.full_like(problem.eps, torch.inf)
        return RaySState(
            z=problem.x0, corner=corner, radius=unknown, block=none, level=none,
            low=torch.zeros_like(problem.eps), high=torch.full_like(problem.eps, -1.0), tried=corner,
        )  # fmt: skip

    def step(self, problem: Problem, state: RaySState) -> RaySState:
        low, high = problem.threat.domain.bounds(problem.x0)
        width = float((high - low).amax())
        measuring = state.high >= 0
        # Either the middle of what is known of a corner, or a new corner a little nearer than the best.
        fresh = self._turned(problem, state)
        turned = torch.where(per_row(measuring, problem.x0), state.tried, fresh)
        nearer = torch.where(state.radius < torch.inf, state.radius - FINE * width, width)
        radius = torch.where(measuring, (state.low + state.high) / 2, nearer)
        point = self._at(problem, turned, radius)
        good = problem.decisions(point) & (radius > 0)
        upper = torch.where(good, radius, torch.where(measuring, state.high, -1.0))
        lower = torch.where(measuring & ~good, radius, torch.where(measuring, state.low, 0.0))
        ends = (upper >= 0) & (upper - lower <= FINE * width)
        best = torch.where(ends, upper, state.radius)
        corner = torch.where(per_row(ends, turned), turned, state.corner)
        on = (ends | (upper < 0)) & (best < torch.inf)  # to the next block
        level = state.level + (on & (state.block + 1 >= 2**state.level))
        most = max(1, int(problem.x0[0].numel() - 1).bit_length())
        return replace(
            state,
            z=torch.where(per_row(ends, point), self._at(problem, corner, best), state.z),
            corner=corner,
            radius=best,
            block=torch.where(on, torch.where(level > state.level, 0, state.block + 1), state.block),
            level=torch.where(level > most, 0, level),
            low=torch.where(ends, 0.0, lower),
            high=torch.where(ends, -1.0, upper),
            tried=turned,
        )

    def _turned(self, problem: Problem, state: RaySState) -> Tensor:
        """The best corner with one block of its signs turned; until there is one, a random corner."""
        d = state.corner[0].numel()
        place = torch.arange(d, device=state.corner.device)
        inside = place * 2 ** state.level[:, None] // d == state.block[:, None]
        turned = torch.where(inside.reshape(state.corner.shape), -state.corner, state.corner)
        drawn = problem.random("corner").gaussian(tuple(turned.shape[1:])).to(turned).sign()
        drawn = state.corner if problem.step == 1 else drawn
        return torch.where(per_row(state.radius < torch.inf, turned), turned, drawn)

    def _at(self, problem: Problem, corner: Tensor, radius: Tensor) -> Tensor:
        domain = problem.threat.domain
        size = per_row(torch.where(radius < torch.inf, radius, 0.0), corner)
        return domain.clamp(domain.kept(problem.x0 + size * corner, problem.x0))
