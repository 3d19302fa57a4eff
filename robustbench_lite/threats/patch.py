"""Patches: pixels change inside one rectangle, which may lie anywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidParameter, require
from robustbench_lite.core.parameters import Positive
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, far_along, norms
from robustbench_lite.threats.transform import no_images


@dataclass(frozen=True)
class Patch:
    """Pixels inside one rectangle of an image (C, H, W) change, each by at most eps.

    z is the image itself, and a distance the largest change; it is infinite where changes do not lie in one
    such rectangle. Where the data says which features may change, only those of them in the rectangle do.

    Parameters
    ----------
    height, width : int
        Of the rectangle, in pixels, at least 1.
    eps : float
        In the units of x, above 0.
    top, left : int, optional
        Where it lies; None: wherever it is worst.
    anything : bool, default False
        Whether eps is the width of the box, of whichever it is put into.
    domain : Domain, default the box [0, 1]
    text : str, optional
        The threat as it was written, for `str`.

    Raises
    ------
    InvalidParameter
        For a value outside its range.

    Source: Brown et al. 2017 (arXiv:1712.09665); the projection is ours.

    Examples
    --------
    >>> x0, x = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    >>> x[0, 0, 0, 0], x[0, 0, 3, 2:] = 0.5, 0.5
    >>> Patch(2, 2, 1.0).project(x, x0, torch.ones(1, dtype=torch.float64))[0, 0].sum()
    tensor(1.)
    """

    height: int
    width: int
    eps: float
    top: int | None = None
    left: int | None = None
    anything: bool = False
    domain: Domain = field(default_factory=Domain, kw_only=True)
    text: str = field(default="", compare=False, kw_only=True)

    kind: ClassVar[str] = "transform"
    over_inputs: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    norm: ClassVar[Norm | None] = None
    minimum: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("top", "left"):
            require((getattr(self, name) or 0) >= 0, name, getattr(self, name), "at least 0")
        require((self.top is None) == (self.left is None), "left", self.left, "given where top is")
        require(0 < self.eps < math.inf, "eps", self.eps, "finite and above 0")

    def __str__(self) -> str:
        place = "" if self.top is None else f",top={self.top},left={self.left}"
        size = "" if self.anything else f",eps={self.eps:g}"
        return self.text or f"patch:{self.height}x{self.width}{size}{place}"

    def within(self, domain: Domain) -> Patch:
        return replace(self, domain=domain, eps=_width(domain) if self.anything else self.eps)

    def divided(self, unit: float) -> Patch:
        return replace(self, eps=self.eps / unit)

    def refuses(self, shape: Sequence[int]) -> str | None:
        if not self.domain.whole:
            return f"{self}: changes values freely, not in whole steps or orders"
        if refusal := no_images(str(self), replace(self.domain, mask=None), shape):
            return refusal
        bottom, right = (self.top or 0) + self.height, (self.left or 0) + self.width
        if bottom > shape[1] or right > shape[2]:
            return f"{self}: does not fit into an image of {shape[1]}x{shape[2]}"
        return None

    def origin(self, x0: Tensor) -> Tensor:
        return x0

    def render(self, z: Tensor, x0: Tensor) -> Tensor:
        return z

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        delta = x.double() - x0.double()
        changed = (delta != 0).any(1).double()
        # All changes lie in one place of the rectangle where that place holds as many as there are.
        fits = self._sums(changed).flatten(1).amax(1) == changed.flatten(1).sum(1)
        return torch.where(fits, norms(delta, self.domain, Norm.LINF), torch.inf)

    def contains(self, x: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        return (self.distance(x, x0) <= eps + slack) & self.domain.admits(x, x0)

    def project(self, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        wanted = self.domain.kept(x, x0)
        near = self._reachable(wanted, x0, eps)
        kept = (wanted.double() - x0).square() - (wanted - near).double().square()
        return torch.where(self._best(kept.sum(1)), near, x0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Longest where the slope is steepest, so that the rectangle comes to lie there; at most 1."""
        size = self.domain.free(gradient).abs()
        most = size.flatten(1).amax(1).clamp_min(1e-30)
        return gradient.sign() * (size / per_row(most, size)).sqrt()

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        corner = self._reachable(far_along(x0, self.domain.free(gradient)), x0, eps)
        gain = (gradient.double() * (corner.double() - x0)).sum(1)
        return torch.where(self._best(gain), corner, x0)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        """Uniform values at a place that is uniform among all, (n, …)."""
        low, high = self.domain.bounds(x0)
        radius = per_row(eps, x0)
        low, high = torch.maximum(low, x0 - radius), torch.minimum(high, x0 + radius)
        value = low + (high - low) * stream.fold("values").uniform(tuple(x0.shape[1:]), x0.dtype).to(x0)
        places = self._places(x0.shape[2:])
        chosen = stream.fold("place").uniform(places).to(x0.device).double()
        near = self._reachable(self.domain.kept(value, x0), x0, eps)
        return torch.where(self._covered(chosen.flatten(1).argmax(1), x0.shape[2:]), near, x0)

    def _reachable(self, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """The value nearest to x (n, C, H, W) that each feature may take."""
        radius = per_row(eps.double(), x0.double())
        inside = torch.minimum(torch.maximum(x.double(), x0 - radius), x0 + radius).to(x0.dtype)
        beyond = (inside.double() - x0).abs() > radius
        return self.domain.clamp(torch.where(beyond, torch.nextafter(inside, x0), inside))

    def _places(self, image: Sequence[int]) -> tuple[int, int]:
        """How many places there are, down and across."""
        return image[0] - self.height + 1, image[1] - self.width + 1

    def _sums(self, values: Tensor) -> Tensor:
        """Values of pixels (n, H, W) summed over each place of the rectangle; -inf where it may not lie."""
        if not len(values):
            return values.new_zeros(0, *self._places(values.shape[1:]), dtype=torch.float64)
        sums = functional.avg_pool2d(values.double(), (self.height, self.width), 1, divisor_override=1)
        if self.top is None:
            return sums
        assert self.left is not None
        fixed = torch.full_like(sums, -torch.inf)
        fixed[:, self.top, self.left] = sums[:, self.top, self.left]
        return fixed

    def _best(self, values: Tensor) -> Tensor:
        """True (n, 1, H, W) in the place with the largest sum of values (n, H, W)."""
        return self._covered(self._sums(values).flatten(1).argmax(1), values.shape[1:])

    def _covered(self, place: Tensor, image: Sequence[int]) -> Tensor:
        """True (n, 1, H, W) in the rectangle at a place (n,)."""
        across = self._places(image)[1]
        top = (place // across)[:, None, None] if self.top is None else self.top
        left = (place % across)[:, None, None] if self.left is None else self.left
        row = torch.arange(image[0], device=place.device)[None, :, None]
        column = torch.arange(image[1], device=place.device)[None, None, :]
        inside = (row >= top) & (row < top + self.height) & (column >= left) & (column < left + self.width)
        return inside[:, None].expand(len(place), 1, *image)


def _width(domain: Domain) -> float:
    """How far a value may change at most; 1 in a box without ends, which is refused."""
    width = float((torch.as_tensor(domain.high) - torch.as_tensor(domain.low)).max())
    return width if math.isfinite(width) else 1.0


def patch(
    domain: Domain, size: str, eps: Positive | None = None, top: int | None = None, left: int | None = None
) -> Patch:
    """One rectangle, such as 5x5, anywhere or at top, left; eps: how far values change."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    if found is None:
        raise InvalidParameter("size", size, "HEIGHTxWIDTH in pixels, such as 5x5")
    tall, wide = int(found[1]), int(found[2] or found[1])
    return Patch(tall, wide, _width(domain) if eps is None else eps, top, left, eps is None, domain=domain)
