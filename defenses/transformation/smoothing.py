"""Images made smoother, so that small changes even out: blur, median, total variation, patches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.errors import require
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Positive, Range
from robustbench_lite.core.random import Stream
from robustbench_lite.defenses.transformation.preprocessing import Preprocessing, check_images
from robustbench_lite.models.behind import Behind, Transformation
from robustbench_lite.models.defense import Base, Defense

Side = Annotated[int, Range(2, 16)]
MOST_PATCHES = 20_000
NEAR = 32  # patches whose weighed mean gradients go through


@dataclass(frozen=True)
class GaussianBlur(Preprocessing):
    """A Gaussian blur.

    Parameters
    ----------
    sigma : float, default 0.7
        In pixels.

    Source: Carlini & Wagner 2017 (arXiv:1705.07263), section 5, on blurs as defenses.

    Examples
    --------
    >>> GaussianBlur().apply(torch.ones(1, 1, 8, 8), Stream.of(0, torch.arange(1))).amin() > 0.999
    tensor(True)
    """

    sigma: Positive = 0.7

    name = "gaussian_blur"
    paper = "Carlini & Wagner 2017, arXiv:1705.07263"

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        reach = min(math.ceil(3 * self.sigma), min(x.shape[2:]) - 1)
        place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        weight = torch.exp(-(place**2) / (2 * self.sigma**2))
        weight = weight / weight.sum()
        channels = x.shape[1]
        padded = functional.pad(x, (reach,) * 4, mode="replicate")
        rows = functional.conv2d(padded, weight.expand(channels, 1, 1, -1), groups=channels)
        return functional.conv2d(rows, weight[:, None].expand(channels, 1, -1, 1), groups=channels)


@dataclass(frozen=True)
class Median(Preprocessing):
    """Each value the median of a square around it.

    Parameters
    ----------
    size : int, default 3
        Of the square, in [2, 16] pixels; of an even number of values the mean of the two in the middle.

    Source: Xu, Evans & Qi 2018 (arXiv:1704.01155), section 3.2.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 8, 8)
    >>> x[0, 0, 3, 3] = 1.0
    >>> Median().apply(x, Stream.of(0, torch.arange(1))).sum()
    tensor(0.)
    """

    size: Side = 3

    name = "median"
    paper = "Xu, Evans & Qi 2018, arXiv:1704.01155"

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        before, after = (self.size - 1) // 2, self.size // 2
        padded = functional.pad(x, (before, after, before, after), mode="replicate")
        squares = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        count = self.size**2
        middle = squares.sort(4).values[..., (count - 1) // 2 : count // 2 + 1]
        return middle.mean(4)


@dataclass(frozen=True)
class TotalVariation(Preprocessing):
    """The image of least total variation near the input, by projected steps on the dual.

    Parameters
    ----------
    weight : float, default 0.05
        Of the variation against the distance.
    steps : int, default 20

    Source: Guo et al. 2018 (arXiv:1711.00117), section 4; the algorithm: Chambolle 2004.

    Examples
    --------
    >>> TotalVariation().apply(torch.ones(1, 1, 8, 8), Stream.of(0, torch.arange(1))).mean()
    tensor(1.)
    """

    weight: Positive = 0.05
    steps: Count = 20

    name = "total_variation"
    paper = "Guo et al. 2018, arXiv:1711.00117"

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        down, right = torch.zeros_like(x), torch.zeros_like(x)
        for _ in range(self.steps):
            smooth = self._divergence(down, right) - x / self.weight
            rise = functional.pad(smooth[:, :, 1:] - smooth[:, :, :-1], (0, 0, 0, 1))
            run = functional.pad(smooth[:, :, :, 1:] - smooth[:, :, :, :-1], (0, 1))
            # The root of a flat place has no slope: what is added under it is far below a grey level.
            length = 1 + 0.125 * (rise**2 + run**2 + 1e-12).sqrt()
            down, right = (down + 0.125 * rise) / length, (right + 0.125 * run) / length
        return (x - self.weight * self._divergence(down, right)).clamp(0, 1)

    @staticmethod
    def _divergence(down: Tensor, right: Tensor) -> Tensor:
        return (
            down
            - functional.pad(down[:, :, :-1], (0, 0, 1, 0))
            + right
            - functional.pad(right[..., :-1], (1, 0))
        )


@dataclass(frozen=True)
class PatchMedian(Defense):
    """Each patch replaced by the median of those of the training images that are nearest to it.

    Parameters
    ----------
    patch : int, default 4
        Side of a patch, in [2, 16] pixels; divides the image's.
    neighbours : int, default 5

    Source: after the quilting of Guo et al. 2018 (arXiv:1711.00117), section 4, without its seams.

    Examples
    --------
    >>> PatchMedian(patch=2).neighbours
    5
    """

    patch: Side = 4
    neighbours: Count = 5

    name = "patch_median"
    paper = "Guo et al. 2018, arXiv:1711.00117"

    def defend(self, base: Base) -> Model:
        check_images(self.name, base.data)
        for side in base.data.x.shape[2:]:
            require(side % self.patch == 0, "patch", self.patch, f"a divisor of the image's side, {side}")
        training = base.data.training()
        known = _patches(training.x, self.patch).flatten(0, 1)
        drawn = (
            Stream.of(base.train.seed, torch.arange(len(known))).fold("patches").uniform((), torch.float64)
        )
        library = known[drawn.argsort()[:MOST_PATCHES].sort().values].to(base.train.device)
        return Behind(base.model(), _FromLibrary(self.patch, self.neighbours, library), base.text)


@dataclass(frozen=True, eq=False)
class _FromLibrary(Transformation):
    """Patches from a library (m, C·p·p) of them."""

    patch: int
    neighbours: int
    library: Tensor

    differentiable = False

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        own = _patches(x, self.patch)
        flat, count = own.flatten(0, 1), min(self.neighbours, len(self.library))
        found = [
            self.library[torch.cdist(part, self.library).topk(count, largest=False).indices].median(1).values
            for part in torch.split(flat, 1024)
        ]
        return _whole(torch.cat(found).view_as(own), x, self.patch) if len(x) else x

    def smooth(self, x: Tensor, stream: Stream) -> Tensor:
        """The values of the patches, with the slope of half the input and half a mean of the nearest.

        The mean is weighed by distance. Either by itself leads less far: the mean's slope dies where one
        patch is much nearer than the others, the identity's knows nothing of the library.
        """
        own = _patches(x, self.patch)
        flat, count = own.flatten(0, 1), min(NEAR, len(self.library))
        with torch.no_grad():
            nearest = torch.cat(
                [
                    torch.cdist(part, self.library).topk(count, largest=False).indices
                    for part in torch.split(flat, 1024)
                ]
            )
        near = self.library[nearest]  # (m, count, d)
        away = (flat[:, None] - near).pow(2).sum(2)
        spread = away.detach().mean(1, keepdim=True).clamp_min(1e-6)
        mean = ((-2 * away / spread).softmax(1)[:, :, None] * near).sum(1)
        soft = (x + _whole(mean.view_as(own), x, self.patch)) / 2
        return soft + (self.apply(x, stream) - soft).detach()

    def to(self, device: torch.device) -> Transformation:
        return _FromLibrary(self.patch, self.neighbours, self.library.to(device))

    def facts(self) -> bytes:
        return f"patches {self.patch} {self.neighbours} ".encode() + self.library.cpu().numpy().tobytes()


def _patches(x: Tensor, side: int) -> Tensor:
    """The patches of images (n, C, H, W), (n, m, C·side·side)."""
    return functional.unfold(x, side, stride=side).transpose(1, 2)


def _whole(patches: Tensor, like: Tensor, side: int) -> Tensor:
    """Images of patches."""
    return functional.fold(patches.transpose(1, 2), tuple(like.shape[2:]), side, stride=side)
