"""The box: anything inside the domain."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, far_along, norms
from robustbench_lite.threats.ball import Lp


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
        return self.project(far_along(x0, gradient), x0, eps)

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        low, high = self.domain.bounds(x0)
        x = low + (high - low) * stream.uniform(tuple(x0.shape[1:]), x0.dtype)
        return self.project(x, x0, eps)
