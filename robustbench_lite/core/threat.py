"""Threats: where an adversarial example may lie.

A threat measures, contains and projects. Distances are taken in float64; a projection is never outside
when it is measured so, because every coordinate is rounded towards x0 (plain `x0 + 8/255` in float32 leaves
the ball for 48 of the 248 grey levels it does not push out of the box).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidParameter, require
from robustbench_lite.core.projection import onto_ball
from robustbench_lite.core.random import Stream
from robustbench_lite.core.text import parse_number


class Norm(StrEnum):
    """A way to measure a perturbation; l0 counts pixels, whichever of their channels changed."""

    L0 = "l0"
    L1 = "l1"
    L2 = "l2"
    LINF = "linf"


ALL_NORMS = frozenset(Norm)


def norms(delta: Tensor, domain: Domain, norm: Norm) -> Tensor:
    """The norm of each perturbation (n, …), (n,) float64."""
    delta = delta.double()
    match norm:
        case Norm.L0:
            return (domain.pixels((delta != 0).double()) > 0).sum(1).double()
        case Norm.L1:
            return delta.flatten(1).abs().sum(1)
        case Norm.L2:
            return delta.flatten(1).square().sum(1).sqrt()
        case Norm.LINF:
            return delta.flatten(1).abs().amax(1)


class Threat(Protocol):
    """Where an adversarial example may lie around x0; eps (n,) is the size allowed to each row."""

    @property
    def domain(self) -> Domain: ...

    @property
    def eps(self) -> float | None:
        """The size every row starts with; None: the smallest that succeeds is sought."""

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        """How far each row of x (n, …) is from x0, (n,) float64."""

    def contains(self, x: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        """Whether each row is an admissible point (n,); slack widens the ball, in the units of x."""

    def project(self, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """The admissible point nearest to each row; exact, and inside when measured in float64."""

    def steepest(self, gradient: Tensor) -> Tensor:
        """The unit step along which a linear function with this gradient rises most (n, …)."""

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """The admissible point of each row where a linear function with this gradient is highest; exact."""

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        """A random admissible point for each row."""


@dataclass(frozen=True)
class Lp:
    """All points within eps of x0 in a norm, inside the domain; eps None: the smallest that succeeds."""

    norm: Norm
    eps: float | None
    domain: Domain = field(default_factory=Domain)

    def __post_init__(self) -> None:
        if self.eps is not None:
            require(math.isfinite(self.eps) and self.eps >= 0, "eps", self.eps, "finite and at least 0")
            if self.norm is Norm.L0:
                require(self.eps == int(self.eps), "eps", self.eps, "a whole number of pixels for l0")

    def __str__(self) -> str:
        return f"{self.norm}:{'min' if self.eps is None else f'{self.eps:.10g}'}"

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        return norms(x.double() - x0.double(), self.domain, self.norm)

    def contains(self, x: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        return (self.distance(x, x0) <= eps + slack) & self.domain.admits(x, x0)

    def project(self, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return onto_ball(x, x0, eps, self.norm.value, self.domain)

    def steepest(self, gradient: Tensor) -> Tensor:
        if self.domain.mask is not None:
            gradient = gradient * self.domain.mask
        flat = gradient.flatten(1)
        match self.norm:
            case Norm.LINF:
                unit = flat.sign()
            case Norm.L2:
                unit = flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(1e-30)
            case Norm.L1:
                best = flat.abs().argmax(1, keepdim=True)
                unit = torch.zeros_like(flat).scatter(1, best, flat.gather(1, best).sign())
            case Norm.L0:
                strength = self.domain.pixels(gradient.abs())
                top = strength == strength.amax(1, keepdim=True)
                unit = (self.domain.spread(top.to(gradient), gradient) * gradient.sign()).flatten(1)
        return unit.reshape(gradient.shape)

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        if self.norm is Norm.LINF:
            return self.project(_far(x0, gradient), x0, eps)
        # In the other norms the maximum is the projection of a point far enough along the gradient.
        largest = gradient.double().flatten(1).abs().amax(1).clamp_min(1e-300)
        low, high = self.domain.bounds(x0)
        scale = 1e7 * (high - low).amax().double() / largest.reshape(-1, *[1] * (x0.dim() - 1))
        return self.project(x0.double() + scale * gradient.double(), x0, eps)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        """Uniform in the ball (l0: eps random pixels of random value), then projected into the domain."""
        shape = tuple(x0.shape[1:])
        if self.norm is Norm.L0:
            pixels = self.domain.pixels(x0[:1]).shape[1]
            order = stream.fold("pixels").uniform((pixels,))
            if self.domain.mask is not None:
                order = order + 2.0 * (self.domain.pixels(self.domain.mask.expand_as(x0)) == 0)
            rank = order.argsort(1).argsort(1)
            chosen = rank < eps[:, None]
            low, high = self.domain.bounds(x0)
            value = low + (high - low) * stream.fold("values").uniform(shape, x0.dtype)
            x = torch.where(self.domain.spread(chosen, x0), value, x0)
        else:
            radius = eps.reshape(-1, *[1] * len(shape))
            x = (x0.double() + radius * _in_unit_ball(stream, shape, self.norm)).to(x0.dtype)
        return self.project(x, x0, eps)


@dataclass(frozen=True)
class Box:
    """Anything inside the domain, whatever its distance from x0; fooling images have no x0 at all."""

    domain: Domain = field(default_factory=Domain)
    eps: float | None = None

    def __str__(self) -> str:
        return "box"

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        return norms(x.double() - x0.double(), self.domain, Norm.L2)

    def contains(self, x: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        return self.domain.admits(x, x0)

    def project(self, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return self.domain.clamp(x if self.domain.mask is None else torch.where(self.domain.mask, x, x0))

    def steepest(self, gradient: Tensor) -> Tensor:
        return Lp(Norm.L2, None, self.domain).steepest(gradient)

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return self.project(_far(x0, gradient), x0, eps)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        low, high = self.domain.bounds(x0)
        x = low + (high - low) * stream.uniform(tuple(x0.shape[1:]), x0.dtype)
        return self.project(x, x0, eps)


def _far(x0: Tensor, gradient: Tensor) -> Tensor:
    """x0 moved infinitely far along the signs of a gradient."""
    return torch.where(gradient == 0, x0, torch.copysign(torch.full_like(x0, torch.inf), gradient.to(x0)))


def _in_unit_ball(stream: Stream, shape: Sequence[int], norm: Norm) -> Tensor:
    """Uniform points of the unit ball of l1, l2 or linf, (n, *shape) float64."""
    shape = tuple(shape)
    d = math.prod(shape)
    if norm is Norm.LINF:
        return stream.uniform(shape, torch.float64) * 2 - 1
    if norm is Norm.L2:
        normal = stream.normal(shape, torch.float64).flatten(1)
        radius = stream.fold("radius").uniform((1,), torch.float64) ** (1 / d)
        point = normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True) * radius
    else:  # d + 1 exponentials normalised are uniform in the simplex (Barthe et al. 2005, theorem 3)
        weight = stream.exponential((d + 1,), torch.float64)
        sign = stream.fold("sign").integers(2, (d,)) * 2 - 1
        point = sign * weight[:, :d] / weight.sum(1, keepdim=True)
    ball: Tensor = point.reshape(-1, *shape)
    return ball


def parse_threat(text: str, domain: Domain | None = None) -> Lp | Box:
    """The threat a text names: `linf:8/255`, `l2:0.5`, `l1:12`, `l0:1`, `l2:min` or `box`."""
    allowed = "norm:eps with norm l0, l1, l2 or linf, such as linf:8/255, l2:0.5, l0:1, l2:min; or box"
    domain = domain or Domain()
    name, _, size = text.strip().lower().partition(":")
    if name == "box" and not size:
        return Box(domain)
    if name not in set(Norm) or not size:
        raise InvalidParameter("threat", text, allowed)
    return Lp(Norm(name), None if size == "min" else parse_number(size), domain)


def with_domain(threat: Lp | Box, domain: Domain) -> Lp | Box:
    """The threat inside another domain."""
    return replace(threat, domain=domain)
