"""MagNet: what an autoencoder cannot draw again is refused, and the rest is cleaned first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Positive
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.detection.detector import Detector, Statistic
from robustbench_lite.defenses.transformation.preprocessing import check_images
from robustbench_lite.defenses.transformation.purification import Cleaned, autoencoder
from robustbench_lite.models.behind import Behind, Transformation
from robustbench_lite.models.defense import Base


@dataclass(frozen=True)
class MagNet(Detector):
    """Refuses images far from what a denoising autoencoder makes of them; the model sees that instead.

    Parameters
    ----------
    sigma : float, default 0.1
        Standard deviation of the noise that the autoencoder learns to take away.
    rate : float, default 0.05
        The share of training samples that are refused.

    Source: Meng & Chen 2017 (arXiv:1705.09064); broken by Carlini & Wagner 2017 (arXiv:1711.08478).

    Examples
    --------
    >>> MagNet(sigma=0.2).sigma
    0.2
    """

    sigma: Positive = 0.1

    name = "magnet"
    paper = "Meng & Chen 2017, arXiv:1705.09064"

    def guarded(self, base: Base) -> Model:
        check_images(self.name, base.data)
        return Behind(base.model(), self._cleaned(base), base.text)

    def statistic(self, model: Model, base: Base, known: Data) -> Statistic:
        return _Redrawn(self._cleaned(base))

    def _cleaned(self, base: Base) -> Cleaned:
        return Cleaned(autoencoder(base.data, base.train, self.sigma))


@dataclass(frozen=True, eq=False)
class _Redrawn(Statistic):
    """The mean absolute difference between an image and what the autoencoder makes of it."""

    cleaned: Transformation

    def value(self, model: Model, x: Tensor, scores: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        stream = Stream.of(0, torch.arange(len(x), device=x.device))
        return (x - self.cleaned.apply(x, stream)).abs().flatten(1).mean(1)

    def to(self, device: torch.device) -> Statistic:
        return _Redrawn(self.cleaned.to(device))

    def facts(self) -> bytes:
        return self.cleaned.facts()
