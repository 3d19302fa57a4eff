"""FGSM in steps that remember where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.parameters import Count, NonNegative
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class MIFGSMState(Iterate):
    """velocity (n, …): the decaying sum of the gradients so far."""

    velocity: Tensor


@dataclass(frozen=True)
class MIFGSM(Attack[MIFGSMState]):
    """Steps along a decaying sum of gradients, each of L1 norm 1 (Dong et al. 2018, algorithm 1).

    Parameters
    ----------
    steps : int, default 10
        How many, each of eps / steps.
    decay : float, default 1.0
        Of the sum at each step.
    lookahead : bool, default False
        Take the gradient where the sum would lead next (Nesterov; Lin et al. 2020, NI-FGSM).

    Notes
    -----
    Cost: steps + 1 forward, steps backward.

    Examples
    --------
    >>> MIFGSM(steps=3).decay
    1.0
    """

    steps: Count = 10
    decay: NonNegative = 1.0
    lookahead: bool = False

    name = "mifgsm"
    norms = frozenset({Norm.L2, Norm.LINF})
    threats = frozenset({"ball", "transform"})
    paper = "Dong et al. 2018, arXiv:1710.06081"

    def start(self, problem: Problem) -> MIFGSMState:
        return MIFGSMState(z=problem.origin, velocity=torch.zeros_like(problem.origin))

    def step(self, problem: Problem, state: MIFGSMState) -> MIFGSMState:
        return self.along(problem, state, self.slope(problem, self.ahead(problem, state)))

    def slope(self, problem: Problem, x: Tensor) -> Tensor:
        """The gradient at x that is summed up (n, …)."""
        return problem.evaluate(x, cross_entropy).gradient

    def ahead(self, problem: Problem, state: MIFGSMState) -> Tensor:
        """Where the gradient is taken."""
        if not self.lookahead:
            return state.z
        return problem.project(state.z + problem.size(self.decay / self.steps) * state.velocity)

    def along(self, problem: Problem, state: MIFGSMState, gradient: Tensor) -> MIFGSMState:
        """A step with the gradient added to the sum."""
        length = size_of(gradient, 1).clamp_min(1e-30)
        velocity = self.decay * state.velocity + gradient / per_row(length, gradient)
        size = problem.size(1 / self.steps)
        return MIFGSMState(
            z=problem.project(state.z + size * problem.threat.steepest(velocity)), velocity=velocity
        )


@dataclass(frozen=True)
class NIFGSM(MIFGSM):
    """`mifgsm` with its gradient taken where the momentum leads next (Lin et al. 2020, equation 6).

    Parameters
    ----------
    steps : int, default 10
        As in `mifgsm`.
    decay : float, default 1.0
        As in `mifgsm`.
    lookahead : bool, default True
        As in `mifgsm`.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> NIFGSM(steps=3).lookahead
    True
    """

    lookahead: bool = True

    name = "nifgsm"
    paper = "Lin et al. 2020, arXiv:1908.06281"
