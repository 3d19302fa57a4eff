"""EAD: Carlini & Wagner's objective with an l1 term, by iterative shrinking."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Length, NonNegative, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True, kw_only=True)
class EADState(Iterate):
    """before (n, …): the shrunk point of the step before; weight, low, high (n,): of the margin, as C&W's.

    found (n,): whether this round has succeeded.
    """

    before: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    found: Tensor


@dataclass(frozen=True)
class EAD(Attack[EADState]):
    """Minimise weight · max(-margin, 0) + ||delta||_2^2 + beta ||delta||_1 by FISTA, the weight by bisection
    (Chen et al. 2018, algorithm 1, with the decision rule of the norm that is asked for).

    Parameters
    ----------
    steps : int, default 100
        In every round; theirs are 1,000.
    rounds : int, default 9
        Of bisection.
    rate : float, default 0.05
        Of the steps, in the units of x, falling with the square root of what is left; theirs is 0.01.
    beta : float, default 0.01
        The weight of l1, and what each step shrinks by.
    weight : float, default 0.1
        The first.
    confidence : float, default 0.0
        The margin that the loss asks for.

    Notes
    -----
    Cost: rounds · steps + 1 forward passes, rounds · steps backward.

    Examples
    --------
    >>> EAD(steps=3).beta
    0.01
    """

    steps: Count = 100
    rounds: Count = 9
    rate: Length = 0.05
    beta: NonNegative = 0.01
    weight: Positive = 0.1
    confidence: NonNegative = 0.0

    name = "ead"
    norms = frozenset({Norm.L1, Norm.L2})
    paper = "Chen et al. 2018, arXiv:1709.04114"
    minimum_norm = True
    fixed_budget = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.rounds * self.steps)

    def start(self, problem: Problem) -> EADState:
        nothing = torch.zeros_like(problem.eps)
        return EADState(
            z=problem.x0, before=problem.x0, weight=nothing + self.weight, low=nothing,
            high=nothing + torch.inf, found=torch.zeros_like(problem.found),
        )  # fmt: skip

    def step(self, problem: Problem, state: EADState) -> EADState:
        domain = problem.threat.domain
        t = (problem.step - 1) % self.steps
        found = problem.evaluate(state.z, margin)
        short = (found.loss < self.confidence) | ~found.adversarial
        slope = 2 * (state.z - problem.x0) - per_row(state.weight * short, state.z) * found.gradient
        rate = self.rate * (1 - t / self.steps) ** 0.5
        moved = state.z - rate * domain.free(slope) - problem.x0
        shrunk = domain.clamp(problem.x0 + moved.sign() * (moved.abs() - self.beta).clamp_min(0))
        ahead = domain.clamp(shrunk + t / (t + 3) * (shrunk - state.before))
        state = replace(state, z=ahead, before=shrunk, found=state.found | found.adversarial)
        return self._next_round(problem, state) if t == self.steps - 1 else state

    def _next_round(self, problem: Problem, state: EADState) -> EADState:
        """Bisect the weight, tenfold while none has succeeded, and begin anew."""
        low = torch.where(state.found, state.low, torch.maximum(state.low, state.weight))
        high = torch.where(state.found, torch.minimum(state.high, state.weight), state.high)
        weight = torch.where(high < torch.inf, (low + high) / 2, state.weight * 10)
        nowhere = torch.zeros_like(state.found)
        return EADState(z=problem.x0, before=problem.x0, weight=weight, low=low, high=high, found=nowhere)
