"""What cameras and files do to images (n, C, H, W) in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustbench_lite.attacks.corruptions.blur import reflected
from robustbench_lite.core.jpeg import through_jpeg
from robustbench_lite.core.random import Stream
from robustbench_lite.threats.geometry import sampled

BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)  # small images, large ones
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)
SATURATION = (
    ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),  # factor, and what is added
    ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
)
PIXELS = (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)
QUALITY = (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)
ELASTIC = (  # displacement, its smoothness and the corners' moves, as shares of the side
    ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ((2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
)


def brightness(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """The value of hue, saturation and value raised."""
    most = x.amax(1, keepdim=True)
    raised = (most + BRIGHTNESS[not small][severity - 1]).clamp(0, 1)
    return torch.where(most > 0, x * raised / most.clamp_min(1e-30), raised)


def saturate(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """The saturation of hue, saturation and value changed; what has no hue counts as red."""
    factor, added = SATURATION[not small][severity - 1]
    most, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    before = (most - least) / most.clamp_min(1e-30)
    after = (factor * before + added).clamp(0, 1)
    hued = most - (most - x) * after / before.clamp_min(1e-30)
    red = torch.cat([most, most * (1 - after), most * (1 - after)], 1)
    return torch.where(before > 0, hued, red)


def contrast(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Values brought nearer to the mean of their channel."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * CONTRAST[not small][severity - 1] + mean


def pixelate(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Made smaller and large again, each pixel the mean of those it covers."""
    share = PIXELS[not small][severity - 1]
    for axis in (2, 3):
        size = x.shape[axis]
        less = max(1, int(size * share))
        whole = boxes(less, size) @ boxes(size, less)
        x = torch.einsum("os,nc...s->nc...o", whole.to(x), x.movedim(axis, -1)).movedim(-1, axis)
    return x


def jpeg_compression(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Written as a JPEG file and read again."""
    return through_jpeg(x, QUALITY[not small][severity - 1])


def elastic_transform(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Three corners moved at random, then every pixel by a smooth field."""
    amount, smooth, corners = ELASTIC[not small][severity - 1]
    tall, wide = x.shape[2:]
    # Theirs are in pixels of 32, and of 244 where the image has 224.
    side = (32 if small else 244) * max(tall, wide) / (32 if small else 224)
    rows = torch.arange(tall, device=x.device, dtype=x.dtype)[:, None].expand(tall, wide)
    columns = torch.arange(wide, device=x.device, dtype=x.dtype).expand(tall, wide)
    middle = x.new_tensor([wide // 2, tall // 2])
    arm = min(tall, wide) // 3
    before = middle + arm * x.new_tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    moved = before + corners * side * (2 * stream.fold("corners").uniform((3, 2)).to(x) - 1)
    one = x.new_ones(len(x), 3, 1)
    # The affine map from where the corners came to lie back to where they were.
    back = torch.linalg.lstsq(torch.cat([moved, one], 2), before.expand(len(x), -1, -1)).solution
    position = torch.stack([columns, rows, torch.ones_like(rows)], -1)
    right, down = torch.einsum("hwi,nio->nhwo", position, back).unbind(-1)
    x = sampled(x, reflected(right, wide), reflected(down, tall))
    if not amount:
        return x
    field = 2 * stream.fold("field").uniform((2, tall, wide)).to(x) - 1
    field = amount * side * smoothed_at_edges(field, smooth * side)
    return sampled(x, folded(columns + field[:, 0], wide), folded(rows + field[:, 1], tall))


def smoothed_at_edges(x: Tensor, deviation: float) -> Tensor:
    """Fields (n, c, H, W) under a Gaussian of three deviations, the edge pixel doubled by the mirror."""
    reach = int(3 * deviation + 0.5)
    offset = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weight = (-(offset**2) / (2 * deviation**2)).exp()
    weight = weight / weight.sum()
    for axis in (2, 3):
        size = x.shape[axis]
        place = folded(torch.arange(size, device=x.device)[:, None] + offset, size).round().long()
        matrix = x.new_zeros(size, size).scatter_add_(1, place, weight.expand(size, -1))
        x = torch.einsum("os,nc...s->nc...o", matrix, x.movedim(axis, -1)).movedim(-1, axis)
    return x


def folded(place: Tensor, size: int) -> Tensor:
    """Positions along a side as a mirror half a pixel beyond its ends shows them."""
    inside = (place + 0.5).remainder(2 * size)
    return (torch.minimum(inside, 2 * size - inside) - 0.5).clamp(0, size - 1)


def boxes(size: int, new: int) -> Tensor:
    """The matrix (new, size) of pixels that are the mean of those whose middles they cover, at least one."""
    scale = size / new
    matrix = torch.zeros(new, size)
    for place in range(new):
        centre, support = (place + 0.5) * scale, 0.5 * max(scale, 1.0)
        first, last = max(0, int(centre - support + 0.5)), min(size, int(centre + support + 0.5))
        covered = [i for i in range(first, last) if -0.5 < (i - centre + 0.5) / max(scale, 1.0) <= 0.5]
        matrix[place, covered or [min(size - 1, math.floor(centre))]] = 1 / max(1, len(covered))
    return matrix
