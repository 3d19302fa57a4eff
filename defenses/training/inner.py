"""The adversary inside a training step: a few steps of ascent in a ball, in the box of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row

Rise = Callable[[Tensor, Tensor], Tensor]  # (scores (n, K), y (n,)) -> what is raised ()


@dataclass(frozen=True)
class Ball:
    """Points within eps of a sample, in a norm, inside a box."""

    norm: Literal["linf", "l2"]
    eps: float
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, norm: Literal["linf", "l2"], eps: float, domain: Domain, device: torch.device) -> Ball:
        """A ball in the box of the data."""
        low, high = (
            torch.as_tensor(part, dtype=torch.float32, device=device) for part in (domain.low, domain.high)
        )
        return cls(norm, eps, low, high)

    def random(self, x: Tensor, stream: Stream) -> Tensor:
        """A random point around each sample, uniform in linf; in l2 of uniform length and direction."""
        shape = tuple(x.shape[1:])
        if self.norm == "linf":
            away = self.eps * (2 * stream.fold("start").uniform(shape).to(x) - 1)
        else:
            way = stream.fold("start").gaussian(shape).to(x)
            length = self.eps * stream.fold("length").uniform(()).to(x)
            away = way * per_row(length / self._length(way), x)
        return self.inside(x + away, x)

    def inside(self, z: Tensor, x: Tensor) -> Tensor:
        """The points z (n, …) brought back into the ball and the box."""
        if self.norm == "linf":
            z = torch.minimum(torch.maximum(z, x - self.eps), x + self.eps)
        else:
            away = z - x
            z = x + away * per_row((self.eps / self._length(away)).clamp_max(1.0), x)
        return torch.minimum(torch.maximum(z, self.low), self.high)

    def step(self, gradient: Tensor, size: float) -> Tensor:
        """A step of a size along a gradient (n, …), as the norm measures it."""
        if self.norm == "linf":
            return size * gradient.sign()
        moved: Tensor = size * gradient / per_row(self._length(gradient), gradient)
        return moved

    @staticmethod
    def _length(values: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
        return length.clamp_min(1e-12)


def ascent(
    module: nn.Module, x: Tensor, y: Tensor, start: Tensor, ball: Ball, steps: int, size: float, rise: Rise
) -> Tensor:
    """Where a few steps of gradient ascent lead from a start; the module is asked in eval mode."""
    mode = module.training
    module.eval()
    z = start
    for _ in range(steps):
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(rise(module(z).float(), y), z)
        z = ball.inside(z.detach() + ball.step(gradient, size), x)
    module.train(mode)
    return z.detach()
