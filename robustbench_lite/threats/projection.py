"""Exact Euclidean projections onto an lp ball around x0 intersected with the box.

Each solves its optimality conditions by sorting breakpoints, in float64, O(d log d) a row:
with v = x - x0 and u the room to the box in the direction of v, every solution is sign(v) · m with
0 <= m <= u. l2: m = min(|v| / s, u) with ||m||_2 = eps; l1: m = min(max(|v| - t, 0), u) with
sum m = eps (the simplex projection of Duchi et al. 2008 with upper bounds); linf: m = min(|v|, u, eps);
l0: the eps pixels whose keeping lowers the squared distance most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain


def onto_ball(x: Tensor, x0: Tensor, eps: Tensor, norm: str, domain: Domain) -> Tensor:
    """The point of the ball and box nearest to each row of x (n, …); eps (n,); norm l0, l1, l2 or linf."""
    if norm == "linf":
        return _linf(x, x0, eps, domain)
    if domain.mask is not None:
        x = torch.where(domain.mask, x, x0)
    origin = x0.double().flatten(1)
    low, high = (bound.expand_as(x0).double().flatten(1) for bound in domain.bounds(x0))
    v = x.double().flatten(1) - origin
    size = v.abs()
    room = torch.where(v > 0, high - origin, origin - low).clamp_min(0)
    radius = eps.double()[:, None]
    if norm == "l0":
        kept = torch.minimum(size, room)
        gain = domain.pixels((size.square() - (size - kept).square()).reshape(x.shape))
        rank = gain.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        length = kept * domain.spread((rank < radius) & (gain > 0), x).flatten(1)
    else:
        length = (_l1 if norm == "l1" else _l2)(size, room, radius)
    move = torch.copysign(length, v)
    return _towards(x0, (origin + move).reshape(x.shape), move.reshape(x.shape))


def _towards(x0: Tensor, target: Tensor, move: Tensor) -> Tensor:
    """x0 + move in x0's type, each coordinate rounded towards x0 where rounding would pass the target."""
    return _inward(target.to(x0.dtype), x0, move.abs())


def _inward(x: Tensor, x0: Tensor, most: Tensor) -> Tensor:
    """x, each coordinate one float nearer to x0 where it is further than `most` (float64) from it."""
    beyond = (x.double() - x0.double()).abs() > most
    return torch.where(beyond, torch.nextafter(x, x0), x)


def in_fewer_bits(x: Tensor, x0: Tensor, dtype: torch.dtype) -> Tensor:
    """x as a shorter type of number can write it (n, …): never further from x0, which it can write itself."""
    short = x.to(dtype)
    beyond = (short.double() - x0.double()).abs() > (x.double() - x0.double()).abs()
    return torch.where(beyond, torch.nextafter(short, x0.to(dtype)), short).to(x.dtype)


def _linf(x: Tensor, x0: Tensor, eps: Tensor, domain: Domain) -> Tensor:
    radius = eps.double().reshape(-1, *[1] * (x.dim() - 1))
    if domain.mask is not None:
        radius = radius * domain.mask
    low, high = domain.bounds(x0)
    origin = x0.double()  # a sum in float64 is at most one float away from the sphere
    upper = torch.minimum(_inward((origin + radius).to(x0.dtype), x0, radius), high)
    lower = torch.maximum(_inward((origin - radius).to(x0.dtype), x0, radius), low)
    return torch.minimum(torch.maximum(x, lower), upper)


def _l2(size: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """min(size / s, room) with the s >= 1 that makes its length eps, or s = 1 when that is inside."""
    # A coordinate stays at the box while s <= size / room; sorted so, those at the box are a suffix.
    turn = torch.where(size > 0, size / room.clamp_min(1e-300), 0.0).clamp_max(1e300)
    turn, order = turn.sort(1)
    free = torch.cat([torch.zeros_like(eps), size.gather(1, order).square().cumsum(1)], 1)
    boxed = room.square().gather(1, order).flip(1).cumsum(1).flip(1)
    boxed = torch.cat([boxed, torch.zeros_like(eps)], 1)
    # With the first k coordinates free the scale is s_k; it is right where turn_{k-1} < s_k <= turn_k.
    left = eps.square() - boxed
    scale = torch.where(left > 0, (free / left.clamp_min(1e-300)).sqrt(), torch.inf)
    upper = torch.cat([turn, torch.full_like(eps, torch.inf)], 1)
    first = (scale <= upper).to(torch.uint8).argmax(1, keepdim=True)
    chosen = scale.gather(1, first).clamp_min(1.0)
    inside = torch.linalg.vector_norm(torch.minimum(size, room), dim=1, keepdim=True) <= eps
    length = torch.minimum(size / torch.where(inside, 1.0, chosen), room)
    return _no_longer(length, torch.linalg.vector_norm(length, dim=1, keepdim=True), eps)


def _l1(size: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """min(max(size - t, 0), room) with the t >= 0 that makes its sum eps, or t = 0 when that is inside."""
    # The sum falls in t with slope -(number strictly between its two turns): size - room and size.
    turns = torch.cat([size, (size - room).clamp_min(0)], 1)
    slope = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1)
    turns, order = turns.sort(1, descending=True)
    slope = slope.gather(1, order).cumsum(1)
    step = turns - torch.cat([turns[:, 1:], torch.zeros_like(eps)], 1)
    total = torch.cat([torch.zeros_like(eps), (slope * step).cumsum(1)], 1)
    # total[k] is the sum at t = turns[k]; the last entry is the sum at t = 0.
    k = (total >= eps).to(torch.uint8).argmax(1, keepdim=True).clamp_min(1)
    excess = (eps - total.gather(1, k - 1)) / slope.gather(1, k - 1).clamp_min(1.0)
    threshold = (turns.gather(1, k - 1) - excess).clamp_min(0)
    inside = torch.minimum(size, room).sum(1, keepdim=True) <= eps
    threshold = torch.where(inside, 0.0, threshold)
    length = torch.minimum((size - threshold).clamp_min(0), room)
    return _no_longer(length, length.sum(1, keepdim=True), eps)


def _no_longer(length: Tensor, measured: Tensor, eps: Tensor) -> Tensor:
    """The length scaled down by what float64 rounding added, with room for another order of summing."""
    shrink = (eps / measured.clamp_min(1e-300)) * (1 - 1e-12)
    return torch.where(measured > eps * (1 - 1e-12), length * shrink.clamp_max(1.0), length)
