"""CornerSearch: every pixel at every corner of the colours alone, then the best of them together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from robustbench_lite.attacks.sparse.pixels import Pixels, painted
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

CHANNELS = 4  # whose 16 corners are tried for every pixel


@dataclass(frozen=True, kw_only=True)
class CornerSearchState(Iterate):
    """gain (n, pixels): the margin with each pixel at its best corner (n, pixels), -inf until asked."""

    gain: Tensor
    corner: Tensor


@dataclass(frozen=True)
class CornerSearch(Attack[CornerSearchState]):
    """Single pixels ranked by their margins; then sets of the first ones, drawn with falling probability, of
    more and more pixels (Croce & Hein 2019, algorithm 1).

    Theirs ranks them for each wrong class too. With a fixed eps sets have that many pixels; for the smallest
    perturbation from 2 to `most`, in equal shares of the sets.

    Parameters
    ----------
    steps : int, default 1000
        Sets, once the ranking is done.
    best : int, default 100
        Pixels of the ranking that sets are drawn from.
    most : int, default 20
        Pixels in a set at most, for the smallest perturbation; at least 2.
    batch : int, default 100
        Points asked about at once.

    Notes
    -----
    Cost: pixels · 2^channels forward passes for the ranking, and `steps` more, in whole batches.

    Examples
    --------
    >>> CornerSearch(steps=3).best
    100
    """

    steps: Count = 1000
    best: Count = 100
    most: Annotated[int, Range(2)] = 20
    batch: Count = 100

    name = "cornersearch"
    access = Access.SCORE
    norms = frozenset({Norm.L0})
    paper = "Croce & Hein 2019, arXiv:1909.05040"
    minimum_norm = True

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if threat.eps is not None and threat.eps < 1:
            return f"cornersearch needs a pixel at least, l0:1; not {threat}"
        if Pixels.of(model.input_shape, threat.domain).channels > CHANNELS:
            return f"cornersearch tries every corner of at most {CHANNELS} channels; not of {model.name}"
        return super().refuses(model, threat, goal)

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        grid = Pixels.of(model.input_shape, threat.domain)
        return Schedule(self._ranking(grid) + math.ceil(self.steps / self.batch), points=self.batch)

    def _ranking(self, grid: Pixels) -> int:
        """Steps that the ranking takes."""
        return math.ceil(grid.count * (1 << grid.channels) / self.batch)

    def start(self, problem: Problem) -> CornerSearchState:
        grid = Pixels.of_problem(problem)
        gain = torch.full((len(problem), grid.count), -torch.inf, device=problem.x0.device)
        return CornerSearchState(z=problem.x0, gain=gain, corner=torch.zeros_like(gain, dtype=torch.long))

    def step(self, problem: Problem, state: CornerSearchState) -> CornerSearchState:
        grid = Pixels.of_problem(problem)
        ranking = self._ranking(grid)
        if problem.step <= ranking:
            return self._ranked(problem, state, grid)
        sets = problem.step - ranking - 1
        rounds = math.ceil(self.steps / self.batch)
        if problem.threat.eps is None:
            count = 2 + sets * (self.most - 2) // max(1, rounds - 1)
        else:
            count = int(problem.threat.eps)
        if count == 1:  # asked already, every one
            return replace(state, done=torch.ones_like(problem.row, dtype=torch.bool))
        first = min(self.best, grid.count)
        count = min(count, first)
        ranked, order = state.gain.topk(first, dim=1)
        # The i-th of N is drawn with a weight of 2N - 2i + 1; several at once by the largest keys (Gumbel).
        weight = 2 * first - 2 * torch.arange(1, first + 1, device=order.device) + 1.0
        key = weight.log() - problem.random("set").exponential((self.batch, first)).clamp_min(1e-30).log()
        key = torch.where(ranked[:, None] > -torch.inf, key, -torch.inf)
        where = order[:, None].expand(-1, self.batch, -1).gather(2, key.topk(count, dim=2).indices)
        corner = state.corner[:, None].expand(-1, self.batch, -1).gather(2, where)
        self._margins(problem, grid, where, corner)
        return state

    def _ranked(self, problem: Problem, state: CornerSearchState, grid: Pixels) -> CornerSearchState:
        """The next pixels and corners, one by one."""
        total = grid.count * (1 << grid.channels)
        begin = (problem.step - 1) * self.batch
        index = torch.arange(begin, min(begin + self.batch, total), device=state.gain.device)
        where, corner = (part.expand(len(problem), -1) for part in (index % grid.count, index // grid.count))
        margin = self._margins(problem, grid, where[:, :, None], corner[:, :, None]).to(state.gain)
        # A pixel may come twice, at the end of one corner and the beginning of the next.
        gain = state.gain.scatter_reduce(1, where, margin, "amax")
        new = (gain > state.gain).gather(1, where) & (margin == gain.gather(1, where))
        chosen = torch.where(new, corner, -1)
        best = torch.full_like(state.corner, -1).scatter_reduce(1, where, chosen, "amax")
        return CornerSearchState(z=state.z, gain=gain, corner=torch.where(best >= 0, best, state.corner))

    def _margins(self, problem: Problem, grid: Pixels, where: Tensor, corner: Tensor) -> Tensor:
        """Of points (n, P) with pixels (n, P, k) at corners (n, P, k)."""
        bits = corner[..., None] >> torch.arange(grid.channels, device=corner.device) & 1
        points = painted(problem, where, grid.within(bits.to(problem.x0)))
        rows = torch.arange(len(problem), device=where.device).repeat_interleave(where.shape[1])
        return problem.margins(points, rows).view(where.shape[:2])
