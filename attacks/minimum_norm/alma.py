"""ALMA: the distance minimised under the constraint of being adversarial, by an augmented Lagrangian."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from robustbench_lite.core.losses import dlr
from robustbench_lite.core.parameters import Count, Length, Positive, Range, Share
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate

AVERAGE = 0.9  # the weight of the past, of the multiplier and of the optimiser's averages
CHECK = 10  # steps between two looks at whether the constraint comes nearer
LEAST = 0.01  # of the constraint where x is not adversarial
NEARER = 0.95  # of the last look's, at most, for the penalty to stay as steep as it is


@dataclass(frozen=True, kw_only=True)
class ALMAState(Iterate):
    """square, mean (n, …): the optimiser's averages; multiplier, steepness (n,): of the penalty.

    reached (n,): whether x was adversarial since the last look; gap (n,): the constraint then.
    """

    square: Tensor
    mean: Tensor
    multiplier: Tensor
    steepness: Tensor
    reached: Tensor
    gap: Tensor


@dataclass(frozen=True)
class ALMA(Attack[ALMAState]):
    """Descent on distance + P(c), c the logit ratio, which is above 0 until x is adversarial
    (Rony et al. 2021, algorithm 1).

    P is Birgin's penalty P2, its multiplier a running average of P'(c); it grows steeper where c neither
    falls below 0 nor comes nearer to it. Steps by RMSprop with momentum.

    Parameters
    ----------
    steps : int, default 200
        Theirs are 1,000.
    step_size : float, default 0.1
        The first, in the units of x, falling exponentially to `last` of it.
    last : float, default 0.01
        The share of it that the last step is.
    steeper : float, default 1.2
        By which the penalty's steepness grows, at least 1.
    multiplier : float, default 1.0
        The first.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> ALMA(steps=3).steeper
    1.2
    """

    steps: Count = 200
    step_size: Length = 0.1
    last: Share = 0.01
    steeper: Annotated[float, Range(1)] = 1.2
    multiplier: Positive = 1.0

    name = "alma"
    norms = frozenset({Norm.L1, Norm.L2})
    paper = "Rony et al. 2021, arXiv:2011.11857"
    minimum_norm = True
    fixed_budget = False

    def start(self, problem: Problem) -> ALMAState:
        one = torch.ones_like(problem.eps)
        return ALMAState(
            z=problem.x0, square=torch.ones_like(problem.x0), mean=torch.zeros_like(problem.x0),
            multiplier=one * self.multiplier, steepness=one, reached=torch.zeros_like(problem.found),
            gap=torch.full_like(one, torch.inf),
        )  # fmt: skip

    def step(self, problem: Problem, state: ALMAState) -> ALMAState:
        domain = problem.threat.domain
        found = problem.evaluate(state.z, dlr)
        # A target may lead y and yet not the others, and a goal may ask for more than a change of class.
        gap = -found.loss.double()
        gap = torch.where(found.adversarial, gap, gap.clamp_min(LEAST))
        weight = penalty_slope(gap, state.steepness, state.multiplier)
        multiplier = weight if problem.step == 1 else AVERAGE * state.multiplier + (1 - AVERAGE) * weight
        multiplier = multiplier.clamp(1e-6, 1e12)
        weight = penalty_slope(gap, state.steepness, multiplier)
        delta = state.z - problem.x0
        away = delta.sign() if problem.threat.norm is Norm.L1 else 2 * delta
        slope = domain.free(away - per_row(weight, delta) * found.gradient)
        square = AVERAGE * state.square + (1 - AVERAGE) * slope.square()
        mean = AVERAGE * state.mean + slope / (square.sqrt() + 1e-8)
        size = self.step_size * self.last ** ((problem.step - 1) / self.steps)
        state = replace(
            state, z=domain.clamp(state.z - size * mean), square=square, mean=mean, multiplier=multiplier,
            reached=state.reached | found.adversarial,
        )  # fmt: skip
        return state if problem.step % CHECK else self._checked(state, gap)

    def _checked(self, state: ALMAState, gap: Tensor) -> ALMAState:
        """Steeper where x was not adversarial, nor came nearer."""
        stays = state.reached | (gap <= NEARER * state.gap)
        steepness = torch.where(stays, state.steepness, self.steeper * state.steepness)
        return replace(state, steepness=steepness, gap=gap, reached=torch.zeros_like(state.reached))


def penalty_slope(gap: Tensor, steepness: Tensor, multiplier: Tensor) -> Tensor:
    """P'(c) of the penalty P2 (Birgin et al. 2005), in the shape of its arguments."""
    beyond, before = gap.clamp_min(0), gap.clamp_max(0)
    rising = multiplier + 2 * multiplier * steepness * beyond + steepness.square() * beyond.square() / 2
    return torch.where(gap >= 0, rising, multiplier / (1 - steepness.clamp_min(1) * before).square())
