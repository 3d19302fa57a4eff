"""Pixle: pixels take the values of other pixels of the same image."""

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


@dataclass(frozen=True, kw_only=True)
class PixleState(Iterate):
    """reached (n,): the margin of x."""

    reached: Tensor


@dataclass(frozen=True)
class Pixle(Attack[PixleState]):
    """A random patch of the image is scattered over random pixels, and stays where the margin grows
    (Pomponi, Scardapane & Uncini 2022, algorithm 1).

    At most eps pixels differ from the sample: those that differ least go back to it.

    Parameters
    ----------
    steps : int, default 1000
        Queries.
    patch : float, default 0.5
        The largest patch, as a share of eps; above 0, at most 1.

    Notes
    -----
    Cost: steps + 2 forward passes.

    Examples
    --------
    >>> Pixle(steps=3).patch
    0.5
    """

    steps: Count = 1000
    patch: Share = 0.5

    name = "pixle"
    access = Access.SCORE
    norms = frozenset({Norm.L0})
    paper = "Pomponi, Scardapane & Uncini 2022, arXiv:2202.02236"

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if threat.eps is None or threat.eps < 1:
            return f"pixle needs a number of pixels, such as l0:5; not {threat}"
        return super().refuses(model, threat, goal)

    def start(self, problem: Problem) -> PixleState:
        return PixleState(z=problem.x0, reached=problem.margins(problem.x0))

    def step(self, problem: Problem, state: PixleState) -> PixleState:
        grid = Pixels.of_problem(problem)
        most = max(1, min(grid.count, round(self.patch * (problem.threat.eps or 1))))
        draw = problem.random("patch").uniform((3,), torch.float64)
        size = 1 + (draw[:, 0] * most).long()
        wide = (size.double().sqrt().ceil().long()).clamp_max(grid.width)
        tall = (-(-size // wide)).clamp_max(grid.height)
        top = (draw[:, 1] * (grid.height - tall + 1)).long()
        left = (draw[:, 2] * (grid.width - wide + 1)).long()
        index = torch.arange(most, device=size.device)
        source = (top[:, None] + index // wide[:, None]) * grid.width + left[:, None] + index % wide[:, None]
        source = source.clamp_max(grid.count - 1)
        order = problem.random("places").uniform((grid.count,)).argsort(1)[:, :most]
        values = problem.x0.reshape(len(problem), grid.channels, grid.count)
        flat = state.z.reshape(values.shape)
        used = index < torch.minimum(size, wide * tall)[:, None]
        taken = torch.where(
            used[:, None],
            values.gather(2, source[:, None].expand(-1, grid.channels, -1)),
            flat.gather(2, order[:, None].expand(-1, grid.channels, -1)),
        )
        moved = flat.scatter(2, order[:, None].expand(-1, grid.channels, -1), taken).view_as(state.z)
        x = problem.project(moved)
        reached = problem.margins(x)
        better = reached > state.reached
        return PixleState(
            z=torch.where(per_row(better, x), x, state.z), reached=torch.where(better, reached, state.reached)
        )
