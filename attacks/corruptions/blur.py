"""Blur of images (n, C, H, W) in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.random import Stream
from robustbench_lite.threats.geometry import sampled

GAUSSIAN = (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)  # small images, large ones
DEFOCUS = (
    ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),  # radius, blur of the disk's edge
    ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
)
GLASS = (
    ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),  # deviation, reach, rounds
    ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
)
MOTION = (
    ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),  # radius, deviation
    ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
)
ZOOM = (
    ((6, 0.01), (11, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)),  # how many, and how far apart
    ((11, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
)


def gaussian_blur(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Under a Gaussian."""
    return smoothed(x, GAUSSIAN[not small][severity - 1])


def defocus_blur(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Under a disk whose edge is itself blurred a little."""
    radius, edge = DEFOCUS[not small][severity - 1]
    side = max(8, math.ceil(radius))
    offset = torch.arange(-side, side + 1, device=x.device, dtype=x.dtype)
    disk = (offset[:, None] ** 2 + offset**2 <= radius**2).to(x)
    disk = smoothed((disk / disk.sum())[None, None], edge, reach=1 if radius <= 8 else 2, mode="reflect")
    wide = mirrored(x, side)
    return functional.conv2d(wide, disk.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def glass_blur(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Pixels swapped with near ones, one after the other, between two Gaussians.

    Their code, whose NumPy rows are views, copies the near pixel instead of swapping two in colour images.
    """
    deviation, reach, rounds = GLASS[not small][severity - 1]
    n, _, tall, wide = x.shape
    x = smoothed(x, deviation)
    rows, columns = range(tall - reach, reach, -1), range(wide - reach, reach, -1)
    shape = (rounds, len(rows), len(columns), 2)
    away = stream.integers(2 * reach, shape).to(x.device) - reach
    place = torch.arange(tall * wide, device=x.device).repeat(n, 1)
    for again in range(rounds):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                here = row * wide + column
                other = here + away[:, again, i, j, 0] * wide + away[:, again, i, j, 1]
                held = place[:, here].clone()
                place[:, here] = place.gather(1, other[:, None])[:, 0]
                place.scatter_(1, other[:, None], held[:, None])
    mixed = x.flatten(2).gather(2, place[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return smoothed(mixed, deviation)


def motion_blur(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Along a line, at up to 45 degrees from the level."""
    radius, deviation = MOTION[not small][severity - 1]
    return dragged(x, radius, deviation, 90 * stream.uniform((1,))[:, 0].to(x) - 45)


def zoom_blur(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """The mean of the image and of more and more enlarged ones."""
    count, step = ZOOM[not small][severity - 1]
    return (x + sum(zoomed(x, 1 + step * i) for i in range(count))) / (count + 1)


def smoothed(x: Tensor, deviation: float, reach: int | None = None, mode: str = "replicate") -> Tensor:
    """Images under a Gaussian that ends at `reach`, by default at four deviations."""
    reach = int(4 * deviation + 0.5) if reach is None else reach
    if deviation == 0 or reach == 0:
        return x
    offset = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weight = (-(offset**2) / (2 * deviation**2)).exp()
    weight = (weight / weight.sum()).expand(x.shape[1], 1, -1)
    channels = x.shape[1]
    for axis in (2, 3):
        padding = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        kernel = weight[..., None] if axis == 2 else weight[:, :, None]
        x = functional.conv2d(functional.pad(x, padding, mode=mode), kernel, groups=channels)
    return x


def dragged(x: Tensor, radius: int, deviation: float, angle: Tensor) -> Tensor:
    """Each image under half a Gaussian of 2 radius + 1 pixels along a line at an angle (n,) in degrees."""
    tall, wide = x.shape[2:]
    rows = torch.arange(tall, device=x.device, dtype=x.dtype)[:, None]
    columns = torch.arange(wide, device=x.device, dtype=x.dtype)
    turn = torch.deg2rad(angle)
    weight = [math.exp(-(i**2) / (2 * deviation**2)) for i in range(2 * radius + 1)]
    total = torch.zeros_like(x)
    for i, share in enumerate(weight):
        right, down = ((i * part - 0.5).ceil()[:, None, None] for part in (turn.cos(), turn.sin()))
        across, along = (columns + right).clamp(0, wide - 1), (rows + down).clamp(0, tall - 1)
        shape = (len(x), tall, wide)
        total = total + share / sum(weight) * sampled(x, across.expand(shape), along.expand(shape))
    return total


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of each image enlarged to its size, linear between pixels."""
    right, down = (_zoomed_positions(size, factor, x) for size in (x.shape[3], x.shape[2]))
    shape = (len(x), *x.shape[2:])
    return sampled(x, right.expand(shape), down[:, None].expand(shape))


def _zoomed_positions(size: int, factor: float, like: Tensor) -> Tensor:
    """Where the pixels of an enlarged side come from, (size,)."""
    cut = math.ceil(size / factor)
    large = round(cut * factor)
    place = torch.arange(size, device=like.device, dtype=like.dtype) + (large - size) // 2
    return (size - cut) // 2 + place * ((cut - 1) / max(1, large - 1))


def mirrored(x: Tensor, reach: int) -> Tensor:
    """Images with what lies beyond their edges as in a mirror there, the edge itself once."""
    index = [reflected(torch.arange(-reach, size + reach, device=x.device), size) for size in x.shape[2:]]
    return x[:, :, index[0]][:, :, :, index[1]]


def reflected(place: Tensor, size: int) -> Tensor:
    """Positions along a side as a mirror at its first and last pixel shows them."""
    period = max(1, 2 * (size - 1))
    inside = place.remainder(period)
    return torch.minimum(inside, period - inside) if size > 1 else 0 * place
