"""Square attack: random squares at the boundary of the ball, kept when the margin grows; scores only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.attacks.score_based.windows import moved_energy, placed, pyramid, signs, window
from robustbench_lite.core.errors import require
from robustbench_lite.core.goal import margin
from robustbench_lite.core.model import Access
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate
from robustbench_lite.threats.ball import Lp

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000 after which the area halves


@dataclass(frozen=True, kw_only=True)
class Standing(Iterate):
    """x (n, …): the best so far; reached (n,): its margin."""

    reached: Tensor


@dataclass(frozen=True)
class Square(Attack):
    """Random search with squares that shrink (Andriushchenko et al. 2020, algorithms 1 to 3).

    linf: a square of ±eps, one sign a channel, from vertical stripes. l2: the energy of two windows put into
    one, shaped like two opposite pyramids. Inputs that are no images count as one row of pixels.

    steps: queries. area: the share of the pixels that the first square covers. restarts: side by side. Cost:
    restarts · (steps + 1) forward passes.
    """

    steps: int = 5000
    area: float = 0.8
    restarts: int = 1

    name = "square"
    access = Access.SCORE
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Andriushchenko et al. 2020, arXiv:1912.00049"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(0 < self.area <= 1, "area", self.area, "above 0, at most 1")
        require(self.restarts >= 1, "restarts", self.restarts, "at least 1")

    def start(self, problem: Problem) -> Standing:
        image = _as_images(problem.x0)
        channels, height, width = image.shape[1:]
        if _is_l2(problem):
            side = max(1, min(height, width) // 5)
            sign = signs(problem, "tiles", (channels, -(-height // side), -(-width // side)))
            bump = torch.tile(pyramid(side, side, image), (sign.shape[2], sign.shape[3]))[:height, :width]
            tall = sign.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
            delta = (tall * bump).reshape(problem.x0.shape)
            delta = delta * per_row(problem.eps / size_of(delta, 2).clamp_min(1e-12), delta)
        else:
            delta = (signs(problem, "stripes", (channels, 1, width)) * torch.ones_like(image)).reshape(
                problem.x0.shape
            ) * problem.size()
        x = problem.project(problem.x0 + delta)
        return Standing(x=x, reached=_margin(problem, x))

    def step(self, problem: Problem, state: Iterate) -> Standing:
        assert isinstance(state, Standing)
        image, base = _as_images(state.x), _as_images(problem.x0)
        height, width = image.shape[2:]
        passed = (problem.step - 1) / self.steps * 10_000
        share = self.area / 2 ** sum(passed > h for h in HALVINGS)
        if _is_l2(problem):
            x = moved_energy(problem, image - base, share)
        else:
            tall, wide = window(share, height, width)
            inside = placed(problem, "square", tall, wide, image)
            delta = signs(problem, "colour", (image.shape[1], 1, 1)) * _as_images(problem.size())
            x = torch.where(inside, base + delta, image).reshape(problem.x0.shape)
        x = problem.project(x)
        reached = _margin(problem, x)
        better = reached > state.reached
        return Standing(
            x=torch.where(per_row(better, x), x, state.x), reached=torch.where(better, reached, state.reached)
        )


def _margin(problem: Problem, x: Tensor) -> Tensor:
    return margin(problem.proposals(x), problem.y, problem.target).nan_to_num(nan=-torch.inf)


def _as_images(x: Tensor) -> Tensor:
    return x if x.dim() == 4 else x.reshape(len(x), 1, 1, -1)


def _is_l2(problem: Problem) -> bool:
    return isinstance(problem.threat, Lp) and problem.threat.norm is Norm.L2
