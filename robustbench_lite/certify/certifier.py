"""Lower bounds: who may claim them, and what a sample's best one is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.domain import LOOSE
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model, reference_precision
from robustbench_lite.core.registry import entries, load
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat

ROUNDING = 1e-6  # relative: what solvers and float32 points may be off by
ORDER = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: torch.inf}  # of a norm that is a length
DUAL = {Norm.L1: torch.inf, Norm.L2: 2.0, Norm.LINF: 1.0}  # what a linear function gains in its unit ball


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
        0 where nothing is proven, NaN where it was not tried.
    exact : Tensor of bool
        (n,): whether there is one at that distance.
    by : str
        How it was proven.
    alpha : float, optional
        The probability that a probabilistic bound is wrong.
    nearest : Tensor, optional
        (n, …) float32: the nearest adversarial examples that were met on the way, x0 where none was; for
        exact ones the nearest there are.
    """

    distance: Tensor
    exact: Tensor
    by: str
    alpha: float | None = None
    nearest: Tensor | None = None

    @property
    def kinds(self) -> list[str | None]:
        """The `BoundKind` of each sample's bound; None where there is none."""
        rest = BoundKind.SOUND if self.alpha is None else BoundKind.PROBABILISTIC
        pairs = zip(self.exact.tolist(), self.distance.isnan().tolist(), strict=True)
        return [None if none else str(BoundKind.EXACT if exact else rest) for exact, none in pairs]

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as arrays, which `of_arrays` reads."""
        found = {
            "distance": self.distance.cpu().numpy(),
            "exact": self.exact.cpu().numpy(),
            "by": np.array(self.by),
        }
        if self.alpha is not None:
            found["alpha"] = np.array(self.alpha)
        if self.nearest is not None:
            found["nearest"] = self.nearest.cpu().numpy()
        return found

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Bounds:
        """What `arrays` gave, on the CPU."""
        distance, exact = (torch.from_numpy(arrays[name]) for name in ("distance", "exact"))
        alpha = float(arrays["alpha"]) if "alpha" in arrays else None
        nearest = torch.from_numpy(arrays["nearest"]) if "nearest" in arrays else None
        return cls(distance, exact, str(arrays["by"]), alpha, nearest)

    def __getitem__(self, rows: slice | Tensor) -> Bounds:
        nearest = None if self.nearest is None else self.nearest[rows]
        return replace(self, distance=self.distance[rows], exact=self.exact[rows], nearest=nearest)


@dataclass(frozen=True)
class Question:
    """What is to be proven, of which samples.

    Parameters
    ----------
    model : Model
    threat : Threat
        Its norm and domain count; its eps does not: bounds are distances.
    goal : Goal
    x0 : Tensor
        (n, …) samples, in the domain.
    y : Tensor
        (n,) true classes, which the model has right.
    target : Tensor, optional
        (n, k) classes to reach, any of which will do; None: every class but y.
    effort : float, default 1.0
        How much may be spent on a sample: at 1 most bounds are as good as they get.
    progress : callable
        Called with the fraction done.
    """

    model: Model
    threat: Threat
    goal: Goal
    x0: Tensor
    y: Tensor
    target: Tensor | None = None
    effort: float = 1.0
    progress: Callable[[float], None] = lambda fraction: None

    def __getitem__(self, rows: Tensor | slice) -> Question:
        target = None if self.target is None else self.target[rows]
        return replace(self, x0=self.x0[rows], y=self.y[rows], target=target)

    @property
    def norm(self) -> Norm:
        """The threat's norm, which every certifier asks for."""
        assert self.threat.norm is not None
        return self.threat.norm

    @property
    def sought(self) -> Tensor:
        """Which classes will do (n, K)."""
        classes = self.model.num_classes
        every = torch.arange(classes, device=self.y.device)
        wanted = torch.ones(len(self.y), classes, dtype=torch.bool, device=self.y.device)
        if self.target is not None:
            wanted = (every[None, :, None] == self.target[:, None, :]).any(2)
        return wanted & (every != self.y[:, None])


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

    def bounds(self, question: Question) -> Bounds:
        """The bounds of samples; asked for where `refuses` is None.

        Parameters
        ----------
        question : Question

        Returns
        -------
        Bounds
        """


