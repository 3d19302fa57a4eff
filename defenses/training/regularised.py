"""Trainings that change samples or labels at random, which were thought to help, or do for noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.parameters import Count, Fraction, Positive
from robustbench_lite.core.shape import per_row
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.training.training import Training
from robustbench_lite.models.defense import Base
from robustbench_lite.models.zoo.training import Batch, Objective


@dataclass(frozen=True)
class LabelSmoothing(Training):
    """Labels that leave a share of the probability to the other classes.

    Parameters
    ----------
    smoothing : float, default 0.3
        That share.
    epochs : int, default 0
        0: as many as the network is trained for without it.

    Source: Szegedy et al. 2016 (arXiv:1512.00567), section 7.

    Examples
    --------
    >>> LabelSmoothing(smoothing=0.5).smoothing
    0.5
    """

    smoothing: Fraction = 0.3

    name = "label_smoothing"
    paper = "Szegedy et al. 2016, arXiv:1512.00567"

    def objective(self, base: Base, learnt: Data) -> Objective:
        share = self.smoothing

        class Smoothed(Objective):
            def loss(self, module: nn.Module, batch: Batch) -> Tensor:
                return functional.cross_entropy(module(batch.x).float(), batch.y, label_smoothing=share)

        return Smoothed()


@dataclass(frozen=True)
class Mixup(Training):
    """Means of two samples, with the mean of their labels.

    Parameters
    ----------
    alpha : float, default 1.0
        Of the Beta distribution that the weights are drawn from.
    epochs : int, default 0
        0: as many as the network is trained for without it.

    Source: Zhang et al. 2018 (arXiv:1710.09412).

    Examples
    --------
    >>> Mixup(alpha=0.4).alpha
    0.4
    """

    alpha: Positive = 1.0

    name = "mixup"
    paper = "Zhang et al. 2018, arXiv:1710.09412"

    def objective(self, base: Base, learnt: Data) -> Objective:
        alpha = self.alpha

        class Mixed(Objective):
            def loss(self, module: nn.Module, batch: Batch) -> Tensor:
                drawn = batch.stream.fold("mixup").uniform((), torch.float64).cpu().numpy()
                share = torch.from_numpy(betaincinv(alpha, alpha, drawn)).to(batch.x)
                mixed = per_row(share, batch.x) * batch.x + per_row(1 - share, batch.x) * batch.x.roll(1, 0)
                scores = module(mixed).float()
                own, other = (
                    functional.cross_entropy(scores, y, reduction="none") for y in (batch.y, batch.y.roll(1))
                )
                return (share * own + (1 - share) * other).mean()

        return Mixed()


@dataclass(frozen=True)
class Cutout(Training):
    """A square of each image is blackened at random.

    Parameters
    ----------
    size : float, default 0.4
        Of its side, as a share of the image's.
    epochs : int, default 0
        0: as many as the network is trained for without it.

    Source: DeVries & Taylor 2017 (arXiv:1708.04552).

    Examples
    --------
    >>> Cutout(size=0.25).size
    0.25
    """

    size: Fraction = 0.4

    name = "cutout"
    paper = "DeVries & Taylor 2017, arXiv:1708.04552"

    def objective(self, base: Base, learnt: Data) -> Objective:
        share = self.size

        class Cut(Objective):
            def loss(self, module: nn.Module, batch: Batch) -> Tensor:
                sides = [torch.arange(side, device=batch.x.device) / side for side in (batch.x.shape[2:])]
                middle = batch.stream.fold("cutout").uniform((2,)).to(batch.x)
                rows, columns = (
                    (side[None] - middle[:, i : i + 1]).abs() <= share / 2 for i, side in enumerate(sides)
                )
                hole = rows[:, None, :, None] & columns[:, None, None, :]
                scores = module(batch.x.masked_fill(hole, 0.0)).float()
                return functional.cross_entropy(scores, batch.y)

        return Cut()


@dataclass(frozen=True)
class NoiseTraining(Training):
    """Gaussian noise on every sample: what a smoothed classifier wants of its base.

    Parameters
    ----------
    sigma : float, default 0.25
        Its standard deviation, in the units of x.
    draws : int, default 1
        Of each sample in a step.
    epochs : int, default 0
        0: as many as the network is trained for without it.

    Source: Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918), section 3.3.

    Examples
    --------
    >>> NoiseTraining(sigma=0.5).sigma
    0.5
    """

    sigma: Positive = 0.25
    draws: Count = 1

    name = "noise_training"
    paper = "Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918"

    def objective(self, base: Base, learnt: Data) -> Objective:
        sigma, draws = self.sigma, self.draws

        class Noisy(Objective):
            def loss(self, module: nn.Module, batch: Batch) -> Tensor:
                shape = tuple(batch.x.shape[1:])
                noise = [batch.stream.fold("noise", i).gaussian(shape).to(batch.x) for i in range(draws)]
                scores = module(torch.cat([batch.x + sigma * one for one in noise])).float()
                return functional.cross_entropy(scores, batch.y.repeat(draws))

        return Noisy()
