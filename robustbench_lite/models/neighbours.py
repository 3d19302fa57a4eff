"""Nearest neighbours: votes of the k nearest stored samples, and soft neighbours for gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.models.lifted import Core

ROOM = 1 << 24  # distances held at once


@dataclass(frozen=True)
class NeighbourCore(Core):
    """stored (N, d) with labels (N,); k; p: of the distance; by_distance: votes weigh 1 / distance.

    expanded: squared distances as |a|² + |b|² - 2ab, as scikit-learn's brute force computes them.
    width: the scale of the soft stand-in, a typical (squared) distance to the k-th neighbour.
    """

    stored: Tensor
    labels: Tensor
    classes: int
    k: int
    p: float
    by_distance: bool
    expanded: bool
    width: float

    family = "knn"
    smooth = False

    def scores(self, z: Tensor) -> Tensor:
        """The share of the votes."""
        size = max(1, ROOM // len(self.stored))
        return torch.cat([self._votes(part) for part in torch.split(z, size)])

    def stand_in(self, z: Tensor) -> Tensor:
        """Soft nearest neighbours: log of the sum over a class's samples of exp(-distance / width).

        Frosst, Papernot & Hinton 2019, equation 1; the distance is squared where p is 2.
        """
        near = -self.distances(z) / self.width
        rows = [near[:, self.labels == c].logsumexp(1) for c in range(self.classes)]
        return torch.stack(rows, 1).clamp_min(-1e6)

    def distances(self, z: Tensor) -> Tensor:
        """From each row of z to each stored sample (n, N); squared where p is 2."""
        if self.p == 2 and self.expanded:
            size = self.stored.square().sum(1)
            return torch.addmm(z.square().sum(1, keepdim=True) + size, z, self.stored.T, alpha=-2).clamp_min(
                0
            )
        if self.p == 2:
            return _differences(z, self.stored).square().sum(2)
        apart = _differences(z, self.stored).abs()
        return apart.amax(2) if self.p == torch.inf else apart.pow(self.p).sum(2).pow(1 / self.p)

    def confidence(self, scores: Tensor) -> Tensor:
        return scores.amax(1)

    def _votes(self, z: Tensor) -> Tensor:
        distance = self.distances(z)
        most = min(self.k + 1, len(self.stored))
        values, index = distance.topk(most, dim=1, largest=False)
        if most > self.k:  # of equal distances at the edge, those stored first count
            tied = (values[:, self.k - 1] == values[:, self.k]).nonzero()[:, 0]
            if len(tied):
                order = distance[tied].sort(dim=1, stable=True).indices[:, : self.k]
                index = index[:, : self.k].contiguous()
                index[tied] = order
        index = index[:, : self.k]
        weight = torch.ones_like(index, dtype=z.dtype)
        if self.by_distance:
            far = distance.gather(1, index)
            far = far.sqrt() if self.p == 2 else far
            zero = far == 0
            weight = torch.where(zero.any(1, keepdim=True), zero.to(z), 1 / far)
        votes = functional.one_hot(self.labels[index], self.classes).to(z) * weight[:, :, None]
        total = votes.sum(1)
        return total / total.sum(1, keepdim=True)


def _differences(z: Tensor, stored: Tensor) -> Tensor:
    return z[:, None, :] - stored[None, :, :]
