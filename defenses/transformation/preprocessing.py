"""What every transformation of the input shares: what it fits, and the model behind it."""

from __future__ import annotations

from dataclasses import dataclass

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
        if len(data.x.shape) != 4 or data.columns is not None:
            shape = tuple(data.x.shape[1:])
            raise Unsupported(f"{self.name} is for images (C, H, W); {data.name} has inputs of shape {shape}")
        if (data.domain.low, data.domain.high) != (0.0, 1.0):
            raise Unsupported(f"{self.name} is for images in [0, 1]; {data.name} lies in another box")
