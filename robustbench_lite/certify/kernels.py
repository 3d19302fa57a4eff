"""Support vector machines with a Gaussian kernel: linear bounds of terms, summed up before they are bounded.

A step δ from z changes the kernel of vector v from k to k · exp(-γ |δ|²) · exp(-γ u), with u = 2 (z - v) · δ.
The first factor is the same for all vectors. The second is convex in u, above its tangent at 0 and below its
chord, which are linear in δ: their weighted sum has its least value in the ball in closed form, and what one
vector gains another loses before any bound is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.certify.ball import Ball, largest_distance, pixels_of
from robustbench_lite.certify.certifier import Bounds, Question, counts_choices
from robustbench_lite.certify.leaves import allowed
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.structure import Kernel
from robustbench_lite.core.threat import Norm, Threat

ROWS = 64  # samples at once


class KernelBounds:
    """A sound distance: within it the true class wins against each other class by itself."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for Gaussian kernels under a norm."""
        if not isinstance(model.structure, Kernel) or threat.norm is None:
            return f"{model.name} is no machine with a Gaussian kernel under a norm"
        return counts_choices(threat)

    def bounds(self, question: Question) -> Bounds:
        """The largest eps at which the true class is proven to win every pair it is in."""
        held = question.model.structure
        assert isinstance(held, Kernel)
        found = []
        for rows in torch.split(torch.arange(len(question.y), device=question.y.device), ROWS):
            question.progress(int(rows[0]) / len(question.y))
            found.append(_Pairs.of(held, question[rows]).largest())
        distance = torch.cat(found)
        return Bounds(distance, torch.zeros_like(distance, dtype=torch.bool), "linear relaxation of kernels")


@dataclass(frozen=True)
class _Pairs:
    """The true class of each sample against each other class: K - 1 decisions, above 0 where it wins.

    weight (n, K - 1, m): of each vector times its kernel at the sample; intercept (n, K - 1); towards
    (n, m, d): the gradient of u by the input; low, high (n, d): what the box leaves of each feature, each
    of a pixel (d,).
    """

    weight: Tensor
    intercept: Tensor
    towards: Tensor
    low: Tensor
    high: Tensor
    gamma: float
    stretch: float
    norm: Norm
    pixel: Tensor

    @classmethod
    def of(cls, held: Kernel, question: Question) -> _Pairs:
        """For samples of one batch."""
        x, y = question.x0.double().flatten(1), question.y
        sides = allowed(question.x0, question.threat.domain)
        low, high = (side.double() - x for side in sides)
        z = x @ held.matrix.T + held.offset
        apart = z[:, None] - held.vectors  # (n, m, f)
        kernel = torch.exp(-held.gamma * apart.square().sum(2))
        against = torch.stack([(held.first == c) | (held.second == c) for c in range(held.classes)])
        pairs = torch.stack([row.nonzero()[:, 0] for row in against])  # (K, K - 1)
        mine = pairs[y]
        sign = torch.where(held.first[mine] == y[:, None], 1.0, -1.0).double()
        weight = held.coefficients.T[mine] * sign[:, :, None] * kernel[:, None]
        return cls(
            weight, held.intercept[mine] * sign, 2 * apart @ held.matrix, low, high, held.gamma,
            float(torch.linalg.matrix_norm(held.matrix, 2)), question.norm,
            pixels_of(question.threat.domain, question.x0),
        )  # fmt: skip

    def largest(self) -> Tensor:
        """The distance (n,) below which the true class wins every pair."""
        return largest_distance(self._win, torch.maximum(self.high, -self.low), self.norm, self.pixel)

    def _win(self, eps: Tensor) -> Tensor:
        """Whether the true class is proven to win every pair within eps (n,)."""
        ball = Ball.within(self.low, self.high, eps, self.norm, self.pixel)
        far = torch.maximum(-ball.least(self.towards), -ball.least(-self.towards))  # of u, (n, m)
        up, down = torch.exp(self.gamma * far), torch.exp(-self.gamma * far)
        chord = (up - down) / (2 * far).clamp_min(1e-300)
        middle = (up + down) / 2
        for_more, for_less = self.weight.clamp_min(0), self.weight.clamp_max(0)
        constant = for_more.sum(2) + (for_less * middle[:, None]).sum(2)
        slope = -self.gamma * for_more - for_less * chord[:, None]  # of u
        least = constant + ball.least(slope @ self.towards)
        length = ball.longest() * self.stretch
        shrunk = torch.exp(-self.gamma * length.square())[:, None]
        size = self.weight.abs().sum(2) + self.intercept.abs()
        decision = torch.minimum(least, least * shrunk) + self.intercept
        won: Tensor = (decision > 1e-9 * size).all(1)
        return won
