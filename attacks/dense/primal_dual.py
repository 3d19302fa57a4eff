"""Primal-dual proximal gradient descent with a weight for every position."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.attacks.dense.alma_prox import but_the_hardest, linf_limit, spared_by
from robustbench_lite.attacks.dense.dag import DENSE
from robustbench_lite.core.losses import AnswerLoss
from robustbench_lite.core.parameters import Count, Fraction, Length, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import Task
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate

FIRST, SECOND = 0.9, 0.999  # the weights of the past in Adam's averages
FIRST_STEPS = {Norm.L1: 0.1, Norm.LINF: 0.01}
LEAST = math.log(1e-12)  # of a weight against the distance's


@dataclass(frozen=True)
class WeightedGaps(AnswerLoss):
    """Minus the weighted sum of softplus(-margin) over positions.

    odds, weight (n, P): of each position against the distance, now and in the running mean; spared (n,): how
    many of the hardest positions count in nothing; average: the weight of the past in that mean.
    """

    task: Task
    odds: Tensor
    weight: Tensor
    spared: Tensor
    average: float

    def __getitem__(self, rows: Tensor | slice) -> WeightedGaps:
        return replace(self, **{name: getattr(self, name)[rows] for name in ("odds", "weight", "spared")})

    def terms(self, scores: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The margins (n, P), which of them count (n, P), and the mean weights as they become (n, P)."""
        gaps, labelled = self.task.gaps(scores, y, target)
        counted = but_the_hardest(-gaps.detach(), labelled, self.spared)
        now = _weights(self.odds.masked_fill(~counted, -torch.inf))
        return gaps, counted, self.average * self.weight + (1 - self.average) * now

    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        gaps, counted, weight = self.terms(scores, y, target)
        return -torch.where(counted, weight.to(gaps) * functional.softplus(-gaps), 0.0).sum(1)


@dataclass(frozen=True, kw_only=True)
class DensePDPGDState(Iterate):
    """mean, square (n, …): Adam's averages; odds, weight (n, P): of the positions against the distance."""

    mean: Tensor
    square: Tensor
    odds: Tensor
    weight: Tensor


@dataclass(frozen=True)
class DensePDPGD(Attack[DensePDPGDState]):
    """Adam on a weighted loss of all positions, then the distance's proximal operator
    (Matyasko & Chau 2021, algorithm 2, with a dual variable a position as Rony et al. 2023 run it).

    The weights of the distance and of all positions sum to 1; a position's rises while it is not changed and
    falls while it is. The hardest positions that may stay as they are are spared little by little, as in
    `alma_prox`. The proximal operators in Adam's metric are exact.

    Parameters
    ----------
    steps : int, default 500
    step_size : float, optional
        The first, in the units of x, falling exponentially to a hundredth. None: .1 in l1, as theirs, and .01
        in linf, where shorter ones came nearer.
    dual_rate : float, default 0.1
        By which the logarithm of a weight moves in a step, falling to a tenth.
    average : float, default 0.9
        The weight of the past in the running mean of the weights.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> DensePDPGD(steps=3).average
    0.9
    """

    steps: Count = 500
    step_size: Length | None = None
    dual_rate: Positive = 0.1
    average: Fraction = 0.9

    name = "dense_pdpgd"
    norms = frozenset({Norm.L1, Norm.LINF})
    tasks = DENSE
    paper = "Matyasko & Chau 2021, arXiv:2106.01538"
    minimum_norm = True
    fixed_budget = False

    def start(self, problem: Problem) -> DensePDPGDState:
        labelled = (problem.y if problem.target is None else problem.target).flatten(1) >= 0
        each = -labelled.sum(1, keepdim=True).double().log().expand(labelled.shape)
        odds = each.masked_fill(~labelled, -torch.inf)
        nothing = torch.zeros_like(problem.x0)
        return DensePDPGDState(z=problem.x0, mean=nothing, square=nothing, odds=odds, weight=_weights(odds))

    def step(self, problem: Problem, state: DensePDPGDState) -> DensePDPGDState:
        task, done = problem.oracle.model.task, (problem.step - 1) / self.steps
        average = self.average if problem.step > 1 else 1.0
        loss = WeightedGaps(task, state.odds, state.weight, spared_by(problem, self.steps), average)
        found = problem.evaluate(state.z, loss)
        gaps, counted, weight = loss.terms(found.scores, problem.y, problem.target)
        slope = -problem.threat.domain.free(found.gradient)
        mean = FIRST * state.mean + (1 - FIRST) * slope
        square = SECOND * state.square + (1 - SECOND) * slope.square()
        metric = (square / (1 - SECOND**problem.step)).sqrt() + 1e-8
        usual = FIRST_STEPS[problem.threat.norm or Norm.LINF]
        size = (usual if self.step_size is None else self.step_size) * 0.01**done
        ahead = state.z - size / (1 - FIRST**problem.step) * mean / metric
        whole = torch.where(counted, weight, 0.0).sum(1).clamp_min(1e-30)
        strength = size * (1 - whole).clamp_min(0) / whole
        turn = self.dual_rate * ((1 - done) * 0.9 + 0.1)
        odds = (state.odds - turn * gaps.sign() * counted).clamp(LEAST, -LEAST)
        return DensePDPGDState(
            z=_nearer(problem, ahead, metric, strength), mean=mean, square=square,
            odds=torch.where(state.odds == -torch.inf, state.odds, odds), weight=weight,
        )  # fmt: skip


def _weights(odds: Tensor) -> Tensor:
    """The positions' share (n, P) of a softmax in which the distance has the logit 0."""
    return functional.pad(odds, (1, 0)).softmax(1)[:, 1:]


def _nearer(problem: Problem, z: Tensor, metric: Tensor, strength: Tensor) -> Tensor:
    """x0 and the proximal operator of strength · distance at z - x0, in the metric and the box."""
    domain = problem.threat.domain
    delta, scale = domain.free(z - problem.x0), per_row(strength, z)
    if problem.threat.norm is Norm.L1:
        return domain.clamp(problem.x0 + delta.sign() * (delta.abs() - scale / metric).clamp_min(0))
    low, high = domain.bounds(problem.x0)
    boxed = torch.minimum(torch.maximum(delta, low - problem.x0), high - problem.x0)
    limit = per_row(linf_limit(delta.flatten(1), boxed.flatten(1), metric.flatten(1), strength), z)
    return domain.clamp(problem.x0 + torch.minimum(torch.maximum(boxed, -limit), limit))
