"""Few pixels: the best of many single pixels is kept, then the next, and most are sought near those."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.sparse.pixels import Pixels, painted
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Share
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True, kw_only=True)
class FewPixelsState(Iterate):
    """where (n, K), colour (n, K, C): the pixels kept, the first `problem.step` of them; reached (n,)."""

    where: Tensor
    colour: Tensor
    reached: Tensor


@dataclass(frozen=True)
class FewPixels(Attack[FewPixelsState]):
    """Greedy search, a pixel a step, part of the candidates near pixels kept before
    (after Narodytska & Kasiviswanathan 2017, algorithm 1, which keeps five a round).

    A candidate is a place and a corner of the colours. Where none raises the margin, the best is kept all the
    same: it may pay together with the next.

    Parameters
    ----------
    steps : int, default 50
        Pixels at most, for the smallest perturbation; with a fixed eps, passes over its pixels: after the
        first each replaces them one by one.
    candidates : int, default 100
        A step.
    near : float, default 0.5
        The share of them that lie near a pixel kept; above 0, at most 1.
    reach : int, default 5
        How near: at most so many rows and columns away.

    Notes
    -----
    Cost: candidates · steps + 1 forward passes.

    Examples
    --------
    >>> FewPixels(steps=3).candidates
    100
    """

    steps: Count = 50
    candidates: Count = 100
    near: Share = 0.5
    reach: Count = 5

    name = "few_pixels"
    access = Access.SCORE
    norms = frozenset({Norm.L0})
    paper = "Narodytska & Kasiviswanathan 2017, arXiv:1612.06299"
    minimum_norm = True

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if threat.eps is not None and threat.eps < 1:
            return f"few_pixels needs a pixel at least, l0:1; not {threat}"
        return super().refuses(model, threat, goal)

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=self.candidates)

    def start(self, problem: Problem) -> FewPixelsState:
        grid = Pixels.of_problem(problem)
        most = self.steps if problem.threat.eps is None else int(problem.threat.eps)
        most = min(most, grid.count)
        n, device = len(problem), problem.x0.device
        return FewPixelsState(
            z=problem.x0,
            where=torch.zeros((n, most), dtype=torch.long, device=device),
            colour=problem.x0.new_zeros((n, most, grid.channels)),
            reached=torch.full((n,), -torch.inf, device=device),
        )

    def step(self, problem: Problem, state: FewPixelsState) -> FewPixelsState:
        grid = Pixels.of_problem(problem)
        n, most = state.where.shape
        place = (problem.step - 1) % most
        kept = min(problem.step - 1, most)
        if problem.threat.eps is None and problem.step > most:  # all pixels have one
            return replace(state, done=torch.ones_like(problem.row, dtype=torch.bool))
        spot = self._spots(problem, grid, state.where[:, :kept])
        bits = problem.random("corner").integers(2, (self.candidates, grid.channels))
        colour = grid.within(bits.to(problem.x0))
        count = max(kept, place + 1)
        where = state.where[:, None, :count].repeat(1, self.candidates, 1)
        painting = state.colour[:, None, :count].repeat(1, self.candidates, 1, 1)
        where[:, :, place], painting[:, :, place] = spot, colour
        points = painted(problem, where, painting)
        rows = torch.arange(n, device=where.device).repeat_interleave(self.candidates)
        margins = problem.margins(points, rows).view(n, -1)
        top, best = margins.max(1)
        row = torch.arange(n, device=where.device)
        again = kept == most  # the pixels are all there: a replacement has to pay
        taken = (top > state.reached) if again else torch.ones_like(problem.row, dtype=torch.bool)
        new_where, new_colour = state.where.clone(), state.colour.clone()
        new_where[:, place] = torch.where(taken, spot[row, best], state.where[:, place])
        new_colour[:, place] = torch.where(taken[:, None], colour[row, best], state.colour[:, place])
        z = points.view(n, self.candidates, *problem.x0.shape[1:])[row, best]
        return FewPixelsState(
            z=torch.where(taken.view(-1, *[1] * (z.dim() - 1)), z, state.z),
            where=new_where,
            colour=new_colour,
            reached=torch.where(taken, top.to(state.reached), state.reached),
        )

    def _spots(self, problem: Problem, grid: Pixels, kept: Tensor) -> Tensor:
        """Places (n, candidates): anywhere, the first of them near a pixel kept (n, k)."""
        anywhere = problem.random("place").integers(grid.count, (self.candidates,))
        if not kept.shape[1]:
            return anywhere
        of = kept.gather(1, problem.random("pixel").integers(kept.shape[1], (self.candidates,)))
        row, column = grid.rows_and_columns(of)
        away = problem.random("away").integers(2 * self.reach + 1, (2, self.candidates)) - self.reach
        row = (row + away[:, 0]).clamp(0, grid.height - 1)
        column = (column + away[:, 1]).clamp(0, grid.width - 1)
        local = torch.arange(self.candidates, device=of.device) < self.near * self.candidates
        return torch.where(local, row * grid.width + column, anywhere)
