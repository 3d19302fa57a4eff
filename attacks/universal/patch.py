"""An adversarial patch: a square or a disc that changes the class wherever it is put."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from robustbench_lite.attacks.universal.batches import batches
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, LossName
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Fitted


@dataclass(frozen=True)
class Patch(Fitted):
    """One square or disc of pixels for every image and every place, fitted on the training split
    (Brown et al. 2017, equation 1).

    The expectation over images and places of the loss is raised by signed gradient steps that grow shorter.
    The threat's eps is how many pixels it may cover, `l0:25` for 5 × 5; a goal such as `class:3` makes
    everything that class. For turns and sizes, attack `transformed(MODEL,…)` with `--eot N`.

    Parameters
    ----------
    steps : int, default 200
        Of gradients.
    images : int, default 2000
        How many of the training split at most, gone through again and again in another order.
    batch : int, default 100
        Images in each step.
    loss : {"ce", "dlr", "margin", "houdini"}, default "ce"
        That the steps raise.
    shape : {"square", "disc"}, default "square"
        The largest one of at most eps pixels.
    place : {"free", "middle", "corner"}, default "free"
        Anywhere, another place in every step; or always in the middle, or the upper left corner.

    Examples
    --------
    >>> Patch(steps=3).loss
    'ce'
    """

    steps: Count = 200
    images: Count = 2000
    batch: Count = 100
    loss: LossName = "ce"
    shape: Literal["square", "disc"] = "square"
    place: Literal["free", "middle", "corner"] = "free"

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
        mask = self._mask(min(height, width), int(problem.threat.eps or 1)).to(problem.x0.device)
        side = len(mask)
        low, high = (bound.amin() for bound in problem.threat.domain.bounds(problem.x0))
        patch = torch.full((1, channels, side, side), 0.5).to(problem.x0) * (low + high)
        for step, images in enumerate(islice(batches(problem, self.batch, 1 << 30), self.steps)):
            images = replace(images, step=step + 1)  # another place, and another draw of a stochastic model
            where = self._corners(images, side)
            found = images.evaluate(_put(images.x0, patch, mask, where), images.loss_named(self.loss))
            gradient = _window(found.gradient, where, side).mean(0, keepdim=True)
            size = 0.1 * (high - low) * (1 - step / self.steps)
            patch = (patch + size * gradient.sign() * mask).clamp(low, high)
        return {"patch": patch, "mask": mask}

    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        patch, mask = artifact["patch"].to(problem.x0), artifact["mask"].to(problem.x0.device).bool()
        return _put(problem.x0, patch, mask, self._corners(problem, patch.shape[2]))

    def _mask(self, most: int, pixels: int) -> Tensor:
        """Which pixels of its square the patch covers (s, s)."""
        if self.shape == "square":
            side = min(math.isqrt(pixels), most)
            return torch.ones(side, side, dtype=torch.bool)
        return next(disc for side in range(most, 0, -1) if int((disc := _disc(side)).sum()) <= pixels)

    def _corners(self, problem: Problem, side: int) -> Tensor:
        """The top left corner in each image (n, 2)."""
        if self.place == "free":
            return _places(problem.random("place"), problem.x0, side)
        room = [size - side for size in problem.x0.shape[2:]]
        fixed = torch.tensor([r // 2 for r in room] if self.place == "middle" else [0, 0])
        return fixed.to(problem.x0.device).expand(len(problem), 2)


def _places(stream: Stream, x: Tensor, side: int) -> Tensor:
    """A random top left corner for each image (n, 2)."""
    rows, columns = (
        stream.fold(tag).integers(size - side + 1, ()) for tag, size in zip("yx", x.shape[2:], strict=True)
    )
    return torch.stack([rows, columns], 1)


def _disc(side: int) -> Tensor:
    """Pixels of a square whose middles lie in its disc (s, s)."""
    away = torch.arange(side) - (side - 1) / 2
    return away.square()[:, None] + away.square() <= (side / 2) ** 2


def _grid(where: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (n, side, side) of image, row and column."""
    span = torch.arange(side, device=where.device)
    image = torch.arange(len(where), device=where.device)[:, None, None].expand(-1, side, side)
    row = (where[:, :1, None] + span[:, None]).expand(-1, -1, side)
    return image, row, (where[:, 1:, None] + span).expand(-1, side, -1)


def _put(x: Tensor, patch: Tensor, mask: Tensor, where: Tensor) -> Tensor:
    """Images (n, C, H, W) with the patch (1, C, s, s), where its mask (s, s) has it, at its place in each."""
    image, row, column = _grid(where, patch.shape[2])
    covered = x.clone()
    below = x[image, :, row, column]
    covered[image, :, row, column] = torch.where(mask[..., None], patch[0].permute(1, 2, 0), below)
    return covered


def _window(x: Tensor, where: Tensor, side: int) -> Tensor:
    """What lies under the patch in each image, (n, C, s, s)."""
    image, row, column = _grid(where, side)
    return x[image, :, row, column].permute(0, 3, 1, 2)
