"""Sign flips: the perturbation shrinks by projection, and some of its signs turn at random."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.walk import Walk, Walking
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm

GROWS, SHRINKS = 1.5, 0.9  # a size after a success and after a failure: as many of each at 1 in 5


@dataclass(frozen=True, kw_only=True)
class SignFlipState(Walking):
    """shrink (n,): the next shortening, as a share of the distance; turned (n,): the share of signs."""

    shrink: Tensor
    turned: Tensor


@dataclass(frozen=True)
class SignFlip(Walk[SignFlipState]):
    """Projection onto a slightly smaller ball and random turns of signs, each kept where the point stays
    adversarial (Chen et al. 2020, algorithm 1).

    Parameters
    ----------
    steps : int, default 2500
        Of two queries each.
    tries : int, default 100
        Random points for the start, as in `Walk`.
    shrink : float, default 0.05
        The first shortening, as a share of the distance; it follows how often it succeeds.
    turned : float, default 0.01
        The share of signs turned at first; likewise.

    Notes
    -----
    Cost: 2 · steps forward passes, and what the start takes.

    Examples
    --------
    >>> SignFlip(steps=3).turned
    0.01
    """

    steps: Count = 2500
    shrink: Positive = 0.05
    turned: Positive = 0.01

    name = "sign_flip"
    norms = frozenset({Norm.LINF})
    paper = "Chen et al. 2020, doi:10.1007/978-3-030-58555-6_17"

    def begun(self, problem: Problem, x: Tensor, started: Tensor) -> SignFlipState:
        one = torch.ones_like(problem.eps)
        return SignFlipState(z=x, started=started, shrink=self.shrink * one, turned=self.turned * one)

    def walk(self, problem: Problem, state: SignFlipState) -> SignFlipState:
        domain, x = problem.threat.domain, state.z
        radius = per_row((1 - state.shrink) * problem.threat.distance(x, problem.x0), x)
        smaller = torch.minimum(torch.maximum(x, problem.x0 - radius), problem.x0 + radius)
        good = problem.decisions(smaller)
        x = torch.where(per_row(good, x), smaller, x)
        shrink = (state.shrink * torch.where(good, GROWS, SHRINKS)).clamp(1e-5, 0.5)
        delta = x - problem.x0
        chosen = problem.random("turned").uniform(tuple(x.shape[1:])) < per_row(state.turned, x)
        tried = domain.clamp(torch.where(chosen, problem.x0 - delta, x))
        good = problem.decisions(tried) & (tried != x).flatten(1).any(1)
        least = 1 / x[0].numel()
        return replace(
            state,
            z=torch.where(per_row(good, x), tried, x),
            shrink=shrink,
            turned=(state.turned * torch.where(good, GROWS, SHRINKS)).clamp(least, 0.5),
        )
