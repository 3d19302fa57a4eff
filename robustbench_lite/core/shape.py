"""Values of rows beside the rows themselves."""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 1 << 20  # features


def per_row(values: Tensor, x: Tensor) -> Tensor:
    """values (n,) shaped (n, 1, …) to stand beside x (n, …): booleans as they are, numbers in x's type."""
    shaped = values.reshape(-1, *[1] * (x.dim() - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(x.dtype)


def pieces(x: Tensor) -> list[slice]:
    """Slices of rows of x (n, …) small enough for work in float64.

    Copies larger than some megabytes are given back to the system and cleared anew each time, which costs a
    CPU ten times the arithmetic. A device of its own takes all rows at once.
    """
    rows = len(x) if x.is_cuda else max(1, PIECE // max(1, x[:1].numel()))
    return [slice(begin, begin + rows) for begin in range(0, len(x), max(1, rows))] or [slice(0, 0)]


def size_of(x: Tensor, p: float) -> Tensor:
    """The lp norm of each row of x (n, …), (n,) in x's type."""
    size: Tensor = torch.linalg.vector_norm(x.flatten(1), p, dim=1)
    return size
