"""Trees: the nearest point of another leaf, to the last float."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.certify.certifier import Bounds, Question
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.structure import Boxes
from robustbench_lite.core.threat import Norm, Threat, norms

ROOM = 1 << 24  # numbers held at once


def nearest_in_boxes(x0: Tensor, boxes: Boxes, sought: Tensor, norm: Norm, domain: Domain) -> Tensor:
    """The point of an admissible box nearest to each row of x0 (n, …), itself where there is none.

    sought (n, m): which boxes will do.
    """
    x = x0.flatten(1)
    least, most = (bound.expand_as(x0[:1]).flatten(1) for bound in domain.bounds(x0))
    low = torch.maximum(torch.nextafter(boxes.low, torch.full_like(boxes.low, torch.inf)), least)
    high = torch.minimum(boxes.high, most)
    clipped, possible = _clipped(x0, low, high, domain)
    delta = clipped - x[:, None, :]  # (n, boxes, d)
    if domain.mask is not None:
        fixed = ~domain.mask.expand_as(x0[:1]).flatten()
        possible = possible & (delta[:, :, fixed] == 0).all(2)
    rough = torch.where(possible & sought, _rough(delta, norm, x0, domain), torch.inf)
    # In float32 several boxes may seem equally near; those are measured again, in float64.
    near = rough <= rough.amin(1, keepdim=True) * (1 + 1e-5)
    some = rough.topk(int(near.sum(1).amax()), dim=1, largest=False).indices
    rows = torch.arange(len(x), device=x.device)[:, None].expand_as(some)
    points = clipped[rows, some].flatten(0, 1).reshape(-1, *x0.shape[1:])
    exact = norms(points.double() - x0[rows.flatten()].double(), domain, norm).reshape(some.shape)
    exact = torch.where(rough.gather(1, some) < torch.inf, exact, torch.inf)
    best = exact.argmin(1, keepdim=True)
    found = points.reshape(*some.shape, *x0.shape[1:])[rows[:, 0], best[:, 0]]
    exists = exact.gather(1, best)[:, 0] < torch.inf
    return torch.where(exists.reshape(-1, *[1] * (x0.dim() - 1)), found, x0)


def _clipped(x0: Tensor, low: Tensor, high: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
    """x0 clipped into each box (n, m, d), on the grid where features take steps; which boxes hold a point."""
    x = x0.flatten(1)[:, None, :]
    clipped = x.clamp(low, high)
    possible = (low <= high).all(1).expand(len(x0), -1)
    if domain.spacing is None:
        return clipped, possible
    spacing = domain.spacing.expand_as(x0[0]).flatten()
    unit = torch.where(spacing > 0, spacing, 1.0).double()
    least, most = (part.expand_as(x0).flatten(1)[:, None, :] for part in domain.steps(x0))
    steps = (clipped.double() - x.double()) / unit
    # The first step that lies in the box as float32 writes it: from two before, which is outside.
    up = steps > 0
    steps = torch.where(up, (steps.ceil() - 2).clamp_min(0), (steps.floor() + 2).clamp_max(0))
    for _ in range(5):
        grid = (x.double() + steps * unit).to(x0.dtype)
        steps = steps + (up & (grid < low)).double() - (~up & (grid > high)).double()
    steps = torch.minimum(torch.maximum(steps, least), most)
    grid = (x.double() + steps * unit).to(x0.dtype)
    point = torch.where(spacing > 0, grid, clipped)
    return point, possible & ((point >= low) & (point <= high)).all(2)


def _rough(delta: Tensor, norm: Norm, x0: Tensor, domain: Domain) -> Tensor:
    """The norm of each (n, m, d) in float32, (n, m)."""
    match norm:
        case Norm.LINF:
            return torch.maximum(delta.amax(2), -delta.amin(2))
        case Norm.L2:
            return torch.einsum("nmd,nmd->nm", delta, delta).sqrt()
        case Norm.L1:
            return delta.abs().sum(2)
        case Norm.L0:
            changed = (delta != 0).flatten(0, 1).reshape(-1, *x0.shape[1:]).float()
            return (domain.pixels(changed) > 0).sum(1).reshape(delta.shape[:2]).float()


class TreeBounds:
    """The exact distance of every sample to the nearest leaf that will do."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for models that are boxes, under a norm."""
        if not isinstance(model.structure, Boxes) or threat.norm is None:
            return f"{model.name} is no tree under a norm"
        return None

    def bounds(self, question: Question) -> Bounds:
        """Exact, to the last float; sound where features make up choices or have an order."""
        boxes, x0, threat = question.model.structure, question.x0, question.threat
        assert isinstance(boxes, Boxes)
        rows = torch.split(torch.arange(len(x0), device=x0.device), max(1, ROOM // boxes.low.numel()))
        points = torch.cat([self._nearest(boxes, question[some]) for some in rows])
        moved = (points != x0).flatten(1).any(1)
        distance = torch.where(moved, threat.distance(points, x0), torch.inf)
        # What a box holds need not be one of each choice, nor in order.
        exact = torch.full_like(moved, threat.domain.groups is None and not threat.domain.orders)
        return Bounds(distance, exact, "leaves", nearest=points)

    def _nearest(self, boxes: Boxes, question: Question) -> Tensor:
        sought = question.sought[:, boxes.label]
        return nearest_in_boxes(question.x0, boxes, sought, question.norm, question.threat.domain)
