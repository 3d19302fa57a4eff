"""Randomised smoothing: the class that most noisy copies of an input get, with the radius it holds in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Positive
from robustbench_lite.core.random import Stream
from robustbench_lite.core.structure import Noise
from robustbench_lite.models.behind import Behind, Transformation
from robustbench_lite.models.defense import Base, Defense


@dataclass(frozen=True)
class Smoothed(Defense):
    """A model asked about noisy copies of its input; its answer is their vote.

    The certifier `smoothing` proves, up to a chance of one in a thousand, a distance within which the vote
    cannot change. A base trained on the same noise is worth much more: `smoothed(noise_training(cnn))`.

    Parameters
    ----------
    sigma : float, default 0.25
        Standard deviation of the noise, in the units of x.

    Source: Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918).

    Examples
    --------
    >>> Smoothed(sigma=0.5).sigma
    0.5
    """

    sigma: Positive = 0.25

    name = "smoothed"
    paper = "Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918"

    def defend(self, base: Base) -> Model:
        return SmoothedModel(base.model(), self.sigma, base.text)


class SmoothedModel(Behind):
    """A model behind Gaussian noise whose answer is the vote of many draws."""

    def __init__(self, model: Model, sigma: float, name: str) -> None:
        super().__init__(model, _Noise(sigma), name)
        self.sigma, self.votes = sigma, True

    @property
    def structure(self) -> Noise:
        return Noise(self.sigma, self.num_classes)


@dataclass(frozen=True)
class _Noise(Transformation):
    """Gaussian noise, not cut off at the box: the proof asks for all of it."""

    sigma: float

    random = True

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        return x + self.sigma * stream.fold("smoothing").gaussian(tuple(x.shape[1:])).to(x)
