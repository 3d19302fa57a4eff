"""Threats one after another: `rotation:10+linf:2/255`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.threats.ball import Lp
from robustbench_lite.threats.transform import Transform


@dataclass(frozen=True)
class Added(Transform):
    """A change of every feature by at most eps: the linf ball as a transformation, z being the change."""

    name: ClassVar[str] = "linf"

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return tuple(image)

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        return x0 + z

    def divided(self, unit: float) -> Added:
        return replace(self, eps=self.eps / unit)


@dataclass(frozen=True)
class Composed(Transform):
    """Transformations one after another, each within its own limits.

    z (n, P): the parameters of all parts side by side, each as a share of its part's eps; so eps is 1, and a
    distance the largest share of its own size that a part takes.

    Parameters
    ----------
    eps : float, default 1.0
    parts : tuple of Transform
        At least one, in the order in which they are applied.

    Examples
    --------
    >>> from robustbench_lite.threats.named import parse_threat
    >>> threat, x0 = parse_threat("rotation:10+linf:2/255"), torch.rand(2, 3, 8, 8)
    >>> threat.origin(x0).shape
    torch.Size([2, 193])
    """

    eps: float = 1.0
    parts: tuple[Transform, ...] = ()

    @property
    def moves(self) -> bool:
        return any(part.moves for part in self.parts)

    def __str__(self) -> str:
        return self.text or "+".join(str(part) for part in self.parts)

    def within(self, domain: Domain) -> Composed:
        return replace(self, domain=domain, parts=tuple(part.within(domain) for part in self.parts))

    def divided(self, unit: float) -> Composed:
        return replace(self, parts=tuple(part.divided(unit) for part in self.parts))

    def refuses(self, shape: Sequence[int]) -> str | None:
        return next(filter(None, (part.refuses(shape) for part in self.parts)), None)

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (sum(self._sizes(image)),)

    def least(self, image: Sequence[int], like: Tensor) -> Tensor:
        every = [part.least(image, like).expand(part.parameters(image)).flatten() for part in self.parts]
        return torch.cat(every)

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        image = x0.shape[1:]
        for part, own in zip(self.parts, torch.split(z, self._sizes(image), 1), strict=True):
            x0 = part.render(_within(part.eps, z.dtype) * own.reshape(-1, *part.parameters(image)), x0)
        return x0

    def _sizes(self, image: Sequence[int]) -> list[int]:
        return [math.prod(part.parameters(image)) for part in self.parts]


def _within(eps: float, dtype: torch.dtype) -> float:
    """The largest number of a type that is at most eps."""
    rounded = torch.tensor(eps, dtype=dtype)
    return float(rounded if float(rounded) <= eps else torch.nextafter(rounded, torch.zeros_like(rounded)))


def composed(parts: Sequence[Threat], text: str) -> Composed:
    """Threats one after another, as they were written.

    Raises
    ------
    InvalidParameter
        For a part whose limits are no cube: a ball of another norm than linf, a patch.
    """
    found: list[Transform] = []
    for part in parts:
        if isinstance(part, Lp) and part.norm is Norm.LINF and part.eps:
            found.append(Added(part.eps, domain=part.domain, text=str(part)))
        elif isinstance(part, Transform):
            found.append(part)
        else:
            raise InvalidParameter("threat", text, f"of transformations and linf balls of a size; not {part}")
    return Composed(parts=tuple(found), domain=found[0].domain, text=text)
