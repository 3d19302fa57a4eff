"""Fog and snow over images (n, C, H, W) in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.attacks.corruptions.blur import dragged, zoomed
from robustbench_lite.core.random import Stream
from robustbench_lite.threats.photometry import grey_of

FOG = (
    ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),  # thickness, smoothness
    ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
)
SNOW = (  # mean, deviation, zoom, threshold, radius and deviation of the streaks, share of the image's colour
    (
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95), (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9), (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    ),
    (
        (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8), (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7), (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    ),
)  # fmt: skip


def fog(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """A fractal of light added, and the whole darkened to the image's brightest value."""
    thickness, smoothness = FOG[not small][severity - 1]
    side = 1 << (max(x.shape[2:]) - 1).bit_length()
    veil = plasma(stream, side, smoothness).to(x)[:, None, : x.shape[2], : x.shape[3]]
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + thickness * veil) * brightest / (brightest + thickness)


def snow(x: Tensor, severity: int, small: bool, stream: Stream) -> Tensor:
    """Flakes in two directions, each in a streak, over an image that is paler."""
    mean, deviation, zoom, threshold, radius, drag, colour = SNOW[not small][severity - 1]
    flakes = mean + deviation * stream.fold("flakes").gaussian((1, *x.shape[2:])).to(x)
    flakes = zoomed(flakes, zoom)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    angle = -135 + 90 * stream.fold("angle").uniform((1,))[:, 0].to(x)
    flakes = dragged(flakes, int(radius), drag, angle)
    grey = grey_of(x) if x.shape[1] == 3 else x
    pale = colour * x + (1 - colour) * torch.maximum(x, 1.5 * grey + 0.5)
    return pale + flakes + flakes.flip((2, 3))


def plasma(stream: Stream, side: int, smoothness: float) -> Tensor:
    """Fractals (n, side, side) from 0 to 1 by diamonds and squares on a torus; side is a power of two."""
    height = torch.zeros(len(stream.key), side, side, dtype=torch.float64, device=stream.key.device)
    step, wobble, half = side, 100.0, side // 2

    def settle(total: Tensor, tag: str) -> Tensor:
        draw = 2 * stream.fold(tag, step).uniform(tuple(total.shape[1:]), torch.float64) - 1
        return total / 4 + wobble**2 * draw

    while step >= 2:
        half = step // 2
        corner = height[:, ::step, ::step]
        square = corner + corner.roll(-1, 1)
        middle = settle(square + square.roll(-1, 2), "square")
        height[:, half::step, half::step] = middle
        beside = middle + middle.roll(1, 1) + corner + corner.roll(-1, 2)
        height[:, ::step, half::step] = settle(beside, "across")
        below = middle + middle.roll(1, 2) + corner + corner.roll(-1, 1)
        height[:, half::step, ::step] = settle(below, "down")
        step, wobble = half, wobble / smoothness
    height = height - height.amin((1, 2), keepdim=True)
    return height / height.amax((1, 2), keepdim=True).clamp_min(1e-30)
