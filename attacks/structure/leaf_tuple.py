"""From leaf to leaf: near adversarial examples of forests and boosting."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.certify.cells import Cells
from robustbench_lite.certify.climb import Climb
from robustbench_lite.certify.leaves import Wanted
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


@dataclass(frozen=True)
class LeafTuple(Attack[LeafTupleState]):
    """Search over the leaves of a sum of trees, one feature past thresholds at a time.

    A point is answered by one leaf of each tree, and the answer is the same as far as these leaves meet. From
    the sample itself a climb moves features, one or two at a time, to where the sum gains most, within half
    of the distance known so far. Then points on the way to samples of other classes descend: a feature goes
    back, or a tree's leaf changes, to whatever comes nearest and is still adversarial.

    Parameters
    ----------
    starts : int, default 2
        Samples of other classes to begin at; at least 1.

    Notes
    -----
    Cost: one forward pass a start and one more; the leaves are looked up in the model's structure.

    The paper's own move, from one leaf of one tree to another, is made in the descents but in linf, where it
    brought nothing beside the climbs.

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
    revision = 2

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        refusal = super().refuses(model, threat, goal)
        if refusal is None and not isinstance(model.structure, Trees):
            return f"leaf_tuple needs a sum of trees; {model.name} is none"
        if refusal is None and not threat.domain.whole:
            return "leaf_tuple does not know whole steps, choices of several features, or orders of features"
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
        state = LeafTupleState(z=problem.x0, begin=begin, cells=Cells(structure, problem.x0[0].numel()))
        return _at(problem, state, _near(problem, state).nearest())

    def step(self, problem: Problem, state: LeafTupleState) -> LeafTupleState:
        begin, climb = state.begin[:, problem.step - 1], _near(problem, state)
        far, near = torch.ones_like(problem.eps), torch.zeros_like(problem.eps)

        def part_way(share: Tensor) -> Tensor:
            way = problem.x0 + per_row(share.to(begin), begin) * (begin - problem.x0)
            return torch.where(per_row(share < 1, begin), way, begin)

        for _ in range(HALVINGS):
            middle = (far + near) / 2
            met = climb.wanted.met(state.cells.scores(part_way(middle).flatten(1)))
            far, near = torch.where(met, middle, far), torch.where(met, near, middle)
        return _at(problem, state, climb.descended(part_way(far).flatten(1)))


def _near(problem: Problem, state: LeafTupleState) -> Climb:
    """What is looked for near the samples."""
    trees, threat = state.cells.trees, problem.threat
    every = torch.arange(len(trees.start), device=problem.y.device)
    sought = every != problem.y[:, None] if problem.target is None else every == problem.target[:, None]
    assert threat.norm is not None
    return Climb.near(state.cells, problem.x0, Wanted(sought, trees.rank), threat.norm, threat.domain)


def _at(problem: Problem, state: LeafTupleState, points: Tensor) -> LeafTupleState:
    """The state at points (n, d), which are looked at once."""
    z = points.reshape(problem.x0.shape)
    problem.scores(z)
    return replace(state, z=z)
