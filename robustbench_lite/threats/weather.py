"""Weather as threats: fog, snow and rain whose places are parameters (after Kang et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import require
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.random import Stream
from robustbench_lite.threats.geometry import spread_over
from robustbench_lite.threats.transform import Transform


@dataclass(frozen=True)
class Fog(Transform):
    """A smooth white veil, at most eps thick.

    z (n, 1, grid, grid), in [0, eps]: the share of white at the points of a grid, linear between them.

    Parameters
    ----------
    eps : float
        Above 0, at most 1.
    grid : int, default 8
        Points to a side, at least 2.

    Examples
    --------
    >>> Fog(0.5).parameters((3, 32, 32))
    (1, 8, 8)
    """

    grid: int = 8

    name: ClassVar[str] = "fog"
    most: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 2, "grid", self.grid, "at least 2")

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (1, self.grid, self.grid)

    def least(self, image: Sequence[int], like: Tensor) -> Tensor:
        return like.new_zeros(())

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        white = self.domain.bounds(x0)[1]
        return x0 + spread_over(z, x0.shape[2:]) * (white - x0)


@dataclass(frozen=True)
class Snow(Transform):
    """Flakes at fixed places, each in a short white streak of at most eps.

    z (n, m), in [0, eps]: how white each flake is. Where streaks cross, the light of one passes through the
    other.

    Parameters
    ----------
    eps : float
        Above 0, at most 1.

    Examples
    --------
    >>> Snow(0.5).parameters((3, 32, 32))
    (64,)
    """

    name: ClassVar[str] = "snow"
    most: ClassVar[float] = 1.0
    density: ClassVar[float] = 1 / 16  # of flakes among pixels
    streak: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (1, 0), (1, 1))  # rows and columns from a flake
    white: ClassVar[float] = 1.0  # the flakes' own grey, as a share of the box

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (len(_places(*image[1:], self.density, torch.device("cpu"))),)

    def least(self, image: Sequence[int], like: Tensor) -> Tensor:
        return like.new_zeros(())

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        tall, wide = x0.shape[2:]
        place = _places(tall, wide, self.density, x0.device)
        cover = z.new_zeros(len(z), tall * wide).index_copy(1, place, z).view(-1, 1, tall, wide)
        clear = torch.ones_like(cover)
        for down, right in self.streak:
            if down < tall and right < wide:
                moved = functional.pad(cover[:, :, : tall - down, : wide - right], (right, 0, down, 0))
                clear = clear * (1 - moved)
        low, high = self.domain.bounds(x0)
        return x0 + (1 - clear) * (low + self.white * (high - low) - x0)


@dataclass(frozen=True)
class Rain(Snow):
    """As `snow`, in longer and steeper streaks of light grey.

    Parameters
    ----------
    eps : float
        As in `Snow`.

    Examples
    --------
    >>> Rain(0.5).eps
    0.5
    """

    name: ClassVar[str] = "rain"
    density: ClassVar[float] = 1 / 32
    streak: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1))
    white: ClassVar[float] = 0.8


@cache
def _places(tall: int, wide: int, density: float, device: torch.device) -> Tensor:
    """The pixels that flakes begin at, as many as the density says and at least one, the same for every image
    of a size."""
    order = Stream.of(0, torch.zeros(1, dtype=torch.int64)).fold("flakes").uniform((tall * wide,))[0]
    return order.argsort()[: max(1, round(density * tall * wide))].sort().values.to(device)


def fog(domain: Domain, eps: Positive, grid: Count = 8) -> Fog:
    """A smooth white veil, at most eps thick."""
    return Fog(eps, grid, domain=domain)


def snow(domain: Domain, eps: Positive) -> Snow:
    """White flakes, each of at most eps."""
    return Snow(eps, domain=domain)


def rain(domain: Domain, eps: Positive) -> Rain:
    """Grey streaks, each of at most eps."""
    return Rain(eps, domain=domain)
