"""Small networks, trained here on first use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.model import reference_precision
from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import Trained, remember
from robustbench_lite.models.module import TorchModel


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


def train_cnn(data: Data, train: Trained) -> TorchModel:
    """A `SmallCNN` trained with AdamW on a one-cycle schedule, for 600 to 30,000 steps of 128 samples."""
    shape = tuple(data.x.shape[1:])
    if len(shape) != 3:
        raise Unsupported(f"cnn needs images (C, H, W); {data.name} has inputs of shape {shape}")

    def network() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            return SmallCNN(shape[0], shape[1], shape[2], data.num_classes)

    def fit() -> dict[str, Tensor]:
        training = data.training()
        module = network().to(train.device)
        epochs = max(3, min(30, 150_000 // len(training)))
        fit_network(module, training, train, epochs, lambda f: train.report("cnn", f))
        return dict(module.state_dict())

    module = network()
    module.load_state_dict(dict(remember("cnn", 1, data, train, fit)))
    return TorchModel(module, shape, name="cnn", family="cnn", device=train.device)


def fit_network(
    module: nn.Module,
    data: Data,
    train: Trained,
    epochs: int,
    report: Callable[[float], None],
    batch: int = 128,
    rate: float = 5e-3,
) -> None:
    """Train in place: cross-entropy, AdamW, one cycle; the order of samples fixed by the seed."""
    generator = torch.Generator().manual_seed(train.seed)
    steps = epochs * -(-len(data) // batch)
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    x, y = data.x.to(train.device), data.y.to(train.device)
    module.train()
    done = 0
    with reference_precision():
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(data), generator=generator), batch):
                optimiser.zero_grad(set_to_none=True)
                loss = functional.cross_entropy(module(x[rows]), y[rows], label_smoothing=0.05)
                torch.autograd.backward(loss)
                optimiser.step()
                schedule.step()
                done += 1
                report(done / steps)
    module.eval()
