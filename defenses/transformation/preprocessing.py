"""What every transformation of the input shares: what it fits, and the model behind it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.model import Model
from robustbench_lite.data.data import Data
from robustbench_lite.models.behind import Behind, Transformation
from robustbench_lite.models.defense import Base, Defense


@dataclass(frozen=True)
class Preprocessing(Defense, Transformation):
    """A defense that is a transformation of images in [0, 1]."""

    def defend(self, base: Base) -> Model:
        self.fits(base.data)
        return Behind(base.model(), self, base.text)

    def fits(self, data: Data) -> None:
        """Raise `Unsupported` for data that is no images in [0, 1]."""
        check_images(self.name, data)


def check_images(name: str, data: Data) -> None:
    """Raise `Unsupported` where data is no images in [0, 1], which a defense asks for."""
    if len(data.x.shape) != 4 or data.columns is not None:
        shape = tuple(data.x.shape[1:])
        raise Unsupported(f"{name} is for images (C, H, W); {data.name} has inputs of shape {shape}")
    low, high = torch.as_tensor(data.domain.low), torch.as_tensor(data.domain.high)
    if not bool((low == 0).all()) or not bool((high == 1).all()):
        raise Unsupported(f"{name} is for images in [0, 1]; {data.name} lies in another box")
