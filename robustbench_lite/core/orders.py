"""Features of which one may not pass another: a start before its end, a part within its whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 2.0**-23  # of the numbers compared: what writing both in float32 may add
SWEEPS = 3


@dataclass(frozen=True)
class Order:
    """first_unit · x[first] is at most second_unit · x[second] + room, or no more above it than in x0.

    Parameters
    ----------
    first, second : int
        Features of a flattened sample.
    first_unit, second_unit : float, default 1.0
        Above 0: what a step of 1 in each is worth in the unit in which they are compared.
    room : float, default 0.0

    Examples
    --------
    >>> Order(0, 1)
    Order(first=0, second=1, first_unit=1.0, second_unit=1.0, room=0.0)
    """

    first: int
    second: int
    first_unit: float = 1.0
    second_unit: float = 1.0
    room: float = 0.0

    def over(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """By how much the first is above the second in x (n, d) float64 (n,), and what rounding may add."""
        first, second = self.first_unit * x[:, self.first], self.second_unit * x[:, self.second]
        return first - second - self.room, ROUNDING * (first.abs() + second.abs() + abs(self.room))


def kept(orders: Sequence[Order], x: Tensor, x0: Tensor) -> Tensor:
    """Whether every order of x (n, …) is kept, or no more broken than in x0 (n,)."""
    flat, own = x.double().flatten(1), x0.double().flatten(1)
    fine = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for order in orders:
        over, rounding = order.over(flat)
        fine &= over <= order.over(own)[0].clamp_min(0) + rounding
    return fine


def evened(orders: Sequence[Order], x: Tensor, free: Tensor | None = None) -> Tensor:
    """x (n, …) with features that passed each other moved to where they meet; free (d,): those that may."""
    flat = x.double().flatten(1).clone()  # which float64 would share with x
    for _ in range(SWEEPS):
        for order in orders:
            places = order.first, order.second
            moves = [1.0 if free is None else float(free[place]) for place in places]
            if not any(moves):
                continue
            first, second = moves[0] * order.first_unit, moves[1] * order.second_unit
            over = order.over(flat)[0].clamp_min(0) / (first**2 + second**2)
            flat[:, order.first] -= over * first
            flat[:, order.second] += over * second
    return flat.reshape(x.shape).to(x.dtype)


def drawn_back(orders: Sequence[Order], x: Tensor, x0: Tensor, whole: bool) -> Tensor:
    """x (n, …) with features that passed each other, and those bound to them, moved back towards x0.

    They all move the same share of the way, so that a ball and a box around x0 are not left; whole: as far
    as x0.
    """
    flat, own = x.double().flatten(1).clone(), x0.double().flatten(1)
    for members, bound in _bound(orders):
        share = torch.ones(len(x), dtype=torch.float64, device=x.device)
        for order in bound:
            (before, _), (now, rounding) = order.over(own), order.over(flat)
            over, way = now - before.clamp_min(0), (now - before).clamp_min(1e-300)
            share = torch.minimum(share, torch.where(over > rounding, 1 - over / way, 1.0))
        if whole:
            share = (share >= 1).to(share)
        moved = own[:, members] + share[:, None] * (flat[:, members] - own[:, members])
        flat[:, members] = torch.where(share[:, None] < 1, moved, flat[:, members])
    return torch.where(flat == x.double().flatten(1), x.flatten(1), flat.to(x.dtype)).reshape(x.shape)


def _bound(orders: Sequence[Order]) -> list[tuple[list[int], list[Order]]]:
    """Features that orders bind together, directly or through others, each group with its orders."""
    groups: list[tuple[set[int], list[Order]]] = []
    for order in orders:
        members, bound = {order.first, order.second}, [order]
        apart = []
        for group in groups:
            if group[0] & members:
                members, bound = members | group[0], [*group[1], *bound]
            else:
                apart.append(group)
        groups = [*apart, (members, bound)]
    return [(sorted(members), bound) for members, bound in groups]
