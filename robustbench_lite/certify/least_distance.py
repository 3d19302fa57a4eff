"""The shortest steps into intersections of half-spaces inside a box, for many samples at once."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 60  # of Newton's; most rows need fewer than ten
SHORTENINGS = 12  # of a step that would lower the dual
TOLERANCE = 1e-10  # of what a half-space still lacks, relative to the largest need
RIDGE = 1e-13  # relative, where normals depend on each other


def shortest_steps(normals: Tensor, need: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest delta (n, d) with normals @ delta >= need in the box, and which rows are solved (n,).

    Projected Newton steps on the dual: with weights v >= 0 of the half-spaces, delta = clip(v @ normals) is
    the nearest point of the box, and what each half-space still lacks is the dual's slope. Rows that do not
    come to an end, as those without any such point, are told.

    normals (n, m, d), need (n, m), low <= 0 <= high (n, d), all float64.
    """
    weight = torch.zeros_like(need)
    size = normals.square().sum(2).clamp_min(1e-300)
    most = need.abs().amax(1, keepdim=True).clamp_min(1e-300)

    def at(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The point of weights, what half-spaces lack there, and the dual's value."""
        pull = torch.einsum("nm,nmd->nd", weight, normals)
        delta = torch.minimum(torch.maximum(pull, low), high)
        value = (weight * need).sum(1) + (delta * (delta / 2 - pull)).sum(1)
        return delta, need - torch.einsum("nmd,nd->nm", normals, delta), value

    delta, lack, value = at(weight)
    for _ in range(STEPS):
        open_ = torch.where(weight > 0, lack.abs(), lack.clamp_min(0)) > TOLERANCE * most
        if not bool(open_.any()):
            break
        # Where the box holds a feature it does not move; half-spaces that are met and weigh nothing rest.
        pull = torch.einsum("nm,nmd->nd", weight, normals)
        moving = (
            ((pull > low) & (pull < high)) | ((pull == low) & (low == 0)) | ((pull == high) & (high == 0))
        )
        curve = torch.einsum("nmd,nd,nkd->nmk", normals, moving.to(normals), normals)
        active = (weight > 0) | (lack > 0)
        both = active[:, :, None] & active[:, None, :]
        ridge = torch.diag_embed(RIDGE * size + torch.where(active, 0.0, 1.0))
        way = torch.linalg.solve(torch.where(both, curve, 0.0) + ridge, torch.where(active, lack, 0.0))
        way = way.nan_to_num(posinf=0.0, neginf=0.0)
        settled, length, start = ~open_.any(1), 1.0, weight
        for _ in range(SHORTENINGS):  # each row's longest that gains
            tried = (start + length * way).clamp_min(0)
            better = (at(tried)[2] > value) & ~settled
            weight = torch.where(better[:, None], tried, weight)
            settled = settled | better
            if bool(settled.all()):
                break
            length /= 2
        delta, lack, value = at(weight)
    gap = torch.where(weight > 0, lack.abs(), lack.clamp_min(0)).amax(1)
    return delta, gap <= 10 * TOLERANCE * most[:, 0]
