"""Exact Euclidean projections onto an lp ball around x0 intersected with the box.

Each solves its optimality conditions in float64. With v = x - x0 and the box as seen from x0, [lo, hi], a
solution is a number for each row. l2: clamp(q · v, lo, hi) with the q <= 1 that makes its length eps; l1:
clamp(v shrunk by t, lo, hi) with the t >= 0 that makes its sum eps (the simplex projection of Duchi et al.
2008 with upper bounds); linf: clamp(v, -eps, eps) in the box; l0: the eps pixels whose keeping lowers the
squared distance most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.shape import pieces

ROUNDS = 60  # at most, of narrowing the l2 share down
LOOKS = 4  # at what surely does not move in l1, before the rest is sorted


def onto_ball(x: Tensor, x0: Tensor, eps: Tensor, norm: str, domain: Domain) -> Tensor:
    """The point of the ball and box nearest to each row of x (n, …); eps (n,); norm l0, l1, l2 or linf."""
    done = [_onto_ball(x[s], x0[s], eps[s], norm, domain) for s in pieces(x0)]
    return done[0] if len(done) == 1 else torch.cat(done)


def _onto_ball(x: Tensor, x0: Tensor, eps: Tensor, norm: str, domain: Domain) -> Tensor:
    if norm == "linf":
        return _linf(x, x0, eps, domain)
    if domain.mask is not None:
        x = torch.where(domain.mask, x, x0)
    origin = x0.double().flatten(1)
    # One number for all is not written out for every feature.
    bounds = domain.bounds(x0)
    low, high = (b if b.dim() == 0 else b.expand_as(x0).flatten(1) for b in bounds)
    v, room = x.flatten(1) - origin, (low - origin, high - origin)
    radius = eps.double()[:, None]
    match norm:
        case "l0":
            move = _clamp(v.clone(), room)
            gain = domain.pixels((v.square() - (v - move).square()).reshape(x.shape))
            rank = gain.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            move *= domain.spread((rank < radius) & (gain > 0), x).flatten(1)
        case "l1":
            move = _l1(v, room, radius)
        case _:
            move = _l2(v, room, radius)
    target = (origin + move).to(x0.dtype)
    beyond = (target - origin).abs_() > move.abs_()
    near = torch.where(beyond, torch.nextafter(target, x0.flatten(1)), target).reshape(x.shape)
    return domain.clamp(near) if near.dtype == torch.float64 else near  # whose sum may round beyond the box


def _clamp(v: Tensor, room: tuple[Tensor, Tensor]) -> Tensor:
    """v in the room, in place."""
    torch.maximum(v, room[0], out=v)
    return torch.minimum(v, room[1], out=v)


def _inward(x: Tensor, x0: Tensor, most: Tensor) -> Tensor:
    """x, each coordinate one float nearer to x0 where it is further than `most` (float64) from it."""
    beyond = (x - x0.double()).abs_() > most
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
        radius = torch.where(domain.mask, radius, 0.0)
    origin = x0.double()  # a sum in float64 is at most one float away from the sphere
    near = torch.minimum(torch.maximum(x, origin - radius), origin + radius).to(x0.dtype)
    return domain.clamp(_inward(near, x0, radius))


def _l2(v: Tensor, room: tuple[Tensor, Tensor], eps: Tensor) -> Tensor:
    """clamp(q · v) with the q <= 1 that makes its length eps, or q = 1 when that is inside.

    The squared length is concave and piecewise linear in q^2, so that the secant through two points below the
    root stays below it, and is exact once both are on the root's piece.
    """
    length = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    before, short = torch.zeros_like(eps), -torch.ones_like(eps)
    share = (eps / length.clamp_min(1e-300)).clamp_max(1.0).square()  # q^2
    for _ in range(ROUNDS):
        move = _clamp(share.sqrt() * v, room)
        reached = torch.linalg.vector_norm(move, dim=1, keepdim=True)
        # In units of eps, whose square may be nothing.
        now = (reached / eps.clamp_min(1e-300)).square() - 1
        ends = (now >= -1e-12) | (share >= 1) | (now <= short)
        if not v.is_cuda and bool(ends.all()):  # a device of its own is not waited for
            break
        ahead = share - now * (share - before) / (now - short)
        before, share = torch.where(ends, before, share), torch.where(ends, share, ahead.clamp_max(1.0))
        short = torch.where(ends, short, now)
    return _no_longer(move, reached, eps)


def _l1(v: Tensor, room: tuple[Tensor, Tensor], eps: Tensor) -> Tensor:
    """v shrunk by t and clamped, with the t >= 0 that makes its sum eps, or t = 0 when that is inside."""
    size, most = v.abs(), torch.where(v > 0, room[1], -room[0]).clamp_min_(0)
    least = _least_shrinking(size, most, eps)
    if v.is_cuda:  # a device of its own is not asked which features are left
        return torch.copysign(_shrunk(size, most, eps), v)
    left = (size > least).any(0).nonzero()[:, 0]
    move = torch.zeros_like(v)
    move[:, left] = torch.copysign(_shrunk(size[:, left], most[:, left], eps), v[:, left])
    return move


def _least_shrinking(size: Tensor, most: Tensor, eps: Tensor) -> Tensor:
    """A t (n, 1) that is not too large, so that features no larger than it do not move (Michelot 1986).

    The sum falls no faster than by the number of features larger than t for each unit of t.
    """
    t = torch.zeros_like(eps)
    for _ in range(LOOKS):
        ahead = (size - t).clamp_min_(0)
        number = ahead.sign().sum(1, keepdim=True)
        over = torch.minimum(ahead, most, out=ahead).sum(1, keepdim=True) - eps
        t = t + (1 - 1e-9) * over.clamp_min(0) / number.clamp_min(1)
    return t


def _shrunk(size: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """min(max(size - t, 0), room) with that t, found among the sorted turns of the sum's slope."""
    if not size.shape[1]:
        return size
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
    length = torch.minimum((size - torch.where(inside, 0.0, threshold)).clamp_min(0), room)
    # Room for what rounding adds: a sum, whose order depends on which features were left out, seldom decides.
    length = torch.where(inside, length, length * (1 - 4e-12))
    return _no_longer(length, length.sum(1, keepdim=True), eps)


def _no_longer(length: Tensor, measured: Tensor, eps: Tensor) -> Tensor:
    """The length scaled down by what float64 rounding added, with room for another order of summing."""
    shrink = (eps / measured.clamp_min(1e-300)) * (1 - 1e-12)
    return torch.where(measured > eps * (1 - 1e-12), length * shrink.clamp_max(1.0), length)
