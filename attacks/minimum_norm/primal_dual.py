"""Primal-dual gradient descent: the weights of distance and margin are a player of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.parameters import Count, Fraction, Length, Positive, Share
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class PrimalDualState(Iterate):
    """square (n, …): RMSprop's; share (n,): the mean weight of the distance; odds (n,): its logit."""

    square: Tensor
    share: Tensor
    odds: Tensor


@dataclass(frozen=True)
class PDPGD(Attack[PrimalDualState]):
    """Gradient steps on the margin, then the distance's proximal operator
    (Matyasko & Chau 2021, algorithm 2).

    The weights of distance and margin sum to 1: that of the distance rises while x is adversarial and falls
    while it is not, and its running mean is used. Proximal: l2 shrinks the whole, l1 every feature.

    Parameters
    ----------
    steps : int, default 200
        Theirs are 500.
    step_size : float, default 0.1
        The first, in the units of x, falling exponentially to a hundredth.
    ratio : float, default 0.01
        Of the weights of distance and margin, at first.
    dual_rate : float, default 0.1
        By which the logarithm of that ratio moves in a step, falling to a tenth.
    average : float, default 0.9
        The weight of the past in the running mean.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> PDPGD(steps=3).ratio
    0.01
    """

    steps: Count = 200
    step_size: Length = 0.1
    ratio: Share = 0.01
    dual_rate: Positive = 0.1
    average: Fraction = 0.9

    name = "pdpgd"
    norms = frozenset({Norm.L1, Norm.L2})
    paper = "Matyasko & Chau 2021, arXiv:2106.01538"
    minimum_norm = True
    fixed_budget = False

    def start(self, problem: Problem) -> PrimalDualState:
        share = torch.full_like(problem.eps, self.ratio / (1 + self.ratio))
        square = torch.zeros_like(problem.x0)
        return PrimalDualState(z=problem.x0, square=square, share=share, odds=share.logit())

    def step(self, problem: Problem, state: PrimalDualState) -> PrimalDualState:
        done = (problem.step - 1) / self.steps
        found = problem.evaluate(state.z, margin)
        turn = self.dual_rate * 0.1**done
        odds = state.odds + torch.where(found.adversarial, turn, -turn)
        share = self.average * state.share + (1 - self.average) * odds.sigmoid()
        size = self.step_size * 0.01**done
        # Past the boundary only the distance is left to lower.
        pull = torch.where(per_row(found.adversarial, state.z), 0.0, found.gradient)
        moved = self._moved(problem, replace(state, share=share), pull, size)
        return replace(moved, odds=odds)

    def _moved(
        self, problem: Problem, state: PrimalDualState, gradient: Tensor, size: float
    ) -> PrimalDualState:
        """The state after a step along the margin's gradient (n, …) and towards the sample."""
        slope = -problem.threat.domain.free(gradient)
        square = torch.where(slope == 0, state.square, 0.9 * state.square + 0.1 * slope.square())
        # One scale for all features of a row, so that the proximal operator has its closed form.
        scale = square.flatten(1).mean(1).sqrt().clamp_min(1e-12)
        ahead = state.z - per_row(size / scale * (1 - state.share), slope) * slope
        delta, strength = ahead - problem.x0, per_row(size / scale * state.share, slope)
        return replace(state, z=_nearer(problem, delta, strength), square=square)


@dataclass(frozen=True)
class PDGD(PDPGD):
    """The same with the distance's gradient in place of its proximal operator
    (Matyasko & Chau 2021, algorithm 1).

    Parameters
    ----------
    steps, step_size, ratio, dual_rate, average
        As in `PDPGD`.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> PDGD(steps=3).ratio
    0.01
    """

    name = "pdgd"
    norms = frozenset({Norm.L2})

    def _moved(
        self, problem: Problem, state: PrimalDualState, gradient: Tensor, size: float
    ) -> PrimalDualState:
        delta = state.z - problem.x0
        away = delta / per_row(size_of(delta, 2).clamp_min(1e-12), delta)
        pull = problem.threat.domain.free(gradient)
        share = per_row(state.share, delta)
        slope = share * away - (1 - share) * pull
        square = 0.99 * state.square + 0.01 * slope.square()
        scale = (square / (1 - 0.99**problem.step)).sqrt().clamp_min(1e-12)
        return replace(state, z=problem.threat.domain.clamp(state.z - size * slope / scale), square=square)


def _nearer(problem: Problem, delta: Tensor, strength: Tensor) -> Tensor:
    """x0 and the proximal operator of strength · distance at delta (n, …), in the box."""
    if problem.threat.norm is Norm.L1:
        kept = delta.sign() * (delta.abs() - strength).clamp_min(0)
    else:
        kept = delta * (1 - strength / per_row(size_of(delta, 2).clamp_min(1e-12), delta)).clamp_min(0)
    return problem.threat.domain.clamp(problem.x0 + kept)
