"""Training for what can be proven: the worst scores that intervals allow are what is minimised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.parameters import Positive, Probability
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.training.training import Training
from robustbench_lite.models.defense import Base
from robustbench_lite.models.zoo.training import Batch, Objective, Schedule

MONOTONE = (nn.ReLU, nn.Flatten, nn.AvgPool2d, nn.MaxPool2d, nn.Identity)


@dataclass(frozen=True)
class BoundTraining(Training):
    """Cross-entropy of the worst scores that interval arithmetic allows in an linf ball.

    The ball grows from nothing over the middle of the training, and the share of the worst case with it. What
    is learnt so is proven by its bounds; the networks certifier proves a little more.

    Parameters
    ----------
    eps : float, default 0.1
        Of the linf ball, in the units of x.
    share : float, default 0.5
        Of the plain cross-entropy at the end, beside the worst case's.
    epochs : int, default 0
        0: three times as many as the network is trained for without it.

    Raises
    ------
    Unsupported
        For networks with anything but linear layers, convolutions, rectified units and pools in a row.

    Source: Gowal et al. 2018 (arXiv:1810.12715).

    Examples
    --------
    >>> BoundTraining(eps=0.3).share
    0.5
    """

    eps: Positive = 0.1
    share: Probability = 0.5

    name = "bound_training"
    paper = "Gowal et al. 2018, arXiv:1810.12715"
    average = 0.0

    def schedule(self, usual: Schedule) -> Schedule:
        plain = super().schedule(usual)
        return replace(plain, epochs=self.epochs or 3 * usual.epochs, rate=min(plain.rate, 2e-3))

    def objective(self, base: Base, learnt: Data) -> Objective:
        layers_of(base.recipe().network(base.data, base.train.seed))  # refused before an hour is spent
        low, high = (
            torch.as_tensor(part, device=base.train.device)
            for part in (base.data.domain.low, base.data.domain.high)
        )
        return _Worst(self.eps, self.share, low, high)

    def worth(self, module: nn.Module, held_out: Data, data: Data) -> tuple[float, str]:
        device = next(module.parameters()).device
        low, high = (torch.as_tensor(part, device=device) for part in (data.domain.low, data.domain.high))
        clean = proven = 0
        with torch.no_grad():
            for rows in torch.split(torch.arange(len(held_out)), 500):
                x, y = held_out.x[rows].to(device), held_out.y[rows].to(device)
                clean += int((module(x).argmax(1) == y).sum())
                worst = worst_scores(layers_of(module), x, y, self.eps, low, high)
                proven += int((worst.argmax(1) == y).sum())
        clean_rate, rate = (count / max(1, len(held_out)) for count in (clean, proven))
        return rate, f" {clean_rate:.1%} clean, {rate:.1%} proven"


class _Worst(Objective):
    """Plain and worst-case cross-entropy, the ball growing."""

    def __init__(self, eps: float, share: float, low: Tensor, high: Tensor) -> None:
        self.eps, self.share, self.low, self.high = eps, share, low, high

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        grown = min(1.0, max(0.0, (batch.done - 0.05) / 0.55))
        plain = functional.cross_entropy(module(batch.x).float(), batch.y)
        if not grown:
            return plain
        worst = worst_scores(layers_of(module), batch.x, batch.y, grown * self.eps, self.low, self.high)
        share = 1 - grown * (1 - self.share)
        return share * plain + (1 - share) * functional.cross_entropy(worst, batch.y)


def layers_of(module: nn.Module) -> Sequence[nn.Module]:
    """The layers of a plain sequence; raises `Unsupported` for what intervals do not pass through."""
    if not isinstance(module, nn.Sequential):
        raise Unsupported(
            "bounds are trained through plain sequences of layers, such as conv_small and lenet"
        )
    for layer in module:
        if not isinstance(layer, (nn.Linear, nn.Conv2d, *MONOTONE)):
            raise Unsupported(
                f"bounds do not pass through {type(layer).__name__}; conv_small and lenet have none"
            )
    return list(module)


def worst_scores(
    layers: Sequence[nn.Module], x: Tensor, y: Tensor, eps: float, low: Tensor, high: Tensor
) -> Tensor:
    """For each class the largest it can lead y by, y itself at 0 (n, K): differences, so that the last layer
    is used once (Gowal et al. 2018, section 3)."""
    below, above = torch.maximum(x - eps, low), torch.minimum(x + eps, high)
    middle, radius = (above + below) / 2, (above - below) / 2
    for layer in layers[:-1]:
        if isinstance(layer, nn.Linear):
            middle = layer(middle)
            radius = functional.linear(radius, layer.weight.abs())
        elif isinstance(layer, nn.Conv2d):
            middle = layer(middle)
            radius = functional.conv2d(
                radius, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        else:
            below, above = layer(middle - radius), layer(middle + radius)
            middle, radius = (above + below) / 2, (above - below) / 2
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    against = last.weight[None] - last.weight[y][:, None]  # (n, K, d)
    centre = (against @ middle[:, :, None])[:, :, 0] + last.bias - last.bias[y][:, None]
    return centre + (against.abs() @ radius[:, :, None])[:, :, 0]
