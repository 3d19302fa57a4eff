"""Scikit-learn's transformers that are no affine maps: lengths, products, quantiles, powers and bins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.models.sklearn.lifted import Transform

EDGE = 1e-7  # of the range: how near to its end a value counts as the end, where quantiles become normal


@dataclass(frozen=True)
class Normalised(Transform):
    """z -> z over its norm: l1, l2 or max; a row of zeros stays one."""

    norm: str

    def __call__(self, z: Tensor) -> Tensor:
        match self.norm:
            case "l1":
                size = z.abs().sum(1, keepdim=True)
            case "l2":
                size = torch.linalg.vector_norm(z, dim=1, keepdim=True)  # its gradient at 0 is 0
            case _:
                size = z.abs().amax(1, keepdim=True)
        return z / torch.where(size > 0, size, 1.0)


@dataclass(frozen=True)
class Polynomial(Transform):
    """z -> products of features; factors (k, degree): which, `features` standing for 1."""

    factors: Tensor
    features: int

    def inputs(self) -> int:
        return self.features

    def __call__(self, z: Tensor) -> Tensor:
        multiplied: Tensor = torch.cat([z, torch.ones_like(z[:, :1])], 1)[:, self.factors].prod(2)
        return multiplied


@dataclass(frozen=True)
class Powered(Transform):
    """Each feature through a power of its own, lambdas (d,): Yeo & Johnson's, or Box & Cox's."""

    lambdas: Tensor
    box_cox: bool

    def inputs(self) -> int:
        return len(self.lambdas)

    def __call__(self, z: Tensor) -> Tensor:
        if self.box_cox:
            return _power(z, self.lambdas)
        up = _power(z.clamp_min(0) + 1, self.lambdas)
        down = -_power(1 - z.clamp_max(0), 2 - self.lambdas)
        return torch.where(z >= 0, up, down)


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    """(base ** exponent - 1) / exponent, its limit the logarithm at 0."""
    flat = exponent.abs() < torch.finfo(torch.float64).eps
    safe = torch.where(flat, 1.0, exponent)
    return torch.where(flat, base.log(), (base**safe - 1) / safe)


@dataclass(frozen=True)
class Quantiles(Transform):
    """Each feature's rank among quantiles (d, Q) at references (Q,): uniform, or normal."""

    quantiles: Tensor
    references: Tensor
    normal: bool

    def inputs(self) -> int:
        return len(self.quantiles)

    def __call__(self, z: Tensor) -> Tensor:
        x = z.T.contiguous()
        upper = interpolated(x, self.quantiles, self.references.expand_as(self.quantiles))
        lower = -interpolated(-x, -self.quantiles.flip(1), -self.references.flip(0).expand_as(self.quantiles))
        rank = (upper + lower) / 2  # repeated quantiles count half from either side
        first, last = self.quantiles[:, :1], self.quantiles[:, -1:]
        room = EDGE if self.normal else 0.0
        below, above = (x - room < first, x + room > last) if self.normal else (x == first, x == last)
        rank = torch.where(above, 1.0, rank)
        rank = torch.where(below, 0.0, rank)
        if not self.normal:
            return rank.T
        least = EDGE - 2.0**-52
        normal: Tensor = torch.special.ndtri(rank.clamp(least, 1 - least))
        return normal.T


def interpolated(x: Tensor, at: Tensor, value: Tensor) -> Tensor:
    """Values (d, Q) between places (d, Q), looked up at x (d, n); of equal places the last counts."""
    most = at.shape[1] - 1
    left = (torch.searchsorted(at, x, right=True) - 1).clamp(0, most)
    right = (left + 1).clamp_max(most)
    start, end = at.gather(1, left), at.gather(1, right)
    width = end - start
    share = ((x - start) / torch.where(width > 0, width, 1.0)).clamp(0, 1)
    low, high = value.gather(1, left), value.gather(1, right)
    between = low + (high - low) * share
    between = torch.where(x < at[:, :1], value[:, :1], between)
    return torch.where(x >= at[:, -1:], value[:, -1:], between)


@dataclass(frozen=True)
class Binned(Transform):
    """Each feature's bin: edges (d, B) between bins, inf to fill up, and the middle of each bin (d, B + 1).

    right: whether a value on an edge belongs to the bin above it; one_hot (d,): how many bins a feature has,
    each then a feature of its own. Between edges nothing changes: what is differentiated rises evenly from
    the middle of a bin to that of the next, and on beyond the last.
    """

    edges: Tensor
    middle: Tensor
    right: bool
    one_hot: tuple[int, ...] = ()

    smooth = False

    def inputs(self) -> int:
        return len(self.edges)

    def __call__(self, z: Tensor) -> Tensor:
        x = z.T.contiguous()
        place = torch.searchsorted(self.edges, x.detach(), right=self.right).to(z)
        soft = self._place(x)
        if not self.one_hot:
            return (place + (soft - soft.detach())).T
        columns = []
        for feature, bins in enumerate(self.one_hot):
            number = torch.arange(bins, device=z.device)
            hard = (place[feature][:, None] == number).to(z)
            near = 1 - (soft[feature][:, None] - number).abs()
            columns.append(hard + (near - near.detach()))
        return torch.cat(columns, 1)

    def _place(self, x: Tensor) -> Tensor:
        """Where x (d, n) lies among the middles of bins, as a number that rises with it."""
        last = self.middle.shape[1] - 2
        if last < 0:
            return torch.zeros_like(x)
        left = (torch.searchsorted(self.middle, x.detach()) - 1).clamp(0, last)
        start, end = self.middle.gather(1, left), self.middle.gather(1, left + 1)
        return left + (x - start) / (end - start).clamp_min(1e-9)
