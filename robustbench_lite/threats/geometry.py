"""Images moved: turned, shifted, scaled, sheared, or displaced by a smooth field.

Positions are measured in pixels, so that moves by whole pixels, and none, leave every value as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import require
from robustbench_lite.core.parameters import Count, Positive, Probability
from robustbench_lite.threats.transform import Transform


@dataclass(frozen=True)
class Rotation(Transform):
    """Images turned by at most eps degrees, moved and scaled by at most shares (Engstrom et al. 2019,
    section 3).

    z (n, P): the angle; where `shift` is not 0 the moves to the right and down; where `scale` is not 0 the
    growth. The latter are in units in which eps is the whole `shift` or `scale`, so that a size is in
    degrees, whichever it comes from. What comes into view is the low end of the box.

    Parameters
    ----------
    eps : float
        Degrees to either side, above 0, at most 180.
    shift : float, default 0.0
        The share of the image it may move to either side, in [0, 1).
    scale : float, default 0.0
        The share by which it may grow or shrink, in [0, 1).

    Raises
    ------
    InvalidParameter
        For a value outside its range.

    Examples
    --------
    >>> threat, x0 = Rotation(15.0, shift=0.1), torch.rand(2, 1, 8, 8)
    >>> threat.origin(x0).shape
    torch.Size([2, 3])
    >>> str(threat)
    'rotation:15,shift=0.1'
    """

    shift: float = 0.0
    scale: float = 0.0

    name: ClassVar[str] = "rotation"
    most: ClassVar[float] = 180.0

    @property
    def moves(self) -> bool:
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.shift < 1, "shift", self.shift, "in [0, 1)")
        require(0 <= self.scale < 1, "scale", self.scale, "in [0, 1)")

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (1 + 2 * (self.shift > 0) + (self.scale > 0),)

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        angle = z[:, 0] * (math.pi / 180)
        cosine, sine = angle.cos(), angle.sin()
        if self.scale:
            size = 1 / (1 + self.scale / self.eps * z[:, -1])
            cosine, sine = size * cosine, size * sine
        move = -self.shift / self.eps * z[:, 1:3] if self.shift else torch.zeros_like(z[:, :1]).expand(-1, 2)
        return _mapped(x0, torch.stack([cosine, -sine, sine, cosine], 1), move, self.domain)


@dataclass(frozen=True)
class Affine(Transform):
    """Images under an affine map whose matrix differs from the identity by at most eps in every entry.

    z (n, 6): the four entries of the matrix less the identity's, then the moves to the right and down, in
    half widths of the image: one of them 0.1 moves the image's edge by a tenth of its half width.

    Parameters
    ----------
    eps : float
        Above 0, below 1.

    Examples
    --------
    >>> Affine(0.1).parameters((3, 8, 8))
    (6,)
    """

    name: ClassVar[str] = "affine"
    most: ClassVar[float] = 0.99

    @property
    def moves(self) -> bool:
        return True

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (6,)

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        matrix = torch.stack([1 + z[:, 0], z[:, 1], z[:, 2], 1 + z[:, 3]], 1)
        return _mapped(x0, matrix, -z[:, 4:] / 2, self.domain)


@dataclass(frozen=True)
class Flow(Transform):
    """Pixels displaced by at most eps pixels, by a smooth field (after Xiao et al. 2018, section 3.2).

    z (n, 2, grid, grid): the displacements to the right and down at the points of a grid over the image,
    linear between them. Theirs has a displacement for every pixel and a penalty on what is not smooth; here
    no field is steeper than two displacements of eps over a cell of the grid. At the edge the image goes on
    as it ends.

    Parameters
    ----------
    eps : float
        Pixels, above 0.
    grid : int, default 8
        Points to a side, at least 2.

    Examples
    --------
    >>> Flow(1.5).parameters((3, 32, 32))
    (2, 8, 8)
    """

    grid: int = 8

    name: ClassVar[str] = "flow"

    @property
    def moves(self) -> bool:
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 2, "grid", self.grid, "at least 2")

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (2, self.grid, self.grid)

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        tall, wide = x0.shape[2:]
        field = spread_over(z, (tall, wide))
        rows, columns = _centred(x0)
        right = columns + (wide - 1) / 2 - field[:, 0]
        down = rows + (tall - 1) / 2 - field[:, 1]
        return sampled(x0, right.clamp(0, wide - 1), down.clamp(0, tall - 1))


def spread_over(z: Tensor, size: Sequence[int]) -> Tensor:
    """Values (n, c, g, g) at the points of a grid, linear between them, over an image of a size.

    By matrices: their gradient is the same in every run, on every device.
    """
    for axis in (2, 3):
        points, pixels = z.shape[axis], size[axis - 2]
        place = torch.arange(pixels, device=z.device, dtype=z.dtype) * ((points - 1) / max(1, pixels - 1))
        away = place[:, None] - torch.arange(points, device=z.device, dtype=z.dtype)
        z = ((1 - away.abs()).clamp_min(0) @ z.movedim(axis, -2)).movedim(-2, axis)
    return z


def sampled(x: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Images at positions, bilinear between pixels; 0 outside; differentiable in both.

    Parameters
    ----------
    x : Tensor
        (n, C, H, W).
    right, down : Tensor
        (n, H', W'), in pixels from the first one; of whole pixels a value is exactly that pixel's.

    Returns
    -------
    Tensor
        (n, C, H', W').
    """
    tall, wide = x.shape[2:]
    left, top = right.detach().floor(), down.detach().floor()
    across, along = (right - left).to(x), (down - top).to(x)
    flat, total = x.flatten(2), None
    for row, beside in ((top, 1 - along), (top + 1, along)):
        for column, weight in ((left, 1 - across), (left + 1, across)):
            seen = (row >= 0) & (row < tall) & (column >= 0) & (column < wide)
            place = (row.clamp(0, tall - 1) * wide + column.clamp(0, wide - 1)).long().flatten(1)
            value = flat.gather(2, place[:, None].expand(-1, x.shape[1], -1))
            part = value.view(*x.shape[:2], *right.shape[1:]) * (beside * weight * seen)[:, None]
            total = part if total is None else total + part
    assert total is not None
    return total


