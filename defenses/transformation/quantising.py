"""Inputs in fewer levels: bit depth, JPEG, thermometer codes. Gradients pass straight through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.jpeg import through_jpeg
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Range
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.training.training import Training
from robustbench_lite.defenses.transformation.preprocessing import Preprocessing, check_images
from robustbench_lite.models.behind import Behind, Transformation
from robustbench_lite.models.defense import Base
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.networks import Recipe
from robustbench_lite.models.zoo.training import Objective

Bits = Annotated[int, Range(1, 8)]
Quality = Annotated[int, Range(1, 100)]
Levels = Annotated[int, Range(2, 64)]


@dataclass(frozen=True)
class BitDepth(Preprocessing):
    """Each value rounded to one of 2^bits levels.

    Parameters
    ----------
    bits : int, default 3
        In [1, 8].

    Source: Xu, Evans & Qi 2018 (arXiv:1704.01155), section 3.1.

    Examples
    --------
    >>> BitDepth(bits=1).apply(torch.tensor([[0.2, 0.9]]), Stream.of(0, torch.arange(1)))
    tensor([[0., 1.]])
    """

    bits: Bits = 3

    name = "bit_depth"
    paper = "Xu, Evans & Qi 2018, arXiv:1704.01155"
    differentiable = False

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        most = 2**self.bits - 1
        rounded: Tensor = (x * most).round() / most
        return rounded


@dataclass(frozen=True)
class JPEG(Preprocessing):
    """Each image written as a JPEG file and read again; grey images and colour ones.

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


@dataclass(frozen=True)
class _Code(Transformation):
    """Each channel as `levels` channels, the l-th of which is 1 where the value exceeds l / levels."""

    levels: int

    differentiable = False

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        return (self._above(x) > 0).to(x)

    def smooth(self, x: Tensor, stream: Stream) -> Tensor:
        """The values of the code, with the slope of a ramp over two levels to either side."""
        ramp = ((self._above(x) * self.levels + 2) / 4).clamp(0, 1)
        return ramp + (self.apply(x, stream) - ramp).detach()

    def _above(self, x: Tensor) -> Tensor:
        steps = torch.arange(self.levels, device=x.device, dtype=x.dtype) / self.levels
        return (x[:, :, None] - steps.reshape(1, 1, -1, 1, 1)).flatten(1, 2)


class _Encoded(nn.Module):
    """The code before a network, for training it."""

    def __init__(self, code: _Code, network: nn.Module) -> None:
        super().__init__()
        self.code, self.network = code, network

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.network(self.code.apply(x, Stream.of(0, torch.arange(1))))
        return scores


@dataclass(frozen=True)
class Thermometer(Training):
    """A network trained on thermometer codes of its inputs, which have no slope.

    Parameters
    ----------
    levels : int, default 16
        In [2, 64].
    epochs : int, default 0
        0: as many as the network is trained for without it.

    Source: Buckman et al. 2018 (Thermometer encoding: one hot way to resist adversarial examples); broken by
    Athalye et al. 2018 (arXiv:1802.00420), section 5.2.

    Examples
    --------
    >>> Thermometer(levels=8).levels
    8
    """

    levels: Levels = 16

    name = "thermometer"
    paper = "Buckman et al. 2018 (ICLR)"

    def network(self, recipe: Recipe, data: Data, seed: int) -> nn.Module:
        return _Encoded(_Code(self.levels), self._inner(recipe, data, seed))

    def objective(self, base: Base, learnt: Data) -> Objective:
        return Objective()

    def defend(self, base: Base) -> Model:
        check_images(self.name, base.data)
        whole = self.trained(base)
        module = whole.module
        assert isinstance(module, _Encoded)
        channels, height, width = base.data.x.shape[1:]
        inner = TorchModel(
            module.network, (channels * self.levels, height, width), name=base.text, device=whole.device
        )
        inner.family = whole.family
        return Behind(inner, _Code(self.levels), base.text, base.data.x.shape[1:])

    def _inner(self, recipe: Recipe, data: Data, seed: int) -> nn.Module:
        channels, height, width = data.x.shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return recipe.build(channels * self.levels, height, width, data.num_classes)

    def made(self, recipe: Recipe, base: Base, weights: Mapping[str, Tensor]) -> TorchModel:
        module = self.network(recipe, base.data, base.train.seed)
        module.load_state_dict(dict(weights))
        made = TorchModel(module, base.data.x.shape[1:], name=base.text, device=base.train.device)
        made.family = "cnn"
        return made
