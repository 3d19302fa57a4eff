"""Carlini & Wagner: distance and margin weighed against each other by Adam, the weight found by search."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, NonNegative, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

EDGE = 1 - 1e-6  # of the box, so that its corners have a finite place in the variable w


@dataclass(frozen=True, kw_only=True)
class CWState(Iterate):
    """Where each row stands.

    w (n, …): x = box(tanh w); mean, square (n, …): Adam's; weight (n,): of the margin; low, high (n,): the
    weights known to fail and to succeed; found (n,): whether this round has; bound (n,): the largest change
    not paid for in linf; free (n, …): what may change, in l0.
    """

    w: Tensor
    mean: Tensor
    square: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    found: Tensor
    bound: Tensor
    free: Tensor


@dataclass(frozen=True)
class CW(Attack[CWState]):
    """Minimise distance + weight · max(-margin, 0) over tanh-space with Adam
    (Carlini & Wagner 2017, section VI).

    l2: squared distance, the weight by bisection. linf: the sum of what exceeds a bound that shrinks, at
    first by a tenth, whenever x is adversarial. l0: squared distance, and whenever x is adversarial the
    pixels that matter least are fixed. In both the weight grows tenfold where a round fails.

    Parameters
    ----------
    steps : int, default 200
        Of Adam in every round.
    rounds : int, default 9
        Of the search.
    rate : float, default 0.05
        Adam's, in tanh-space.
    weight : float, default 0.001
        The first.
    confidence : float, default 0.0
        The margin that the loss asks for.

    Notes
    -----
    Cost: rounds · steps + 1 forward passes, rounds · steps backward; theirs are 9 rounds of up to 10,000 at
    a rate of 0.01.

    Examples
    --------
    >>> CW(steps=3).rounds
    9
    """

    steps: Count = 200
    rounds: Count = 9
    rate: Positive = 0.05
    weight: Positive = 0.001
    confidence: NonNegative = 0.0

    name = "cw"
    norms = frozenset({Norm.L0, Norm.L2, Norm.LINF})
    paper = "Carlini & Wagner 2017, arXiv:1608.04644"
    minimum_norm = True
    fixed_budget = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.rounds * self.steps)

    def start(self, problem: Problem) -> CWState:
        w = _into(problem, problem.x0)
        nothing, still = torch.zeros_like(problem.eps), torch.zeros_like(w)
        return CWState(
            z=problem.x0, w=w, mean=still, square=still, weight=nothing + self.weight, low=nothing,
            high=nothing + torch.inf, found=torch.zeros_like(problem.row, dtype=torch.bool),
            bound=nothing + 1, free=torch.ones_like(w, dtype=torch.bool),
        )  # fmt: skip

    def step(self, problem: Problem, state: CWState) -> CWState:
        threat = problem.threat
        found = problem.evaluate(state.z, margin)
        short = per_row((found.loss < self.confidence) | ~found.adversarial, state.z)
        pull = per_row(state.weight, state.z) * torch.where(short, found.gradient, 0.0)
        delta = state.z - problem.x0
        if threat.norm is Norm.LINF:
            push = delta.sign() * (delta.abs() > per_row(state.bound, delta))
        else:
            push = 2 * delta
        low, high = threat.domain.bounds(state.z)
        slope = (push - pull) * (high - low) / 2 * (1 - state.w.tanh().square())
        w, mean, square = self._adam(state, slope, (problem.step - 1) % self.steps + 1)
        free = threat.domain.free(state.free)
        bound, met = state.bound, state.found | found.adversarial
        if threat.norm is Norm.LINF:
            # A tenth at a time, as they do, then less in every round: the last tenth matters too.
            shrink = 1 - 0.1 / (1 + (problem.step - 1) // self.steps)
            reached = shrink * torch.minimum(bound, threat.distance(state.z, problem.x0))
            bound = torch.where(found.adversarial, reached, bound)
        if threat.norm is Norm.L0:
            free = _fewer(problem, found.adversarial, found.gradient * delta, free)
        x = torch.where(free, _out_of(problem, w), problem.x0)
        state = replace(state, z=x, w=w, mean=mean, square=square, found=met, bound=bound, free=free)
        return self._next_round(problem, state) if problem.step % self.steps == 0 else state

    def _adam(self, state: CWState, slope: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Kingma & Ba 2015, algorithm 1."""
        mean, square = 0.9 * state.mean + 0.1 * slope, 0.999 * state.square + 0.001 * slope.square()
        ahead = self.rate * (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        return state.w - ahead, mean, square

    def _next_round(self, problem: Problem, state: CWState) -> CWState:
        """Bisect the weight, tenfold while none has succeeded, and begin anew; linf and l0 go on instead."""
        met = state.found
        low = torch.where(met, state.low, torch.maximum(state.low, state.weight))
        high = torch.where(met, torch.minimum(state.high, state.weight), state.high)
        weight = torch.where(high < torch.inf, (low + high) / 2, state.weight * 10)
        fresh = torch.zeros_like(state.w)
        state = replace(state, mean=fresh, square=fresh, found=torch.zeros_like(state.found))
        if problem.threat.norm is not Norm.L2:
            return replace(state, weight=torch.where(met, state.weight, state.weight * 10))
        return replace(state, z=problem.x0, w=_into(problem, problem.x0), weight=weight, low=low, high=high)


def _into(problem: Problem, x: Tensor) -> Tensor:
    low, high = problem.threat.domain.bounds(x)
    return torch.atanh(((x - low) / (high - low).clamp_min(1e-12) * 2 - 1) * EDGE)


def _out_of(problem: Problem, w: Tensor) -> Tensor:
    low, high = problem.threat.domain.bounds(w)
    return problem.threat.domain.clamp(low + (high - low) * ((w.tanh() / EDGE).clamp(-1, 1) + 1) / 2)


def _fewer(problem: Problem, adversarial: Tensor, worth: Tensor, free: Tensor) -> Tensor:
    """Fix a twentieth of the changed pixels, those that gain least, where x is adversarial."""
    domain = problem.threat.domain
    gain = domain.pixels(worth)
    changed = domain.pixels((worth != 0).to(worth) * free) > 0
    rank = torch.where(changed, gain, torch.inf).argsort(1).argsort(1)
    fixed = changed & (rank < (changed.sum(1, keepdim=True) / 20).ceil())
    return free & ~(domain.spread(fixed.to(worth), worth) > 0) | (free & ~per_row(adversarial, worth))
