"""Lower bounds: who may claim them, and what a sample's best one is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, cast

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.registry import entries, load
from robustbench_lite.core.threat import Norm, Threat

ROUNDING = 1e-6  # relative: what solvers and float32 points may be off by


class BoundKind(StrEnum):
    """What a lower bound is worth: the distance itself, no more than it, or so with a probability."""

    EXACT = "exact"
    SOUND = "sound"
    PROBABILISTIC = "probabilistic"


@dataclass(frozen=True)
class Bounds:
    """What is proven of n samples.

    Parameters
    ----------
    distance : Tensor
        (n,) float64: no adversarial example is nearer, in the threat's norm; inf where the domain holds none,
        0 where nothing is proven.
    kind : BoundKind
    alpha : float, optional
        The probability that a probabilistic bound is wrong.
    """

    distance: Tensor
    kind: BoundKind
    alpha: float | None = None


class Certifier(Protocol):
    """Proves lower bounds for the models it knows; nobody who is not registered may claim any."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """Why nothing can be proven of this model under this threat; None when something can.

        Parameters
        ----------
        model : Model
        threat : Threat
        goal : Goal

        Returns
        -------
        str or None
        """

    def bounds(
        self, model: Model, threat: Threat, goal: Goal, x0: Tensor, y: Tensor, target: Tensor | None
    ) -> Bounds:
        """The bounds of samples; asked for where `refuses` is None.

        Parameters
        ----------
        model : Model
        threat : Threat
        goal : Goal
        x0 : Tensor
            (n, …).
        y : Tensor
            (n,) classes.
        target : Tensor or None
            (n, k), any of which will do.

        Returns
        -------
        Bounds
        """


def certify(
    model: Model, threat: Threat, goal: Goal, x0: Tensor, y: Tensor, target: Tensor | None
) -> Bounds | None:
    """The largest bound of all certifiers that know the model.

    Only threats with a norm have distances that can be bounded. An option of the goal that asks for more than
    another class makes an exact answer a sound one; so does a class that rejects.

    Parameters
    ----------
    model : Model
    threat : Threat
    goal : Goal
    x0 : Tensor
        (n, …) samples, in the threat's domain.
    y : Tensor
        (n,) true classes.
    target : Tensor or None
        (n, k) classes to reach, any of which will do; None when the goal is untargeted.

    Returns
    -------
    Bounds or None
        None where there is none.

    Examples
    --------
    >>> import robustbench_lite as rb
    >>> digits = rb.load_data("digits", samples=5)
    >>> found = certify(rb.load_model("linear"), rb.parse_threat("l2:min"), Goal(), digits.x, digits.y, None)
    >>> str(found.kind), found.distance.shape
    ('exact', torch.Size([5]))
    """
    if threat.norm is None:
        return None
    best: Bounds | None = None
    for entry in entries("certifiers").values():
        certifier = cast(Certifier, cast(type, load(entry.where, "certifier"))())
        if certifier.refuses(model, threat, goal) is not None:
            continue
        found = certifier.bounds(model, threat, goal, x0, y, target)
        if best is None or bool((found.distance > best.distance).any()):
            best = (
                found
                if best is None
                else Bounds(
                    torch.maximum(found.distance, best.distance), BoundKind.SOUND, found.alpha or best.alpha
                )
            )
    more = bool(goal.margin or goal.confidence) or model.task.reject is not None
    return Bounds(best.distance, BoundKind.SOUND, best.alpha) if best and more else best


def rounded_down(distance: Tensor, norm: Norm | None) -> Tensor:
    """Distances (n,) less what rounding may have added; numbers of pixels are whole."""
    return distance if norm is Norm.L0 else distance * (1 - ROUNDING)
