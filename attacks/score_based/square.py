"""Square attack: random squares at the boundary of the ball, kept when the margin grows; scores only."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustbench_lite.core.model import Access
from robustbench_lite.core.parameters import Count, Share
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import EVERY_TASK, Attack, Iterate

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000 after which the area halves
HORIZON = 5_000  # queries of those that its own are spread over


@dataclass(frozen=True, kw_only=True)
class SquareState(Iterate):
    """x (n, …): the best so far; reached (n,): its margin."""

    reached: Tensor


@dataclass(frozen=True)
class Square(Attack[SquareState]):
    """Random search with squares that shrink (Andriushchenko et al. 2020, algorithms 1 to 3).

    linf: a square of ±eps, one sign a channel, from vertical stripes. l2: the energy of two windows put into
    one, shaped like two opposite pyramids. Inputs that are no images count as one row of pixels. Squares
    shrink half as fast as theirs, which breaks as much with many queries and more with few.

    Parameters
    ----------
    steps : int, default 5000
        Queries.
    area : float, default 0.8
        The share of the pixels that the first square covers; above 0, at most 1.
    restarts : int, default 1
        Side by side.
    begin : {"stripes", "best"}, default "stripes"
        Where: at random stripes (or tiles, in l2), or at the best point that attacks before it have met, as
        in a cascade; at stripes where there were none.

    Notes
    -----
    Cost: restarts · (steps + 2) forward passes.

    Examples
    --------
    >>> Square(steps=3).area
    0.8
    """

    steps: Count = 5000
    area: Share = 0.8
    restarts: Count = 1
    begin: Literal["stripes", "best"] = "stripes"

    name = "square"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    tasks = EVERY_TASK
    paper = "Andriushchenko et al. 2020, arXiv:1912.00049"
    revision = 2

    def start(self, problem: Problem) -> SquareState:
        image = _as_images(problem.x0)
        channels, height, width = image.shape[1:]
        if _is_l2(problem):
            side = max(1, min(height, width) // 5)
            sign = _signs(problem, "tiles", (channels, -(-height // side), -(-width // side)))
            bump = torch.tile(_pyramid(side, side, image), (sign.shape[2], sign.shape[3]))[:height, :width]
            tall = sign.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
            delta = (tall * bump).reshape(problem.x0.shape)
            delta = delta * per_row(problem.eps / size_of(delta, 2).clamp_min(1e-12), delta)
        else:
            delta = (_signs(problem, "stripes", (channels, 1, width)) * torch.ones_like(image)).reshape(
                problem.x0.shape
            ) * problem.size()
        x = problem.project(problem.x0 + delta)
        if self.begin == "best":
            met = (problem.best_z != problem.x0).flatten(1).any(1)
            x = torch.where(per_row(met, x), problem.best_z, x)
        return SquareState(z=x, reached=problem.margins(x))

    def step(self, problem: Problem, state: SquareState) -> SquareState:
        image, base = _as_images(state.z), _as_images(problem.x0)
        height, width = image.shape[2:]
        passed = (problem.step - 1) / self.steps * HORIZON
        share = self.area / 2 ** sum(passed > h for h in HALVINGS)
        if _is_l2(problem):
            x = _moved_energy(problem, image - base, share)
        else:
            tall, wide = _window(share, height, width)
            inside = _placed(problem, "square", tall, wide, image)
            delta = _signs(problem, "colour", (image.shape[1], 1, 1)) * _as_images(problem.size())
            x = torch.where(inside, base + delta, image).reshape(problem.x0.shape)
        x = problem.project(x)
        reached = problem.margins(x)
        better = reached > state.reached
        return SquareState(
            z=torch.where(per_row(better, x), x, state.z), reached=torch.where(better, reached, state.reached)
        )


def _as_images(x: Tensor) -> Tensor:
    return x if x.dim() == 4 else x.reshape(len(x), 1, 1, -1)


def _is_l2(problem: Problem) -> bool:
    return problem.threat.norm is Norm.L2


def _moved_energy(problem: Problem, delta: Tensor, share: float) -> Tensor:
    """x with what the perturbation has in two windows, and what the ball has room for, in one of them."""
    height, width = delta.shape[2:]
    tall, wide = _window(share, height, width)
    tall, wide = min(max(3, tall + 1 - tall % 2), height), min(max(3, wide + 1 - wide % 2), width)
    to, of = (_placed(problem, tag, tall, wide, delta) for tag in ("to", "of"))
    corner = to.flatten(2).int().argmax(2)  # of each window, as its first place in the image
    lying = problem.random("turned").integers(2, (1,)) == 1
    bump, turned = _pyramid(tall, wide, delta), _pyramid(wide, tall, delta).T
    place = torch.arange(height * width, device=delta.device)
    row = (place // width - corner // width).clamp(0, tall - 1)
    column = (place % width - corner % width).clamp(0, wide - 1)
    shape = torch.where(lying, bump[row, column], turned[row, column])
    new = shape.reshape(-1, 1, height, width) * _signs(problem, "colour", (delta.shape[1], 1, 1)) * to

    def energy(part: Tensor) -> Tensor:
        return part.square().sum((2, 3), keepdim=True)

    old = delta * to
    new = new + old / energy(old).sqrt().clamp_min(1e-12)
    spare = (problem.eps.square().to(delta) - delta.square().flatten(1).sum(1)).clamp_min(0) / delta.shape[1]
    budget = (energy(delta * (to | of)) + spare.reshape(-1, 1, 1, 1)).sqrt()
    new = new * budget / energy(new).sqrt().clamp_min(1e-12)
    whole = torch.where(to, new, torch.where(of, 0.0, delta)).reshape(problem.x0.shape)
    return problem.x0 + whole * per_row(problem.eps / size_of(whole, 2).clamp_min(1e-12), whole)


def _pyramid(tall: int, wide: int, like: Tensor) -> Tensor:
    """Two pseudo-Gaussian bumps of opposite sign, one above the other, of norm 1 (section 4.3)."""
    return _cached_pyramid(tall, wide, like.device).to(like.dtype)


@functools.lru_cache(maxsize=64)
def _cached_pyramid(tall: int, wide: int, device: torch.device) -> Tensor:

    def bump(height: int) -> Tensor:
        value = torch.zeros(height, wide)
        top, left = height // 2, wide // 2
        for k in range(max(top, left) + 1):
            first, before = max(top - k, 0), max(left - k, 0)
            value[first : top + k + 1, before : left + k + 1] += 1 / (k + 1) ** 2
        return _unit(value)

    upper = bump(tall // 2) if tall > 1 else torch.zeros(0, wide)
    both = torch.cat([upper, -bump(tall - tall // 2)])
    return _unit(both).to(device)


def _unit(value: Tensor) -> Tensor:
    unit: Tensor = value / torch.linalg.vector_norm(value).clamp_min(1e-12)
    return unit


def _window(share: float, height: int, width: int) -> tuple[int, int]:
    """The sides of a square that covers a share of the pixels; a strip where the image is one row."""
    if height == 1:
        return 1, max(1, min(width, round(share * width)))
    side = max(1, round(math.sqrt(share * height * width)))
    return min(side, height), min(side, width)


def _placed(problem: Problem, tag: str, tall: int, wide: int, image: Tensor) -> Tensor:
    """Where a window lies that is put anywhere in each image (n, 1, H, W)."""
    height, width = image.shape[2:]
    draw = problem.random(tag).uniform((2, 1, 1, 1), torch.float64)
    top, left = (draw[:, 0] * (height - tall + 1)).long(), (draw[:, 1] * (width - wide + 1)).long()
    row = torch.arange(height, device=image.device)[:, None] - top
    column = torch.arange(width, device=image.device) - left
    return (row >= 0) & (row < tall) & (column >= 0) & (column < wide)


def _signs(problem: Problem, tag: str, shape: tuple[int, ...]) -> Tensor:
    return (problem.random(tag).integers(2, shape) * 2 - 1).to(problem.x0)
