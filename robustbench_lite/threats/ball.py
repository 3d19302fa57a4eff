"""Balls: all points within eps of the sample in a norm.

Distances are taken in float64; a projection is never outside when it is measured so, because every coordinate
is rounded towards x0 (plain `x0 + 8/255` in float32 leaves the ball for 48 of the 248 grey levels it does not
push out of the box).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import require
from robustbench_lite.core.parameters import Size
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import pieces
from robustbench_lite.core.threat import Norm, far_along, norms
from robustbench_lite.threats.projection import onto_ball


@dataclass(frozen=True)
class Lp:
    """All points within eps of x0 in a norm, inside the domain.

    Distances are in float64, and what a projection returns is inside when it is measured so.

    Parameters
    ----------
    norm : Norm
    eps : float or None
        In the units of x, finite and at least 0, for l0 a whole number of pixels; None: the smallest that
        succeeds.
    domain : Domain, default the box [0, 1]
    text : str, optional
        The threat as it was written, for `str`.

    Raises
    ------
    InvalidParameter
        For an eps outside its range.

    Examples
    --------
    >>> ball, x0 = Lp(Norm.L2, 0.5), torch.full((1, 2), 0.5)
    >>> ball.project(torch.tensor([[1.0, 0.5]]), x0, torch.tensor([0.25], dtype=torch.float64))
    tensor([[0.7500, 0.5000]])
    >>> str(Lp(Norm.LINF, None))
    'linf:min'
    """

    norm: Norm
    eps: float | None
    domain: Domain = field(default_factory=Domain)
    text: str = field(default="", compare=False)  # as it was written

    kind: ClassVar[str] = "ball"
    over_inputs: ClassVar[bool] = True
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.eps is not None:
            require(math.isfinite(self.eps) and self.eps >= 0, "eps", self.eps, "finite and at least 0")
            if self.norm is Norm.L0:
                require(self.eps == int(self.eps), "eps", self.eps, "a whole number of pixels for l0")

    def __str__(self) -> str:
        return self.text or f"{self.norm}:{'min' if self.eps is None else f'{self.eps:.10g}'}"

    @property
    def minimum(self) -> bool:
        return self.eps is None

    def within(self, domain: Domain) -> Lp:
        return replace(self, domain=domain)

    def divided(self, unit: float) -> Lp:
        return self if self.eps is None or self.norm is Norm.L0 else self.sized(self.eps / unit)

    def sized(self, eps: float | None) -> Lp:
        """The ball of another size, in the same domain.

        Parameters
        ----------
        eps : float or None
            As in the class.

        Returns
        -------
        Lp
        """
        return replace(self, eps=eps, text="")

    def refuses(self, shape: Sequence[int]) -> str | None:
        if self.norm is Norm.L0 and self.domain.ambiguous(shape):
            return (
                f"{self}: either end of the shape {tuple(shape)} may be the channels of a pixel; say which: "
                "Domain(pixel_dim=0), 2, or None where every feature is a pixel"
            )
        return None

    def origin(self, x0: Tensor) -> Tensor:
        return x0

    def render(self, z: Tensor, x0: Tensor) -> Tensor:
        return z

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        x0 = x0.expand_as(x)
        return torch.cat([self._distance(x[s], x0[s]) for s in pieces(x)])

    def _distance(self, x: Tensor, x0: Tensor) -> Tensor:
        return norms(self.domain.in_whole_steps(x - x0.double()), self.domain, self.norm)

    def contains(self, x: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        return (self.distance(x, x0) <= eps + slack) & self.domain.admits(x, x0)

    def project(self, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return onto_ball(x, x0, eps, self.norm.value, self.domain)

    def steepest(self, gradient: Tensor) -> Tensor:
        gradient = self.domain.free(gradient)
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
            return self.project(far_along(x0, gradient), x0, eps)
        # In the other norms the maximum is the projection of a point far enough along the gradient.
        largest = gradient.double().flatten(1).abs().amax(1).clamp_min(1e-300)
        low, high = self.domain.bounds(x0)
        scale = 1e7 * (high - low).amax().double() / largest.reshape(-1, *[1] * (x0.dim() - 1))
        return self.project(x0.double() + scale * gradient.double(), x0, eps)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        """Uniform in the ball (l0: eps random pixels of random value), then projected into the domain.

        Parameters
        ----------
        stream : Stream
            One key a row.
        x0 : Tensor
            (n, …) samples.
        eps : Tensor
            (n,) float64.

        Returns
        -------
        Tensor
            (n, …).
        """
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


def linf(domain: Domain, eps: Size) -> Lp:
    """No feature changes by more than eps; `min`: the smallest that succeeds."""
    return _of(Norm.LINF, domain, eps)


def l2(domain: Domain, eps: Size) -> Lp:
    """Euclidean length at most eps; `min`: the smallest that succeeds."""
    return _of(Norm.L2, domain, eps)


def l1(domain: Domain, eps: Size) -> Lp:
    """The sum of changes at most eps; `min`: the smallest that succeeds."""
    return _of(Norm.L1, domain, eps)


def l0(domain: Domain, eps: Size) -> Lp:
    """At most eps pixels change; `min`: the fewest that succeed."""
    return _of(Norm.L0, domain, eps)


def _of(norm: Norm, domain: Domain, eps: Size) -> Lp:
    return Lp(norm, None if isinstance(eps, str) else eps, domain)
