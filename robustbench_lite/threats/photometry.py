"""Images whose light and colours change, and nothing moves: colour, the negative, blur."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import require
from robustbench_lite.core.parameters import NonNegative, Positive
from robustbench_lite.threats.transform import Transform

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Color(Transform):
    """Brightness, contrast, saturation and hue changed (as in the color jitter of image augmentation).

    z (n, 4), or (n, 2) for images without three channels: brightness is added, in widths of the box;
    contrast and saturation are shares by which values move away from the image's mean, and from its grey;
    the hue turns about the grey axis, in units in which eps is the whole `hue`.

    Parameters
    ----------
    eps : float
        Of brightness, contrast and saturation, above 0, at most 1.
    hue : float, default 20.0
        Degrees to either side, in [0, 180].

    Examples
    --------
    >>> Color(0.2).parameters((3, 8, 8)), Color(0.2).parameters((1, 8, 8))
    ((4,), (2,))
    """

    hue: float = 20.0

    name: ClassVar[str] = "color"
    most: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.hue <= 180, "hue", self.hue, "in [0, 180] degrees")

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (4,) if image[0] == 3 else (2,)

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        low, high = self.domain.bounds(x0)
        brightness, contrast, *colours = z[:, :, None, None, None].unbind(1)
        x = x0
        if colours:
            saturation, turn = colours
            angle = turn * (math.radians(self.hue) / self.eps)
            # Rodrigues' rotation about the grey axis, written as a change.
            middle = x.mean(1, keepdim=True)
            around = (x.roll(1, 1) - x.roll(-1, 1)) / math.sqrt(3)
            x = x + angle.sin() * around + (1 - angle.cos()) * (middle - x)
            x = x + saturation * (x - grey_of(x))
        x = x + contrast * (x - x.mean((1, 2, 3), keepdim=True))
        return x + brightness * (high - low)


@dataclass(frozen=True)
class Negative(Transform):
    """Images blended with their negative by a share of at most eps (after Hosseini et al. 2017).

    z (n, 1), in [0, eps]: 1 is the negative itself, half of it an even grey.

    Parameters
    ----------
    eps : float
        Above 0, at most 1.

    Examples
    --------
    >>> Negative(1.0).render(torch.ones(1, 1), torch.full((1, 1, 1, 1), 0.25)).item()
    0.75
    """

    name: ClassVar[str] = "negative"
    most: ClassVar[float] = 1.0

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (1,)

    def least(self, image: Sequence[int], like: Tensor) -> Tensor:
        return like.new_zeros(())

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        low, high = self.domain.bounds(x0)
        return x0 + z[:, :, None, None] * (low + high - 2 * x0)


@dataclass(frozen=True)
class Blur(Transform):
    """Images under a Gaussian blur of a standard deviation of at most eps pixels.

    z (n, 1), in [0, eps]: the variance divided by eps, which has a slope at 0; a distance is the deviation.
    Weights are those of diffusion between pixels (Lindeberg 1990, the discrete Gaussian) and end at four
    times eps; at the edge the image goes on as it ends.

    Parameters
    ----------
    eps : float
        Pixels, above 0.

    Examples
    --------
    >>> Blur(1.5).parameters((3, 8, 8))
    (1,)
    """

    name: ClassVar[str] = "blur"

    def parameters(self, image: Sequence[int]) -> tuple[int, ...]:
        return (1,)

    def least(self, image: Sequence[int], like: Tensor) -> Tensor:
        return like.new_zeros(())

    def limit(self, eps: Tensor) -> Tensor:
        return eps.double().square() / self.eps * (1 - 1e-12)  # whose root rounds to no more than eps

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        return (self.eps * super().distance(z, x0)).sqrt()

    def changed(self, z: Tensor, x0: Tensor) -> Tensor:
        reach = math.ceil(4 * self.eps)
        offset = torch.arange(-reach, reach + 1, device=x0.device, dtype=z.dtype)
        wave = 2 * math.pi / len(offset) * offset
        # What diffusion adds to each wave; as a change, so that none is none to the last bit.
        change = torch.expm1(-self.eps * z * (1 - wave.cos()))
        weight = (change @ (wave[:, None] * offset).cos() / len(offset)).to(x0)
        for axis in (2, 3):
            x0 = x0 + _filtered(x0, weight, axis)
        return x0


def grey_of(x: Tensor) -> Tensor:
    """The luminance (n, 1, H, W) of images in red, green and blue."""
    red, green, blue = LUMINANCE
    return red * x[:, :1] + green * x[:, 1:2] + blue * x[:, 2:]


def _filtered(x: Tensor, weight: Tensor, axis: int) -> Tensor:
    """Each image (n, C, H, W) under weights (n, 2 r + 1) of its own along an axis, the edge going on."""
    size, reach = x.shape[axis], weight.shape[1] // 2
    place = torch.arange(size, device=x.device)
    seen = (place[:, None] + torch.arange(-reach, reach + 1, device=x.device)).clamp(0, size - 1)
    matrix = torch.zeros(len(x), size, size, dtype=x.dtype, device=x.device)
    matrix = matrix.scatter_add(2, seen.expand(len(x), -1, -1), weight[:, None].expand(-1, size, -1))
    return (matrix[:, None] @ x.movedim(axis, -2)).movedim(-2, axis)


def color(domain: Domain, eps: Positive, hue: NonNegative = 20.0) -> Color:
    """Brightness, contrast and saturation changed by at most the share eps, the hue by `hue` degrees."""
    return Color(eps, hue, domain=domain)


def negative(domain: Domain, eps: Positive) -> Negative:
    """Blended with its negative by a share of at most eps; 1: the negative itself."""
    return Negative(eps, domain=domain)


def blur(domain: Domain, eps: Positive) -> Blur:
    """A Gaussian blur of a standard deviation of at most eps pixels."""
    return Blur(eps, domain=domain)
