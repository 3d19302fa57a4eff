"""Bandits: a belief about the gradient that each pair of queries corrects a little."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.attacks.coarse import coarse_shape, enlarged, part_of_side
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Length, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True, kw_only=True)
class BanditsState(Iterate):
    """belief (n, *coarse): what is believed about the gradient, in [-1, 1] for linf."""

    belief: Tensor


@dataclass(frozen=True)
class Bandits(Attack[BanditsState]):
    """The loss at two points, the belief and a random direction added and taken away, corrects the belief;
    then a step along it (Ilyas, Engstrom & Madry 2019, algorithms 2 and 3).

    The belief has one number a tile. It is corrected by exponentiated gradients in linf, and by plain ones in
    l2 (section 3.2).

    Parameters
    ----------
    steps : int, default 2500
        Of three queries each: two for the correction, and the point itself.
    exploration : float, optional
        The size of the random direction beside the belief; None: 1 in linf, 0.01 in l2.
    rate : float, optional
        Of what a step corrects; None: 100 in linf, 0.1 in l2.
    reach : float, default 0.1
        How far the two points lie, in the units of x; the default grows with the box.
    step_size : float, default 0.2
        As a share of eps.
    side : int, optional
        Tiles to a side; None: a sixth of the image's, and at least 8.

    Notes
    -----
    Cost: 3 · steps + 1 forward passes.

    Examples
    --------
    >>> Bandits(steps=3).step_size
    0.2
    """

    steps: Count = 2500
    exploration: Positive | None = None
    rate: Positive | None = None
    reach: Length = 0.1
    step_size: Positive = 0.2
    side: Count | None = None

    name = "bandits"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Ilyas, Engstrom & Madry 2019, arXiv:1807.07978"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, passes=3 * self.steps)

    def start(self, problem: Problem) -> BanditsState:
        shape = tuple(problem.x0.shape[1:])
        coarse = coarse_shape(shape, self.side or part_of_side(shape, 6))
        return BanditsState(z=problem.x0, belief=problem.x0.new_zeros(len(problem), *coarse))

    def step(self, problem: Problem, state: BanditsState) -> BanditsState:
        shape, belief = tuple(problem.x0.shape[1:]), state.belief
        signed = problem.threat.norm is Norm.LINF
        exploration = self.exploration or (1.0 if signed else 0.01)
        rate = self.rate or (100.0 if signed else 0.1)
        way = problem.random("way").gaussian(tuple(belief.shape[1:])).to(belief)
        way = exploration * way / belief[0].numel() ** 0.5
        ahead, behind = (
            self._loss(problem, state.z, enlarged(belief + s * way, shape, "nearest")) for s in (1, -1)
        )
        change = (ahead - behind).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        slope = per_row(change / (self.reach * exploration), way) * way
        if signed:
            up = (1 + belief) / 2 * (rate * slope).clamp(-30, 30).exp()
            down = (1 - belief) / 2 * (-rate * slope).clamp(-30, 30).exp()
            belief = (up - down) / (up + down)
        else:
            belief = belief + rate * slope
        step = problem.size(self.step_size) * problem.threat.steepest(enlarged(belief, shape, "nearest"))
        x = problem.project(state.z + step)
        problem.proposals(x)  # the probes lie outside the ball, and would not count
        return BanditsState(z=x, belief=belief)

    def _loss(self, problem: Problem, x: Tensor, way: Tensor) -> Tensor:
        """The loss a little ahead on a way."""
        domain = problem.threat.domain
        way = domain.free(way)
        ahead = x + domain.at_least_a_step(self.reach, x) * way / per_row(
            size_of(way, 2).clamp_min(1e-12), way
        )
        return problem.loss_of(cross_entropy, problem.proposals(domain.clamp(ahead)))
