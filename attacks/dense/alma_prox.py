"""ALMA prox: the smallest linf change that turns nearly every position, by an augmented Lagrangian."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.dense.dag import DENSE
from robustbench_lite.attacks.minimum_norm.alma import penalty_slope
from robustbench_lite.core.losses import AnswerLoss
from robustbench_lite.core.parameters import Count, Fraction, Length, Positive, Share
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import Task
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate

CHECK = 10  # steps between two looks at whether a constraint comes nearer
NEARER = 0.95  # of the last look's, at most, for the penalty to stay as steep as it is
STEEPEST = 1e8  # whose square, times a gradient's, float32 still holds
SCALES = (0.1, 1.0)  # between which the constraints are scaled
TURN = 0.02  # by which that scale moves in a step
TOLERANCE = 1e-4  # beyond the boundary, in logit ratios


@dataclass(frozen=True)
class Penalty(AnswerLoss):
    """Minus the penalties of the positions that are not changed; each row's state beside it.

    scale (n,), multiplier, steepness (n, P); spared (n,): how many of the hardest positions count in nothing;
    average: the weight of the past in the multipliers, 1 before the first step.
    """

    task: Task
    scale: Tensor
    multiplier: Tensor
    steepness: Tensor
    spared: Tensor
    average: float

    def __getitem__(self, rows: Tensor | slice) -> Penalty:
        parts = ("scale", "multiplier", "steepness", "spared")
        return replace(self, **{name: getattr(self, name)[rows] for name in parts})

    def terms(self, scores: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The constraints (n, P), which of them count (n, P), and the multipliers as they become (n, P)."""
        gaps, labelled = self.task.gaps(scores, y, target)
        if scores.shape[1] > 2:
            top = scores.flatten(2).topk(3, dim=1).values
            gaps = gaps / (top[:, 0] - top[:, 2]).clamp_min(1e-12)
        constraint = self.scale[:, None].to(gaps) * (TOLERANCE - gaps)
        counted = but_the_hardest(constraint.detach(), labelled, self.spared)
        slope = penalty_slope(constraint.detach().double(), self.steepness, self.multiplier)
        held = self.average * self.multiplier + (1 - self.average) * slope
        return constraint, counted, torch.where(counted, held, self.multiplier).clamp(1e-12, 1)

    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        constraint, counted, multiplier = self.terms(scores, y, target)
        slope = penalty_slope(constraint.detach().double(), self.steepness, multiplier)
        return -torch.where(counted, slope.to(constraint) * constraint, 0.0).sum(1)


def but_the_hardest(constraint: Tensor, labelled: Tensor, spared: Tensor) -> Tensor:
    """The labelled positions (n, P) but so many (n,) of those whose constraints (n, P) are the largest."""
    ordered = constraint.masked_fill(~labelled, -torch.inf).sort(1, descending=True).values
    limit = ordered.gather(1, spared.clamp_max(ordered.shape[1] - 1)[:, None])
    return labelled & (constraint <= limit)


def spared_by(problem: Problem, steps: int) -> Tensor:
    """How many positions of each row (n,) are spared: at the end all that may stay as they are."""
    task, aim = problem.oracle.model.task, problem.y if problem.target is None else problem.target
    labelled = (aim.flatten(1) >= 0).sum(1)
    spare = labelled - task.needed(labelled, problem.target is not None)
    return (spare * ((problem.step - 1) / max(1, steps - 1))).long()


@dataclass(frozen=True, kw_only=True)
class ALMAProxState(Iterate):
    """square (n, …): the metric's average; scale (n,); multiplier, steepness (n, P): of the penalties.

    reached (n, P): whether a position was changed since the last look; gap (n, P): the constraints then;
    since (n,): the step at which the sample was first broken.
    """

    square: Tensor
    scale: Tensor
    multiplier: Tensor
    steepness: Tensor
    reached: Tensor
    gap: Tensor
    since: Tensor


