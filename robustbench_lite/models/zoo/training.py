"""Training a network: cross-entropy on one cycle of the learning rate, the order of samples from the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.model import reference_precision
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data

SMOOTHING = 0.05  # of the labels


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: epochs of batches of samples; rate: the highest learning rate.

    momentum: SGD with it (Nesterov); None: AdamW. augment: random flips and shifts by up to 4 pixels. fast:
    bfloat16 and channels-last on a GPU that has them, for networks whose training takes minutes.
    """

    epochs: int
    batch: int = 128
    rate: float = 5e-3
    momentum: float | None = None
    augment: bool = False
    fast: bool = False


def fit_network(
    module: nn.Module, data: Data, schedule: Schedule, seed: int, report: Callable[[float], None]
) -> None:
    """Train a module in place, on the device that it is on."""
    device = next(module.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    steps = schedule.epochs * -(-len(data) // schedule.batch)
    optimiser = _optimiser(module, schedule)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.rate, total_steps=steps)
    x, y = data.x.to(device), data.y.to(device)
    fast = schedule.fast and device.type == "cuda"
    if fast:
        module.to(memory_format=torch.channels_last)
    module.train()
    done = 0
    with reference_precision():
        for epoch in range(schedule.epochs):
            for rows in torch.split(torch.randperm(len(data), generator=generator), schedule.batch):
                batch = x[rows]
                if schedule.augment:
                    batch = shifted_and_flipped(batch, Stream.of(seed, data.ids[rows]).fold("augment", epoch))
                optimiser.zero_grad(set_to_none=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                    scores = module(batch)
                loss = functional.cross_entropy(scores.float(), y[rows], label_smoothing=SMOOTHING)
                torch.autograd.backward(loss)
                optimiser.step()
                rates.step()
                done += 1
                report(done / steps)
    module.to(memory_format=torch.contiguous_format)
    module.eval()


def shifted_and_flipped(x: Tensor, stream: Stream, most: int = 4) -> Tensor:
    """Images (n, C, H, W) each moved by up to `most` pixels, black coming in, and half of them mirrored."""
    n, _, height, width = x.shape
    draw = stream.integers(2 * most + 1, (2,)).to(x.device)
    mirrored = (stream.fold("mirror").integers(2, ()) == 1).to(x.device)
    padded = functional.pad(x, (most, most, most, most))
    rows = draw[:, :1] + torch.arange(height, device=x.device)
    columns = draw[:, 1:] + torch.arange(width, device=x.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    each = torch.arange(n, device=x.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _optimiser(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.momentum is None:
        return torch.optim.AdamW(module.parameters(), lr=schedule.rate, weight_decay=1e-2)
    return torch.optim.SGD(
        module.parameters(), schedule.rate, schedule.momentum, nesterov=True, weight_decay=5e-4
    )
