"""Losses that an attack raises: (scores (n, K), y (n,), target (n,) or None) -> (n,)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.goal import margin

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """-log p(y), or log p(target).

    Written as softplus(logsumexp of the others - own score): the plain form computes p(y) - 1, which is 0 in
    float32 once a model is 99.99999 % sure, and leaves the gradient without its main part.
    """
    pivot = (y if target is None else target)[:, None]
    others = scores.scatter(1, pivot, -torch.inf).logsumexp(1)
    loss = functional.softplus(others - scores.gather(1, pivot)[:, 0])
    return loss if target is None else -loss


__all__ = ["Loss", "cross_entropy", "margin"]
