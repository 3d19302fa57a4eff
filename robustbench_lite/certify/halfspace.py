"""The smallest step into a half-space, inside the box, in any of the four norms: closed forms."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.threat import Norm


def smallest_move(x0: Tensor, direction: Tensor, need: Tensor, norm: Norm, domain: Domain) -> Tensor:
    """The nearest x (n, …) in the box with direction · (x - x0) = need; as near as it gets where none is.

    direction (n, d) float64, need (n,) at least 0.
    """
    origin = x0.double().flatten(1)
    low, high = (bound.expand_as(x0).double().flatten(1) for bound in domain.bounds(x0))
    direction = domain.free(direction.reshape(x0.shape)).flatten(1)
    gain = direction.abs()
    need = need[:, None]
    room = torch.where(direction > 0, high - origin, origin - low).clamp_min(0)
    # In a box without an end: no feature is asked for more than would do by itself.
    room = torch.where(room.isinf(), 2 * need / gain.clamp_min(1e-300), room)
    room = torch.where(gain > 0, room, 0.0)
    match norm:
        case Norm.LINF:
            move = torch.minimum(_level(torch.ones_like(gain), gain, room, need), room)
        case Norm.L2:
            level = _level(gain, gain, room, need)
            move = torch.minimum(torch.where(gain > 0, level * gain, 0.0), room)
        case Norm.L1:
            move = _fill(gain * room, gain, need) * room
        case Norm.L0:
            whole = domain.pixels((gain * room).reshape(x0.shape))
            taken = _fill(whole, whole, need) > 0
            move = domain.spread(taken, x0).flatten(1) * room
    x = (origin + torch.copysign(move, direction)).reshape(x0.shape)
    return domain.clamp(outward(x, x0, direction.reshape(x0.shape)))


def _level(speed: Tensor, gain: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """The smallest t (n, 1) with sum gain · min(t · speed, room) >= need; inf where the box is too small."""
    full = torch.where(gain > 0, room / speed.clamp_min(1e-300), 0.0)  # t at which a feature meets the box
    turn, order = full.sort(1)
    fixed = (gain * room).gather(1, order).cumsum(1)
    slope = (gain * speed).gather(1, order)
    rising = slope.flip(1).cumsum(1).flip(1)
    before = torch.cat([torch.zeros_like(need), fixed[:, :-1]], 1)  # gained by those at the box already
    total = fixed + turn * (rising - slope)  # the sum at each turn
    k = (total < need).sum(1, keepdim=True)
    inside = k.clamp_max(total.shape[1] - 1)
    t = (need - before.gather(1, inside)) / rising.gather(1, inside).clamp_min(1e-300)
    return torch.where(k < total.shape[1], t, torch.inf)


def _fill(amount: Tensor, worth: Tensor, need: Tensor) -> Tensor:
    """The share of each amount taken, those of most worth first, until their sum is `need`."""
    order = worth.argsort(stable=True, dim=1, descending=True)
    size = amount.gather(1, order)
    before = size.cumsum(1) - size
    share = ((need - before) / size.clamp_min(1e-300)).clamp(0, 1) * (size > 0)
    return torch.zeros_like(share).scatter(1, order, share)


def outward(x: Tensor, x0: Tensor, direction: Tensor) -> Tensor:
    """x in x0's type, rounded away from x0 where rounding would fall short of it."""
    single = x.to(x0.dtype)
    short = (single.double() - x0.double()).abs() < (x - x0.double()).abs()
    away = torch.copysign(torch.full_like(x0, torch.inf), direction.to(x0))
    return torch.where(short, torch.nextafter(single, away), single)
