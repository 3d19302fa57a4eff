"""The Wasserstein ball: the mass of an image carried along short ways."""

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
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm
from robustbench_lite.threats.projection import onto_ball
from robustbench_lite.threats.transform import no_images

STEEP = 0.01  # the share of ways that a step goes along


@dataclass(frozen=True)
class Wasserstein:
    """Images (C, H, W) whose mass is carried by eps pixels on average (Wong et al. 2019, equation 3, with
    Euclidean ways); a value's mass is what lies above the low end of the box.

    z (n, C, K, H, W), each at least 0: the share of eps that is spent on carrying mass from a pixel along one
    of the K ways to the pixels within `reach`. So what is admissible is an l1 ball with positive entries, and
    the sum of z the mean way of the image's mass: an upper bound on the Wasserstein distance of what is
    rendered. A pixel gives no more than it has and takes no more than the box leaves room for, so that none
    is lost: theirs leaves the box and is cut.

    Parameters
    ----------
    eps : float
        In pixels, above 0.
    reach : int, default 2
        How far mass is carried at most, in pixels along either axis.
    domain : Domain, default the box [0, 1]
    text : str, optional
        The threat as it was written, for `str`.

    Raises
    ------
    InvalidParameter
        For a value outside its range.

    Examples
    --------
    >>> x0 = torch.rand(1, 1, 6, 6)
    >>> threat, eps = Wasserstein(0.1), torch.full((1,), 0.1, dtype=torch.float64)
    >>> z = threat.project(torch.rand(1, 1, 24, 6, 6), x0, eps)
    >>> torch.allclose(threat.render(z, x0).sum(), x0.sum())
    True
    """

    eps: float
    reach: int = 2
    domain: Domain = field(default_factory=Domain, kw_only=True)
    text: str = field(default="", compare=False, kw_only=True)

    kind: ClassVar[str] = "transform"
    over_inputs: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    norm: ClassVar[Norm | None] = None
    minimum: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 < self.eps < math.inf, "eps", self.eps, "finite and above 0")
        require(self.reach >= 1, "reach", self.reach, "at least 1")

    def __str__(self) -> str:
        reach = "" if self.reach == 2 else f",reach={self.reach}"
        return self.text or f"wasserstein:{self.eps:g}{reach}"

    def within(self, domain: Domain) -> Wasserstein:
        return replace(self, domain=domain)

    def divided(self, unit: float) -> Wasserstein:
        return self

    def refuses(self, shape: Sequence[int]) -> str | None:
        return no_images(str(self), self.domain, shape)

    def origin(self, x0: Tensor) -> Tensor:
        return x0.new_zeros(len(x0), x0.shape[1], len(self._ways), *x0.shape[2:])

    def render(self, z: Tensor, x0: Tensor) -> Tensor:
        low, high = self.domain.bounds(x0)
        mass = x0 - low
        whole = mass.flatten(1).sum(1).reshape(-1, 1, 1, 1, 1)
        lengths = [math.hypot(*way) for way in self._ways]
        each = [z[:, :, k] * (1 / length) for k, length in enumerate(lengths)]
        wanted = torch.stack(each, 2) * whole * self._on_the_image(z)
        gives = (mass / wanted.sum(2).clamp_min(1e-30)).clamp_max(1)
        given = wanted * gives[:, :, None]
        arriving = torch.stack([_moved(given[:, :, k], way) for k, way in enumerate(self._ways)], 2)
        takes = ((high - x0) / arriving.sum(2).clamp_min(1e-30)).clamp_max(1)
        carried = arriving * takes[:, :, None]
        left = torch.stack(
            [_moved(carried[:, :, k], (-way[0], -way[1])) for k, way in enumerate(self._ways)], 2
        )
        return self.domain.clamp(x0 + (carried.sum(2) - left.sum(2)))

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        """The mean way of the image's mass, in pixels; infinite where a share is below 0."""
        flat = z.double().flatten(1)
        return torch.where((flat < 0).any(1), torch.inf, flat.abs().sum(1))

    def contains(self, z: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        return (self.distance(z, x0) <= eps + slack) & self.domain.inside(self.render(z, x0))

    def project(self, z: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        # Of a ball around 0 no entry changes its sign: with the negative ones at 0 it is exact.
        room = Domain(0.0, math.inf)
        return onto_ball(z.clamp_min(0), torch.zeros_like(z), eps, "l1", room)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Equally along the hundredth of ways that gain most (after Tramèr & Boneh 2019, section 3)."""
        flat = gradient.flatten(1)
        count = max(1, round(STEEP * flat.shape[1]))
        best = flat.topk(count, 1).indices
        return torch.zeros_like(flat).scatter(1, best, 1 / count).reshape(gradient.shape)

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        gain, best = flat.max(1, keepdim=True)
        spent = torch.where(gain > 0, eps[:, None], 0.0).to(flat)
        return self.project(torch.zeros_like(flat).scatter(1, best, spent).reshape(gradient.shape), x0, eps)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        """Uniform in the positive part of the l1 ball, (n, …)."""
        shape = self.origin(x0[:1]).shape[1:]
        weight = stream.exponential((math.prod(shape) + 1,), torch.float64).to(x0.device)
        share = weight[:, :-1] / weight.sum(1, keepdim=True)
        return self.project((eps[:, None] * share).reshape(-1, *shape).to(x0.dtype), x0, eps)

    @property
    def _ways(self) -> list[tuple[int, int]]:
        """Rows and columns that mass is carried by."""
        side = range(-self.reach, self.reach + 1)
        return [(down, right) for down in side for right in side if (down, right) != (0, 0)]

    def _on_the_image(self, z: Tensor) -> Tensor:
        """1 where a way ends on the image, (K, H, W)."""
        ones = z.new_ones(1, 1, *z.shape[3:])
        return torch.stack([_moved(ones, (-down, -right))[0, 0] for down, right in self._ways])


def _moved(x: Tensor, way: tuple[int, int]) -> Tensor:
    """Images (n, C, H, W) moved down and right by whole pixels, 0 where they come from."""
    down, right = way
    tall, wide = x.shape[2:]
    reach = max(abs(down), abs(right))
    padded = functional.pad(x, (reach, reach, reach, reach))
    return padded[:, :, reach - down : reach - down + tall, reach - right : reach - right + wide]


def wasserstein(domain: Domain, eps: Positive, reach: Count = 2) -> Wasserstein:
    """The image's mass carried by eps pixels on average, none of it further than `reach` along an axis."""
    return Wasserstein(eps, reach, domain=domain)
