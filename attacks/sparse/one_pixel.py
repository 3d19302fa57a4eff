"""One pixel, or a few: differential evolution, or every pixel and every level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from robustbench_lite.attacks.sparse.pixels import Pixels, painted
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, LossName, Positive, Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True, kw_only=True)
class OnePixelState(Iterate):
    """Candidates of each row: where (n, P, k) and colour (n, P, k, C), and their fitness (n, P)."""

    where: Tensor
    colour: Tensor
    fitness: Tensor


@dataclass(frozen=True)
class OnePixel(Attack[OnePixelState]):
    """The pixels that change the class, found by differential evolution on scores (Su et al. 2017).

    A candidate is k places with their colours, k being the threat's eps: `l0:1`, `l0:3`, `l0:5`. A child is
    a + factor · (b - c) of other candidates and takes its parent's place where it is fitter, without
    crossover. Places start uniform, colours normal around the middle of the box with half its width.

    Parameters
    ----------
    method : {"evolution", "exhaustive"}, default "evolution"
        `evolution` as above; `exhaustive`: every pixel with every one of `levels` values (in colour: the
        corners of the box, then the channels of the best places level by level), the optimum on that grid for
        one pixel.
    steps : int, default 100
        Generations.
    population : int, default 400
        How many candidates, at least 4.
    strategy : {"rand1", "best1"}, optional
        What a is: another candidate as in the paper, or the fittest, the factor then drawn up to 1 anew for
        every child. None: `rand1` for one pixel, `best1` for more, which it finds more often.
    factor : float, default 0.5
        Of the difference b - c, as above.
    levels : int, default 17
        At least 2; 17 are all a digit has, 256 an 8-bit image.
    loss : {"ce", "dlr", "margin", "houdini"}, default "ce"
        What fitness is, `ce` as in the paper (the probability of the class) or `margin`.

    Notes
    -----
    Cost: population · (steps + 1) forward passes; pixels · levels.

    Examples
    --------
    >>> OnePixel(population=3)
    Traceback (most recent call last):
        ...
    robustbench_lite.core.errors.InvalidParameter: population = 3: must be at least 4
    """

    method: Literal["evolution", "exhaustive"] = "evolution"
    steps: Count = 100
    population: Annotated[int, Range(4)] = 400
    strategy: Literal["rand1", "best1"] | None = None
    factor: Positive = 0.5
    levels: Annotated[int, Range(2)] = 17
    loss: LossName = "ce"

    name = "one_pixel"
    access = Access.SCORE
    norms = frozenset({Norm.L0})
    paper = "Su et al. 2017, arXiv:1710.08864"
    revision = 2

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        if self.method == "evolution":
            asked = self.population * (self.steps + 1)
            return Schedule(self.steps, points=self.population, passes=asked)
        grid = Pixels.of(model.input_shape, threat.domain)
        more = 0 if grid.channels == 1 else 3 * grid.channels
        return Schedule(grid.batches(self.levels, self.population) + more, points=self.population)

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if self.method == "exhaustive" and threat.eps not in (None, 1):
            return f"one_pixel:method=exhaustive tries single pixels, l0:1; not {threat}"
        return super().refuses(model, threat, goal)

    def start(self, problem: Problem) -> OnePixelState:
        grid = Pixels.of_problem(problem)
        shape = (self.population, max(1, int(problem.threat.eps or 1)))
        where = problem.random("where").integers(grid.height, shape) * grid.width
        where = where + problem.random("column").integers(grid.width, shape)
        drawn = problem.random("colour").normal((*shape, grid.channels), problem.x0.dtype)
        colour = grid.within(0.5 + 0.5 * drawn)
        fitness = torch.full((len(problem), self.population), -torch.inf, device=where.device)
        if self.method == "evolution":
            fitness = self._fitness(problem, where, colour)
        return _fittest_first(problem, where, colour, fitness)

    def step(self, problem: Problem, state: OnePixelState) -> OnePixelState:
        grid = Pixels.of_problem(problem)
        if self.method == "evolution":
            where, colour = self._children(problem, state, grid)
        else:
            at = problem.step - 1, self.population, self.levels
            where, colour = grid.candidates(*at, state.where, state.colour)
        fitness = self._fitness(problem, where, colour)
        if self.method == "evolution":
            kept = (fitness <= state.fitness).long()
            order = torch.arange(self.population, device=where.device) + self.population * kept
        else:  # the best of old and new
            order = torch.cat([fitness, state.fitness], 1).topk(self.population, dim=1).indices
        rows = torch.arange(len(problem), device=where.device)[:, None]
        where = torch.cat([where, state.where], 1)[rows, order]
        colour = torch.cat([colour, state.colour], 1)[rows, order]
        return _fittest_first(problem, where, colour, torch.cat([fitness, state.fitness], 1)[rows, order])

    def _fitness(self, problem: Problem, where: Tensor, colour: Tensor) -> Tensor:
        n, count = where.shape[:2]
        rows = torch.arange(n, device=where.device).repeat_interleave(count)
        scores = problem.proposals(painted(problem, where, colour), rows)
        loss = problem[rows].loss_of(problem.loss_named(self.loss), scores)
        return loss.nan_to_num(nan=-torch.inf).view(n, count)

    def _children(self, problem: Problem, state: OnePixelState, grid: Pixels) -> tuple[Tensor, Tensor]:
        """One child a candidate, from three others that are neither it nor each other."""
        size = self.population
        own = torch.arange(size, device=state.where.device)[None, :, None].expand(len(problem), -1, 1)
        taken = own
        for count, tag in enumerate("abc"):
            draw = problem.random(tag).integers(size - 1 - count, (size, 1))
            for other in taken.sort(dim=2).values.unbind(2):  # step over those taken, lowest first
                draw = draw + (draw >= other[:, :, None])
            taken = torch.cat([taken, draw], 2)
        rows = torch.arange(len(problem), device=own.device)[:, None]
        a, b, c = (taken[:, :, k] for k in (1, 2, 3))

        strategy = self.strategy or ("rand1" if state.where.shape[2] == 1 else "best1")
        factor = torch.full_like(state.fitness, self.factor)
        if strategy == "best1":
            a = state.fitness.argmax(1, keepdim=True).expand_as(a)
            factor = factor + (1 - factor).clamp_min(0) * problem.random("factor").uniform(
                (size,), factor.dtype
            )

        def mixed(genes: Tensor) -> Tensor:
            difference = genes[rows, b] - genes[rows, c]
            return genes[rows, a] + factor.reshape(*factor.shape, *[1] * (genes.dim() - 2)) * difference

        row, column = (
            mixed(g.float()).round() for g in (state.where // grid.width, state.where % grid.width)
        )
        place = row.clamp(0, grid.height - 1) * grid.width + column.clamp(0, grid.width - 1)
        return place.long(), grid.clamped(mixed(state.colour))


def _fittest_first(problem: Problem, where: Tensor, colour: Tensor, fitness: Tensor) -> OnePixelState:
    """A population whose x is its fittest candidate."""
    rows = torch.arange(len(problem), device=where.device)
    best = fitness.argmax(1)
    x = painted(problem, where[rows, best][:, None], colour[rows, best][:, None])
    return OnePixelState(z=x, where=where, colour=colour, fitness=fitness)
