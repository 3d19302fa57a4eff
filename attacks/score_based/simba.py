"""SimBA: one coordinate after the other, up or down, whatever helps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.errors import require
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Access
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class Simple(Iterate):
    """loss (n,): at x."""

    loss: Tensor


@dataclass(frozen=True)
class SimBA(Attack):
    """A random feature is moved up by `size`, else down, where that lowers the probability of the class.

    Guo et al. 2019, algorithm 1 on pixels: every feature once before any comes twice. steps: features tried.
    size: of a move, in the units of x. Cost: 2 · steps + 1 forward passes at most.
    """

    steps: int = 1000
    size: float = 0.2

    name = "simba"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Guo et al. 2019, arXiv:1905.07121"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.size > 0, "size", self.size, "above 0")

    def start(self, problem: Problem) -> Simple:
        return Simple(x=problem.x0, loss=self._loss(problem, problem.x0))

    def step(self, problem: Problem, state: Iterate) -> Simple:
        assert isinstance(state, Simple)
        d = state.x[0].numel()
        turn, place = divmod(problem.step - 1, d)
        # One order for a whole turn, whatever the step.
        order = replace(problem, step=-1 - turn).random("order").uniform((d,)).argsort(1)
        move = torch.zeros_like(state.x).flatten(1).scatter(1, order[:, place, None], self.size)
        if problem.threat.domain.mask is not None:
            move = move * problem.threat.domain.mask.expand_as(problem.x0[0]).flatten()
        move = move.reshape(state.x.shape)
        x, loss = state.x, state.loss
        left = torch.arange(len(problem), device=x.device)
        for way in (move, -move):
            rows = problem[left]
            tried = rows.project(x[left] + way[left])
            found = self._loss(rows, tried)
            better = found > loss[left]
            x, loss = (
                x.index_copy(0, left[better], tried[better]),
                loss.index_copy(0, left[better], found[better]),
            )
            left = left[~better]
        return Simple(x=x, loss=loss)

    def _loss(self, problem: Problem, x: Tensor) -> Tensor:
        return cross_entropy(problem.proposals(x), problem.y, problem.target).nan_to_num(nan=-torch.inf)
