"""Exact Euclidean projections onto an lp ball around x0 intersected with the box.

Each solves its optimality conditions in float64, those of l1 by sorting breakpoints:
with v = x - x0 and u the room to the box in the direction of v, every solution is sign(v) · m with
0 <= m <= u. l2: m = min(|v| / s, u) with ||m||_2 = eps; l1: m = min(max(|v| - t, 0), u) with
sum m = eps (the simplex projection of Duchi et al. 2008 with upper bounds); linf: m = min(|v|, u, eps);
l0: the eps pixels whose keeping lowers the squared distance most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain

ROUNDS = 30  # at most, of finding which coordinates are at the box


def onto_ball(x: Tensor, x0: Tensor, eps: Tensor, norm: str, domain: Domain) -> Tensor:
    """The point of the ball and box nearest to each row of x (n, …); eps (n,); norm l0, l1, l2 or linf."""
    if norm == "linf":
        return _linf(x, x0, eps, domain)
    if domain.mask is not None:
        x = torch.where(domain.mask, x, x0)
    origin = x0.double().flatten(1)
    # One number for all is not written out for every feature.
    bounds = domain.bounds(x0)
    low, high = (b.double() if b.dim() == 0 else b.expand_as(x0).double().flatten(1) for b in bounds)
    v = x.double().flatten(1) - origin
    size = v.abs()
    room = torch.where(v > 0, high - origin, origin - low).clamp_min_(0)
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


def in_fewer_bits(x: Tensor, x0: Tensor, dtype: torch.dtype, outward: bool, domain: Domain) -> Tensor:
    """x as a shorter type of number can write it (n, …), which can write x0: never further from x0.

    outward: never nearer instead, inside the box: past a boundary rather than before it.
    """
    short, moved = x.to(dtype), (x.double() - x0.double()).abs()
    written = (short.double() - x0.double()).abs()
    if outward:
        away = torch.where(x > x0, torch.inf, -torch.inf).to(dtype)
        short = torch.where(written < moved, torch.nextafter(short, away), short)
        return domain.clamp(short.to(x.dtype))
    return torch.where(written > moved, torch.nextafter(short, x0.to(dtype)), short).to(x.dtype)


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
    """min(size / s, room) with the s >= 1 that makes its length eps, or s = 1 when that is inside.

    With the coordinates given that are at the box, s is a square root. Begun with none of them, s falls from
    round to round and more are at the box, until none joins them; ended early, the length is too short.
    """
    own, most = size.square(), room.square()
    turn = size / room.clamp_min(1e-300)  # the scale below which a coordinate is at the box
    total, scale = own.sum(1, keepdim=True), torch.full_like(eps, torch.inf)
    free, left = total, eps.square()
    for _ in range(ROUNDS):
        before, scale = scale, (free / left.clamp_min(1e-300)).sqrt()
        if not size.is_cuda and bool((scale >= before).all()):  # a device of its own is not waited for
            break
        boxed = turn > scale
        left = eps.square() - most.masked_fill(~boxed, 0.0).sum(1, keepdim=True)
        free = own.masked_fill(boxed, 0.0).sum(1, keepdim=True)
    scale = torch.where(total > 0, scale, 1.0).clamp_min(1.0)
    length = torch.minimum(size / scale, room)
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
