"""Networks whose answer has positions, trained here on first use: a U-Net, a reader of strings, a tagger."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import Trained, remember
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.networks import Recipe, loaded
from robustbench_lite.models.zoo.training import Batch, Objective, Schedule, fit_network

WIDTH = 8  # channels at full size


class UNet(nn.Module):
    """Two halvings down and up again, with what was before each halving carried over (Ronneberger 2015)."""

    def __init__(self, channels: int, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.first, self.second = _pair(channels, width), _pair(width, 2 * width)
        self.bottom = _pair(2 * width, 4 * width)
        self.third, self.fourth = _pair(6 * width, 2 * width), _pair(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        full = self.first(x)
        half = self.second(functional.max_pool2d(full, 2))
        low = self.bottom(functional.max_pool2d(half, 2))
        half = self.third(torch.cat([half, _as_large(low, half)], 1))
        scores: Tensor = self.head(self.fourth(torch.cat([full, _as_large(half, full)], 1)))
        return scores


class Reader(nn.Module):
    """Convolutions, then a head for every place of the string, each with its own share of the width."""

    def __init__(self, channels: int, classes: int, places: int, width: int = WIDTH) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _pair(channels, width), nn.MaxPool2d(2), _pair(width, 2 * width), nn.MaxPool2d(2),
            _pair(2 * width, 4 * width), nn.AdaptiveAvgPool2d((2, 2 * places)),
        )  # fmt: skip
        self.heads = nn.ModuleList(nn.Linear(4 * width * 4 * places, classes) for _ in range(places))

    def forward(self, x: Tensor) -> Tensor:
        held = self.body(x).flatten(1)
        return torch.stack([head(held) for head in self.heads], 2)


def tagger(channels: int, labels: int, width: int = 2 * WIDTH) -> nn.Module:
    """Convolutions, the largest of each channel anywhere in the image, and a score for every label."""
    return nn.Sequential(
        _pair(channels, width), nn.MaxPool2d(2), _pair(width, 2 * width), nn.MaxPool2d(2),
        _pair(2 * width, 4 * width), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4 * width, labels),
    )  # fmt: skip


def _pair(inside: int, outside: int) -> nn.Sequential:
    """Two 3×3 convolutions, batch-normalised."""
    layers: list[nn.Module] = []
    for start in (inside, outside):
        layers += [nn.Conv2d(start, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers)


def _as_large(x: Tensor, other: Tensor) -> Tensor:
    return functional.interpolate(x, other.shape[2:], mode="nearest")


class EveryPosition(Objective):
    """Cross-entropy, the mean over all labelled positions of a batch."""

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(module(batch.x).float(), batch.y, ignore_index=-1)


class EveryLabel(Objective):
    """Binary cross-entropy, the mean over all known labels of a batch."""

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        known = batch.y >= 0
        return functional.binary_cross_entropy_with_logits(
            module(batch.x).float()[known], batch.y[known].float()
        )


def train_unet(data: Data, train: Trained) -> TorchModel:
    """A small U-Net, trained with AdamW on a one-cycle schedule."""
    _require("unet", data, "segmentation", 8)
    return _trained("unet", lambda c, h, w, k: UNet(c, k), data, train)


def train_reader(data: Data, train: Trained) -> TorchModel:
    """A convolutional network with a head for every place of a string, trained as `unet` is."""
    _require("reader", data, "sequence", 8)
    places = int(data.y.shape[1])
    return _trained("reader", lambda c, h, w, k: Reader(c, k, places), data, train)


def train_tagger(data: Data, train: Trained) -> TorchModel:
    """A convolutional network with a score for every label, trained as `unet` is."""
    _require("tagger", data, "multilabel", 8)
    labels = int(data.y.shape[1])
    return _trained("tagger", lambda c, h, w, k: tagger(c, labels), data, train, EveryLabel())


def _require(name: str, data: Data, task: str, least: int) -> None:
    shape = tuple(data.x.shape[1:])
    if data.task.kind != task:
        raise Unsupported(f"{name} is for data with a {task}; {data.name} is for {data.task.kind}")
    if len(shape) != 3 or min(shape[1:]) < least:
        raise Unsupported(
            f"{name} needs images (C, H, W) of at least {least} × {least}; {data.name} has {shape}"
        )


def _trained(
    name: str,
    build: Callable[[int, int, int, int], nn.Module],
    data: Data,
    train: Trained,
    objective: Objective | None = None,
) -> TorchModel:
    """A network trained on the data's training split, or read from the cache."""
    epochs = max(3, min(30, 30_000 // len(data.training())))
    recipe = Recipe(name, build, Schedule(epochs, batch=64, rate=1e-2))

    def fit() -> dict[str, Tensor]:
        module = recipe.network(data, train.seed).to(train.device)

        def report(done: float) -> None:
            train.report(name, done)

        fit_network(
            module, data.training(), recipe.schedule, train.seed, report, objective or EveryPosition()
        )
        return dict(module.state_dict())

    return loaded(recipe, data, remember(name, 1, data, train, fit), train, name)
