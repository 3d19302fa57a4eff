"""What attacks share that walk from an adversarial point, however far, towards the sample."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Generic, TypeVar

from torch import Tensor

from robustbench_lite.attacks.decision_based.bisection import to_boundary
from robustbench_lite.attacks.decision_based.starting import at_random, starting_points
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

PATIENCE = 100  # steps that a row without a start goes on looking for one


@dataclass(frozen=True, kw_only=True)
class Walking(Iterate):
    """started (n,): whether z is adversarial; until then it is x0."""

    started: Tensor


Walker = TypeVar("Walker", bound=Walking)

BISECTION = 25  # passes that finding the boundary on a line takes, about


@dataclass(frozen=True)
class Walk(Attack[Walker], Generic[Walker]):
    """An attack that begins at the boundary, between the sample and an adversarial point.

    That is the best point known, else the nearest of so many random points of the box that succeed, else of
    the nearest training samples of other classes (with a target, of that class). Rows without one look at
    some random points more in each of their first hundred steps.

    Parameters
    ----------
    steps : int, default 1000
        How many.
    tries : int, default 100
        Random points for the start.
    """

    steps: Count = 1000
    tries: Count = 100

    access = Access.DECISION
    minimum_norm = True
    uses_starts = True

    @abstractmethod
    def begun(self, problem: Problem, x: Tensor, started: Tensor) -> Walker:
        """The state of rows that stand at the boundary, where they have started."""

    @abstractmethod
    def walk(self, problem: Problem, state: Walker) -> Walker:
        """A step of rows that have all started."""

    def points(self) -> int:
        """Points that a row asks for at once in a step, at most."""
        return 1

    def passes_of_step(self) -> int:
        """Forward passes of a step, about."""
        return self.points() + BISECTION

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        begun = self.tries + BISECTION
        passes = begun + self.steps * self.passes_of_step()
        return Schedule(self.steps, points=max(self.tries, self.points()), passes=passes)

    def start(self, problem: Problem) -> Walker:
        return self._at_boundary(problem, *starting_points(problem, self.tries))

    def step(self, problem: Problem, state: Walker) -> Walker:
        if problem.step <= PATIENCE and not bool(state.started.all()):
            lost = (~state.started).nonzero()[:, 0]
            late = problem[lost]
            found = at_random(late, state.z[lost], state.started[lost])
            state = _put(state, lost, self._at_boundary(late, *found))
        if bool(state.started.all()):
            return self.walk(problem, state)
        rows = state.started.nonzero()[:, 0]
        if len(rows):
            state = _put(state, rows, self.walk(problem[rows], state[rows]))
        return replace(state, done=~state.started & (problem.step >= PATIENCE))

    def _at_boundary(self, problem: Problem, x: Tensor, started: Tensor) -> Walker:
        rows = started.nonzero()[:, 0]
        x = x.index_copy(0, rows, to_boundary(problem[rows], x[rows]))
        return self.begun(problem, x, started)


def _put(state: Walker, rows: Tensor, part: Walker) -> Walker:
    """The state with some rows' part of it in their places."""
    carried = {f.name: (getattr(state, f.name), getattr(part, f.name)) for f in fields(state)}
    return replace(
        state,
        **{
            name: whole.index_copy(0, rows, some)
            for name, (whole, some) in carried.items()
            if isinstance(whole, Tensor) and isinstance(some, Tensor)
        },
    )
