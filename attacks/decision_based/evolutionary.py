"""An evolution strategy with one parent, which learns along which features its steps stay adversarial."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.coarse import coarse_shape, enlarged, part_of_side
from robustbench_lite.attacks.decision_based.walk import Walk, Walking
from robustbench_lite.core.parameters import Count, Positive, Share
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm

PATH_RATE, COVARIANCE_RATE = 0.01, 0.001


@dataclass(frozen=True, kw_only=True)
class EvolutionaryState(Walking):
    """pull (n,): the share of the way to the sample that a step takes; path, variance (n, *coarse)."""

    pull: Tensor
    path: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Evolutionary(Walk[EvolutionaryState]):
    """Normal steps on some coordinates, more where steps were kept before, and a pull towards the sample that
    follows the rate of success (Dong et al. 2019, algorithm 1: (1+1)-CMA-ES with a diagonal).

    Parameters
    ----------
    steps : int, default 5000
        Queries.
    tries : int, default 100
        Random points for the start, as in `Walk`.
    deviation : float, default 0.01
        Of a step, as a share of the distance.
    share : float, default 0.05
        Of the coordinates that a step changes.
    side : int, optional
        Of the coarse images that steps are made of; None: half the image's, and at least 8.

    Notes
    -----
    Cost: steps forward passes, and what the start takes.

    Examples
    --------
    >>> Evolutionary(steps=3).share
    0.05
    """

    steps: Count = 5000
    deviation: Positive = 0.01
    share: Share = 0.05
    side: Count | None = None

    name = "evolutionary"
    norms = frozenset({Norm.L2})
    paper = "Dong et al. 2019, arXiv:1904.04433"

    def begun(self, problem: Problem, x: Tensor, started: Tensor) -> EvolutionaryState:
        shape = tuple(x.shape[1:])
        shape = coarse_shape(shape, self.side or part_of_side(shape, 2))
        pull = torch.full_like(problem.eps, 0.01)
        path = x.new_zeros(len(x), *shape)
        return EvolutionaryState(z=x, started=started, pull=pull, path=path, variance=torch.ones_like(path))

    def walk(self, problem: Problem, state: EvolutionaryState) -> EvolutionaryState:
        x, coarse = state.z, tuple(state.path.shape[1:])
        distance = size_of(x - problem.x0, 2)
        # So many coordinates without replacement, by their variances (the largest exponential keys).
        key = state.variance.flatten(1).log() - problem.random("which").exponential(coarse).flatten(1).log()
        count = max(1, round(self.share * key.shape[1]))
        chosen = torch.zeros_like(key).scatter(1, key.topk(count, dim=1).indices, 1.0).view_as(state.path)
        drawn = problem.random("step").gaussian(coarse).to(x) * state.variance.sqrt() * chosen
        step = per_row(self.deviation * distance, drawn) * drawn
        tried = x + problem.threat.domain.free(enlarged(step, tuple(x.shape[1:])))
        tried = problem.threat.domain.clamp(tried + per_row(state.pull, x) * (problem.x0 - tried))
        nearer = size_of(tried - problem.x0, 2) < distance
        good = problem.decisions(tried) & nearer
        path = (1 - PATH_RATE) * state.path + (PATH_RATE * (2 - PATH_RATE)) ** 0.5 * drawn
        variance = (1 - COVARIANCE_RATE) * state.variance + COVARIANCE_RATE * path.square()
        learnt = per_row(good, path)
        # The pull is right where one step in five is kept.
        return replace(
            state,
            z=torch.where(per_row(good, x), tried, x),
            pull=(state.pull * torch.where(good, 0.08, -0.02).exp()).clamp(1e-6, 0.5),
            path=torch.where(learnt, path, state.path),
            variance=torch.where(learnt, variance, state.variance),
        )
