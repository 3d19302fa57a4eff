"""Detectors that look at what a network's last layer is given: far from the training data, or rare there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Positive
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.detection.detector import CALIBRATED, Detector, Statistic
from robustbench_lite.models.code import tensor_facts
from robustbench_lite.models.defense import Base
from robustbench_lite.models.torch.embedding import embedding, embeddings
from robustbench_lite.models.torch.module import TorchModel

RIDGE = 1e-3  # of the mean variance, that keeps a covariance invertible
LEAST = 1e-9  # spread of an embedding


@dataclass(frozen=True)
class Mahalanobis(Detector):
    """Refuses what lies far from every class's mean, measured by the covariance all classes share.

    Parameters
    ----------
    rate : float, default 0.05
        The share of training samples that are refused.

    Source: Lee et al. 2018 (arXiv:1807.03888), section 2, on the last layer alone.

    Examples
    --------
    >>> Mahalanobis(rate=0.1).rate
    0.1
    """

    name = "mahalanobis"
    paper = "Lee et al. 2018, arXiv:1807.03888"

    def statistic(self, model: Model, base: Base, known: Data) -> Statistic:
        network = _network(model, self.name)
        held, y = embeddings(network, known.x[: 5 * CALIBRATED]), known.y[: 5 * CALIBRATED].to(network.device)
        classes, place = torch.unique(y, return_inverse=True)
        means = torch.stack([held[y == c].mean(0) for c in classes])
        apart = held - means[place]
        covariance = apart.T @ apart / len(apart)
        ridge = max(LEAST, RIDGE * float(covariance.diagonal().mean())) * torch.eye(len(covariance)).to(
            covariance
        )
        return _Far(means, torch.linalg.inv(covariance + ridge))


@dataclass(frozen=True)
class Density(Detector):
    """Refuses what is rare among the training samples of the predicted class: a kernel density.

    Parameters
    ----------
    bandwidth : float, default 1.0
        Of the Gaussian kernel, in the median distance of a training sample to its class's mean.
    rate : float, default 0.05
        The share of training samples that are refused.

    Source: Feinman et al. 2017 (arXiv:1703.00410), section 5.1.

    Examples
    --------
    >>> Density(bandwidth=0.5).bandwidth
    0.5
    """

    bandwidth: Positive = 1.0

    name = "density"
    paper = "Feinman et al. 2017, arXiv:1703.00410"

    def statistic(self, model: Model, base: Base, known: Data) -> Statistic:
        network = _network(model, self.name)
        held, y = embeddings(network, known.x[:CALIBRATED]), known.y[:CALIBRATED].to(network.device)
        classes, place = torch.unique(y, return_inverse=True)
        means = torch.stack([held[y == c].mean(0) for c in classes])
        width = self.bandwidth * max(LEAST, float((held - means[place]).norm(dim=1).median()))
        return _Rare(held, y, width)


def _network(model: Model, name: str) -> TorchModel:
    if not isinstance(model, TorchModel):
        raise Unsupported(
            f"{name} looks into a network; {model.name} is none, or has a transformation before it"
        )
    if not any(isinstance(part, nn.Linear) for part in model.module.modules()):
        raise Unsupported(f"{name} looks at what the last linear layer is given; {model.name} has none")
    return model


@dataclass(frozen=True, eq=False)
class _Far(Statistic):
    """The root of the smallest squared Mahalanobis distance to a class's mean (K, d)."""

    means: Tensor
    precision: Tensor

    def value(self, model: Model, x: Tensor, scores: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        assert isinstance(model, TorchModel)
        apart = embedding(model, x)[:, None] - self.means
        squared = (apart @ self.precision * apart).sum(2)
        return squared.amin(1).clamp_min(1e-12).sqrt()

    def to(self, device: torch.device) -> Statistic:
        return _Far(self.means.to(device), self.precision.to(device))

    def facts(self) -> bytes:
        return b"".join([*tensor_facts(self.means), *tensor_facts(self.precision)])


@dataclass(frozen=True, eq=False)
class _Rare(Statistic):
    """Minus the logarithm of the kernel density of the predicted class's training samples (m, d)."""

    samples: Tensor
    labels: Tensor
    width: float

    def value(self, model: Model, x: Tensor, scores: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        assert isinstance(model, TorchModel)
        away = torch.cdist(embedding(model, x), self.samples) / self.width
        own = self.labels == model.prediction(scores)[:, None]
        density = (-(away**2) / 2).masked_fill(~own, -math.inf).logsumexp(1)
        return -(density - own.sum(1).clamp_min(1).log()).clamp_min(-1e4)

    def to(self, device: torch.device) -> Statistic:
        return _Rare(self.samples.to(device), self.labels.to(device), self.width)

    def facts(self) -> bytes:
        parts = [*tensor_facts(self.samples), *tensor_facts(self.labels), repr(self.width).encode()]
        return b"".join(parts)
