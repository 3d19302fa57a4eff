"""The steps that a norm and a box leave a sample, and the largest size within which something still holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.certify.certifier import DUAL, ORDER, ROUNDING
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.threat import Norm

HALVINGS = 40


@dataclass(frozen=True)
class Ball:
    """Steps δ (n, d) of at most eps, and within low <= δ <= high, which hold 0.

    Parameters
    ----------
    low, high : Tensor
        (n, d).
    eps : Tensor
        (n,): whole numbers of pixels in l0.
    norm : Norm
    pixel : Tensor
        (d,): the pixel that each feature is of, which l0 counts.
    """

    low: Tensor
    high: Tensor
    eps: Tensor
    norm: Norm
    pixel: Tensor

    @classmethod
    def within(cls, low: Tensor, high: Tensor, eps: Tensor, norm: Norm, pixel: Tensor) -> Ball:
        """The ball of a box, whose sides a length brings nearer."""
        if norm is not Norm.L0:
            low, high = torch.maximum(low, -eps[:, None]), torch.minimum(high, eps[:, None])
        return cls(low, high, eps, norm, pixel)

    def __getitem__(self, rows: Tensor) -> Ball:
        return Ball(self.low[rows], self.high[rows], self.eps[rows], self.norm, self.pixel)

    def least(self, slope: Tensor) -> Tensor:
        """The least value of slope (n, k, d) · δ, or one below it (n, k); of several the best."""
        gain = torch.where(slope > 0, slope * self.low[:, None], slope * self.high[:, None])
        box = gain.sum(2)
        if self.norm is Norm.LINF:  # the sides are within eps already
            return box
        if self.norm is Norm.L0:
            return -self._fewest(-gain)
        free = (self.low < self.high)[:, None]
        length = torch.linalg.vector_norm(slope * free, ord=DUAL[self.norm], dim=2)
        return torch.maximum(box, -self.eps[:, None] * length)

    def longest(self) -> Tensor:
        """The largest Euclidean length of a step, or one above it (n,)."""
        furthest = torch.maximum(self.high, -self.low).square()
        if self.norm is Norm.L0:
            return self._fewest(furthest[:, None])[:, 0].sqrt()
        return furthest.sum(1).sqrt() if self.norm is Norm.LINF else self.eps

    def _fewest(self, gain: Tensor) -> Tensor:
        """What the eps pixels of most gain (n, k, d), each at least 0, gain together (n, k)."""
        pixels = int(self.pixel.max()) + 1
        per_pixel = torch.zeros(*gain.shape[:2], pixels, dtype=gain.dtype, device=gain.device)
        per_pixel = per_pixel.index_add(2, self.pixel, gain)
        most = min(pixels, int(self.eps.max()))
        best = per_pixel.topk(most, dim=2).values
        taken = torch.arange(most, device=gain.device) < self.eps[:, None]
        return (best * taken[:, None]).sum(2)


def pixels_of(domain: Domain, x0: Tensor) -> Tensor:
    """The pixel that each feature of samples (n, …) is of (d,)."""
    count = domain.pixels(x0[:1]).shape[1]
    number = torch.arange(count, device=x0.device, dtype=torch.float64)[None]
    return domain.spread(number, x0[:1]).flatten().long()


def largest_distance(holds: Callable[[Tensor], Tensor], room: Tensor, norm: Norm, pixel: Tensor) -> Tensor:
    """Below which distance nothing is adversarial (n,), where `holds` tells that no step up to eps (n,) is.

    room (n, d): how far the box lets each feature go, each of a pixel (d,). inf where nothing in the box is.
    """
    whole = norm is Norm.L0
    if whole:
        width = torch.full_like(room[:, 0], float(pixel.max()) + 1)
    else:
        width = torch.linalg.vector_norm(room, ord=ORDER[norm], dim=1)
    proven, failed = torch.zeros_like(width), width
    every = holds(width)
    for _ in range(max(1, int(width.max())).bit_length() if whole else HALVINGS):
        eps = (proven + failed) / 2
        eps = eps.floor() if whole else eps
        held = holds(eps)
        proven, failed = torch.where(held, eps, proven), torch.where(held, failed, eps)
    if not whole:
        return torch.where(every, torch.inf, proven * (1 - ROUNDING))
    # Of whole numbers the next is the nearest that is left; a sample that is right needs one pixel at least.
    return torch.where(every, torch.inf, proven + 1)