@dataclass(frozen=True)
class ALMAProx(Attack[ALMAProxState]):
    """A proximal step on the linf norm after a gradient step on a penalty for every position
    (Rony, Pesquet & Ben Ayed 2023, algorithm 1).

    Each position has a multiplier and a steepness of its own; the positions that may stay as they are, by the
    share that breaks a sample, are spared little by little, the hardest first. The proximal operator in the
    metric of the gradients' size, and in the box, is solved exactly.

    Parameters
    ----------
    steps : int, default 500
    step_size : float, default 0.001
        The first, in the units of x; it falls to `last` of it once the sample is broken.
    last : float, default 0.1
    average : float, default 0.8
        The weight of the past in the multipliers and in the metric.
    steepness : float, default 0.01
        Of the penalties, at first.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> ALMAProx(steps=3).average
    0.8
    """

    steps: Count = 500
    step_size: Length = 0.001
    last: Share = 0.1
    average: Fraction = 0.8
    steepness: Positive = 0.01

    name = "alma_prox"
    norms = frozenset({Norm.LINF})
    tasks = DENSE
    paper = "Rony, Pesquet & Ben Ayed 2023, arXiv:2206.07179"
    minimum_norm = True
    fixed_budget = False

    def start(self, problem: Problem) -> ALMAProxState:
        one = torch.ones_like(problem.eps)
        each = torch.ones(problem.y.flatten(1).shape, dtype=torch.float64, device=problem.eps.device)
        return ALMAProxState(
            z=problem.x0, square=torch.zeros_like(problem.x0), scale=one, multiplier=each,
            steepness=self.steepness * each, reached=each < 0, gap=each * torch.inf,
            since=torch.full_like(one, self.steps // 2),
        )  # fmt: skip

    def step(self, problem: Problem, state: ALMAProxState) -> ALMAProxState:
        task, done = problem.oracle.model.task, problem.step - 1
        spared = spared_by(problem, self.steps)
        average = self.average if done else 1.0
        penalty = Penalty(task, state.scale, state.multiplier, state.steepness, spared, average)
        broken = problem.found
        found = problem.evaluate(state.z, penalty)
        constraint, _, multiplier = penalty.terms(found.scores, problem.y, problem.target)
        since = torch.where(~broken & found.adversarial, state.since.clamp_max(done), state.since)
        turn = torch.where(found.adversarial, 1 + TURN, 1 - TURN)
        square = self.average * state.square + (1 - self.average) * found.gradient.square()
        metric = (square / (1 - self.average**problem.step)).sqrt().clamp_min(1e-8)
        size = self._sizes(since, done)
        z = _stepped(problem, state.z, found.gradient, metric, size)
        state = replace(
            state, z=z, square=square, scale=(state.scale / turn).clamp(*SCALES), multiplier=multiplier,
            reached=state.reached | (constraint < 0), since=since,
        )  # fmt: skip
        return state if problem.step % CHECK else _checked(state, constraint.double())

    def _sizes(self, since: Tensor, done: int) -> Tensor:
        """The step of each row (n,): as it was until the sample was broken, then falling to `last` of it."""
        if self.last == 1:
            return torch.full_like(since, self.step_size)
        half = self.last / (1 - self.last) * (self.steps - since).clamp_min(1)
        return self.step_size * half / ((done - since).clamp_min(0) + half)


def _checked(state: ALMAProxState, constraint: Tensor) -> ALMAProxState:
    """Twice as steep where a position was not changed, nor came nearer."""
    stays = state.reached | (constraint <= NEARER * state.gap)
    steepness = torch.where(stays, state.steepness, (2 * state.steepness).clamp_max(STEEPEST))
    return replace(state, steepness=steepness, gap=constraint, reached=torch.zeros_like(state.reached))


def _stepped(problem: Problem, z: Tensor, gradient: Tensor, metric: Tensor, size: Tensor) -> Tensor:
    """The point after a gradient step and a proximal one, both in the metric."""
    domain, rate = problem.threat.domain, per_row(size, z)
    delta = domain.free(z - problem.x0 + rate * gradient / metric)
    low, high = domain.bounds(problem.x0)
    boxed = torch.minimum(torch.maximum(delta, low - problem.x0), high - problem.x0)
    limit = linf_limit(delta.flatten(1), boxed.flatten(1), metric.flatten(1), size)
    reach = per_row(limit, z)
    return domain.clamp(problem.x0 + torch.minimum(torch.maximum(boxed, -reach), reach))


def linf_limit(delta: Tensor, boxed: Tensor, metric: Tensor, strength: Tensor) -> Tensor:
    """The t (n,) at which clipping to [-t, t] is the proximal operator of strength · linf, within a box.

    It minimises strength · t + Σ metric (clip(boxed) - delta)² / 2, boxed (n, d) being delta (n, d) clipped
    to the box. The derivative only falls as t does, in pieces between the sizes of `boxed`; the largest t at
    which what is pushed back weighs as much as the strength is the largest of the pieces' own, each at most
    where its piece begins.
    """
    size, order = boxed.abs().double().sort(1, descending=True)
    weight = metric.double().gather(1, order)
    pushed = (weight * delta.double().abs().gather(1, order)).cumsum(1)
    own = (pushed - strength.double()[:, None]) / weight.cumsum(1)
    return torch.minimum(own, size).amax(1).clamp_min(0)
