"""ZOO: Carlini & Wagner's loss, a few coordinates at a time, each slope from two queries."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.adam import adam
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Length, NonNegative, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True, kw_only=True)
class ZOOState(Iterate):
    """mean, square, t (n, d): Adam's, of each coordinate by itself.

    weight (n,): of the margin; low, high (n,): the weights known to fail and to succeed; found (n,): whether
    this round has.
    """

    mean: Tensor
    square: Tensor
    t: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    found: Tensor


@dataclass(frozen=True)
class ZOO(Attack[ZOOState]):
    """Minimise squared distance + weight · max(-margin, 0) by Adam on random coordinates
    (Chen et al. 2017, algorithm 2).

    The weight grows tenfold after a round without success and is halved towards the last failure after one
    with; unlike theirs a round goes on where the one before has come to.

    Parameters
    ----------
    steps : int, default 200
        In every round.
    rounds : int, default 5
        Of the search for the weight.
    coordinates : int, default 16
        A step; fewer where the input has fewer.
    rate : float, default 0.05
        Adam's, in the units of x.
    weight : float, default 0.1
        The first.
    reach : float, default 0.01
        How far the two queries lie from the point, in the units of x; theirs is 0.0001.
    confidence : float, default 0.0
        The margin that the loss asks for.

    Notes
    -----
    Cost: 2 · coordinates · steps · rounds + 1 forward passes.

    Examples
    --------
    >>> ZOO(steps=3).coordinates
    16
    """

    steps: Count = 200
    rounds: Count = 5
    coordinates: Count = 16
    rate: Positive = 0.05
    weight: Positive = 0.1
    reach: Length = 0.01
    confidence: NonNegative = 0.0

    name = "zoo"
    access = Access.SCORE
    norms = frozenset({Norm.L2})
    paper = "Chen et al. 2017, arXiv:1708.03999"
    minimum_norm = True
    fixed_budget = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.rounds * self.steps, points=2 * self.coordinates)

    def start(self, problem: Problem) -> ZOOState:
        still = torch.zeros_like(problem.x0.flatten(1))
        nothing = torch.zeros_like(problem.eps)
        return ZOOState(
            z=problem.x0, mean=still, square=still, t=still, weight=nothing + self.weight, low=nothing,
            high=nothing + torch.inf, found=torch.zeros_like(problem.row, dtype=torch.bool),
        )  # fmt: skip

    def step(self, problem: Problem, state: ZOOState) -> ZOOState:
        domain = problem.threat.domain
        z, delta = state.z.flatten(1), (state.z - problem.x0).flatten(1)
        n, d = z.shape
        count = min(self.coordinates, d)
        drawn = domain.free(problem.random("coordinate").uniform(tuple(problem.x0.shape[1:])) + 1.0)
        key, which = drawn.flatten(1).topk(count, 1)  # 0 of what may not change
        reach = domain.at_least_a_step(self.reach, state.z)
        able = (key > 0).to(z)
        way = (
            torch.zeros_like(z)[:, None].repeat(1, count, 1).scatter_(2, which[:, :, None], able[:, :, None])
        )
        way = reach * way.view(n, count, *problem.x0.shape[1:])
        both = torch.cat([state.z[:, None] + way, state.z[:, None] - way], 1)
        points = domain.clamp(both.flatten(0, 1))
        rows = torch.arange(n, device=z.device).repeat_interleave(2 * count)
        margins = problem.margins(points, rows).nan_to_num(neginf=0.0).view(n, 2, count)
        apart = (points.view(both.shape)[:, :count] - points.view(both.shape)[:, count:]).flatten(2).sum(2)
        slope = ((margins[:, 0] - margins[:, 1]) / apart.clamp_min(1e-12)).to(z) * (apart > 0)
        here = margins.flatten(1).mean(1)
        short = (here < self.confidence) | (here <= 0)
        pull = (state.weight * short).to(z)[:, None] * slope
        slope = 2 * delta.gather(1, which) - pull
        t = state.t.gather(1, which) + 1
        move, mean, square = adam(slope, state.mean.gather(1, which), state.square.gather(1, which), t)
        ahead = z.scatter(1, which, z.gather(1, which) - self.rate * able * move).view_as(state.z)
        state = replace(
            state,
            z=domain.clamp(ahead),
            mean=state.mean.scatter(1, which, mean),
            square=state.square.scatter(1, which, square),
            t=state.t.scatter(1, which, t),
            found=state.found | (here > 0),
        )
        return self._reweighted(state) if problem.step % self.steps == 0 else state

    def _reweighted(self, state: ZOOState) -> ZOOState:
        """At the end of a round."""
        low = torch.where(state.found, state.low, torch.maximum(state.low, state.weight))
        high = torch.where(state.found, torch.minimum(state.high, state.weight), state.high)
        weight = torch.where(high < torch.inf, (low + high) / 2, 10 * state.weight)
        return replace(state, weight=weight, low=low, high=high, found=torch.zeros_like(state.found))
