"""The nearest point of a union of boxes, to the last float."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.model import Boxes
from robustbench_lite.core.threat import Norm
from robustbench_lite.threats.ball import Lp


def nearest_in_boxes(x0: Tensor, boxes: Boxes, sought: Tensor, threat: Lp) -> Tensor:
    """The point of an admissible box nearest to each row of x0 (n, …), itself where there is none.

    sought (n, m): which boxes will do.
    """
    domain = threat.domain
    x = x0.flatten(1)
    least, most = (bound.expand_as(x0[:1]).flatten(1) for bound in domain.bounds(x0))
    low = torch.maximum(torch.nextafter(boxes.low, torch.full_like(boxes.low, torch.inf)), least)
    high = torch.minimum(boxes.high, most)
    delta = x[:, None, :].clamp(low, high).sub_(x[:, None, :])  # (n, boxes, d)
    possible = (low <= high).all(1).expand(len(x), -1)
    if domain.mask is not None:
        fixed = ~domain.mask.expand_as(x0[:1]).flatten()
        possible = possible & (delta[:, :, fixed] == 0).all(2)
    rough = torch.where(possible & sought, _rough(delta, threat.norm, x0, domain), torch.inf)
    # In float32 several boxes may seem equally near; those are measured again, in float64.
    near = rough <= rough.amin(1, keepdim=True) * (1 + 1e-5)
    some = rough.topk(int(near.sum(1).amax()), dim=1, largest=False).indices
    rows = torch.arange(len(x), device=x.device)[:, None].expand_as(some)
    points = x[:, None, :].clamp(low[some], high[some]).flatten(0, 1).reshape(-1, *x0.shape[1:])
    exact = threat.distance(points, x0[rows.flatten()]).reshape(some.shape)
    exact = torch.where(rough.gather(1, some) < torch.inf, exact, torch.inf)
    best = exact.argmin(1, keepdim=True)
    found = points.reshape(*some.shape, *x0.shape[1:])[rows[:, 0], best[:, 0]]
    exists = exact.gather(1, best)[:, 0] < torch.inf
    return torch.where(exists.reshape(-1, *[1] * (x0.dim() - 1)), found, x0)


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
