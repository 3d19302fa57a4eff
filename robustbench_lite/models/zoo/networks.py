"""Networks for images, trained here on first use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported, require
from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import Trained, remember
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.training import Schedule, fit_network


class Block(nn.Module):
    """Two 3×3 convolutions around which the input passes, after which the image may halve."""

    def __init__(self, inside: int, outside: int, halve: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.around = nn.Conv2d(inside, outside, 1, bias=False)
        self.pool = nn.MaxPool2d(2) if halve else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(functional.relu(self.body(x) + self.around(x)))
        return pooled


class SmallCNN(nn.Module):
    """Residual blocks of `width`, 2·width, … channels, each halving the image until its side is below 8."""

    def __init__(self, channels: int, height: int, width_in: int, classes: int, width: int = 16) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inside, outside, side = channels, width, min(height, width_in)
        while True:
            blocks.append(Block(inside, outside, halve=side >= 2))
            inside, side = outside, side // 2
            if side < 4:
                break
            outside *= 2
        self.body = nn.Sequential(*blocks)
        self.head = nn.LazyLinear(classes)
        with torch.no_grad():
            self.head(self.body.eval()(torch.zeros(1, channels, height, width_in)).flatten(1))
        self.body.train()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x).flatten(1))
        return scores


def lenet(channels: int, height: int, width: int, classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with rectified units, its convolutions padded to keep small images."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (height // 4) * (width // 4), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def vgg(channels: int, height: int, width: int, classes: int) -> nn.Module:
    """Pairs of 3×3 convolutions, batch-normalised, halving the image until its side is below 4.

    As Simonyan & Zisserman 2014, from 32 channels; each halving doubles them, to 256 at most.
    """
    layers: list[nn.Module] = []
    inside, outside = channels, 32
    while min(height, width) >= 4:
        for _ in range(2):
            layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside)]
            layers += [nn.ReLU()]
            inside = outside
        layers.append(nn.MaxPool2d(2))
        height, width, outside = height // 2, width // 2, min(256, 2 * outside)
    head = [nn.Flatten(), nn.Linear(inside * height * width, 256), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, *head, nn.Linear(256, classes))


def resnet18(channels: int, height: int, width: int, classes: int) -> nn.Module:
    """Torchvision's ResNet-18 with the stem for 32×32 images: one 3×3 convolution and no pooling."""
    from torchvision.models import resnet18 as imagenet_resnet18

    module: nn.Module = imagenet_resnet18(num_classes=classes)
    module.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    module.maxpool = nn.Identity()
    return module


def train_cnn(data: Data, train: Trained) -> TorchModel:
    """A `SmallCNN` trained with AdamW on a one-cycle schedule, for 600 to 30,000 steps of 128 samples."""
    return _trained("cnn", SmallCNN, data, train, Schedule(_epochs(data)))


def train_lenet(data: Data, train: Trained) -> TorchModel:
    """LeNet-5, trained as `cnn` is, in batches of 64 at twice the rate for twice the epochs."""
    return _trained("lenet", lenet, data, train, Schedule(2 * _epochs(data), batch=64, rate=1e-2))


def train_vgg(data: Data, train: Trained) -> TorchModel:
    """A small VGG, trained as `cnn` is at a fifth of its learning rate."""
    return _trained("vgg", vgg, data, train, Schedule(_epochs(data), rate=1e-3))


def train_resnet18(data: Data, train: Trained, epochs: int = 24) -> TorchModel:
    """ResNet-18 for 32×32 images: SGD on one cycle to 0.2, batches of 512, flips and shifts; for a GPU."""
    require(epochs >= 1, "epochs", epochs, "at least 1")
    if min(data.x.shape[2:], default=0) < 16:
        raise Unsupported(f"resnet18 needs images of 16 pixels a side or more; {data.name} has smaller ones")
    schedule = Schedule(epochs, batch=512, rate=0.2, momentum=0.9, augment=True, fast=True)
    return _trained(f"resnet18 {epochs}", resnet18, data, train, schedule)


def _epochs(data: Data) -> int:
    return max(3, min(30, 150_000 // len(data.training())))


def _trained(
    recipe: str,
    build: Callable[[int, int, int, int], nn.Module],
    data: Data,
    train: Trained,
    schedule: Schedule,
) -> TorchModel:
    """A network built for the data's images and trained on its training split, or read from the cache."""
    name, shape = recipe.partition(" ")[0], tuple(data.x.shape[1:])
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise Unsupported(
            f"{name} needs images (C, H, W) of at least 4 × 4; {data.name} has inputs of shape {shape}"
        )

    def network() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            return build(shape[0], shape[1], shape[2], data.num_classes)

    def fit() -> dict[str, Tensor]:
        training = data.training()
        module = network().to(train.device)
        with torch.random.fork_rng():  # dropout
            torch.manual_seed(train.seed)
            fit_network(module, training, schedule, train.seed, lambda done: train.report(name, done))
        return dict(module.state_dict())

    module = network()
    module.load_state_dict(dict(remember(recipe, 1, data, train, fit)))
    model = TorchModel(module, shape, name=name, device=train.device)
    model.family = "cnn"
    return model
