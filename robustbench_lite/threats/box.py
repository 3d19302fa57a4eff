"""The box: anything inside the domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, far_along, norms
from robustbench_lite.threats.ball import Lp


@dataclass(frozen=True)
class Box:
    """Anything inside the domain, whatever its distance from x0; fooling images have no x0 at all.

    It has no norm and no eps; distances, for the records, are l2.

    Parameters
    ----------
    domain : Domain, default the box [0, 1]

    Examples
    --------
    >>> import torch
    >>> x0 = torch.zeros(1, 2)
    >>> Box().project(torch.tensor([[2.0, 0.5]]), x0, torch.full((1,), torch.inf))
    tensor([[1.0000, 0.5000]])
    """

    domain: Domain = field(default_factory=Domain)

    kind: ClassVar[str] = "box"
    over_inputs: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    norm: ClassVar[Norm | None] = None
    minimum: ClassVar[bool] = False
    eps: ClassVar[float | None] = None

    def __str__(self) -> str:
        return "box"

    def within(self, domain: Domain) -> Box:
        return Box(domain)

    def divided(self, unit: float) -> Box:
        return self

    def refuses(self, shape: Sequence[int]) -> str | None:
        return None

    def origin(self, x0: Tensor) -> Tensor:
        return x0

    def render(self, z: Tensor, x0: Tensor) -> Tensor:
        return z

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        return norms(x.double() - x0.double(), self.domain, Norm.L2)

    def contains(self, x: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        return self.domain.admits(x, x0)

    def project(self, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return self.domain.clamp(self.domain.kept(x, x0))

    def steepest(self, gradient: Tensor) -> Tensor:
        return Lp(Norm.L2, None, self.domain).steepest(gradient)

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return self.project(far_along(x0, gradient), x0, eps)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        low, high = self.domain.bounds(x0)
        x = low + (high - low) * stream.uniform(tuple(x0.shape[1:]), x0.dtype)
        return self.project(x, x0, eps)


def box(domain: Domain) -> Box:
    """Anything inside the domain."""
    return Box(domain)
