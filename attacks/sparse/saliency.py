"""Attacks by saliency maps: pixel after pixel, the one that moves the scores most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.attacks.minimum_norm.deepfool import elsewhere, of_class
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule


@dataclass(frozen=True, kw_only=True)
class SaliencyState(Iterate):
    """toward (n,): the class aimed at."""

    toward: Tensor


@dataclass(frozen=True)
class JSMA(Attack[SaliencyState]):
    """The feature that raises the class aimed at and lowers the others most goes to the end of the box
    (Papernot et al. 2016, algorithm 3, on the scores; one pixel a step rather than two).

    Without a target the likeliest wrong class is aimed at. A pixel changes once; a sample is done at its
    first success.

    Parameters
    ----------
    steps : int, default 100
        Pixels, at most.

    Notes
    -----
    Cost: at most steps + 2 forward passes, steps · K backward.

    Examples
    --------
    >>> JSMA(steps=3).steps
    3
    """

    steps: Count = 100

    name = "jsma"
    norms = frozenset({Norm.L0})
    paper = "Papernot et al. 2016, arXiv:1511.07528"
    minimum_norm = True
    fixed_budget = False

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, passes=self.steps * (1 + model.num_classes))

    def start(self, problem: Problem) -> SaliencyState:
        toward = problem.target
        if toward is None:
            toward = problem.likeliest(problem.scores(problem.x0), 1)[:, 0]
        return SaliencyState(z=problem.x0, toward=toward)

    def step(self, problem: Problem, state: SaliencyState) -> SaliencyState:
        up, down = self._saliency(problem, state)
        return SaliencyState(
            z=self._changed(problem, state.z, up, down), toward=state.toward, done=problem.found
        )

    def _saliency(self, problem: Problem, state: SaliencyState) -> tuple[Tensor, Tensor]:
        """How much each feature gains by going up, and by going down (n, …), by what the box leaves."""
        classes = torch.arange(problem.oracle.model.num_classes, device=state.z.device)
        gradient, _ = problem.jacobian(state.z, classes.expand(len(problem), -1))
        gradient = problem.threat.domain.free(gradient).nan_to_num(posinf=0, neginf=0)
        own = of_class(gradient, state.toward[:, None])[:, 0]
        others = gradient.sum(1) - own
        both = torch.where(own * others < 0, own * others.abs(), 0.0)
        # Where no feature does both, the one that helps more in sum.
        rising = torch.where(per_row(both.flatten(1).any(1), both), both, own - others)
        flat = per_row(~rising.flatten(1).any(1), rising)
        return _room(problem, state.z, torch.where(flat, elsewhere(problem, state.z) - state.z, rising))

    def _changed(self, problem: Problem, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """x with one more pixel at the end of the box."""
        domain = problem.threat.domain
        best = domain.pixels(torch.maximum(up, down))
        chosen = _one(best, x, problem)
        low, high = domain.bounds(x)
        end = torch.where(up >= down, high.expand_as(x), low.expand_as(x))
        return torch.where(chosen & (torch.maximum(up, down) > 0), end, x)


@dataclass(frozen=True)
class VFGA(JSMA):
    """The pixels by which the margin rises most upwards and downwards, each at values drawn on its side; the
    best point goes on (Hajri et al. 2020, algorithm 3).

    Parameters
    ----------
    steps : int, default 100
        Pixels, at most.
    draws : int, default 10
        Values for each of the two, half normal over what the box leaves.

    Notes
    -----
    Cost: at most steps · (2 · draws + 1) + 2 forward passes, steps backward.

    Examples
    --------
    >>> VFGA(steps=3).draws
    10
    """

    draws: Count = 10

    name = "vfga"
    paper = "Hajri et al. 2020, arXiv:2011.12423"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=2 * self.draws, passes=self.steps * (2 * self.draws + 2))

    def _saliency(self, problem: Problem, state: SaliencyState) -> tuple[Tensor, Tensor]:
        return _room(problem, state.z, problem.evaluate(state.z, margin).gradient)

    def _changed(self, problem: Problem, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """x with one more pixel at the best of the values that were drawn for it."""
        domain, n = problem.threat.domain, len(x)
        low, high = domain.bounds(x)
        tried = []
        for side, end in ((up, high), (down, low)):
            chosen = _one(domain.pixels(side), x, problem)[:, None]
            drawn = problem.random("up" if side is up else "down").gaussian((self.draws, *x.shape[1:]))
            part = drawn.abs().to(x).clamp_max(1.0)
            tried.append(torch.where(chosen, x[:, None] + part * (end - x)[:, None], x[:, None]))
        points = domain.kept(torch.cat(tried, 1), x[:, None]).flatten(0, 1)
        rows = torch.arange(n, device=x.device).repeat_interleave(2 * self.draws)
        gained = problem.margins(points, rows).view(n, -1)
        best = gained.argmax(1) + 2 * self.draws * torch.arange(n, device=x.device)
        return domain.clamp(points[best])


def _room(problem: Problem, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """What each feature gains along a gradient by going to either end of the box (n, …), the upper first."""
    low, high = problem.threat.domain.bounds(x)
    gradient = problem.threat.domain.free(gradient)
    return gradient.clamp_min(0) * (high - x), (-gradient).clamp_min(0) * (x - low)


def _one(worth: Tensor, x: Tensor, problem: Problem) -> Tensor:
    """The pixel of greatest worth (n, pixels) that has not changed yet, as a mask (n, …)."""
    domain = problem.threat.domain
    fresh = domain.pixels((x != problem.x0).to(worth)) == 0
    best = torch.where(fresh, worth, -1.0).argmax(1, keepdim=True)
    return domain.spread(torch.zeros_like(worth).scatter(1, best, 1.0), x) > 0
