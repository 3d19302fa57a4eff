"""SimBA: one coordinate after the other, up or down, whatever helps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Access
from robustbench_lite.core.parameters import Count, Length
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class SimBAState(Iterate):
    """loss (n,): at x."""

    loss: Tensor


@dataclass(frozen=True)
class SimBA(Attack[SimBAState]):
    """A random feature is moved up by `size`, else down, where that lowers the probability of the class
    (Guo et al. 2019, algorithm 1 on pixels).

    Every feature comes once before any comes twice.

    Parameters
    ----------
    steps : int, default 1000
        Features tried.
    size : float, default 0.2
        Of a move, in the units of x; the default grows with the box.

    Notes
    -----
    Cost: 2 · steps + 1 forward passes at most.

    Examples
    --------
    >>> SimBA(steps=3).size
    0.2
    """

    steps: Count = 1000
    size: Length = 0.2

    name = "simba"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Guo et al. 2019, arXiv:1905.07121"

    def start(self, problem: Problem) -> SimBAState:
        return SimBAState(z=problem.x0, loss=self._loss(problem, problem.x0))

    def step(self, problem: Problem, state: SimBAState) -> SimBAState:
        d = state.z[0].numel()
        turn, place = divmod(problem.step - 1, d)
        # One order for a whole turn, whatever the step.
        order = problem.steady("order", turn).uniform((d,)).argsort(1)
        size = problem.threat.domain.at_least_a_step(self.size, state.z).expand_as(state.z).flatten(1)
        chosen = order[:, place, None]
        move = torch.zeros_like(size).scatter(1, chosen, size.gather(1, chosen)).reshape(state.z.shape)
        move = problem.threat.domain.free(move)
        x, loss = state.z, state.loss
        left = torch.arange(len(problem), device=x.device)
        for way in (move, -move):
            rows = problem[left]
            tried = rows.project(x[left] + way[left])
            found = self._loss(rows, tried)
            # Where the ball holds the feature the same point may gain by rounding.
            better = (found > loss[left]) & (tried != x[left]).flatten(1).any(1)
            x, loss = (
                x.index_copy(0, left[better], tried[better]),
                loss.index_copy(0, left[better], found[better]),
            )
            left = left[~better]
        return SimBAState(z=x, loss=loss)

    def _loss(self, problem: Problem, x: Tensor) -> Tensor:
        return problem.loss_of(cross_entropy, problem.proposals(x)).nan_to_num(nan=-torch.inf)
