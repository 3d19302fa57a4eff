"""Values of rows beside the rows themselves."""

from __future__ import annotations

import torch
from torch import Tensor


def per_row(values: Tensor, x: Tensor) -> Tensor:
    """values (n,) shaped (n, 1, …) to stand beside x (n, …): booleans as they are, numbers in x's type."""
    shaped = values.reshape(-1, *[1] * (x.dim() - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(x.dtype)


def size_of(x: Tensor, p: float) -> Tensor:
    """The lp norm of each row of x (n, …), (n,) in x's type."""
    size: Tensor = torch.linalg.vector_norm(x.flatten(1), p, dim=1)
    return size