def certify(question: Question) -> Bounds | None:
    """The largest bound of all certifiers that know the model.

    Only threats with a norm have distances that can be bounded. An option of the goal that asks for more than
    another class makes an exact answer a sound one; so does a class that rejects.

    Parameters
    ----------
    question : Question

    Returns
    -------
    Bounds or None
        None where there is none.

    Examples
    --------
    >>> import robustbench_lite as rb
    >>> digits, model = rb.load_data("digits", samples=5), rb.load_model("linear")
    >>> found = certify(Question(model, rb.parse_threat("l2:min"), Goal(), digits.x, digits.y))
    >>> found.kinds[0], found.distance.shape
    ('exact', torch.Size([5]))
    """
    model, threat, goal = question.model, question.threat, question.goal
    if threat.norm is None:
        return None
    if question.target is not None and goal.rejection and model.task.reject is not None:
        refusal = torch.full_like(question.target[:, :1], model.task.reject)  # which will do as well
        question = replace(question, target=torch.cat([question.target, refusal], 1))
    best: Bounds | None = None
    for certifier in certifiers(model, threat, goal):
        with reference_precision():  # a GPU's convolutions would round more than bounds allow for
            found = certifier.bounds(question) if len(question.y) else _none(question)
        if not bool(found.distance.isnan().all()) or not len(question.y):
            best = found if best is None else _better(best, found, question.x0)
    if best is None:
        return None
    more = bool(goal.margin or goal.confidence) or model.task.reject is not None
    sound = replace(best, exact=best.exact & False) if more else best
    lowered = _in_steps(sound.distance, question)
    return replace(sound, distance=torch.where(sound.exact, sound.distance, lowered))


def _in_steps(distance: Tensor, question: Question) -> Tensor:
    """Bounds (n,) less what counting in whole steps may take off the distance of a point."""
    norm, spacing = question.norm, question.threat.domain.spacing
    if spacing is None or norm is Norm.L0:
        return distance
    stepped = int((spacing > 0).expand(question.x0.shape[1:]).sum())
    number = 1.0 if norm is Norm.LINF else math.sqrt(stepped) if norm is Norm.L2 else float(stepped)
    lowered: Tensor = distance * (1 - 2.0**-22) - number * LOOSE * 2.0**-23
    return lowered.clamp_min(0.0)


def certifiers(model: Model, threat: Threat, goal: Goal) -> list[Certifier]:
    """Those that know a model; nothing is proven of answers with positions, or where an answer of NaN does.

    Of models with a structure it is known that they answer with numbers.
    """
    if model.task.kind != "classification" or (goal.nan and model.structure is None):
        return []
    known = [
        cast(Certifier, cast(type, load(one.where, "certifier"))()) for one in entries("certifiers").values()
    ]
    return [one for one in known if one.refuses(model, threat, goal) is None]


def _none(question: Question) -> Bounds:
    """The bounds of no samples."""
    distance = torch.zeros_like(question.y, dtype=torch.float64)
    return Bounds(distance, distance > 0, "")


def _better(one: Bounds, other: Bounds, start: Tensor) -> Bounds:
    """Of two bounds of samples start (n, …) the exact one, else the larger, sample by sample."""
    further = (other.distance > one.distance) | one.distance.isnan()
    take = (other.exact & ~one.exact) | ((other.exact == one.exact) & further)
    nearest = one.nearest
    if nearest is None or other.nearest is None:
        nearest = nearest if nearest is not None else other.nearest
    else:
        met = take & ~(other.nearest == start).flatten(1).all(1)
        nearest = torch.where(per_row(met, nearest), other.nearest, nearest)
    return Bounds(
        torch.where(take, other.distance, one.distance),
        one.exact | other.exact,
        " and ".join(dict.fromkeys([one.by, other.by])) if bool(take.any()) else one.by,
        one.alpha or other.alpha,
        nearest,
    )


def counts_choices(threat: Threat) -> str | None:
    """Why bounds of a box say nothing here: where l0 counts choices, each of several features."""
    if threat.norm is Norm.L0 and threat.domain.groups is not None:
        return "choices of several features are not counted by a relaxation"
    return None


def rounded_down(distance: Tensor, norm: Norm | None) -> Tensor:
    """Distances (n,) less what rounding may have added; numbers of pixels are whole."""
    return distance if norm is Norm.L0 else distance * (1 - ROUNDING)
