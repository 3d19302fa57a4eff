"""Transformations that draw anew for every look."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.parameters import Count, Fraction, NonNegative
from robustbench_lite.core.random import Stream
from robustbench_lite.defenses.transformation.preprocessing import Preprocessing


@dataclass(frozen=True)
class ResizePad(Preprocessing):
    """Each image made smaller by a random share and put at a random place on black.

    Parameters
    ----------
    shrink : float, default 0.2
        By which it becomes smaller at most, in (0, 1).

    Source: Xie et al. 2018 (arXiv:1711.01991); there the image grows and the network takes it larger.

    Examples
    --------
    >>> ResizePad(shrink=0.1).random
    True
    """

    shrink: Fraction = 0.2

    name = "resize_pad"
    paper = "Xie et al. 2018, arXiv:1711.01991"
    random = True

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        if not len(x):
            return x
        drawn = stream.fold("resize").uniform((3,)).to(x)
        size = 1 - self.shrink * drawn[:, 0]
        scale = 1 / size  # the grid reaches this far beyond the image
        right, down = ((2 * drawn[:, i] - 1) * (scale - 1) for i in (1, 2))
        nothing = torch.zeros_like(scale)
        rows = [scale, nothing, right, nothing, scale, down]
        grid = functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)


@dataclass(frozen=True)
class PixelDeflection(Preprocessing):
    """Random pixels replaced by others nearby, then small wavelets taken out.

    Parameters
    ----------
    deflections : int, default 20
        How many pixels are replaced, one after the other.
    window : int, default 3
        How far the other pixel is at most, in rows and in columns.
    threshold : float, default 0.04
        By which Haar wavelets are shrunk.

    Source: Prakash et al. 2018 (arXiv:1801.08926), without its map of where a network looks.

    Examples
    --------
    >>> PixelDeflection(deflections=5).random
    True
    """

    deflections: Count = 20
    window: Count = 3
    threshold: NonNegative = 0.04

    name = "pixel_deflection"
    paper = "Prakash et al. 2018, arXiv:1801.08926"
    random = True

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        n, channels, height, width = x.shape
        drawn = stream.fold("deflect").uniform((self.deflections, 4)).to(x.device)
        row, column = (drawn[..., 0] * height).long(), (drawn[..., 1] * width).long()
        reach = 2 * self.window + 1
        other_row = (row + (drawn[..., 2] * reach).long() - self.window).clamp(0, height - 1)
        other_column = (column + (drawn[..., 3] * reach).long() - self.window).clamp(0, width - 1)
        flat = x.flatten(2)
        place = torch.arange(height * width, device=x.device).expand(n, -1).clone()
        for i in range(self.deflections):  # what comes later may move what came before
            source = place.gather(1, (other_row * width + other_column)[:, i : i + 1])
            place.scatter_(1, (row * width + column)[:, i : i + 1], source)
        moved = flat.gather(2, place[:, None].expand(-1, channels, -1)).view_as(x)
        return self._denoised(moved) if height % 2 == 0 and width % 2 == 0 else moved

    def _denoised(self, x: Tensor) -> Tensor:
        """Haar wavelets of 2 × 2 squares, all but their mean shrunk towards 0."""
        a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
        mean = (a + b + c + d) / 2
        details = [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
        across, along, askew = (one.sign() * (one.abs() - self.threshold).clamp_min(0) for one in details)
        parts = [mean + across + along + askew, mean - across + along - askew,
                 mean + across - along - askew, mean - across - along + askew]  # fmt: skip
        squares = torch.stack([part / 2 for part in parts], -1)
        n, channels, height, width = x.shape
        grid = squares.view(n, channels, height // 2, width // 2, 2, 2)
        return grid.transpose(3, 4).reshape(x.shape).clamp(0, 1)
