"""Procedural noise: a pattern of waves that no image was learnt from, chosen among a few."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.attacks.universal.batches import order_of
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Fitted

OCTAVES = 4  # of noise at most, each twice as fine and half as high as the one before
WAVES = 8.0  # of the sine over the noise's range at most


@dataclass(frozen=True)
class Procedural(Fitted):
    """The sign of a sine of Perlin noise, of a few drawn at random the one that breaks most of some images
    (Co et al. 2019, section 3).

    One perturbation for every sample; nothing but decisions is asked, and of images of the training split.

    Parameters
    ----------
    steps : int, default 50
        Patterns tried.
    images : int, default 100
        Of the training split, that they are tried on.

    Notes
    -----
    Cost: steps · images forward passes, all while it learns.

    Examples
    --------
    >>> Procedural(steps=3).images
    100
    """

    steps: Count = 50
    images: Count = 100

    name = "procedural"
    access = Access.DECISION
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Co et al. 2019, arXiv:1810.00470"

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if len(model.input_shape) != 3:
            return f"procedural draws on images (C, H, W); {model.name} takes {model.input_shape}"
        return super().refuses(model, threat, goal)

    def learns_from(self) -> int:
        return self.images

    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        few = problem[order_of(problem, 0)[: self.images]]
        keys = Stream.of(problem.seed, torch.arange(self.steps, device=problem.x0.device)).fold("procedural")
        best, most = torch.zeros_like(problem.x0[:1]), -1.0
        for step in range(self.steps):
            pattern = _pattern(keys[torch.tensor([step])], tuple(problem.x0.shape[1:])).to(problem.x0)
            delta = problem.threat.domain.free(few.size()[:1] * few.threat.steepest(pattern))
            rate = float(few.decisions(few.project(few.x0 + delta)).float().mean())
            best, most = (delta, rate) if rate > most else (best, most)
        return {"delta": best}

    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        return problem.x0 + artifact["delta"].to(problem.x0)


def _pattern(stream: Stream, shape: tuple[int, ...]) -> Tensor:
    """The signs of waves along Perlin noise, the same in every channel (1, C, H, W)."""
    draw = stream.fold("settings").uniform((4,), torch.float64)[0].tolist()
    height, width = shape[1:]
    # From two cells a side to as many as there are pairs of pixels, evenly in their logarithm.
    cells = [2 * max(1.0, side / 4) ** share for side, share in zip((height, width), draw, strict=False)]
    noise = torch.zeros(height, width, dtype=torch.float64, device=stream.key.device)
    for octave in range(1 + int(draw[2] * OCTAVES)):
        noise += _perlin(stream.fold("octave", octave), (height, width), cells, 2**octave) / 2**octave
    waves = (noise * 2 * math.pi * (1 + draw[3] * (WAVES - 1))).sin()
    signs = torch.where(waves >= 0, 1.0, -1.0)
    return signs.expand(1, *shape)


def _perlin(stream: Stream, size: tuple[int, int], cells: list[float], finer: int) -> Tensor:
    """Perlin noise (H, W): random slopes at the corners of cells, blended by smooth steps (Perlin 2002)."""
    down, across = (
        torch.arange(side, dtype=torch.float64, device=stream.key.device) / side * count * finer
        for side, count in zip(size, cells, strict=True)
    )
    corners = tuple(math.ceil(count * finer) + 2 for count in cells)
    angle = 2 * math.pi * stream.uniform(corners, torch.float64)[0]
    row, column = down.long(), across.long()
    y, x = down - row, across - column
    total = torch.zeros(size, dtype=torch.float64, device=angle.device)
    for i in (0, 1):
        for j in (0, 1):
            turn = angle[row + i][:, column + j]
            slope = turn.cos() * (x - j) + turn.sin() * (y - i)[:, None]
            total += slope * _smooth(1 - (y - i).abs())[:, None] * _smooth(1 - (x - j).abs())
    return total


def _smooth(t: Tensor) -> Tensor:
    """6 t^5 - 15 t^4 + 10 t^3."""
    return t**3 * (t * (6 * t - 15) + 10)
