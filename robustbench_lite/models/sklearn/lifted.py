"""What a lifted estimator is: transforms of the features, then a core that scores them, in float64."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.structure import SOLVED, Structure

Holder = TypeVar("Holder", bound="Holds")


@dataclass(frozen=True)
class Holds:
    """A dataclass of tensors and numbers that can move between devices and be hashed."""

    def to(self: Holder, device: torch.device | str) -> Holder:
        """The same on another device."""
        held = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **{k: _moved(v, device) for k, v in held.items()})

    def facts(self) -> bytes:
        """Everything that determines what it answers."""
        parts = [type(self).__name__.encode()]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, Tensor):
                    parts.append(one.cpu().numpy().tobytes())
                else:
                    parts.append(one.facts() if isinstance(one, Holds) else repr(one).encode())
        return b"|".join(parts)


def _moved(value: object, device: torch.device | str) -> object:
    if isinstance(value, tuple):
        return tuple(_moved(one, device) for one in value)
    return value.to(device) if isinstance(value, Tensor | Holds) else value


class Transform(Holds, ABC):
    """What a step of a pipeline does to features (n, d) float64 -> (n, k), with a gradient."""

    smooth = True  # whether the gradient is that of what it does
    affine = False
    each_feature = False  # whether every feature is moved by itself, and upwards, by an affine map

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """Features (n, d) -> (n, k)."""

    def inputs(self) -> int | None:
        """d; None where it takes any number."""
        return None

    def of_features(self, index: Tensor) -> Transform:
        """The same for a list of single features (m,), where each is moved by itself."""
        raise TypeError(f"{type(self).__name__} does not move each feature by itself")


@dataclass(frozen=True)
class Affine(Transform):
    """z -> (z - shift) * factor / divisor + offset, then matrix @ z, as scikit-learn orders the operations.

    Every field is optional; without a matrix each feature stays its own. spacing: features that mean
    multiples of it are first taken as the nearest one (0: as they are), which float32 may have missed.
    """

    spacing: Tensor | None = None
    shift: Tensor | None = None
    divisor: Tensor | None = None
    factor: Tensor | None = None
    offset: Tensor | None = None
    matrix: Tensor | None = None

    affine = True

    def __call__(self, z: Tensor) -> Tensor:
        """Features (n, d) float64 -> (n, d or k)."""
        if self.spacing is not None:
            steps = torch.where(self.spacing > 0, self.spacing, 1.0)
            nearest = torch.where(self.spacing > 0, (z.detach() / steps).round() * steps, z.detach())
            z = z + (nearest - z.detach())  # the gradient passes as if nothing had been rounded
        if self.shift is not None:
            z = z - self.shift
        if self.divisor is not None:
            z = z / self.divisor
        if self.factor is not None:
            z = z * self.factor
        if self.offset is not None:
            z = z + self.offset
        return z if self.matrix is None else z @ self.matrix.T

    def inputs(self) -> int | None:
        """As many as any of its parts has."""
        parts = [
            p for p in (self.spacing, self.shift, self.divisor, self.factor, self.offset) if p is not None
        ]
        if parts:
            return len(parts[0])
        return None if self.matrix is None else int(self.matrix.shape[1])

    def of_features(self, index: Tensor) -> Affine:
        """The same for a list of single features (m,); there must be no matrix."""
        parts = (self.spacing, self.shift, self.divisor, self.factor, self.offset)
        return Affine(*(None if part is None else part[index] for part in parts))

    @property
    def each_feature(self) -> bool:  # type: ignore[override]
        """Whether every feature is moved by itself, and upwards."""
        scales = [s for s in (self.divisor, self.factor) if s is not None]
        return self.matrix is None and all(bool((s > 0).all()) for s in scales)


@dataclass(frozen=True)
class Front:
    """The affine map before a core: matrix (m, d) @ x + offset (m,)."""

    matrix: Tensor
    offset: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Front:
        """The map that leaves features as they are, for a table (…, d) of them."""
        d = like.shape[-1]
        return cls(torch.eye(d, dtype=like.dtype, device=like.device), like.new_zeros(d))


class Core(Holds, ABC):
    """Scores of features (n, d) float64: the truth, and what is differentiated in its stead."""

    family = "lifted"
    smooth = True

    @abstractmethod
    def scores(self, z: Tensor) -> Tensor:
        """The estimator's decision: its class is the first largest score, (n, K) float64."""

    def surrogate(self, z: Tensor) -> Tensor:
        """The truth where it is smooth, else a smooth function near it (n, K)."""
        return self.scores(z)

    def decision(self, z: Tensor, smooth: bool) -> Tensor:
        """What its `decision_function` gives (n, K), of two classes (n, 1); smooth: of the surrogate."""
        scores = self.surrogate(z) if smooth else self.scores(z)
        return scores[:, 1:] - scores[:, :1] if scores.shape[1] == 2 else scores

    def undecided(self, z: Tensor) -> Tensor:
        """Rows where the estimator's own decision hangs on rounding or on its number of threads (n,)."""
        return torch.zeros(len(z), dtype=torch.bool, device=z.device)

    def confidence(self, scores: Tensor) -> Tensor | None:
        """The estimator's probability of its class, where it has one."""
        return None

    def structure(self, front: Front | None) -> Structure | None:
        """What exact methods work on, of inputs behind an affine map (None: behind none)."""
        return None


