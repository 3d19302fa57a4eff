"""Transformations as threats: images changed by parameters, each of which lies within limits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import require
from robustbench_lite.core.model import reference_precision
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm

Self = TypeVar("Self", bound="Transform")


@dataclass(frozen=True)
class Transform(ABC):
    """Images (C, H, W) changed by parameters z, every one within eps of 0, and 0 changes nothing.

    What z means, and the unit of eps, is each transformation's own: it says the shape of z for an image
    (`parameters`), how z changes images (`changed`), and which of its parameters are at least 0 (`least`).
    The rest is the same for all: the admissible z are a cube.

    Parameters
    ----------
    eps : float
        The largest absolute value of a parameter: above 0, at most `most`.
    domain : Domain, default the box [0, 1]
    text : str, optional
        The threat as it was written, for `str`.

    Attributes
    ----------
    name : str
        As in the registry.
    most : float
        The largest eps.

    Raises
    ------
    InvalidParameter
        For an eps outside its range.

    Examples
    --------
    >>> from robustbench_lite.threats.named import parse_threat
    >>> fog, x0 = parse_threat("fog:0.5"), torch.rand(2, 3, 8, 8)
    >>> torch.equal(fog.render(fog.origin(x0), x0), x0)
    True
    """

    eps: float
    domain: Domain = field(default_factory=Domain, kw_only=True)
    text: str = field(default="", compare=False, kw_only=True)

    name: ClassVar[str]
    most: ClassVar[float] = math.inf
    kind: ClassVar[str] = "transform"
    over_inputs: ClassVar[bool] = False
    norm: ClassVar[Norm | None] = None
    minimum: ClassVar[bool] = False

    @property
    def moves(self) -> bool:
        """Whether pixels change their place; by default not."""
        return False

    def __post_init__(self) -> None:
        limit = "" if self.most == math.inf else f", at most {self.most:g}"
        require(0 < self.eps <= self.most and self.eps < math.inf, "eps", self.eps, f"above 0{limit}")

    def __str__(self) -> str:
        if self.text:
            return self.text
        own = [f for f in fields(self) if f.name not in ("eps", "domain", "text")]
        changed = [f",{f.name}={getattr(self, f.name):g}" for f in own if getattr(self, f.name) != f.default]
        return f"{self.name}:{self.eps:g}{''.join(changed)}"

    @abstractmethod
    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        """The shape of z for an image (C, H, W)."""

    @abstractmethod
    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        """Images (n, C, H, W) as parameters z (n, …) change them; x0 itself, to the last bit, for z = 0.

        What leaves the box is put back afterwards.
        """

    def least(self, image: Sequence[int], like: Tensor) -> Tensor:
        """The least value of each parameter as a share of eps: -1, or 0 where it is at least 0.

        On the device and of the type of `like`; of a shape that broadcasts against z.
        """
        return like.new_full((), -1.0)

    def limit(self, eps: Tensor) -> Tensor:
        """The largest parameter (n,) float64 of rows with sizes eps (n,)."""
        return eps.double()

    def within(self: Self, domain: Domain) -> Self:
        return replace(self, domain=domain)

    def divided(self: Self, unit: float) -> Self:
        return self

    def refuses(self, shape: Sequence[int]) -> str | None:
        return no_images(str(self), self.domain, shape)

    def origin(self, x0: Tensor) -> Tensor:
        return x0.new_zeros(len(x0), *self.parameters(x0.shape[1:]))

    def render(self, z: Tensor, x0: Tensor) -> Tensor:
        if not len(x0):
            return x0 + 0 * z.sum()
        with reference_precision():
            return self.domain.clamp(self.changed(z, x0))

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        """The largest parameter; infinite where one is below its least value."""
        wide = z.double()
        below = (wide < self.least(x0.shape[1:], wide) * wide.abs()).flatten(1).any(1)
        return torch.where(below, torch.inf, wide.abs().flatten(1).amax(1))

    def contains(self, z: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        return (self.distance(z, x0) <= eps + slack) & self.domain.inside(self.render(z, x0))

    def project(self, z: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        radius = self.limit(eps).reshape(-1, *[1] * (z.dim() - 1))
        low = radius * self.least(x0.shape[1:], radius)
        inside = torch.minimum(torch.maximum(z.double(), low), radius).to(z.dtype)
        return torch.where(inside.double().abs() > radius, torch.nextafter(inside, 0 * inside), inside)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        way = torch.where(gradient == 0, 0.0, torch.copysign(torch.full_like(gradient, torch.inf), gradient))
        return self.project(way, x0, eps)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        """Uniform in the cube, (n, …)."""
        shape = self.parameters(x0.shape[1:])
        share = stream.uniform(shape, torch.float64).to(x0.device)
        low = self.least(x0.shape[1:], share)
        radius = self.limit(eps).reshape(-1, *[1] * len(shape))
        return self.project((radius * (low + (1 - low) * share)).to(x0.dtype), x0, eps)


def no_images(what: str, domain: Domain, shape: Sequence[int]) -> str | None:
    """Why inputs of a shape are no images (C, H, W) whose every pixel may change; None when they are."""
    if len(shape) != 3:
        return f"{what}: changes images (C, H, W); not {tuple(shape)}"
    if domain.pixel_axis(shape) not in (0, None):
        return f"{what}: changes images (C, H, W); the channels of {tuple(shape)} are elsewhere"
    if domain.mask is not None or not domain.whole:
        return f"{what}: changes every pixel; not those alone that may change, nor in whole steps or orders"
    width = torch.as_tensor(domain.high) - torch.as_tensor(domain.low)
    if not bool(width.isfinite().all()):
        return f"{what}: changes images in a box of finite width"
    return None
