"""Losses that an attack raises: (scores (n, K), y (n,), target (n,) or None) -> (n,)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.goal import margin

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """-log p(y), or log p(target)."""
    if target is None:
        return functional.cross_entropy(scores, y, reduction="none")
    return -functional.cross_entropy(scores, target, reduction="none")


__all__ = ["Loss", "cross_entropy", "margin"]
