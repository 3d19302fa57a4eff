"""From leaf to leaf: near adversarial examples of forests and boosting."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.certify.climb import Cells
from robustbench_lite.certify.ensembles import descended
from robustbench_lite.certify.leaves import Leaves, Wanted, allowed
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.structure import Trees
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

HALVINGS = 12  # of the way from a start


@dataclass(frozen=True)
class LeafTupleState(Iterate):
    """begin (n, starts, …): samples of other classes, the nearest first; x0 where there are no more."""

    begin: Tensor
    cells: Cells
    leaves: Leaves


@dataclass(frozen=True)
class LeafTuple(Attack[LeafTupleState]):
    """Descent over leaves and thresholds of a sum of trees, from samples of other classes.

    A point is answered by one leaf of each tree. From one that is adversarial the descent changes one leaf
    (Zhang, Zhang & Hsieh 2020, algorithm 1), or takes one feature back past thresholds, which changes the
    leaves of several trees at once, to whatever comes nearest, until nothing does. It begins where moving one
    feature at a time past a threshold makes the sample adversarial, then on the way to each start.

    Parameters
    ----------
    starts : int, default 2
        Samples of other classes to begin at; at least 1.

    Notes
    -----
    Cost: one forward pass a start and one more; the leaves are looked up in the model's structure.

    Examples
    --------
    >>> LeafTuple(starts=3).starts
    3
    """

    starts: Count = 2

    name = "leaf_tuple"
    access = Access.STRUCTURE
    paper = "Zhang, Zhang & Hsieh 2020, arXiv:2010.11598"
    minimum_norm = True
    uses_starts = True

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        refusal = super().refuses(model, threat, goal)
        if refusal is None and not isinstance(model.structure, Trees):
            return f"leaf_tuple needs a sum of trees; {model.name} is none"
        if refusal is None and (threat.domain.spacing is not None or threat.domain.groups is not None):
            return "leaf_tuple does not know whole steps or choices of several features"
        return refusal

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.starts)

    def start(self, problem: Problem) -> LeafTupleState:
        structure = problem.oracle.model.structure
        assert isinstance(structure, Trees)
        points, rows = problem.starts(self.starts)
        place = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
        begin = problem.x0[:, None].repeat(1, self.starts, *[1] * (problem.x0.dim() - 1))
        begin[rows, place] = points
        features = problem.x0[0].numel()
        state = LeafTupleState(
            z=problem.x0, begin=begin, cells=Cells(structure, features), leaves=Leaves.of(structure, features)
        )
        x, box = problem.x0.flatten(1), allowed(problem.x0, problem.threat.domain)
        assert problem.threat.norm is not None
        point = state.cells.shrink(x, x, *box, _wanted(problem, structure), problem.threat.norm)
        return _descended(problem, state, point.reshape(problem.x0.shape))

    def step(self, problem: Problem, state: LeafTupleState) -> LeafTupleState:
        begin, wanted = state.begin[:, problem.step - 1], _wanted(problem, state.cells.trees)
        far, near = torch.ones_like(problem.eps), torch.zeros_like(problem.eps)

        def part_way(share: Tensor) -> Tensor:
            way = problem.x0 + per_row(share.to(begin), begin) * (begin - problem.x0)
            return torch.where(per_row(share < 1, begin), way, begin)

        for _ in range(HALVINGS):
            middle = (far + near) / 2
            met = wanted.met(state.cells.scores(part_way(middle).flatten(1)))
            far, near = torch.where(met, middle, far), torch.where(met, near, middle)
        return _descended(problem, state, part_way(far))


def _descended(problem: Problem, state: LeafTupleState, start: Tensor) -> LeafTupleState:
    """The state after a descent from points (n, …) to what is nearer, which is looked at once."""
    norm, domain = problem.threat.norm, problem.threat.domain
    assert norm is not None
    wanted = _wanted(problem, state.cells.trees)
    z = descended(state.cells, state.leaves, problem.x0, start, wanted, norm, domain)
    problem.scores(z)
    return replace(state, z=z)


def _wanted(problem: Problem, trees: Trees) -> Wanted:
    every = torch.arange(len(trees.start), device=problem.y.device)
    sought = every != problem.y[:, None] if problem.target is None else every == problem.target[:, None]
    return Wanted(sought, trees.rank)