class Lifted(Model):
    """A core behind its transforms; columns: each class's place among the estimator's (None: its own)."""

    def __init__(
        self,
        core: Core,
        transforms: Sequence[Transform],
        input_shape: Sequence[int],
        columns: Tensor | None = None,
        *,
        name: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.core, self.transforms = core, tuple(transforms)
        self.name, self.family = name, core.family
        self.input_shape, self.columns, self.notes = tuple(input_shape), columns, notes
        self.device, self.precision = torch.device("cpu"), "float64"
        self.num_classes = self.scores(torch.zeros(1, *self.input_shape)).shape[1]

    def scores(self, x: Tensor) -> Tensor:
        return self._in_order(self.core.scores(self.features(x)))

    def gradient_scores(self, x: Tensor) -> Tensor:
        return self._in_order(self.core.surrogate(self.features(x)))

    @property
    def gradient_is_truth(self) -> bool:
        return self.core.smooth and all(transform.smooth for transform in self.transforms)

    def features(self, x: Tensor) -> Tensor:
        """What the estimator would have been given, after its transforms (n, d) float64."""
        z = x.flatten(1).double()
        for transform in self.transforms:
            z = transform(z)
        return z

    @property
    def access(self) -> Access:  # type: ignore[override]
        return Access.STRUCTURE if isinstance(self.structure, SOLVED) else Access.GRADIENT

    @cached_property
    def structure(self) -> Structure | None:
        if not all(transform.affine for transform in self.transforms):
            return None
        held = self.core.structure(self._front() if self.transforms else None)
        return held if held is None or self.columns is None else held.of_classes(self.columns)

    def _front(self) -> Front:
        """The transforms as one map: their value at 0 and at the unit vectors tells them whole."""
        d = int(torch.tensor(self.input_shape).prod())
        corners = torch.cat([torch.zeros(1, d), torch.eye(d)]).to(self.device)
        values = self.features(corners)
        return Front((values[1:] - values[0]).T.contiguous(), values[0])

    def confidence(self, scores: Tensor) -> Tensor | None:
        return self.core.confidence(scores)

    def _in_order(self, scores: Tensor) -> Tensor:
        """The columns in the order of the data's classes."""
        return scores if self.columns is None else scores[:, self.columns]

    def to(self, device: torch.device | str) -> Lifted:
        moved = copy.copy(self)
        moved.__dict__.pop("structure", None)
        moved.device = torch.device(device)
        moved.core = self.core.to(device)
        moved.transforms = tuple(t.to(device) for t in self.transforms)
        return moved

    def facts(self) -> bytes:
        parts = [self.core.facts(), *(t.facts() for t in self.transforms)]
        parts += [] if self.columns is None else [repr(self.columns.tolist()).encode()]
        return b"||".join(parts)
