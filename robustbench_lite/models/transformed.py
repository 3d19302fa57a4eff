"""A model behind random transformations of its input: what survives a camera, or a randomised defence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported, require
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import NonNegative, Probability
from robustbench_lite.core.random import Stream
from robustbench_lite.models.behind import Behind, Transformation


@dataclass(frozen=True)
class RandomCamera(Transformation):
    """Images turned by up to `rotation` degrees, moved, scaled by shares, and made noisy, at random."""

    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    noise: float = 0.0

    random = True

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        draw = 2 * stream.fold("affine").uniform((4,)).to(x.device) - 1
        if len(x) and (self.rotation or self.shift or self.scale):
            angle = draw[:, 0] * math.radians(self.rotation)
            size = 1 / (1 + self.scale * draw[:, 1])
            right, down = 2 * self.shift * draw[:, 2], 2 * self.shift * draw[:, 3]
            tall, wide = x.shape[2:]
            cosine, sine = size * angle.cos(), size * angle.sin()
            rows = [cosine, -sine * tall / wide, right, sine * wide / tall, cosine, down]
            grid = functional.affine_grid(
                torch.stack(rows, 1).view(-1, 2, 3), list(x.shape), align_corners=False
            )
            x = functional.grid_sample(x, grid.to(x), align_corners=False)
        if self.noise:
            x = (x + self.noise * stream.fold("noise").gaussian(tuple(x.shape[1:])).to(x)).clamp(0, 1)
        return x


class Transformed(Behind):
    """A model of images that are turned, moved, scaled and made noisy at random before it sees them.

    Attacked with `--eot N` this is expectation over transformation (Athalye et al. 2018, section 2.1): the
    adversarial example has to hold under the mean of N draws. Each row's draw is keyed by the row alone.

    Parameters
    ----------
    model : Model
        Of images (C, H, W).
    rotation : float, default 0.0
        Degrees to either side, in [0, 180].
    shift : float, default 0.0
        Share of the image to either side, in [0, 1).
    scale : float, default 0.0
        The share by which it grows or shrinks at most, in [0, 1).
    noise : float, default 0.0
        Standard deviation, at least 0, in the units of x.
    name : str, optional
        What reports call it; by default `transformed(…)` of the model's name.

    Raises
    ------
    Unsupported
        For inputs that are no images.
    InvalidParameter
        For a value outside its range.

    Examples
    --------
    >>> from robustbench_lite.models.load import load_model
    >>> Transformed(load_model("linear"), rotation=15).stochastic
    True
    """

    def __init__(
        self,
        model: Model,
        rotation: float = 0.0,
        shift: float = 0.0,
        scale: float = 0.0,
        noise: float = 0.0,
        name: str = "",
    ) -> None:
        require(0 <= rotation <= 180, "rotation", rotation, "in [0, 180] degrees")
        require(0 <= shift < 1, "shift", shift, "in [0, 1)")
        require(0 <= scale < 1, "scale", scale, "in [0, 1)")
        require(noise >= 0, "noise", noise, "at least 0")
        if len(model.input_shape) != 3:
            raise Unsupported(
                f"{model.name} takes {model.input_shape}; only images (C, H, W) are transformed"
            )
        camera = RandomCamera(rotation, shift, scale, noise)
        super().__init__(model, camera, name or f"transformed({model.name})")


def transformed(
    model: Model,
    rotation: NonNegative = 0.0,
    shift: Probability = 0.0,
    scale: Probability = 0.0,
    noise: NonNegative = 0.0,
) -> Transformed:
    """`transformed(NAME,rotation=15,shift=0.1)`: a model behind random transformations of its input.

    Parameters
    ----------
    model : Model
        Of images (C, H, W).
    rotation, shift, scale, noise : float, default 0.0
        As in `Transformed`.

    Returns
    -------
    Transformed
    """
    return Transformed(model, rotation, shift, scale, noise)
