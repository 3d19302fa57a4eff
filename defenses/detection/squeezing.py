"""Feature squeezing: what changes the answer when it is made coarser is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.model import Model
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.detection.detector import Detector, Statistic
from robustbench_lite.defenses.transformation.preprocessing import Preprocessing, check_images
from robustbench_lite.defenses.transformation.quantising import BitDepth, Bits
from robustbench_lite.defenses.transformation.smoothing import Median, Side
from robustbench_lite.models.defense import Base


@dataclass(frozen=True)
class Squeezing(Detector):
    """Refuses where probabilities move in l1 when the input is put in few levels, or smoothed by a median.

    Parameters
    ----------
    bits : int, default 3
        Of the levels, in [1, 8].
    median : int, default 2
        Side of the median's square, in [2, 16] pixels.
    rate : float, default 0.05
        The share of training samples that are refused.

    Source: Xu, Evans & Qi 2018 (arXiv:1704.01155), section 5; broken by He et al. 2017 (arXiv:1706.04701).

    Examples
    --------
    >>> Squeezing(bits=1).rate
    0.05
    """

    bits: Bits = 3
    median: Side = 2

    name = "squeezing"
    paper = "Xu, Evans & Qi 2018, arXiv:1704.01155"

    def statistic(self, model: Model, base: Base, known: Data) -> Statistic:
        check_images(self.name, base.data)
        return _Moved((BitDepth(self.bits), Median(self.median)))


@dataclass(frozen=True)
class _Moved(Statistic):
    """The largest l1 distance between the probabilities of an input and of its squeezed forms."""

    squeezers: Sequence[Preprocessing]

    def value(self, model: Model, x: Tensor, scores: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        share = scores.softmax(1)
        stream = Stream.of(0, torch.arange(len(x), device=x.device))
        moved = [(ask(one.smooth(x, stream)).softmax(1) - share).abs().sum(1) for one in self.squeezers]
        return torch.stack(moved).amax(0)
