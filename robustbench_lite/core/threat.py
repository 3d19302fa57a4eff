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
            changed = (domain.pixels((delta != 0).double()) > 0).sum(1).double()
            return torch.where(delta.flatten(1).isnan().any(1), torch.nan, changed)
        case Norm.L1:
            return delta.flatten(1).abs().sum(1)
        case Norm.L2:
            return delta.flatten(1).square().sum(1).sqrt()
        case Norm.LINF:
            return delta.flatten(1).abs().amax(1)


class Threat(Protocol):
    """Where an adversarial example may lie around a sample x0.

    An attack iterates z (n, …): the input itself for balls and the box, the parameters of a change (an angle,
    a shift) for others; `render` makes the input of it. eps (n,) float64 is the size allowed to each row.

    kind: `ball`, `box`, `rotation`, …; norm: what sizes are measured in, None where they are no norm of the
    input; minimum: whether the smallest perturbation is sought; eps: the size every row starts with, None
    where there is none; domain: the box, mask and steps that the data brings.
    """

    @property
    def kind(self) -> str: ...

    @property
    def norm(self) -> Norm | None: ...

    @property
    def minimum(self) -> bool: ...

    @property
    def eps(self) -> float | None: ...

    @property
    def domain(self) -> Domain: ...

    def within(self, domain: Domain) -> Threat:
        """The same threat inside another domain."""

    def origin(self, x0: Tensor) -> Tensor:
        """The z of each row that changes nothing (n, …)."""

    def render(self, z: Tensor, x0: Tensor) -> Tensor:
        """The inputs (n, …) that z makes of x0; differentiable."""

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        """How far each row of z (n, …) goes, (n,) float64."""

    def contains(self, z: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        """Whether each row is an admissible point (n,); slack widens the ball, in the units of z."""

    def project(self, z: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
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
