"""NATTACK: a distribution over perturbations, of which most members are adversarial."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.attacks.coarse import coarse_shape, enlarged
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

SIDE = 32  # of the distribution's images, which are enlarged where the input is larger


@dataclass(frozen=True, kw_only=True)
class NAttackState(Iterate):
    """mean (n, *coarse): of the distribution, in the space of the hyperbolic tangent."""

    mean: Tensor


@dataclass(frozen=True)
class NAttack(Attack[NAttackState]):
    """Normal perturbations before a hyperbolic tangent, their mean moved towards those that do better
    (Li et al. 2019, algorithm 1).

    Theirs has the whole image under the tangent, which holds values at the edge of the box fast; here it is
    the perturbation.

    Parameters
    ----------
    steps : int, default 250
        Of a population each.
    population : int, default 20
        Drawn in each step, in antithetic pairs.
    deviation : float, default 0.1
        Of the distribution.
    rate : float, default 0.02
        Of the mean's steps.

    Notes
    -----
    Cost: population · steps + 1 forward passes, an odd population one more a step.

    Examples
    --------
    >>> NAttack(steps=3).deviation
    0.1
    """

    steps: Count = 250
    population: Count = 20
    deviation: Positive = 0.1
    rate: Positive = 0.02

    name = "nattack"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Li et al. 2019, arXiv:1905.00441"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=self._pairs * 2)

    @property
    def _pairs(self) -> int:
        return -(-self.population // 2)

    def start(self, problem: Problem) -> NAttackState:
        coarse = coarse_shape(tuple(problem.x0.shape[1:]), SIDE)
        mean = 0.001 * problem.random("mean").gaussian(coarse).to(problem.x0)
        return NAttackState(z=_made(problem, mean), mean=mean)

    def step(self, problem: Problem, state: NAttackState) -> NAttackState:
        n, coarse = len(problem), tuple(state.mean.shape[1:])
        half = problem.random("population").gaussian((self._pairs, *coarse)).to(state.mean)
        drawn = torch.cat([half, -half], 1)
        rows = torch.arange(n, device=state.z.device).repeat_interleave(drawn.shape[1])
        latent = (state.mean[:, None] + self.deviation * drawn).flatten(0, 1)
        reward = problem.margins(_made(problem[rows], latent), rows).view(n, -1).to(drawn)
        # Where the budget did not allow an answer it counts as the worst that was given.
        least = reward.masked_fill(reward.isinf(), torch.inf).amin(1, keepdim=True)
        reward = torch.where(reward.isinf(), least, reward).nan_to_num(posinf=0.0)
        reward = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-7)
        step = torch.einsum("nb,nbd->nd", reward, drawn.flatten(2)).reshape(state.mean.shape)
        mean = state.mean + self.rate / (self.deviation * drawn.shape[1]) * step
        return NAttackState(z=_made(problem, mean), mean=mean)


def _made(problem: Problem, latent: Tensor) -> Tensor:
    """The point of the ball that a member of the distribution stands for (n, …)."""
    latent = enlarged(latent, tuple(problem.x0.shape[1:]))
    low, high = problem.threat.domain.bounds(problem.x0)
    return problem.project(problem.x0 + (high - low) / 2 * torch.tanh(latent))
