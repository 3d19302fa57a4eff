"""The boundary attack: random steps around the sample and towards it, kept where they stay adversarial."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.walk import Walk, Walking
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm

MEMORY = 0.9  # of the rates of success that sizes follow, a step
LOOK = 5  # steps between two looks at whether the step around alone stays adversarial
RATIO = 1.2  # by which a size grows or shrinks


@dataclass(frozen=True, kw_only=True)
class BoundaryState(Walking):
    """around, towards (n,): sizes of the two parts of a step, as shares of the distance.

    stayed, came (n,): how often, lately, the first part and the whole stayed adversarial.
    """

    around: Tensor
    towards: Tensor
    stayed: Tensor
    came: Tensor


@dataclass(frozen=True)
class Boundary(Walk[BoundaryState]):
    """A step at random on the sphere around the sample, then one towards it
    (Brendel, Rauber & Bethge 2018, section 2.2).

    Both shrink where too few stay adversarial, and grow where many do.

    Parameters
    ----------
    steps : int, default 5000
        How many.
    tries : int, default 100
        Random points for the start, as in `Walk`.
    around : float, default 0.1
        The first step on the sphere, as a share of the distance.
    towards : float, default 0.1
        The first step towards the sample, likewise.

    Notes
    -----
    Cost: 1.2 · steps forward passes, and what the start takes.

    Examples
    --------
    >>> Boundary(steps=3).around
    0.1
    """

    steps: Count = 5000
    around: Positive = 0.1
    towards: Positive = 0.1

    name = "boundary"
    norms = frozenset({Norm.L2})
    paper = "Brendel, Rauber & Bethge 2018, arXiv:1712.04248"

    def begun(self, problem: Problem, x: Tensor, started: Tensor) -> BoundaryState:
        half = torch.full_like(problem.eps, 0.5)
        return BoundaryState(
            z=x, started=started, around=torch.full_like(half, self.around),
            towards=torch.full_like(half, self.towards), stayed=half, came=half / 2,
        )  # fmt: skip

    def walk(self, problem: Problem, state: BoundaryState) -> BoundaryState:
        domain, x = problem.threat.domain, state.z
        back = problem.x0 - x
        distance = size_of(back, 2).clamp_min(1e-12)
        way = domain.free(problem.random("around").gaussian(tuple(x.shape[1:])).to(x))
        way = way - back * per_row((way * back).flatten(1).sum(1) / distance.square(), x)
        way = way * per_row(state.around * distance / size_of(way, 2).clamp_min(1e-12), x)
        # On the sphere again: the step lies in its tangent plane.
        moved = problem.x0 - (back - way) / per_row((1 + state.around.square()).sqrt(), x)
        sphere = domain.clamp(moved)
        tried = domain.clamp(moved + per_row(state.towards, x) * (problem.x0 - moved))
        stayed = state.stayed
        if problem.step % LOOK == 0:
            stayed = MEMORY * stayed + (1 - MEMORY) * problem.decisions(sphere)
        good = problem.decisions(tried)
        nearer = good & (size_of(problem.x0 - tried, 2) < distance)
        came = MEMORY * state.came + (1 - MEMORY) * good
        around, towards = state.around, state.towards
        if problem.step % LOOK == 0:
            around = _adapted(around, stayed, 0.2, 0.5)
            towards = _adapted(towards, came, 0.1, 0.25)
        return replace(
            state,
            z=torch.where(per_row(nearer, x), tried, x),
            around=around, towards=towards, stayed=stayed, came=came,
        )  # fmt: skip


def _adapted(size: Tensor, rate: Tensor, few: float, many: float) -> Tensor:
    """A size after a look at how often it did."""
    return torch.where(rate > many, size * RATIO, torch.where(rate < few, size / RATIO, size)).clamp_max(1.0)
