"""SignHunter: the gradient's signs, block by block, each block half as long as those before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.model import Access
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class SignHunterState(Iterate):
    """signs (n, …); reached (n,): the margin of the point at the end of them, which is z."""

    signs: Tensor
    reached: Tensor


@dataclass(frozen=True)
class SignHunter(Attack[SignHunterState]):
    """All signs are turned at once, then each half, each quarter …; a turn stays where the margin grows
    (Al-Dujaili & O'Reilly 2020, algorithm 1).

    Parameters
    ----------
    steps : int, default 2000
        Queries; once every sign has been turned by itself, it begins again from the whole.

    Notes
    -----
    Cost: steps + 2 forward passes.

    Examples
    --------
    >>> SignHunter(steps=3).steps
    3
    """

    steps: Count = 2000

    name = "signhunter"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Al-Dujaili & O'Reilly 2020, arXiv:1902.06894"

    def start(self, problem: Problem) -> SignHunterState:
        signs = torch.ones_like(problem.x0)
        x = self._along(problem, signs)
        return SignHunterState(z=x, signs=signs, reached=problem.margins(x))

    def step(self, problem: Problem, state: SignHunterState) -> SignHunterState:
        d = state.signs[0].numel()
        begin, length = _block(problem.step - 1, d)
        signs = state.signs.flatten(1).clone()
        signs[:, begin : begin + length] *= -1
        signs = signs.view_as(state.signs)
        x = self._along(problem, signs)
        reached = problem.margins(x)
        better = reached > state.reached
        kept = per_row(better, x)
        return SignHunterState(
            z=torch.where(kept, x, state.z),
            signs=torch.where(kept, signs, state.signs),
            reached=torch.where(better, reached, state.reached),
        )

    def _along(self, problem: Problem, signs: Tensor) -> Tensor:
        return problem.project(problem.x0 + problem.size() * problem.threat.steepest(signs))


def _block(turn: int, features: int) -> tuple[int, int]:
    """Where the block of a turn begins, and its length: the whole, its halves, … down to single features."""
    while True:
        length = features
        while True:
            count = math.ceil(features / length)
            if turn < count:
                return turn * length, length
            turn -= count
            if length == 1:
                break
            length = math.ceil(length / 2)
