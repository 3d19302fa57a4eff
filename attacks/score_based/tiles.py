"""Coarse patterns that become as fine as the input: fewer numbers to search among."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def coarse_shape(shape: tuple[int, ...], side: int | None) -> tuple[int, ...]:
    """The shape of a pattern for inputs of a shape: images at most `side` pixels high and wide.

    None: a sixth of the image's side, and at least 8. Other inputs keep theirs.
    """
    if len(shape) != 3:
        return shape
    most = max(8, min(shape[1:]) // 6) if side is None else side
    return shape[0], min(shape[1], most), min(shape[2], most)


def enlarged(pattern: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Patterns (n, *coarse) as large as inputs (n, *shape), each number a tile."""
    if len(shape) != 3 or tuple(pattern.shape[1:]) == shape:
        return pattern
    return functional.interpolate(pattern, size=shape[1:], mode="nearest")
