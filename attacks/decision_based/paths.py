"""Changes that any photograph may meet, as much of them as it takes: a path for each sample."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

HALVINGS = 10  # between the first point that succeeds and the last that does not
BISECTIONS = 30  # for the share of the path that the ball holds, which takes no query


@dataclass(frozen=True, kw_only=True)
class PathState(Iterate):
    """limit (n,): the share of the path inside the ball; low, high (n,): shares that fail and succeed.

    high is inf until there is one.
    """

    limit: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Path(Attack[PathState]):
    """Points of a path in order, until one succeeds; then between it and the one before.

    Parameters
    ----------
    steps : int, default 100
        Points of the path; for a fixed eps, of the part within it.

    Notes
    -----
    Cost: at most steps + 11 forward passes.
    """

    steps: Count = 100

    access = Access.DECISION
    minimum_norm = True
    control = True

    @abstractmethod
    def at(self, problem: Problem, share: Tensor) -> Tensor:
        """The point of each row's path after a share of it (n, …); x0 at 0."""

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps + HALVINGS)

    def start(self, problem: Problem) -> PathState:
        none = torch.zeros_like(problem.eps)
        low, high = none, none + 1
        if problem.threat.eps is not None:
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                inside = problem.threat.distance(self._point(problem, middle), problem.x0) <= problem.eps
                low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
            high = low
        return PathState(z=problem.x0, limit=high, low=none, high=torch.full_like(none, torch.inf))

    def step(self, problem: Problem, state: PathState) -> PathState:
        known = state.high < torch.inf
        next_ = state.limit * min(1.0, problem.step / self.steps)
        share = torch.where(known, (state.low + state.high) / 2, next_)
        x = self._point(problem, share)
        good = problem.decisions(x)
        low, high = torch.where(good, state.low, share), torch.where(good, share, state.high)
        near = high - low < 1e-4 * state.limit
        lost = (problem.step >= self.steps) & (high == torch.inf)
        return PathState(
            z=torch.where(per_row(good, x), x, state.z),
            limit=state.limit,
            low=low,
            high=high,
            done=near | lost,
        )

    def _point(self, problem: Problem, share: Tensor) -> Tensor:
        domain = problem.threat.domain
        return domain.clamp(domain.kept(self.at(problem, share), problem.x0))


@dataclass(frozen=True)
class Contrast(Path):
    """Towards the middle of the box: less and less contrast (Foolbox's `ContrastReduction`).

    Parameters
    ----------
    steps : int, default 100
        As in `Path`.

    Notes
    -----
    Cost: at most steps + 11 forward passes.

    Examples
    --------
    >>> Contrast(steps=3).steps
    3
    """

    name = "contrast"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Rauber, Brendel & Bethge 2017, arXiv:1707.04131"

    def at(self, problem: Problem, share: Tensor) -> Tensor:
        low, high = problem.threat.domain.bounds(problem.x0)
        return problem.x0 + per_row(share, problem.x0) * ((low + high) / 2 - problem.x0)


@dataclass(frozen=True)
class BlendedNoise(Path):
    """Towards an image of uniform noise (Foolbox's `LinearSearchBlendedUniformNoise`).

    Parameters
    ----------
    steps : int, default 100
        As in `Path`.

    Notes
    -----
    Cost: at most steps + 11 forward passes.

    Examples
    --------
    >>> BlendedNoise(steps=3).steps
    3
    """

    name = "blended_noise"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Rauber, Brendel & Bethge 2017, arXiv:1707.04131"

    def at(self, problem: Problem, share: Tensor) -> Tensor:
        low, high = problem.threat.domain.bounds(problem.x0)
        drawn = problem.steady("noise").uniform(tuple(problem.x0.shape[1:]), problem.x0.dtype)
        return problem.x0 + per_row(share, problem.x0) * (low + (high - low) * drawn - problem.x0)


@dataclass(frozen=True)
class SaltAndPepper(Path):
    """More and more pixels, in random order, at either end of the box (Foolbox's `SaltAndPepperNoise`).

    Parameters
    ----------
    steps : int, default 100
        As in `Path`.

    Notes
    -----
    Cost: at most steps + 11 forward passes.

    Examples
    --------
    >>> SaltAndPepper(steps=3).steps
    3
    """

    name = "salt_and_pepper"
    paper = "Rauber, Brendel & Bethge 2017, arXiv:1707.04131"

    def at(self, problem: Problem, share: Tensor) -> Tensor:
        x0, domain = problem.x0, problem.threat.domain
        low, high = domain.bounds(x0)
        noise = problem.steady("noise")
        pixels = domain.pixels(x0[:1]).shape[1]
        hit = noise.fold("which").uniform((pixels,), torch.float64) < share[:, None]
        salt = noise.fold("salt").integers(2, (pixels,)).to(x0)
        ends = torch.where(domain.spread(salt, x0) > 0, high, low)
        return torch.where(domain.spread(hit.to(x0), x0) > 0, ends, x0)


@dataclass(frozen=True)
class Blur(Path):
    """A Gaussian that grows until it is half as wide as the image (Foolbox's `GaussianBlur`).

    Parameters
    ----------
    steps : int, default 100
        As in `Path`.

    Notes
    -----
    Cost: at most steps + 11 forward passes.

    Examples
    --------
    >>> Blur(steps=3).steps
    3
    """

    name = "blur"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Rauber, Brendel & Bethge 2017, arXiv:1707.04131"

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if len(model.input_shape) != 3:
            return f"blur is for images (C, H, W); {model.name} takes {model.input_shape}"
        return super().refuses(model, threat, goal)

    def at(self, problem: Problem, share: Tensor) -> Tensor:
        x0 = problem.x0
        width = share * max(x0.shape[2:]) / 2
        rows, columns = (_weights(side, width).to(x0) for side in x0.shape[2:])
        return torch.einsum("nij,ncjk,nlk->ncil", rows, x0, columns)


def _weights(side: int, width: Tensor) -> Tensor:
    """What each pixel of a line takes of every other: a Gaussian that ends with the line (n, s, s)."""
    place = torch.arange(side, device=width.device, dtype=width.dtype)
    away = (place[:, None] - place) / width.clamp_min(1e-3)[:, None, None]
    return (-away.square() / 2).softmax(2)
