"""The direction of L-BFGS, a batch of problems at once."""

from __future__ import annotations

import torch
from torch import Tensor


def direction(slope: Tensor, steps: Tensor, changes: Tensor) -> Tensor:
    """Downhill from slope (n, d), bent by the last steps (n, m, d) and the changes of slope along them.

    The two-loop recursion (Nocedal & Wright 2006, algorithm 7.4); memory that is still empty is zero.
    """
    product = (steps * changes).sum(2)
    rho = torch.where(product > 0, 1 / product.clamp_min(1e-30), 0.0)
    way, alpha = -slope, []
    for i in reversed(range(steps.shape[1])):
        alpha.append(rho[:, i] * (steps[:, i] * way).sum(1))
        way = way - alpha[-1][:, None] * changes[:, i]
    last = changes[:, -1].square().sum(1)
    way = way * torch.where(last > 0, product[:, -1] / last.clamp_min(1e-30), 1.0)[:, None]
    for i in range(steps.shape[1]):
        beta = rho[:, i] * (changes[:, i] * way).sum(1)
        way = way + (alpha[-1 - i] - beta)[:, None] * steps[:, i]
    return way * (slope != 0)
