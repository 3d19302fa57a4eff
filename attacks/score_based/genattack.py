"""GenAttack: a small population of perturbations that breeds, its fitter members more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

TEMPERATURE = 0.1  # of the choice of parents
PATIENCE = 100  # generations without a gain after which mutations grow rarer and smaller
CHANCE, RANGE = (
    (0.5, 0.1),
    (0.4, 0.15),
)  # of a mutation, and of its size as a share of eps: at first, at least


@dataclass(frozen=True, kw_only=True)
class GenAttackState(Iterate):
    """members (n, P, …); fitness (n, P); best (n,): the highest yet.

    waited (n,): generations since it rose; plateaus (n,): how often that was too long.
    """

    members: Tensor
    fitness: Tensor
    best: Tensor
    waited: Tensor
    plateaus: Tensor


@dataclass(frozen=True)
class GenAttack(Attack[GenAttackState]):
    """Parents chosen by fitness, their features mixed, some of them mutated; the fittest lives on
    (Alzantot et al. 2019, algorithm 1).

    Parameters
    ----------
    steps : int, default 1000
        Generations.
    population : int, default 6
        At least 2.

    Notes
    -----
    Cost: population · (steps + 1) + 1 forward passes.

    Examples
    --------
    >>> GenAttack(steps=3).population
    6
    """

    steps: Count = 1000
    population: Annotated[int, Range(2)] = 6

    name = "genattack"
    access = Access.SCORE
    norms = frozenset({Norm.LINF})
    paper = "Alzantot et al. 2019, arXiv:1805.11090"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=self.population)

    def start(self, problem: Problem) -> GenAttackState:
        draw = problem.random("first").uniform((self.population, *problem.x0.shape[1:]), problem.x0.dtype)
        members = self._inside(problem, problem.x0[:, None] + problem.size()[:, None] * (2 * draw - 1))
        none = torch.zeros_like(problem.row)
        return self._met(problem, members, torch.full_like(problem.eps, -torch.inf), none, none)

    def step(self, problem: Problem, state: GenAttackState) -> GenAttackState:
        n, count = state.fitness.shape
        shape = tuple(problem.x0.shape[1:])
        odds = (state.fitness / TEMPERATURE).softmax(1)
        drawn = problem.random("parents").uniform((2, count - 1), torch.float64)
        below = odds.double().cumsum(1)
        parents = torch.searchsorted(below, drawn.flatten(1).contiguous()).clamp_max(count - 1)
        rows = torch.arange(n, device=parents.device)[:, None]
        halves = parents[:, : count - 1], parents[:, count - 1 :]
        mother, father = (state.members[rows, half] for half in halves)
        weight = torch.stack([odds.gather(1, half) for half in halves])
        share = (weight[0] / weight.sum(0).clamp_min(1e-30)).reshape(n, count - 1, *[1] * len(shape))
        mixing = problem.random("mixing").uniform((count - 1, *shape), share.dtype)
        children = torch.where(mixing < share, mother, father)
        shrunk = 0.9**state.plateaus
        chance, range_ = ((first * shrunk).clamp_min(least) for first, least in (CHANCE, RANGE))
        hit = problem.random("hit").uniform((count - 1, *shape)) < per_row(chance, children)
        move = 2 * problem.random("move").uniform((count - 1, *shape), children.dtype) - 1
        move = problem.size()[:, None] * per_row(range_, children).to(children) * move
        elite = state.members[rows, state.fitness.argmax(1, keepdim=True)]
        members = torch.cat([elite, self._inside(problem, torch.where(hit, children + move, children))], 1)
        return self._met(problem, members, state.best, state.waited, state.plateaus)

    def _inside(self, problem: Problem, members: Tensor) -> Tensor:
        rows = torch.arange(len(problem), device=members.device).repeat_interleave(members.shape[1])
        return problem[rows].project(members.flatten(0, 1)).view_as(members)

    def _met(
        self, problem: Problem, members: Tensor, best: Tensor, waited: Tensor, plateaus: Tensor
    ) -> GenAttackState:
        """The population, asked about."""
        n, count = members.shape[:2]
        rows = torch.arange(n, device=members.device).repeat_interleave(count)
        fitness = problem.margins(members.flatten(0, 1), rows).view(n, count)
        fitness = fitness.clamp(-1e30, 1e30)
        top, which = fitness.max(1)
        rose = top > best
        waited = torch.where(rose, 0, waited + 1)
        over = waited >= PATIENCE
        return GenAttackState(
            z=members[torch.arange(n, device=members.device), which],
            members=members,
            fitness=fitness,
            best=torch.where(rose, top.to(best), best),
            waited=torch.where(over, 0, waited),
            plateaus=plateaus + over,
        )
