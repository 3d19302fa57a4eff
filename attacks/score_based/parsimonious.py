"""Parsimonious: every feature at one end of the ball, which end is a question about sets of blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.model import Access
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True, kw_only=True)
class ParsimoniousState(Iterate):
    """signs (n, d): of every feature; reached (n,): the margin of the point they make, which is z.

    gain (n, d): at most what turning each block of the level would bring, -inf for blocks that are not to be
    turned. side (n,): of a block in pixels; taking (n,): whether blocks are turned up, rather than back down;
    moved (n,): whether one was since the level began.
    """

    signs: Tensor
    reached: Tensor
    gain: Tensor
    side: Tensor
    taking: Tensor
    moved: Tensor


@dataclass(frozen=True)
class Parsimonious(Attack[ParsimoniousState]):
    """From all features at the lower end blocks go up, then back, where the margin gains; then the blocks are
    quartered (Moon, An & Song 2019, algorithms 1 and 2, lazily).

    Parameters
    ----------
    steps : int, default 2000
        Queries.
    side : int, optional
        Of the first blocks, a power of 2 in pixels; None: an eighth of the image's.

    Notes
    -----
    Cost: steps + 2 forward passes.

    Examples
    --------
    >>> Parsimonious(steps=3).steps
    3
    """

    steps: Count = 2000
    side: Count | None = None

    name = "parsimonious"
    access = Access.SCORE
    norms = frozenset({Norm.LINF})
    paper = "Moon, An & Song 2019, arXiv:1905.06635"

    def start(self, problem: Problem) -> ParsimoniousState:
        signs = -torch.ones_like(problem.x0).flatten(1)
        x = _point(problem, signs)
        eighth = max(1, max(_size(problem.x0)[1:]) // 8) if self.side is None else self.side
        side = torch.full_like(problem.row, 1 << (eighth.bit_length() - 1))
        yes = torch.ones_like(problem.row, dtype=torch.bool)
        gain = _candidates(problem, signs, side, yes)
        return ParsimoniousState(
            z=x, signs=signs, reached=problem.margins(x), gain=gain, side=side, taking=yes, moved=~yes
        )

    def step(self, problem: Problem, state: ParsimoniousState) -> ParsimoniousState:
        # A set is searched until no block promises anything: then the other way, then finer blocks.
        gain, side, taking, moved = state.gain, state.side, state.taking, state.moved
        over = gain.amax(1) <= 0
        finest = over & ~taking & (side == 1)
        done = finest & ~moved
        side = torch.where(over & ~taking, (side // 2).clamp_min(1), side)
        moved = moved & ~(over & ~taking)
        taking = taking ^ over
        fresh = _candidates(problem, state.signs, side, taking)
        gain = torch.where(over[:, None], fresh, gain)
        block = gain.argmax(1, keepdim=True)
        inside = _blocks(problem.x0, side) == block
        signs = torch.where(inside, -state.signs, state.signs)
        x = _point(problem, signs)
        reached = problem.margins(x)
        gained = (reached - state.reached).nan_to_num(nan=-torch.inf).to(gain)
        others = gain.scatter(1, block, -torch.inf).amax(1)
        good = (gained > 0) & (gained >= others)
        kept = per_row(good, x)
        return ParsimoniousState(
            z=torch.where(kept, x, state.z),
            signs=torch.where(good[:, None], signs, state.signs),
            reached=torch.where(good, reached, state.reached),
            gain=gain.scatter(1, block, torch.where(good, -torch.inf, gained)[:, None]),
            side=side,
            taking=taking,
            moved=moved | good,
            done=done,
        )


def _size(x: Tensor) -> tuple[int, int, int]:
    """Channels, height and width; other inputs are one row of pixels."""
    return (x.shape[1], x.shape[2], x.shape[3]) if x.dim() == 4 else (1, 1, x[0].numel())


def _blocks(x: Tensor, side: Tensor) -> Tensor:
    """The number of the block that each feature lies in, blocks of each row's side (n, d)."""
    channels, height, width = _size(x)
    place = torch.arange(channels * height * width, device=x.device)
    channel, rest = place // (height * width), place % (height * width)
    down, across = rest // width, rest % width
    side = side[:, None]
    tall, wide = -(-height // side), -(-width // side)
    return (channel * tall + down // side) * wide + across // side


def _candidates(problem: Problem, signs: Tensor, side: Tensor, taking: Tensor) -> Tensor:
    """inf for every block that may be turned, as nothing is known of it yet; -inf elsewhere (n, d)."""
    now = torch.zeros_like(signs).scatter(1, _blocks(problem.x0, side), signs)  # 0 where there is no block
    wanted = torch.where(taking, -1.0, 1.0)[:, None]
    return torch.where(now == wanted, torch.inf, -torch.inf)


def _point(problem: Problem, signs: Tensor) -> Tensor:
    return problem.project(problem.x0 + problem.size() * signs.view_as(problem.x0))
