"""The pointwise attack: pixel after pixel goes back to the sample as long as the point stays adversarial."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.starting import at_random, starting_points
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

PATIENCE = 100  # steps that a row without a start goes on looking for one
HALVINGS = 6  # of the share of a change that is taken back, in l1


@dataclass(frozen=True, kw_only=True)
class PointwiseState(Iterate):
    """started (n,): whether x is adversarial; until then it is x0.

    block (n,): how many pixels go back at once; turn (n,): how many steps of one pixel have failed since one
    did not; halved (n,): how often the share taken back was.
    """

    started: Tensor
    block: Tensor
    turn: Tensor
    halved: Tensor


@dataclass(frozen=True)
class Pointwise(Attack[PointwiseState]):
    """Changed pixels go back to the sample's values, where the point stays adversarial
    (Schott et al. 2019, section 4).

    Theirs go back one by one in random order. Here as many at once as last went back, doubled, or half as
    many as last failed to, which takes a query for many pixels. In l1, once no pixel can go back altogether,
    half of its change is tried, then a quarter, and so on. It begins where HopSkipJump does.

    Parameters
    ----------
    steps : int, default 2000
        Queries, at most.
    tries : int, default 100
        Random points for the start.

    Notes
    -----
    Cost: at most steps + tries forward passes, and 10 for training samples; a row that finds no start looks
    at 10 random points more in each of its first hundred steps, and ends.

    Examples
    --------
    >>> Pointwise(steps=3).tries
    100
    """

    steps: Count = 2000
    tries: Count = 100

    name = "pointwise"
    access = Access.DECISION
    norms = frozenset({Norm.L0, Norm.L1})
    paper = "Schott et al. 2019, arXiv:1805.09190"
    minimum_norm = True
    uses_starts = True

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=self.tries)

    def start(self, problem: Problem) -> PointwiseState:
        x, started = starting_points(problem, self.tries)
        one, none = torch.ones_like(problem.row), torch.zeros_like(problem.row)
        return PointwiseState(z=x, started=started, block=one, turn=none, halved=none)

    def step(self, problem: Problem, state: PointwiseState) -> PointwiseState:
        if problem.step <= PATIENCE and not bool(state.started.all()):
            x, started = at_random(problem, state.z, state.started)
            state = replace(state, z=x, started=started)
        domain = problem.threat.domain
        delta = state.z - problem.x0
        changed = domain.pixels((delta != 0).to(delta)) > 0
        draw = problem.random("order").uniform((changed.shape[1],))
        rank = torch.where(changed, draw, 2.0).argsort(1).argsort(1)
        back = domain.spread((changed & (rank < state.block[:, None])).to(delta), delta)
        share = per_row(0.5**state.halved, delta)
        tried = torch.where(back > 0, problem.x0 + (1 - share) * delta, state.z)
        good = problem.decisions(tried) & state.started
        count = changed.sum(1)
        turn = torch.where(good, 0, state.turn + (state.block == 1))
        # As often as to have met each of the changed pixels with a probability of 1 - 1/e.
        over = (turn > count) & state.started
        halved = state.halved + over
        most = HALVINGS if problem.threat.norm is Norm.L1 else 0
        block = torch.where(good, 2 * state.block, state.block // 2)
        return PointwiseState(
            z=torch.where(per_row(good, delta), tried, state.z),
            started=state.started,
            block=block.clamp_min(1).minimum(count.clamp_min(1)),
            turn=torch.where(over, 0, turn),
            halved=halved,
            done=(halved > most) | (~state.started & (problem.step >= PATIENCE)),
        )