def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (H, 1) and columns (1, W) of pixels, from the middle of the image."""
    tall, wide = x.shape[2:]
    rows = torch.arange(tall, device=x.device, dtype=x.dtype) - (tall - 1) / 2
    columns = torch.arange(wide, device=x.device, dtype=x.dtype) - (wide - 1) / 2
    return rows[:, None], columns[None]


def _mapped(x: Tensor, matrix: Tensor, move: Tensor, domain: Domain) -> Tensor:
    """Images whose value at p is x's at matrix (n, 4) @ p + move (n, 2), the latter in shares of its size.

    What lies outside is the low end of the box.
    """
    low = domain.bounds(x)[0]
    tall, wide = x.shape[2:]
    rows, columns = _centred(x)
    a, b, c, d = matrix[:, :, None, None].unbind(1)
    right = a * columns + b * rows + (move[:, 0] * wide)[:, None, None] + (wide - 1) / 2
    down = c * columns + d * rows + (move[:, 1] * tall)[:, None, None] + (tall - 1) / 2
    return low + sampled(x - low, right, down)


def rotation(domain: Domain, eps: Positive, shift: Probability = 0.0, scale: Probability = 0.0) -> Rotation:
    """Turned by at most eps degrees; shift, scale: moved, and grown or shrunk, by at most these shares."""
    return Rotation(eps, shift, scale, domain=domain)


def affine(domain: Domain, eps: Positive) -> Affine:
    """Under an affine map whose matrix is within eps of the identity, entry by entry."""
    return Affine(eps, domain=domain)


def flow(domain: Domain, eps: Positive, grid: Count = 8) -> Flow:
    """Every pixel displaced by at most eps pixels, by a field that is linear between the points of a grid."""
    return Flow(eps, grid, domain=domain)
