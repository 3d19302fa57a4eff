"""Pixels of an input, and inputs with some of them painted."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.problem import Problem


@dataclass(frozen=True)
class Pixels:
    """How an input's features are pixels: an image (C, H, W) has H · W of C channels, others one a feature.

    low, high (C,): the box, of all pixels together; where it is narrower, points are moved into it.
    """

    channels: int
    height: int
    width: int
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, shape: tuple[int, ...], domain: Domain, like: Tensor | None = None) -> Pixels:
        """The pixels of inputs of a shape in a domain; like: a tensor of the type and device wanted."""
        channels, height, width = _image_shape(shape)
        low, high = (
            b.expand(shape).reshape(channels, -1)
            for b in domain.bounds(torch.empty(0) if like is None else like)
        )
        return cls(channels, height, width, low.amin(1), high.amax(1))

    @classmethod
    def of_problem(cls, problem: Problem) -> Pixels:
        """The pixels of a problem's inputs."""
        return cls.of(tuple(problem.x0.shape[1:]), problem.threat.domain, problem.x0[:0])

    @property
    def count(self) -> int:
        return self.height * self.width

    def rows_and_columns(self, where: Tensor) -> tuple[Tensor, Tensor]:
        """Where places (…) lie in the image."""
        return where // self.width, where % self.width

    def within(self, share: Tensor) -> Tensor:
        """Colours (…, C) from shares of the box's width."""
        return self.clamped(self.low + share * (self.high - self.low))

    def clamped(self, colour: Tensor) -> Tensor:
        """Colours (…, C) moved into the box."""
        return torch.minimum(torch.maximum(colour, self.low), self.high)

    def palette(self, levels: int) -> Tensor:
        """The colours a grid search tries, as shares (m, C): every level, or the corners of a colour box."""
        if self.channels == 1:
            return torch.linspace(0, 1, levels).to(self.low)[:, None]
        return torch.tensor(list(itertools.product((0.0, 1.0), repeat=self.channels))).to(self.low)

    def batches(self, levels: int, size: int) -> int:
        """How many batches of candidates the grid of every pixel and every colour of the palette makes."""
        return -(-self.count * len(self.palette(levels)) // size)

    def candidates(
        self, step: int, size: int, levels: int, where: Tensor, colour: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The grid's batch at a step (n, size, 1) with colours (n, size, 1, C).

        After the last batch, every level of one channel in turn for the best candidates so far, which come
        first in where (n, P, 1) and colour (n, P, 1, C).
        """
        palette, n = self.palette(levels), len(where)
        if step < self.batches(levels, size):
            index = (step * size + torch.arange(size, device=where.device)) % (self.count * len(palette))
            place = (index // len(palette)).expand(n, -1)[:, :, None]
            return place, self.within(palette[index % len(palette)]).expand(n, -1, -1)[:, :, None]
        channel = (step - self.batches(levels, size)) % self.channels
        best = max(1, size // levels)
        value = torch.linspace(0, 1, levels).to(palette)[:, None].expand(-1, self.channels)
        colour = colour[:, :best].repeat_interleave(levels, 1)
        colour[..., channel] = self.within(value)[:, channel].repeat(best)[: colour.shape[1], None]
        return where[:, :best].repeat_interleave(levels, 1), colour


def painted(problem: Problem, where: Tensor, colour: Tensor) -> Tensor:
    """Each row's x0 with pixels where (n, P, k) painted in colour (n, P, k, C): points (n · P, …).

    The last of two that meet in a place stays; what may not change keeps its value.
    """
    n, count, k = where.shape
    channels, height, width = _image_shape(tuple(problem.x0.shape[1:]))
    flat = problem.x0.reshape(n, 1, channels, height * width).repeat(1, count, 1, 1)
    for place in range(k):
        index = where[:, :, place, None, None].expand(-1, -1, channels, 1)
        flat.scatter_(3, index, colour[:, :, place, :, None].to(flat))
    points = flat.reshape(n, count, *problem.x0.shape[1:])
    domain = problem.threat.domain
    return domain.clamp(domain.kept(points, problem.x0[:, None]).flatten(0, 1))


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return 1, 1, int(torch.Size(shape).numel())
