"""Gradients estimated from scores: the loss at pairs of points on both sides of the iterate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.errors import require
from robustbench_lite.core.goal import margin
from robustbench_lite.core.model import Access
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class SPSA(Attack):
    """Projected steps along an estimated gradient of the margin (Uesato et al. 2018, algorithm 1).

    g = mean over pairs of (f(x + reach·v) - f(x - reach·v)) / (2 reach) · v, with random signs v.

    steps: how many. pairs: of points for each estimate. reach: how far they lie, in the units of x.
    step_size: None: 2.5 eps / steps. Cost: (2 · pairs) · steps + 1 forward passes.
    """

    steps: int = 100
    pairs: int = 32
    reach: float = 0.01
    step_size: float | None = None

    name = "spsa"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Uesato et al. 2018, arXiv:1802.05666"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.pairs >= 1, "pairs", self.pairs, "at least 1")
        require(self.reach > 0, "reach", self.reach, "above 0")
        require(self.step_size is None or self.step_size > 0, "step_size", self.step_size, "above 0")

    @property
    def points(self) -> int:
        return 2 * self.pairs

    def directions(self, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Random directions (n, *shape) whose second moment is the identity."""
        return (stream.integers(2, shape) * 2 - 1).float()

    def start(self, problem: Problem) -> Iterate:
        return Iterate(x=problem.x0)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        n, shape = len(problem), tuple(problem.x0.shape[1:])
        way = self.directions(problem.random("way"), (self.pairs, *shape)).to(state.x)
        if problem.threat.domain.mask is not None:
            way = way * problem.threat.domain.mask
        both = torch.cat([state.x[:, None] + self.reach * way, state.x[:, None] - self.reach * way], 1)
        points = problem.threat.domain.clamp(both.flatten(0, 1))
        rows = torch.arange(n, device=points.device).repeat_interleave(2 * self.pairs)
        target = None if problem.target is None else problem.target[rows]
        loss = margin(problem.proposals(points, rows), problem.y[rows], target).nan_to_num().view(n, 2, -1)
        rise = ((loss[:, 0] - loss[:, 1]) / (2 * self.reach * self.pairs)).to(way)
        gradient = torch.einsum("nb,nbd->nd", rise, way.flatten(2)).reshape(state.x.shape)
        size = problem.size(2.5 / self.steps) if self.step_size is None else self.step_size
        return Iterate(x=problem.project(state.x + size * problem.threat.steepest(gradient)))
