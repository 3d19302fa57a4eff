"""Inputs in fewer levels: bit depth and thermometer codes, with slopes for those who know of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

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
Levels = Annotated[int, Range(2, 64)]
SOFT = 0.9  # of the slopes of rounded values: .1 where the next level is farthest, 1.9 where it is near


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

    def smooth(self, x: Tensor, stream: Stream) -> Tensor:
        """The rounded values, with the slopes of `soft_round`."""
        most = 2**self.bits - 1
        soft: Tensor = soft_round(x * most) / most
        return soft + (self.apply(x, stream) - soft).detach()


def soft_round(values: Tensor) -> Tensor:
    """Values about as steep as rounding is: flat at whole numbers, steep halfway between them.

    There a step leads to another whole number. With the slope of 1 everywhere attacks spend their steps on
    what no rounding will tell from before.
    """
    wave = torch.sin(2 * math.pi * values) / (2 * math.pi)
    return values - SOFT * wave


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
