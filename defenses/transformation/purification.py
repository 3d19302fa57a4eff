"""A denoising autoencoder before the model: inputs are brought back to what training images look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Positive
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.transformation.preprocessing import check_images
from robustbench_lite.models.behind import Behind, Transformation
from robustbench_lite.models.cache import Trained, place_of, remember
from robustbench_lite.models.code import tensor_facts
from robustbench_lite.models.defense import Base, Defense
from robustbench_lite.models.zoo.training import Batch, Objective, Schedule, fit_network

VERSION = 1


@dataclass(frozen=True)
class Purification(Defense):
    """An autoencoder, trained to take noise away, cleans each image before the model sees it.

    Parameters
    ----------
    sigma : float, default 0.15
        Standard deviation of the noise that it learns to take away.

    Source: Meng & Chen 2017 (MagNet, arXiv:1705.09064), the reformer.

    Examples
    --------
    >>> Purification(sigma=0.2).sigma
    0.2
    """

    sigma: Positive = 0.15

    name = "purification"
    paper = "Meng & Chen 2017, arXiv:1705.09064"

    def defend(self, base: Base) -> Model:
        check_images(self.name, base.data)
        cleaned = Cleaned(autoencoder(base.data, base.train, self.sigma))
        return Behind(base.model(), cleaned, base.text)


@dataclass(frozen=True, eq=False)
class Cleaned(Transformation):
    """What a trained autoencoder makes of images."""

    network: nn.Module

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        cleaned: Tensor = self.network(x)
        return cleaned.clamp(0, 1)

    def to(self, device: torch.device) -> Transformation:
        held = Autoencoder(next(self.network.parameters()).shape[1])
        held.load_state_dict(self.network.state_dict())
        return Cleaned(frozen(held.to(device)))

    def facts(self) -> bytes:
        return b"".join(part for value in self.network.state_dict().values() for part in tensor_facts(value))


class Autoencoder(nn.Module):
    """Four convolutions, the change they propose added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        cleaned: Tensor = x + self.body(x)
        return cleaned


def autoencoder(data: Data, train: Trained, sigma: float) -> nn.Module:
    """A trained one, read where it was trained before."""
    recipe = f"autoencoder sigma={sigma}"
    channels = data.x.shape[1]

    def made() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            return Autoencoder(channels).to(train.device)

    def fit() -> dict[str, Tensor]:
        module, training = made(), data.training()
        schedule = Schedule(max(3, min(30, 150_000 // len(training))))
        fit_network(
            module, training, schedule, train.seed, lambda done: train.report("autoencoder", done),
            _Denoise(sigma), partial=place_of(recipe, VERSION, data, train, "part"),
        )  # fmt: skip
        return dict(module.state_dict())

    weights: Mapping[str, Tensor] = remember(recipe, VERSION, data, train, fit)
    module = made()
    module.load_state_dict(dict(weights))
    return frozen(module)


def frozen(module: nn.Module) -> nn.Module:
    """In eval mode, its parameters without gradients."""
    return module.eval().requires_grad_(False)


class _Denoise(Objective):
    """The squared error against the clean image."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        noise = self.sigma * batch.stream.fold("noise").gaussian(tuple(batch.x.shape[1:])).to(batch.x)
        return functional.mse_loss(module((batch.x + noise).clamp(0, 1)).float(), batch.x)
