"""Noise of images (n, C, H, W) in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import pieces

GAUSSIAN = (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)  # small images, large ones
SHOT = (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)
IMPULSE = (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)
SPECKLE = (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)


def gaussian_noise(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """A normal number added to every value."""
    return x + GAUSSIAN[not small][severity - 1] * stream.gaussian(tuple(x.shape[1:])).to(x)


def speckle_noise(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """A normal number times the value added to it."""
    return x + x * SPECKLE[not small][severity - 1] * stream.gaussian(tuple(x.shape[1:])).to(x)


def impulse_noise(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Some values put to 0 or 1, as often one as the other."""
    shape = tuple(x.shape[1:])
    hit = stream.fold("hit").uniform(shape).to(x.device) < IMPULSE[not small][severity - 1]
    return torch.where(hit, stream.fold("salt").integers(2, shape).to(x), x)


def shot_noise(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """As many photons as a Poisson number with the value's mean."""
    rate = SHOT[not small][severity - 1]
    draw = stream.uniform(tuple(x.shape[1:]), torch.float64).to(x.device)
    return torch.cat([poisson(rate * x[s].double(), draw[s]) for s in pieces(x)]).to(x.dtype) / rate


def poisson(mean: Tensor, uniform: Tensor) -> Tensor:
    """The Poisson number of each mean whose cumulative probability first exceeds a uniform number."""
    low = torch.full_like(mean, -1.0)
    high = (mean + 12 * mean.sqrt() + 30).ceil()
    while bool((high - low > 1).any()):
        middle = ((low + high) / 2).floor()
        # P(X <= k) is the regularised upper incomplete gamma function of k + 1 at the mean.
        enough = torch.special.gammaincc(middle + 1, mean) > uniform
        high, low = torch.where(enough, middle, high), torch.where(enough, low, middle)
    return high
