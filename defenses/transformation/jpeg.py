"""Images through a JPEG file, and the same by cosine transforms, for their slopes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.jpeg import through_jpeg
from robustbench_lite.core.parameters import Range
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.transformation.preprocessing import Preprocessing
from robustbench_lite.defenses.transformation.quantising import soft_round

Rounding = Callable[[Tensor], Tensor]
Quality = Annotated[int, Range(1, 100)]
BLOCK = 8
# The steps of quantisation at quality 50: ITU-T T.81, annex K, tables K.1 and K.2.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *4 * ((99,) * 8,),
)
# Red, green and blue as luminance and two differences of colour (JFIF, ITU-T T.871).
COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class JPEG(Preprocessing):
    """Each image written as a JPEG file and read again; grey images and colour ones.

    Gradients go through the same transform and quantisation, whose rounding has a slope (after Shin & Song
    2017, JPEG-resistant adversarial images): steps towards another level count for more than others.

    Parameters
    ----------
    quality : int, default 75
        In [1, 100].

    Raises
    ------
    Unsupported
        For images of other than 1 or 3 channels.

    Source: Guo et al. 2018 (arXiv:1711.00117), section 4.

    Examples
    --------
    >>> JPEG(quality=50).apply(torch.zeros(1, 1, 8, 8), Stream.of(0, torch.arange(1))).shape
    torch.Size([1, 1, 8, 8])
    """

    quality: Quality = 75

    name = "jpeg"
    paper = "Guo et al. 2018, arXiv:1711.00117"
    differentiable = False

    def fits(self, data: Data) -> None:
        super().fits(data)
        if data.x.shape[1] not in (1, 3):
            raise Unsupported(f"jpeg is for images of 1 or 3 channels; {data.name} has {data.x.shape[1]}")

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        return through_jpeg(x, self.quality)

    def smooth(self, x: Tensor, stream: Stream) -> Tensor:
        """The values of the file, with the slopes of transforms and soft rounding."""
        near = through_transforms(x, self.quality)
        return near + (self.apply(x, stream) - near).detach()


def through_transforms(x: Tensor, quality: int, rounded: Rounding = soft_round) -> Tensor:
    """About what a JPEG file of images (n, C, H, W) keeps; rounded: what stands for rounding.

    What lies outside [0, 1] is not cut off, since that would take all slopes from blocks of black or white.
    """
    if x.shape[1] == 1:
        return _plane(x * 255 - 128, LUMA, quality, rounded).add(128).div(255)
    colours = torch.tensor(COLOURS, dtype=x.dtype, device=x.device)
    planes = torch.einsum("pc,nchw->nphw", colours, x * 255)
    luma = _plane(planes[:, :1] - 128, LUMA, quality, rounded) + 128
    # Colour has half as many rows and columns in the file.
    sides = planes.shape[2:]
    half = functional.avg_pool2d(_filled(planes[:, 1:], 2), 2)
    half = torch.cat([_plane(one, CHROMA, quality, rounded) for one in torch.split(half, 1, 1)], 1)
    chroma = functional.interpolate(half, scale_factor=2, mode="bilinear")[:, :, : sides[0], : sides[1]]
    whole = torch.cat([luma, chroma], 1)
    return torch.einsum("cp,nphw->nchw", torch.linalg.inv(colours), whole).div(255)


def _plane(values: Tensor, steps: tuple[tuple[int, ...], ...], quality: int, rounded: Rounding) -> Tensor:
    """Values (n, 1, H, W) around 0, their cosine transforms rounded to steps in blocks."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    step = torch.tensor(steps, dtype=values.dtype, device=values.device)
    step = ((scale * step + 50) / 100).floor().clamp(1, 255)
    place = torch.arange(BLOCK, dtype=values.dtype, device=values.device)
    cosines = ((2 * place + 1) * place[:, None] * math.pi / (2 * BLOCK)).cos() * math.sqrt(2 / BLOCK)
    cosines[0] /= math.sqrt(2)
    filled = _filled(values, BLOCK)
    n, planes, height, width = filled.shape
    blocks = filled.view(n, planes, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    kept = rounded(cosines @ blocks @ cosines.T / step) * step
    back = (cosines.T @ kept @ cosines).transpose(3, 4).flatten(4).flatten(2, 3)
    return back[:, :, : values.shape[2], : values.shape[3]]


def _filled(planes: Tensor, size: int) -> Tensor:
    """Planes (n, C, H, W) whose last rows and columns are repeated to a multiple of the size."""
    down, right = -planes.shape[2] % size, -planes.shape[3] % size
    return functional.pad(planes, (0, right, 0, down), mode="replicate") if down or right else planes
