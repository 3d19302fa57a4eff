"""The contract of a threat: where an adversarial example may lie, and how its distance is measured."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.random import Stream


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


def far_along(x0: Tensor, gradient: Tensor) -> Tensor:
    """x0 moved infinitely far along the signs of a gradient."""
    return torch.where(gradient == 0, x0, torch.copysign(torch.full_like(x0, torch.inf), gradient.to(x0)))
