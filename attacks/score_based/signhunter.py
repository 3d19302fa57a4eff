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
    Cost: steps + 1 forward passes.

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
        levels = math.ceil(math.log2(d)) + 1
        place = (problem.step - 1) % (2**levels - 1)
        level = (place + 1).bit_length() - 1
        block = place + 1 - 2**level
        begin, end = (d * edge // 2**level for edge in (block, block + 1))
        signs = state.signs.flatten(1).clone()
        signs[:, begin:end] *= -1
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
