"""Nearest neighbours: votes of the nearest stored samples, and soft neighbours for gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.structure import Neighbours
from robustbench_lite.models.sklearn.lifted import Core, Front

ROOM = 1 << 23  # distances held at once
TIE = 1e-12  # relative: what two ways of computing a distance may differ by
EDGE = 1e-7  # relative: the same of the root of what is left of a difference


@dataclass(frozen=True)
class StoredCore(Core):
    """stored (N, d) with labels (N,); p: of the distance; by_distance: votes weigh 1 / distance.

    expanded: squared distances as |a|² + |b|² - 2ab, as scikit-learn's brute force computes them. width: the
    scale of the soft surrogate, a quarter of a typical (squared) distance to the last that votes.
    """

    stored: Tensor
    labels: Tensor
    classes: int
    p: float
    by_distance: bool
    expanded: bool
    width: float

    family = "knn"
    smooth = False

    @abstractmethod
    def votes(self, z: Tensor) -> Tensor:
        """The share of the votes (n, K), of few rows."""

    @abstractmethod
    def hangs(self, z: Tensor) -> Tensor:
        """Rows whose votes, or who has one, hang on rounding (n,), of few rows."""

    def scores(self, z: Tensor) -> Tensor:
        """The share of the votes."""
        return torch.cat([self.votes(part) for part in self._chunks(z)])

    def surrogate(self, z: Tensor) -> Tensor:
        """Soft nearest neighbours: log of the sum over a class's samples of exp(-distance / width).

        Frosst, Papernot & Hinton 2019, equation 1; the distance is squared where p is 2.
        """
        near = -self.distances(z) / self.width
        rows = [near[:, self.labels == c].logsumexp(1) for c in range(self.classes)]
        return torch.stack(rows, 1).clamp_min(-1e6)

    def undecided(self, z: Tensor) -> Tensor:
        return torch.cat([self.hangs(part) for part in self._chunks(z)])

    def distances(self, z: Tensor) -> Tensor:
        """From each row of z to each stored sample (n, N); squared where p is 2."""
        return (self.ranks(z) + self.own(z)).clamp_min(0)

    @cached_property
    def _sizes(self) -> Tensor:
        return self.stored.square().sum(1)

    def own(self, z: Tensor) -> Tensor:
        """What the ranks of a row leave out of its distances (n, 1)."""
        return z.square().sum(1, keepdim=True) if self.expanded else torch.zeros_like(z[:, :1])

    def ranks(self, z: Tensor) -> Tensor:
        """Numbers in the order of the distances (n, N): less work than the distances themselves."""
        if self.expanded:
            return torch.addmm(self._sizes, z, self.stored.T, alpha=-2)
        apart = z[:, None, :] - self.stored
        if self.p == 2:
            return apart.square().sum(2)
        return apart.abs().amax(2) if self.p == torch.inf else apart.abs().pow(self.p).sum(2).pow(1 / self.p)

    def confidence(self, scores: Tensor) -> Tensor:
        return scores.amax(1)

    def _chunks(self, z: Tensor) -> tuple[Tensor, ...]:
        wide = 1 if self.expanded else z.shape[1]
        return torch.split(z, max(1, ROOM // (len(self.stored) * wide)))


@dataclass(frozen=True)
class NeighbourCore(StoredCore):
    """The k nearest vote.

    Of stored samples equally far the first count (scikit-learn takes whichever its threads meet first).
    """

    k: int

    def structure(self, front: Front | None) -> Neighbours | None:
        """The stored samples, where distances are Euclidean and votes count the same."""
        if self.p != 2 or (self.by_distance and self.k > 1):
            return None
        front = front or Front.none(self.stored)
        return Neighbours(self.stored, self.labels, self.classes, self.k, front.matrix, front.offset)

    def votes(self, z: Tensor) -> Tensor:
        rank = self.ranks(z)
        far, nearest = rank.topk(min(self.k + 1, len(self.stored)), dim=1, largest=False)
        if far.shape[1] > self.k:
            tied = (far[:, self.k - 1] == far[:, self.k]).nonzero()[:, 0]
            order = rank[tied].sort(dim=1, stable=True).indices[:, : self.k]
            far, nearest = far[:, : self.k], nearest[:, : self.k].index_copy(0, tied, order)
        weight = torch.ones_like(far)
        if self.by_distance:
            far = (far + self.own(z)).clamp_min(0)
            length = far.sqrt() if self.p == 2 else far
            zero = length == 0
            weight = torch.where(zero.any(1, keepdim=True), zero.to(z), 1 / length)
        votes = functional.one_hot(self.labels[nearest], self.classes).to(z) * weight[:, :, None]
        total = votes.sum(1)
        return total / total.sum(1, keepdim=True)

    def hangs(self, z: Tensor) -> Tensor:
        distance = self.distances(z)
        most = min(self.k + 1, len(self.stored))
        far = distance.topk(most, dim=1, largest=False).values
        room = TIE * (1 + far[:, -1])
        tied = (far[:, -1] - far[:, self.k - 1] <= room) & (most > self.k)
        if self.by_distance:
            first, second = self.votes(z).topk(2, dim=1).values.unbind(1)
            tied |= (first - second <= 1e-9) | (far[:, 0] <= TIE)
        return tied


@dataclass(frozen=True)
class RadiusCore(StoredCore):
    """All within a radius vote; where none is there, the class `alone` is the answer."""

    radius: float
    alone: int

    def votes(self, z: Tensor) -> Tensor:
        length = self._lengths(z)
        there = (length <= self.radius).to(z)
        if self.by_distance:
            zero = (length == 0) & (there > 0)
            near = torch.where(length > 0, 1 / torch.where(length > 0, length, 1.0), 0.0) * there
            there = torch.where(zero.any(1, keepdim=True), zero.to(z), near)
        total = there @ functional.one_hot(self.labels, self.classes).to(z)
        nobody = functional.one_hot(torch.full_like(self.labels[:1], self.alone), self.classes).to(z)
        sum_of = total.sum(1, keepdim=True)
        return torch.where(sum_of > 0, total / torch.where(sum_of > 0, sum_of, 1.0), nobody)

    def hangs(self, z: Tensor) -> Tensor:
        length = self._lengths(z)
        tied = ((length - self.radius).abs() <= EDGE * (1 + self.radius)).any(1)
        if self.by_distance:
            first, second = self.votes(z).topk(2, dim=1).values.unbind(1)
            tied |= (first - second <= 1e-9) | (length <= EDGE).any(1)
        return tied

    def _lengths(self, z: Tensor) -> Tensor:
        found = self.distances(z)
        return found.sqrt() if self.p == 2 else found
