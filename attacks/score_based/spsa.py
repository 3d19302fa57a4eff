"""Gradients estimated from scores: the loss at pairs of points on both sides of the iterate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Length
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True)
class SPSA(Attack[Iterate]):
    """Projected steps along an estimated gradient of the margin (Uesato et al. 2018, algorithm 1).

    g = mean over pairs of (f(x + reach·v) - f(x - reach·v)) / (2 reach) · v, with random signs v.

    Parameters
    ----------
    steps : int, default 100
        How many.
    pairs : int, default 32
        Of points for each estimate.
    reach : float, default 0.01
        How far they lie, in the units of x; the default grows with the box. Of parameters of a change, that
        share of eps.
    step_size : float, optional
        In the units of x; None: 2.5 eps / steps.

    Notes
    -----
    Cost: (2 · pairs) · steps + 1 forward passes.

    Examples
    --------
    >>> SPSA(pairs=4).reach
    0.01
    """

    steps: Count = 100
    pairs: Count = 32
    reach: Length = 0.01
    step_size: Length | None = None

    name = "spsa"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    threats = frozenset({"ball", "transform"})
    paper = "Uesato et al. 2018, arXiv:1802.05666"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=2 * self.pairs)

    def directions(self, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Random directions (n, *shape) whose second moment is the identity."""
        return (stream.integers(2, shape) * 2 - 1).float()

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.origin)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        n, shape = len(problem), tuple(state.z.shape[1:])
        way = self.directions(problem.random("way"), (self.pairs, *shape)).to(state.z)
        over_inputs, domain = problem.threat.over_inputs, problem.threat.domain
        if over_inputs:
            way = domain.free(way)
            # A feature that takes steps is probed a step away at least: nearer the model would not be asked.
            reach = domain.at_least_a_step(self.reach, state.z)
        else:
            reach = problem.size(self.reach)
        apart = reach[:, None] * way
        both = torch.cat([state.z[:, None] + apart, state.z[:, None] - apart], 1).flatten(0, 1)
        points = domain.clamp(both) if over_inputs else both
        rows = torch.arange(n, device=points.device).repeat_interleave(2 * self.pairs)
        loss = problem.margins(points, rows).nan_to_num(neginf=0.0).view(n, 2, -1)
        rise = ((loss[:, 0] - loss[:, 1]) / (2 * self.pairs)).to(way)
        gradient = torch.einsum("nb,nbd->nd", rise, way.flatten(2)).reshape(state.z.shape) / reach
        size = problem.size(2.5 / self.steps) if self.step_size is None else self.step_size
        return Iterate(z=problem.project(state.z + size * problem.threat.steepest(gradient)))


@dataclass(frozen=True)
class NES(SPSA):
    """As `spsa`, along normal directions in antithetic pairs (Ilyas et al. 2018, algorithm 1).

    Parameters
    ----------
    steps : int, default 100
        As in `spsa`.
    pairs : int, default 32
        As in `spsa`.
    reach : float, default 0.01
        As in `spsa`.
    step_size : float, optional
        As in `spsa`.

    Examples
    --------
    >>> NES(pairs=4).reach
    0.01
    """

    name = "nes"
    paper = "Ilyas et al. 2018, arXiv:1804.08598"

    def directions(self, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        return stream.gaussian(shape)
