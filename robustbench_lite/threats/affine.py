"""Rotations and translations: an image turned and moved, within limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import require
from robustbench_lite.core.parameters import Positive, Probability
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm


@dataclass(frozen=True)
class Affine:
    """Images (C, H, W) turned by at most eps degrees and moved by at most a share of their size.

    z (n, 3): the angle, and the moves to the right and down in units in which eps is the whole `shift`; so a
    size is in degrees, whichever of the three it comes from (Engstrom et al. 2019, section 3).

    Parameters
    ----------
    eps : float
        Degrees to either side, above 0, at most 180.
    shift : float, default 0.0
        The share of the image it may move to either side, in [0, 1).
    domain : Domain, default the box [0, 1]
    text : str, optional
        The threat as it was written, for `str`.

    Raises
    ------
    InvalidParameter
        For a value outside its range.

    Examples
    --------
    >>> threat, x0 = Affine(15.0), torch.rand(2, 1, 8, 8)
    >>> threat.origin(x0).shape
    torch.Size([2, 3])
    >>> str(Affine(15.0, shift=0.1))
    'rotation:15,shift=0.1'
    """

    eps: float
    shift: float = 0.0
    domain: Domain = field(default_factory=Domain)
    text: str = field(default="", compare=False)

    kind: ClassVar[str] = "rotation"
    norm: ClassVar[Norm | None] = None
    minimum: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 < self.eps <= 180, "eps", self.eps, "above 0, at most 180 degrees")
        require(0 <= self.shift < 1, "shift", self.shift, "in [0, 1)")

    def __str__(self) -> str:
        shift = f",shift={self.shift:g}" if self.shift else ""
        return self.text or f"rotation:{self.eps:g}{shift}"

    def within(self, domain: Domain) -> Affine:
        return replace(self, domain=domain)

    def divided(self, unit: float) -> Affine:
        return self

    def refuses(self, shape: Sequence[int]) -> str | None:
        if len(shape) != 3:
            return f"{self}: only images (C, H, W) can be turned; not {tuple(shape)}"
        if self.domain.pixel_axis(shape) not in (0, None):
            return f"{self}: turns images (C, H, W); the channels of {tuple(shape)} are elsewhere"
        if self.domain.mask is not None or self.domain.spacing is not None:
            return f"{self}: turning changes every pixel; not those alone that may change, nor in whole steps"
        return None

    def origin(self, x0: Tensor) -> Tensor:
        return torch.zeros(len(x0), 3, dtype=x0.dtype, device=x0.device)

    def render(self, z: Tensor, x0: Tensor) -> Tensor:
        if not len(x0):
            return x0 + 0 * z.sum()
        tall, wide = x0.shape[2:]
        angle = z[:, 0] * (math.pi / 180)
        # affine_grid measures in half widths: a share s of the image is 2 s.
        right, down = (-2 * self.shift / self.eps * z[:, i] for i in (1, 2))
        cosine, sine = angle.cos(), angle.sin()
        rows = [cosine, -sine * tall / wide, right, sine * wide / tall, cosine, down]
        grid = functional.affine_grid(
            torch.stack(rows, 1).view(-1, 2, 3), list(x0.shape), align_corners=False
        )
        return self.domain.clamp(functional.grid_sample(x0, grid.to(x0), align_corners=False))

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        return z.double().abs().amax(1)

    def contains(self, z: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        return (self.distance(z, x0) <= eps + slack) & self.domain.inside(self.render(z, x0))

    def project(self, z: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        radius = eps.double()[:, None]
        inside = torch.minimum(torch.maximum(z.double(), -radius), radius).to(z.dtype)
        return torch.where(inside.double().abs() > radius, torch.nextafter(inside, 0 * inside), inside)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return self.project(gradient.sign() * eps[:, None].to(gradient), x0, eps)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        share = stream.uniform((3,), torch.float64) * 2 - 1
        return self.project((eps[:, None] * share).to(x0.dtype), x0, eps)


def rotation(domain: Domain, eps: Positive, shift: Probability = 0.0) -> Affine:
    """Turned by at most eps degrees; shift: and moved by at most this share of the image."""
    return Affine(eps, shift, domain)
