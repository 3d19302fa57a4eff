"""sigma-zero: a smooth l0 weighed against the margin, and small changes undone by a threshold that adapts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.adam import adam, steps_so_far
from robustbench_lite.core.parameters import Count, NonNegative, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate

MOST = 0.9  # of the box: a higher threshold would undo nearly every change


@dataclass(frozen=True, kw_only=True)
class SigmaZeroState(Iterate):
    """mean, square (n, …): Adam's; threshold (n,): below which a change of a pixel is undone, of the box."""

    mean: Tensor
    square: Tensor
    threshold: Tensor


@dataclass(frozen=True)
class SigmaZero(Attack[SigmaZeroState]):
    """Adam on the margin and on sum delta^2 / (delta^2 + sigma), then small changes are undone
    (Cinà et al. 2025, algorithm 1).

    The gradient of both together, the sum divided by the number of pixels, is scaled to largest value 1. The
    threshold below which a change is undone grows while x is adversarial and falls while it is not. Changes
    are measured in shares of the box, and a pixel's as the length over its channels.

    Parameters
    ----------
    steps : int, default 200
        Theirs are 1,000.
    step_size : float, default 1.0
        The first, in shares of the box; it falls to a tenth along a cosine.
    sigma : float, default 0.001
        How near the smooth count is to l0: the square of a change that counts as half a one.
    threshold : float, default 0.3
        The first, in shares of the box.
    adapt : float, default 0.01
        By which it moves in a step, in shares of the step's size.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> SigmaZero(steps=3).threshold
    0.3
    """

    steps: Count = 200
    step_size: Positive = 1.0
    sigma: Positive = 0.001
    threshold: NonNegative = 0.3
    adapt: NonNegative = 0.01

    name = "sigma_zero"
    norms = frozenset({Norm.L0})
    paper = "Cinà et al. 2025, arXiv:2402.01879"
    minimum_norm = True
    fixed_budget = False

    def start(self, problem: Problem) -> SigmaZeroState:
        still = torch.zeros_like(problem.x0)
        threshold = torch.full_like(problem.eps, self.threshold)
        return SigmaZeroState(z=problem.x0, mean=still, square=still, threshold=threshold)

    def step(self, problem: Problem, state: SigmaZeroState) -> SigmaZeroState:
        domain = problem.threat.domain
        found = problem.evaluate(state.z, margin)
        low, high = domain.bounds(state.z)
        width = (high - low).clamp_min(1e-12)
        delta = (state.z - problem.x0) / width
        own = domain.spread(domain.pixels(delta.square()), delta)
        count = 2 * delta * self.sigma / (own + self.sigma).square() / domain.pixels(delta[:1]).shape[1]
        # Past the boundary only the count is left to lower.
        pull = torch.where(per_row(found.adversarial, delta), 0.0, found.gradient * width)
        slope = domain.free(count - pull)
        slope = slope / per_row(size_of(slope, torch.inf).clamp_min(1e-12), slope)
        step_size = self.step_size * (0.55 + 0.45 * math.cos(math.pi * (problem.step - 1) / self.steps))
        ahead, mean, square = adam(slope, state.mean, state.square, steps_so_far(problem.step, slope))
        moved = (domain.clamp(problem.x0 + (delta - step_size * ahead) * width) - problem.x0) / width
        turn = self.adapt * step_size
        threshold = (state.threshold + torch.where(found.adversarial, turn, -turn)).clamp(0, MOST)
        length = domain.pixels(moved.square()).sqrt()
        kept = domain.spread((length > per_row(threshold, length)).to(moved), moved) > 0
        z = torch.where(kept, domain.clamp(problem.x0 + moved * width), problem.x0)
        return replace(state, z=z, mean=mean, square=square, threshold=threshold)
