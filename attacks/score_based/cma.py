"""Evolution strategy on coarse patterns: a normal distribution that learns where the margin rises."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from robustbench_lite.attacks.coarse import coarse_shape, enlarged, part_of_side
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

LEARNING = 3.0  # how much faster d variances are learnt than a whole covariance: (d + 2) / this


@dataclass(frozen=True, kw_only=True)
class CMAState(Iterate):
    """The distribution of each row: mean, variance (n, d), width (n, 1).

    drift, spread (n, d): the paths along which the mean has gone, in its own scale and without it.
    """

    mean: Tensor
    variance: Tensor
    width: Tensor
    drift: Tensor
    spread: Tensor


@dataclass(frozen=True)
class CMA(Attack[CMAState]):
    """CMA-ES with a diagonal covariance (Ros & Hansen 2008, algorithm 1) over tiles of a pattern
    (Meunier et al. 2019, section 3).

    In linf the change is eps · tanh(pattern), in l2 the pattern with its length set to eps.

    Parameters
    ----------
    steps : int, default 200
        Generations.
    population : int, default 20
        Points of each; at least 4.
    side : int, optional
        Tiles along an image; None: half as many as pixels, at least 8. Other inputs have a tile a feature.

    Notes
    -----
    Cost: population · steps + 1 forward passes.

    Examples
    --------
    >>> CMA(steps=3).population
    20
    """

    steps: Count = 200
    population: Annotated[int, Range(4)] = 20
    side: Count | None = None

    name = "cma"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Meunier et al. 2019, arXiv:1910.02244"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=self.population)

    def start(self, problem: Problem) -> CMAState:
        still = problem.x0.new_zeros((len(problem), math.prod(self._tiles(problem))))
        one = torch.ones_like(still)
        return CMAState(z=problem.x0, mean=still, variance=one, width=one[:, :1], drift=still, spread=still)

    def step(self, problem: Problem, state: CMAState) -> CMAState:
        n, d = state.mean.shape
        drawn = problem.random("member").normal((self.population, d), state.mean.dtype)
        scale = state.variance.sqrt()
        pattern = state.mean[:, None] + (state.width * scale)[:, None] * drawn
        rows = torch.arange(n, device=pattern.device).repeat_interleave(self.population)
        points = self._points(problem[rows], pattern.flatten(0, 1))
        margins = problem.margins(points, rows).view(n, self.population)
        # The better half, weighted by rank.
        chosen = self.population // 2
        weight = math.log(chosen + 0.5) - torch.arange(1, chosen + 1, device=drawn.device).log()
        weight = (weight / weight.sum()).to(drawn)
        order = margins.argsort(dim=1, descending=True, stable=True)[:, :chosen, None].expand(-1, -1, d)
        best = drawn.gather(1, order)
        mean_draw = torch.einsum("k,nkd->nd", weight, best)
        # Names as in the tutorial: mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu.
        mu = 1 / float(weight.square().sum())
        c_sigma = (mu + 2) / (d + mu + 5)
        damping = 1 + 2 * max(0.0, math.sqrt((mu - 1) / (d + 1)) - 1) + c_sigma
        c_drift = (4 + mu / d) / (d + 4 + 2 * mu / d)
        c_one, c_mu = self._rates(d, mu)
        spread = (1 - c_sigma) * state.spread + math.sqrt(c_sigma * (2 - c_sigma) * mu) * mean_draw
        expected = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))
        length = torch.linalg.vector_norm(spread, dim=1, keepdim=True)
        grown = math.sqrt(1 - (1 - c_sigma) ** (2 * problem.step))
        steady = (length / grown < (1.4 + 2 / (d + 1)) * expected).to(length)
        drift = (1 - c_drift) * state.drift + steady * math.sqrt(c_drift * (2 - c_drift) * mu) * (
            scale * mean_draw
        )
        of_ranks = torch.einsum("k,nkd->nd", weight, best.square()) * state.variance
        old = 1 - c_one - c_mu + (1 - steady) * c_one * c_drift * (2 - c_drift)
        top = margins.argmax(1, keepdim=True)
        row = torch.arange(n, device=top.device)
        return CMAState(
            z=points.view(n, self.population, *problem.x0.shape[1:])[row, top[:, 0]],
            mean=state.mean + state.width * scale * mean_draw,
            variance=(old * state.variance + c_one * drift.square() + c_mu * of_ranks).clamp_min(1e-12),
            width=state.width * ((c_sigma / damping) * (length / expected - 1)).clamp(-1, 1).exp(),
            drift=drift,
            spread=spread,
        )

    def _rates(self, d: int, mu: float) -> tuple[float, float]:
        """Of the update by the path and by the ranks."""
        faster = (d + 2) / LEARNING
        one = min(1.0, faster * 2 / ((d + 1.3) ** 2 + mu))
        ranks = min(1 - one, faster * 2 * (mu - 2 + 1 / mu) / ((d + 2) ** 2 + mu))
        return one, max(0.0, ranks)

    def _tiles(self, problem: Problem) -> tuple[int, ...]:
        shape = tuple(problem.x0.shape[1:])
        return coarse_shape(shape, self.side or part_of_side(shape, 2))

    def _points(self, problem: Problem, pattern: Tensor) -> Tensor:
        shape = tuple(problem.x0.shape[1:])
        wide = enlarged(pattern.view(-1, *self._tiles(problem)), shape, "nearest")
        way = wide.tanh() if problem.threat.norm is Norm.LINF else problem.threat.steepest(wide)
        return problem.project(problem.x0 + problem.size() * way)
