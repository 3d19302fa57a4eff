"""Linear models: the nearest point of another class, in closed form or by a programme a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.certify.certifier import Bounds, Question, counts_choices, rounded_down
from robustbench_lite.certify.halfspace import outward, smallest_move
from robustbench_lite.certify.least_distance import shortest_steps
from robustbench_lite.certify.polytope import smallest_step
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.shape import pieces
from robustbench_lite.core.structure import Linear
from robustbench_lite.core.threat import Norm, Threat

MANY = 100  # classes up to which programmes are solved for many samples at once


class LinearBounds:
    """The exact distance of every sample to the nearest other class, or to the class sought."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for models whose structure is linear, under a norm."""
        if not isinstance(model.structure, Linear) or threat.norm is None:
            return f"{model.name} is no linear model under a norm"
        return counts_choices(threat)

    def bounds(self, question: Question) -> Bounds:
        """Exact, the least over the classes that will do; sound with steps or orders of features."""
        structure, threat, x0, y = question.model.structure, question.threat, question.x0, question.y
        assert isinstance(structure, Linear)
        # Without the steps of features everything is allowed that is with them: still a bound, and cheap.
        norm, domain = question.norm, replace(threat.domain, spacing=None, groups=None, orders=())
        scores, target = scores_of(structure, x0), question.target
        nearest = torch.full((len(x0),), torch.inf, dtype=torch.float64, device=x0.device)
        classes = range(1, len(structure.bias)) if target is None else range(target.shape[1])
        for number in classes:
            to = (y + number) % len(structure.bias) if target is None else target[:, number]
            point = nearest_point(Aim(structure, norm, domain, target is not None), x0, y, to)
            gained = scores_of(structure, point).gather(1, to[:, None])[:, 0]
            beaten = scores_of(structure, point)
            rival = beaten.gather(1, y[:, None])[:, 0]
            if target is not None:
                rival = beaten.scatter(1, to[:, None], -torch.inf).amax(1)
            room = 1e-7 * (1 + scores.abs().amax(1))
            there = (gained >= rival - room) & (to != y)
            distance = threat.distance(point, x0)
            nearest = torch.minimum(nearest, torch.where(there, distance, torch.inf))
        exact = torch.full_like(y, threat.domain.whole, dtype=torch.bool)
        return Bounds(rounded_down(nearest, norm), exact, "linear")


def scores_of(structure: Linear, x: Tensor) -> Tensor:
    """The scores of x (n, …) in float64 (n, K)."""
    weight, bias = (part.to(x.device) for part in (structure.weight, structure.bias))
    return x.double().flatten(1) @ weight.T + bias


@dataclass(frozen=True)
class Aim:
    """What is sought on a linear model: in which norm and domain, past y alone or past every other class.

    margin: by how much the scores are to be passed; overshoot: how much more, relative to the scores.
    """

    structure: Linear
    norm: Norm
    domain: Domain
    targeted: bool
    margin: float = 0.0
    overshoot: float = 0.0


def nearest_point(aim: Aim, x0: Tensor, y: Tensor, to: Tensor) -> Tensor:
    """The point nearest to each x0 (n, …) where class `to` (n,) passes y (n,), or all others with a target.

    As near as it gets where there is none.
    """
    if aim.targeted or aim.domain.spacing is not None:
        return _by_programme(aim, x0, y, to)
    scores, weight = scores_of(aim.structure, x0), aim.structure.weight.to(x0.device)
    gap = (scores.gather(1, y[:, None]) - scores.gather(1, to[:, None]))[:, 0] + aim.margin
    need = gap + aim.overshoot * (gap.abs() + scores.abs().amax(1))
    return smallest_move(x0, weight[to] - weight[y], need.clamp_min(0), aim.norm, aim.domain)


def _by_programme(aim: Aim, x0: Tensor, y: Tensor, to: Tensor) -> Tensor:
    structure, domain = aim.structure, aim.domain
    weight, bias = (part.cpu().numpy() for part in (structure.weight, structure.bias))
    origin = x0.double().flatten(1).cpu().numpy()
    low, high = (b.expand_as(x0).double().flatten(1).cpu().numpy() - origin for b in domain.bounds(x0))
    if domain.mask is not None:
        fixed = ~domain.mask.expand_as(x0).flatten(1).cpu().numpy()
        low[fixed], high[fixed] = 0.0, 0.0
    unit = np.zeros(origin.shape[1])
    if domain.spacing is not None:
        unit = domain.spacing.expand_as(x0[0]).flatten().double().cpu().numpy()
    count = domain.pixels(x0[:1]).shape[1]
    number = torch.arange(count, device=x0.device, dtype=x0.dtype)[None]
    pixel = domain.spread(number, x0[:1]).flatten().long().cpu().numpy()
    scores = origin @ weight.T + bias
    balanced = _balanced(domain, origin.shape[1])
    steps, solved = _at_once(aim, x0, to, scores, low, high)
    for i in np.flatnonzero(~solved):
        goal, own = int(to[i]), int(y[i])
        others = np.arange(len(bias)) != goal if aim.targeted else np.arange(len(bias)) == own
        more = aim.margin + aim.overshoot * np.abs(scores[i]).max()
        need = scores[i, others] - scores[i, goal] + more
        normals = np.concatenate([weight[goal] - weight[others], balanced])
        need = np.append(need, np.zeros(len(balanced)))
        step = smallest_step(normals, need, low[i], high[i], aim.norm, pixel, unit)
        steps[i] = 0.0 if step is None else step
    delta = torch.from_numpy(steps).to(x0.device).reshape(x0.shape)
    point = outward(x0.double() + delta, x0, delta)
    if domain.spacing is not None:  # a step is written as float32 writes it
        point = torch.where(domain.spacing > 0, (x0.double() + delta).to(x0.dtype), point)
    return domain.clamp(point)


def _at_once(
    aim: Aim, x0: Tensor, to: Tensor, scores: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The steps (n, d) of all samples together where that can be, and which rows are solved (n,)."""
    steps, solved = np.zeros(low.shape), np.zeros(len(low), dtype=bool)
    if aim.norm is not Norm.L2 or not aim.targeted or not aim.domain.whole or len(aim.structure.bias) > MANY:
        return steps, solved
    weight, aimed = aim.structure.weight.cpu(), to.cpu()
    others = (aimed[:, None] + torch.arange(1, len(weight))) % len(weight)
    said = torch.from_numpy(scores)
    need = said.gather(1, others) - said.gather(1, aimed[:, None]) + aim.margin
    need += aim.overshoot * said.abs().amax(1, keepdim=True)
    for rows in pieces(weight.expand(len(x0), -1, -1)):
        normals = weight[aimed[rows]][:, None] - weight[others[rows]]
        box = (torch.from_numpy(side[rows]) for side in (low, high))
        found, done = shortest_steps(normals, need[rows], *box)
        steps[rows], solved[rows] = found.numpy(), done.numpy()
    return steps, solved


def _balanced(domain: Domain, d: int) -> np.ndarray:
    """Rows (m, d) whose products with a step must not be below 0, so that one of each choice stays chosen."""
    if domain.groups is None:
        return np.zeros((0, d))
    groups = domain.groups.cpu().numpy()
    members = np.stack([(groups == number).astype(np.float64) for number in np.unique(groups[groups >= 0])])
    return np.concatenate([members, -members])
