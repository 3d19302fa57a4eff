"""Adam, row by row, for attacks that carry its moments in their state."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.shape import per_row


def adam(slope: Tensor, mean: Tensor, square: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The step of size about 1 up the slope (n, …), and the moments after it (Kingma & Ba 2015, algorithm 1).

    mean, square (n, …): the moments before; t (n,), or (n, …): which step it is of each
    row, or of each number, from 1.
    """
    t = t if t.shape == slope.shape else per_row(t, slope)
    mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope.square()
    first, second = (1 - decay**t for decay in (0.9, 0.999))
    return (mean / first) / ((square / second).sqrt() + 1e-8), mean, square


def steps_so_far(step: int, rows: Tensor) -> Tensor:
    """t for rows (n, …) that have all taken the same number of steps."""
    return torch.full((len(rows),), step, device=rows.device, dtype=torch.float64)
