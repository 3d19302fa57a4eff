"""The form in which attacks see inputs, whatever box and layout they come in: about 1 wide, channels first.

Lengths that attacks choose (first steps, stopping widths, constants) are made for a box 1 wide. Inputs are
divided by the power of two nearest to the width of theirs, which changes no digit, so that every answer,
threshold and distance stays what it is to the last bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.model import Access, Effort, Model
from robustbench_lite.core.parameters import LENGTH, hints_of
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Precision
from robustbench_lite.core.structure import Structure
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import AnyAttack, Attack, defaults, parameters


@dataclass(frozen=True)
class NormalForm:
    """Inputs divided by a unit, a power of two, their channels moved from an axis of one sample to the first.

    Examples
    --------
    >>> form = NormalForm.of((8, 8, 3), Domain(0.0, 255.0))
    >>> form.unit, form.axis
    (256.0, 2)
    """

    unit: float = 1.0
    axis: int = 0
    rank: int = 1

    @classmethod
    def of(cls, shape: Sequence[int], domain: Domain) -> NormalForm:
        """The form for samples of a shape in a domain."""
        width = float((torch.as_tensor(domain.high) - torch.as_tensor(domain.low)).max())
        finite = 0 < width < math.inf
        unit = 2.0 ** round(math.log2(width)) if finite else 1.0
        axis = 0 if domain.orders else domain.pixel_axis(shape) or 0  # orders name places of features
        return cls(unit, axis, len(shape))

    @property
    def plain(self) -> bool:
        """Whether inputs are in this form as they are."""
        return self.unit == 1 and self.axis == 0

    def inputs(self, x: Tensor) -> Tensor:
        """Inputs (n, …) in this form."""
        return x.movedim(self.axis + 1, 1) / self.unit if self.axis else x / self.unit

    def back(self, z: Tensor) -> Tensor:
        """Inputs (n, …) of this form as they were."""
        z = z * self.unit
        return z.movedim(1, self.axis + 1) if self.axis else z

    def domain(self, domain: Domain) -> Domain:
        """The domain of inputs in this form."""

        def moved(part: Tensor) -> Tensor:
            if not self.axis:
                return part
            return part.reshape(*[1] * (self.rank - part.dim()), *part.shape).movedim(self.axis, 0)

        def scaled(part: float | Tensor) -> float | Tensor:
            return moved(part) / self.unit if isinstance(part, Tensor) else part / self.unit

        return replace(
            domain,
            low=scaled(domain.low),
            high=scaled(domain.high),
            mask=None if domain.mask is None else moved(domain.mask),
            spacing=None if domain.spacing is None else moved(domain.spacing) / self.unit,
            pixel_dim=0 if self.axis else domain.pixel_dim,
            orders=tuple(replace(order, room=order.room / self.unit) for order in domain.orders),
        )

    def threat(self, threat: Threat) -> Threat:
        """The same threat of inputs in this form."""
        return threat.divided(self.unit).within(self.domain(threat.domain))

    def sizes(self, sizes: Tensor, norm: Norm | None) -> Tensor:
        """Distances in a norm, measured in this form."""
        return sizes if norm is Norm.L0 else sizes / self.unit

    def attack(self, attack: AnyAttack) -> AnyAttack:
        """The attack with the lengths that a user chose measured in this form."""
        hints, usual = hints_of(type(attack)), defaults(type(attack))
        changed: dict[str, object] = {}
        for name, value in parameters(attack).items():
            if isinstance(value, Attack):
                changed[name] = self.attack(value)
            elif isinstance(value, int | float) and value != usual[name] and _is_length(hints[name]):
                changed[name] = value / self.unit
        return replace(attack, **changed) if changed else attack

    def model(self, model: Model) -> Model:
        """The model, asked about inputs in this form."""
        return Seen(model, self)


class Seen(Model):
    """A model behind a normal form."""

    def __init__(self, model: Model, form: NormalForm) -> None:
        self.model, self.form = model, form
        self.name, self.family, self.num_classes = model.name, model.family, model.num_classes
        self.device, self.task, self.precision = model.device, model.task, model.precision
        self.stochastic, self.votes, self.batch_draws = model.stochastic, model.votes, model.batch_draws
        self.access: Access = model.access
        self.notes = model.notes
        self.input_shape = tuple(form.inputs(torch.empty(1, *model.input_shape)).shape[1:])

    def scores(self, x: Tensor) -> Tensor:
        return self.model.scores(self.form.back(x))

    def gradient_scores(self, x: Tensor) -> Tensor:
        return self.model.gradient_scores(self.form.back(x))

    @property
    def gradient_is_truth(self) -> bool:
        return self.model.gradient_is_truth

    @property
    def undefended(self) -> Model:
        bare = self.model.undefended
        return self if bare is self.model else Seen(bare, self.form)

    def confidence(self, scores: Tensor) -> Tensor | None:
        return self.model.confidence(scores)

    @property
    def structure(self) -> Structure | None:
        held, shape = self.model.structure, self.model.input_shape
        place = torch.arange(math.prod(shape)).reshape(1, *shape)
        order = (place.movedim(self.form.axis + 1, 1) if self.form.axis else place).flatten()
        return None if held is None else held.of_inputs(order.to(self.device), self.form.unit)

    def for_search(self, precision: Precision, effort: Effort) -> Model | None:
        fast = self.model.for_search(precision, effort)
        return None if fast is None else Seen(fast, self.form)

    def draw(self, stream: Stream) -> Model:
        drawn = copy.copy(self)
        drawn.model = self.model.draw(stream)
        return drawn

    def to(self, device: torch.device | str) -> Model:
        return Seen(self.model.to(device), self.form)


def _is_length(hint: object) -> bool:
    """Whether a hint, or a part of it, is marked as a length."""
    return LENGTH in getattr(hint, "__metadata__", ()) or any(_is_length(part) for part in get_args(hint))
