"""An adversarial patch: a square that changes the class wherever it is put."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from robustbench_lite.attacks.universal.batches import batches
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.losses import loss_named
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, LossName
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Fitted


@dataclass(frozen=True)
class Patch(Fitted):
    """One square of pixels for every image and every place, fitted on the training split
    (Brown et al. 2017, equation 1).

    The expectation over images and places of the loss is raised by signed gradient steps that grow shorter.
    The threat's eps is how many pixels it may cover, `l0:25` for 5 × 5; a goal such as `class:3` makes
    everything that class. For turns and sizes, attack `transformed(MODEL,…)`.

    Parameters
    ----------
    steps : int, default 200
        Of gradients.
    images : int, default 2000
        How many of the training split at most, gone through again and again in another order.
    batch : int, default 100
        Images in each step.
    loss : {"ce", "dlr", "margin"}, default "ce"
        That the steps raise.

    Examples
    --------
    >>> Patch(steps=3).loss
    'ce'
    """

    steps: Count = 200
    images: Count = 2000
    batch: Count = 100
    loss: LossName = "ce"

    name = "patch"
    norms = frozenset({Norm.L0})
    paper = "Brown et al. 2017, arXiv:1712.09665"
    revision = 2

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if len(model.input_shape) != 3:
            return f"patch is put on images (C, H, W); {model.name} takes {model.input_shape}"
        if threat.eps is None or threat.eps < 1:
            return f"patch needs a pixel at least, l0:1; not {threat}"
        return super().refuses(model, threat, goal)

    def learns_from(self) -> int:
        return self.images

    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        channels, height, width = problem.x0.shape[1:]
        side = min(math.isqrt(int(problem.threat.eps or 1)), height, width)
        low, high = (bound.amin() for bound in problem.threat.domain.bounds(problem.x0))
        patch = torch.full((1, channels, side, side), 0.5).to(problem.x0) * (low + high)
        for step, images in enumerate(islice(batches(problem, self.batch, 1 << 30), self.steps)):
            images = replace(images, step=step + 1)  # another place, and another draw of a stochastic model
            where = _places(images.random("place"), images.x0, side)
            found = images.evaluate(_put(images.x0, patch, where), loss_named(self.loss))
            gradient = _window(found.gradient, where, side).mean(0, keepdim=True)
            size = 0.1 * (high - low) * (1 - step / self.steps)
            patch = (patch + size * gradient.sign()).clamp(low, high)
        return {"patch": patch}

    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        patch = artifact["patch"].to(problem.x0)
        return _put(problem.x0, patch, _places(problem.random("place"), problem.x0, patch.shape[2]))


def _places(stream: Stream, x: Tensor, side: int) -> Tensor:
    """A random top left corner for each image (n, 2)."""
    rows, columns = (
        stream.fold(tag).integers(size - side + 1, ()) for tag, size in zip("yx", x.shape[2:], strict=True)
    )
    return torch.stack([rows, columns], 1)


def _grid(where: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (n, side, side) of image, row and column."""
    span = torch.arange(side, device=where.device)
    image = torch.arange(len(where), device=where.device)[:, None, None].expand(-1, side, side)
    row = (where[:, :1, None] + span[:, None]).expand(-1, -1, side)
    return image, row, (where[:, 1:, None] + span).expand(-1, side, -1)


def _put(x: Tensor, patch: Tensor, where: Tensor) -> Tensor:
    """Images (n, C, H, W) with the patch (1, C, s, s) at its place in each."""
    image, row, column = _grid(where, patch.shape[2])
    covered = x.clone()
    covered[image, :, row, column] = patch[0].permute(1, 2, 0).expand(len(x), -1, -1, -1)
    return covered


def _window(x: Tensor, where: Tensor, side: int) -> Tensor:
    """What lies under the patch in each image, (n, C, s, s)."""
    image, row, column = _grid(where, side)
    return x[image, :, row, column].permute(0, 3, 1, 2)
