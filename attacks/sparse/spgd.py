"""Sparse-PGD: which pixels, and their values, each by gradient steps of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, LossName, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate

PATIENCE = 3  # steps with the same pixels after which these are drawn anew


@dataclass(frozen=True, kw_only=True)
class SPGDState(Iterate):
    """value (n, …): what pixels would become; weight (n, pixels): the largest eps are taken.

    waited (n,): steps since those were others.
    """

    value: Tensor
    weight: Tensor
    waited: Tensor


@dataclass(frozen=True)
class SPGD(Attack[SPGDState]):
    """The perturbation as values times a mask of the largest weights; signed steps for the values, normalised
    ones for the weights (Zhong, Huang & Liu 2024, algorithm 1).

    Parameters
    ----------
    steps : int, default 300
        How many.
    restarts : int, default 1
        Side by side.
    step_size : float, default 0.25
        Of values, as a share of the box.
    weight_step : float, default 0.25
        Of weights, times the square root of the number of pixels.
    projected : bool, default False
        Whether only the values of pixels in the mask move, rather than those of all.
    loss : {"ce", "dlr", "margin", "houdini"}, default "ce"
        That the steps raise.

    Notes
    -----
    Cost: restarts · (steps + 1) forward passes, restarts · steps backward.

    Examples
    --------
    >>> SPGD(steps=3).projected
    False
    """

    steps: Count = 300
    restarts: Count = 1
    step_size: Positive = 0.25
    weight_step: Positive = 0.25
    projected: bool = False
    loss: LossName = "ce"

    name = "spgd"
    norms = frozenset({Norm.L0})
    paper = "Zhong, Huang & Liu 2024, arXiv:2405.05075"

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if threat.eps is not None and threat.eps < 1:
            return f"spgd needs a pixel at least, l0:1; not {threat}"
        return super().refuses(model, threat, goal)

    def start(self, problem: Problem) -> SPGDState:
        low, high = problem.threat.domain.bounds(problem.x0)
        drawn = problem.random("value").uniform(tuple(problem.x0.shape[1:]), problem.x0.dtype)
        value, weight = low + (high - low) * drawn, self._weights(problem)
        return SPGDState(
            z=self._masked(problem, value, weight),
            value=value,
            weight=weight,
            waited=torch.zeros_like(problem.row),
        )

    def step(self, problem: Problem, state: SPGDState) -> SPGDState:
        domain = problem.threat.domain
        low, high = domain.bounds(problem.x0)
        gradient = domain.free(problem.evaluate(state.z, problem.loss_named(self.loss)).gradient)
        share = state.weight.sigmoid()
        # Signed steps know no share: of the mask's pixels alone, or of all.
        moves = domain.spread(self._mask(problem, state.weight), gradient) if self.projected else 1.0
        value = domain.clamp(state.value + self.step_size * (high - low) * (moves * gradient).sign())
        slope = domain.pixels(gradient * (state.value - problem.x0)) * share * (1 - share)
        slope = slope / torch.linalg.vector_norm(slope, dim=1, keepdim=True).clamp_min(1e-30)
        weight = state.weight + self.weight_step * state.weight.shape[1] ** 0.5 * slope
        same = (self._mask(problem, weight) == self._mask(problem, state.weight)).all(1)
        waited = torch.where(same, state.waited + 1, 0)
        over = waited >= PATIENCE
        weight = torch.where(over[:, None], self._weights(problem), weight)
        z = self._masked(problem, value, weight)
        return SPGDState(z=z, value=value, weight=weight, waited=torch.where(over, 0, waited))

    def _weights(self, problem: Problem) -> Tensor:
        pixels = problem.threat.domain.pixels(problem.x0[:1]).shape[1]
        return problem.random("weight").gaussian((pixels,)).to(problem.x0)

    def _mask(self, problem: Problem, weight: Tensor) -> Tensor:
        """1 for the pixels of the largest weights, of those that may change (n, pixels)."""
        domain = problem.threat.domain
        may = domain.pixels(domain.free(torch.ones_like(problem.x0))) > 0
        count = min(int(problem.threat.eps or 1), weight.shape[1])
        top = torch.where(may, weight, -torch.inf).topk(count, dim=1).indices
        return torch.zeros_like(weight).scatter(1, top, 1.0) * may

    def _masked(self, problem: Problem, value: Tensor, weight: Tensor) -> Tensor:
        mask = problem.threat.domain.spread(self._mask(problem, weight), problem.x0)
        return problem.project(torch.where(mask > 0, value, problem.x0))
