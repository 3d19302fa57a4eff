"""Windows of an image: where they lie, and the energy that square attacks move between them."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of


def moved_energy(problem: Problem, delta: Tensor, share: float) -> Tensor:
    """x with what the perturbation has in two windows, and what the ball has room for, in one of them."""
    height, width = delta.shape[2:]
    tall, wide = window(share, height, width)
    tall, wide = min(max(3, tall + 1 - tall % 2), height), min(max(3, wide + 1 - wide % 2), width)
    to, of = (placed(problem, tag, tall, wide, delta) for tag in ("to", "of"))
    corner = to.flatten(2).int().argmax(2)  # of each window, as its first place in the image
    lying = problem.random("turned").integers(2, (1,)) == 1
    bump, turned = pyramid(tall, wide, delta), pyramid(wide, tall, delta).T
    place = torch.arange(height * width, device=delta.device)
    row = (place // width - corner // width).clamp(0, tall - 1)
    column = (place % width - corner % width).clamp(0, wide - 1)
    shape = torch.where(lying, bump[row, column], turned[row, column])
    new = shape.reshape(-1, 1, height, width) * signs(problem, "colour", (delta.shape[1], 1, 1)) * to

    def energy(part: Tensor) -> Tensor:
        return part.square().sum((2, 3), keepdim=True)

    old = delta * to
    new = new + old / energy(old).sqrt().clamp_min(1e-12)
    spare = (problem.eps.square().to(delta) - delta.square().flatten(1).sum(1)).clamp_min(0) / delta.shape[1]
    budget = (energy(delta * (to | of)) + spare.reshape(-1, 1, 1, 1)).sqrt()
    new = new * budget / energy(new).sqrt().clamp_min(1e-12)
    whole = torch.where(to, new, torch.where(of, 0.0, delta)).reshape(problem.x0.shape)
    return problem.x0 + whole * per_row(problem.eps / size_of(whole, 2).clamp_min(1e-12), whole)


def pyramid(tall: int, wide: int, like: Tensor) -> Tensor:
    """Two pseudo-Gaussian bumps of opposite sign, one above the other, of norm 1 (section 4.3)."""
    return _pyramid(tall, wide, like.device).to(like.dtype)


@functools.lru_cache(maxsize=64)
def _pyramid(tall: int, wide: int, device: torch.device) -> Tensor:

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


def window(share: float, height: int, width: int) -> tuple[int, int]:
    """The sides of a square that covers a share of the pixels; a strip where the image is one row."""
    if height == 1:
        return 1, max(1, min(width, round(share * width)))
    side = max(1, round(math.sqrt(share * height * width)))
    return min(side, height), min(side, width)


def placed(problem: Problem, tag: str, tall: int, wide: int, image: Tensor) -> Tensor:
    """Where a window lies that is put anywhere in each image (n, 1, H, W)."""
    height, width = image.shape[2:]
    draw = problem.random(tag).uniform((2, 1, 1, 1), torch.float64)
    top, left = (draw[:, 0] * (height - tall + 1)).long(), (draw[:, 1] * (width - wide + 1)).long()
    row = torch.arange(height, device=image.device)[:, None] - top
    column = torch.arange(width, device=image.device) - left
    return (row >= 0) & (row < tall) & (column >= 0) & (column < wide)


def signs(problem: Problem, tag: str, shape: tuple[int, ...]) -> Tensor:
    return (problem.random(tag).integers(2, shape) * 2 - 1).to(problem.x0)
