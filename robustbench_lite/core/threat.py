"""The contract of a threat: where an adversarial example may lie, and how its distance is measured."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import size_of


class Norm(StrEnum):
    """A way to measure a perturbation; l0 counts pixels, whichever of their channels changed."""

    L0 = "l0"
    L1 = "l1"
    L2 = "l2"
    LINF = "linf"


ALL_NORMS = frozenset(Norm)


def norms(delta: Tensor, domain: Domain, norm: Norm) -> Tensor:
    """The norm of each perturbation.

    Parameters
    ----------
    delta : Tensor
        (n, …).
    domain : Domain
        Says which features make a pixel, for l0.
    norm : Norm

    Returns
    -------
    Tensor
        (n,) float64: pixels for l0, else in the units of x; NaN where delta holds a NaN.

    Examples
    --------
    >>> norms(torch.tensor([[3.0, -4.0, 0.0]]), Domain(), Norm.L2)
    tensor([5.], dtype=torch.float64)
    """
    delta = delta.double()
    match norm:
        case Norm.L0:
            changed = (domain.pixels((delta != 0).double()) > 0).sum(1).double()
            return torch.where(delta.flatten(1).isnan().any(1), torch.nan, changed)
        case Norm.L1:
            return size_of(delta, 1)
        case Norm.L2:
            return size_of(delta, 2)
        case Norm.LINF:
            return size_of(delta, torch.inf)


class Threat(Protocol):
    """Where an adversarial example may lie around a sample x0.

    An attack iterates z (n, …): the input itself for balls and the box, the parameters of a change (an angle,
    a shift) for others; `render` makes the input of it. Where z is the input, the domain's mask and steps
    hold for it. eps (n,) float64 is the size allowed to each row, in the units of z.

    An author implements every attribute and method, and `__str__`, which is what records call the threat;
    there is nothing to inherit from.

    Attributes
    ----------
    kind : str
        `ball`, `box` or `transform`: what an attack's `threats` are compared with.
    over_inputs : bool
        Whether z is the input itself.
    moves : bool
        Whether pixels change their place, so that labels of pixels no longer fit.
    norm : Norm or None
        What sizes are measured in, None where they are no norm of the input.
    minimum : bool
        Whether the smallest perturbation is sought.
    eps : float or None
        The size every row starts with, None where there is none.
    domain : Domain
        The box, mask and steps that the data brings.

    Examples
    --------
    >>> from robustbench_lite.threats.named import parse_threat
    >>> threat, x0 = parse_threat("linf:0.25"), torch.full((1, 2), 0.5)
    >>> eps = torch.tensor([threat.eps], dtype=torch.float64)
    >>> threat.project(x0 + 1, x0, eps)
    tensor([[0.7500, 0.7500]])
    """

    @property
    def kind(self) -> str: ...

    @property
    def over_inputs(self) -> bool: ...

    @property
    def moves(self) -> bool: ...

    @property
    def norm(self) -> Norm | None: ...

    @property
    def minimum(self) -> bool: ...

    @property
    def eps(self) -> float | None: ...

    @property
    def domain(self) -> Domain: ...

    def within(self, domain: Domain) -> Threat:
        """The same threat inside another domain.

        Parameters
        ----------
        domain : Domain

        Returns
        -------
        Threat
            Another one; this one stays as it is.
        """

    def divided(self, unit: float) -> Threat:
        """The same threat of inputs that are divided by a unit; the domain is left for `within`.

        Parameters
        ----------
        unit : float
            Above 0.

        Returns
        -------
        Threat
            Itself where sizes are not in the units of x.
        """

    def refuses(self, shape: Sequence[int]) -> str | None:
        """Why inputs of a shape cannot be changed so; None when they can.

        Parameters
        ----------
        shape : sequence of int
            Of one input.

        Returns
        -------
        str or None
            One line.
        """

    def origin(self, x0: Tensor) -> Tensor:
        """The z of each row that changes nothing.

        Parameters
        ----------
        x0 : Tensor
            (n, …) samples.

        Returns
        -------
        Tensor
            (n, …): x0 itself for balls.
        """

    def render(self, z: Tensor, x0: Tensor) -> Tensor:
        """The inputs that z makes of x0; differentiable.

        Parameters
        ----------
        z : Tensor
            (n, …).
        x0 : Tensor
            (n, …) samples.

        Returns
        -------
        Tensor
            (n, …), shaped like x0: z itself for balls.
        """

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        """How far each row of z goes.

        Parameters
        ----------
        z : Tensor
            (n, …).
        x0 : Tensor
            (n, …) samples.

        Returns
        -------
        Tensor
            (n,) float64, comparable with eps.
        """

    def contains(self, z: Tensor, x0: Tensor, eps: Tensor, slack: float = 0.0) -> Tensor:
        """Whether each row is an admissible point.

        Parameters
        ----------
        z : Tensor
            (n, …).
        x0 : Tensor
            (n, …) samples.
        eps : Tensor
            (n,) float64.
        slack : float, default 0.0
            Widens the ball, in the units of z.

        Returns
        -------
        Tensor of bool
            (n,).
        """

    def project(self, z: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """The admissible point nearest to each row; exact, and inside when measured in float64.

        Parameters
        ----------
        z : Tensor
            (n, …).
        x0 : Tensor
            (n, …) samples.
        eps : Tensor
            (n,) float64.

        Returns
        -------
        Tensor
            (n, …).
        """

    def steepest(self, gradient: Tensor) -> Tensor:
        """The unit step along which a linear function with this gradient rises most.

        Parameters
        ----------
        gradient : Tensor
            (n, …), with respect to z.

        Returns
        -------
        Tensor
            (n, …).
        """

    def linear_maximum(self, gradient: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """The admissible point of each row where a linear function with this gradient is highest; exact.

        Parameters
        ----------
        gradient : Tensor
            (n, …), with respect to z.
        x0 : Tensor
            (n, …) samples.
        eps : Tensor
            (n,) float64.

        Returns
        -------
        Tensor
            (n, …).
        """

    def random(self, stream: Stream, x0: Tensor, eps: Tensor) -> Tensor:
        """A random admissible point for each row.

        Parameters
        ----------
        stream : Stream
            One key a row; the same key, the same point.
        x0 : Tensor
            (n, …) samples.
        eps : Tensor
            (n,) float64.

        Returns
        -------
        Tensor
            (n, …).
        """


def far_along(x0: Tensor, gradient: Tensor) -> Tensor:
    """x0 moved infinitely far along the signs of a gradient."""
    return torch.where(gradient == 0, x0, torch.copysign(torch.full_like(x0, torch.inf), gradient.to(x0)))
