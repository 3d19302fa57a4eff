"""Carlini & Wagner: distance and margin weighed against each other by Adam, the weight found by search."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.adam import adam
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, NonNegative, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

EDGE = 1 - 1e-6  # of the box, so that its corners have a finite place in the variable w


CHECKS = 8  # in a round, whether the loss still falls
FALLS = 0.9999  # of the loss at the last check, at most


@dataclass(frozen=True, kw_only=True)
class CWState(Iterate):
    """Where each row stands; rows end their rounds by themselves.

    w (n, …): x = box(tanh w); mean, square (n, …): Adam's; weight (n,): of the margin; low, high (n,): the
    weights known to fail and to succeed; found (n,): whether this round has; bound (n,): the largest change
    not paid for in linf; free (n, …): what may change, in l0. length (n,): steps in a round; t (n,): of
    them taken; round (n,): from 0; checked (n,): the loss at the last check.
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
    length: Tensor
    t: Tensor
    round: Tensor
    checked: Tensor


@dataclass(frozen=True)
class CW(Attack[CWState]):
    """Minimise distance + weight · max(-margin, 0) over tanh-space with Adam
    (Carlini & Wagner 2017, section VI).

    l2: squared distance, the weight by bisection. linf: the sum of what exceeds a bound that shrinks, at
    first by a tenth, whenever x is adversarial. l0: squared distance, and whenever x is adversarial the
    pixels that matter least are fixed. In both the weight grows tenfold where a round fails. In l2 a
    round ends early where its loss no longer falls, as in their code; it is shorter where a budget could not
    pay for all of them.

    Parameters
    ----------
    steps : int, default 200
        Of Adam in every round, at most.
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
    Cost: at most rounds · steps + 1 forward passes, rounds · steps backward; theirs are 9 rounds of up to
    10,000 at a rate of 0.01.

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
        affordable = (problem.remaining // (2 * self.rounds)).clamp(1, self.steps)
        return CWState(
            z=problem.x0, w=w, mean=still, square=still, weight=nothing + self.weight, low=nothing,
            high=nothing + torch.inf, found=torch.zeros_like(problem.row, dtype=torch.bool),
            bound=nothing + 1, free=torch.ones_like(w, dtype=torch.bool), length=affordable.to(nothing),
            t=nothing, round=nothing, checked=nothing + torch.inf,
        )  # fmt: skip

    def step(self, problem: Problem, state: CWState) -> CWState:
        threat = problem.threat
        found = problem.evaluate(state.z, margin)
        short = (found.loss < self.confidence) | ~found.adversarial
        pull = per_row(state.weight * short, state.z) * found.gradient
        delta = state.z - problem.x0
        if threat.norm is Norm.LINF:
            excess = (delta.abs() - per_row(state.bound, delta)).clamp_min(0)
            push, cost = delta.sign() * (excess > 0), excess.flatten(1).sum(1)
        else:
            push, cost = 2 * delta, delta.square().flatten(1).sum(1)
        loss = cost + state.weight * short * (self.confidence - found.loss)
        low, high = threat.domain.bounds(state.z)
        slope = (push - pull) * (high - low) / 2 * (1 - state.w.tanh().square())
        t = state.t + 1
        ahead, mean, square = adam(slope, state.mean, state.square, t)
        w = state.w - self.rate * ahead
        free = threat.domain.free(state.free)
        bound = state.bound
        if threat.norm is Norm.LINF:
            # A tenth at a time, as they do, then less in every round: the last tenth matters too.
            shrink = 1 - 0.1 / (1 + state.round)
            reached = shrink * torch.minimum(bound, threat.distance(state.z, problem.x0))
            bound = torch.where(found.adversarial, reached, bound)
        if threat.norm is Norm.L0:
            free = _fewer(problem, found.adversarial, found.gradient * delta, free)
        x = torch.where(free, _out_of(problem, w), problem.x0)
        check = t % (state.length / CHECKS).ceil() == 0
        stalls = check & (loss > FALLS * state.checked) & (threat.norm is Norm.L2)
        ends = (t >= state.length) | stalls
        state = replace(
            state, z=x, w=w, mean=mean, square=square, found=state.found | found.adversarial, bound=bound,
            free=free, t=t, checked=torch.where(check, loss, state.checked),
        )  # fmt: skip
        return self._next_round(problem, state, ends)

    def _next_round(self, problem: Problem, state: CWState, ends: Tensor) -> CWState:
        """Where a round ends, bisect the weight, tenfold while none has succeeded, and begin anew.

        In linf and l0 x goes on where it is.
        """
        met, far = state.found, per_row(ends, state.w)
        low = torch.where(met, state.low, torch.maximum(state.low, state.weight))
        high = torch.where(met, torch.minimum(state.high, state.weight), state.high)
        z, w = state.z, state.w
        if problem.threat.norm is Norm.L2:
            weight = torch.where(high < torch.inf, (low + high) / 2, state.weight * 10)
            z, w = torch.where(far, problem.x0, z), torch.where(far, _into(problem, problem.x0), w)
        else:
            weight = torch.where(met, state.weight, state.weight * 10)
        past, still = state.round + ends, torch.zeros_like(w)
        return replace(
            state,
            z=z,
            w=w,
            mean=torch.where(far, still, state.mean),
            square=torch.where(far, still, state.square),
            weight=torch.where(ends, weight, state.weight),
            low=torch.where(ends, low, state.low),
            high=torch.where(ends, high, state.high),
            found=met & ~ends,
            t=torch.where(ends, 0.0, state.t),
            checked=torch.where(ends, torch.inf, state.checked),
            round=past,
            done=past >= self.rounds,
        )


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
