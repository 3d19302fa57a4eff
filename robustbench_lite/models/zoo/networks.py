"""Networks for images, trained here on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.registry import arguments, read_name
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


def conv_small(channels: int, height: int, width: int, classes: int) -> nn.Module:
    """Two strided convolutions of 16 and 32 channels and a hidden layer of 100 (Wong & Kolter 2018).

    Small and without batch statistics: quick to train against an adversary, and to prove things about.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


@dataclass(frozen=True)
class Recipe:
    """How a network is built for images and trained.

    Parameters
    ----------
    name : str
        The network's, with the options that change it.
    build : callable
        (channels, height, width, classes) -> module.
    schedule : Schedule
    """

    name: str
    build: Callable[[int, int, int, int], nn.Module]
    schedule: Schedule

    def network(self, data: Data, seed: int) -> nn.Module:
        """The network before training, its weights drawn by the seed."""
        channels, height, width = data.x.shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(channels, height, width, data.num_classes)


def cnn_recipe(data: Data) -> Recipe:
    """`SmallCNN`: AdamW on a one-cycle schedule, for 600 to 30,000 steps of 128 samples."""
    return Recipe("cnn", SmallCNN, Schedule(_epochs(data)))


def lenet_recipe(data: Data) -> Recipe:
    """LeNet-5 as `cnn`, in batches of 64 at twice the rate for twice the epochs."""
    return Recipe("lenet", lenet, Schedule(2 * _epochs(data), batch=64, rate=1e-2))


def conv_small_recipe(data: Data) -> Recipe:
    """`conv_small`, trained as `cnn` is."""
    return Recipe("conv_small", conv_small, Schedule(_epochs(data)))


def vgg_recipe(data: Data) -> Recipe:
    """A small VGG, trained as `cnn` is at a fifth of its learning rate."""
    return Recipe("vgg", vgg, Schedule(_epochs(data), rate=1e-3))


def resnet18_recipe(data: Data, epochs: Count = 24) -> Recipe:
    """ResNet-18 for 32×32 images: SGD on one cycle to 0.2, batches of 512, flips and shifts; for a GPU."""
    if min(data.x.shape[2:], default=0) < 16:
        raise Unsupported(f"resnet18 needs images of 16 pixels a side or more; {data.name} has smaller ones")
    schedule = Schedule(epochs, batch=512, rate=0.2, momentum=0.9, augment=True, fast=True)
    return Recipe(f"resnet18 {epochs}", resnet18, schedule)


RECIPES: dict[str, Callable[..., Recipe]] = {
    "cnn": cnn_recipe,
    "conv_small": conv_small_recipe,
    "lenet": lenet_recipe,
    "resnet18": resnet18_recipe,
    "vgg": vgg_recipe,
}


def recipe_named(text: str, data: Data) -> Recipe:
    """The recipe that a name of one of these networks stands for.

    Raises
    ------
    Unsupported
        For any other model, and for data without images.

    Examples
    --------
    >>> import robustbench_lite as rb
    >>> recipe_named("lenet", rb.load_data("digits")).schedule.batch
    64
    """
    name = read_name("models", text)
    if name.head not in RECIPES or name.inner:
        raise Unsupported(f"only networks are trained so: {', '.join(RECIPES)}; not {text}")
    make = RECIPES[name.head]
    recipe = make(data, **arguments(make, dict(name.parameters), skip=1))
    shape = tuple(data.x.shape[1:])
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise Unsupported(
            f"{name.head} needs images (C, H, W) of at least 4 × 4; {data.name} has inputs of shape {shape}"
        )
    return recipe


def train_cnn(data: Data, train: Trained) -> TorchModel:
    """A `SmallCNN` trained with AdamW on a one-cycle schedule, for 600 to 30,000 steps of 128 samples."""
    return _trained("cnn", data, train)


def train_conv_small(data: Data, train: Trained) -> TorchModel:
    """Two strided convolutions and a hidden layer of 100 units, trained as `cnn` is."""
    return _trained("conv_small", data, train)


def train_lenet(data: Data, train: Trained) -> TorchModel:
    """LeNet-5, trained as `cnn` is, in batches of 64 at twice the rate for twice the epochs."""
    return _trained("lenet", data, train)


def train_vgg(data: Data, train: Trained) -> TorchModel:
    """A small VGG, trained as `cnn` is at a fifth of its learning rate."""
    return _trained("vgg", data, train)


def train_resnet18(data: Data, train: Trained, epochs: Count = 24) -> TorchModel:
    """ResNet-18 for 32×32 images: SGD on one cycle to 0.2, batches of 512, flips and shifts; for a GPU."""
    return _trained(f"resnet18:epochs={epochs}", data, train)


def _epochs(data: Data) -> int:
    return max(3, min(30, 150_000 // len(data.training())))


def _trained(text: str, data: Data, train: Trained) -> TorchModel:
    """A network trained on the data's training split, or read from the cache."""
    recipe = recipe_named(text, data)
    name = text.partition(":")[0]

    def fit() -> dict[str, Tensor]:
        module = recipe.network(data, train.seed).to(train.device)
        with torch.random.fork_rng():  # dropout
            torch.manual_seed(train.seed)
            fit_network(
                module, data.training(), recipe.schedule, train.seed, lambda done: train.report(name, done)
            )
        return dict(module.state_dict())

    return loaded(recipe, data, remember(recipe.name, 1, data, train, fit), train, name)


def loaded(
    recipe: Recipe, data: Data, weights: Mapping[str, Tensor], train: Trained, name: str
) -> TorchModel:
    """The network of a recipe with weights that were trained, as a model."""
    module = recipe.network(data, train.seed)
    module.load_state_dict(dict(weights))
    model = TorchModel(module, data.x.shape[1:], name=name, device=train.device, data=data)
    model.family = "cnn"
    return model
