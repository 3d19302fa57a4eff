"""Coarse patterns that become as fine as the input: fewer numbers to search among."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional


def coarse_shape(shape: tuple[int, ...], side: int | None) -> tuple[int, ...]:
    """The shape of a pattern for inputs of a shape: images at most `side` pixels high and wide.

    Other inputs keep theirs, and images where there is no side.
    """
    if len(shape) != 3 or side is None:
        return shape
    return shape[0], min(shape[1], side), min(shape[2], side)


def part_of_side(shape: tuple[int, ...], part: int) -> int:
    """The side of an image divided by `part`, and at least 8 (1 for other inputs)."""
    return max(8, min(shape[1:]) // part) if len(shape) == 3 else 1


def enlarged(
    pattern: Tensor, shape: tuple[int, ...], how: Literal["nearest", "bilinear"] = "bilinear"
) -> Tensor:
    """Patterns (n, *coarse) as large as inputs (n, *shape): each number a tile, or blended with the next."""
    if tuple(pattern.shape[1:]) == shape:
        return pattern
    return functional.interpolate(pattern, size=shape[1:], mode=how)
