"""Training for what can be proven: the worst scores that intervals allow are what is minimised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

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
    crown : bool, default False
        Whether the worst scores come from linear bounds carried backwards while the ball is small, and from
        intervals more and more as it grows (CROWN-IBP; Zhang et al. 2020, arXiv:1906.06316).
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
    crown: bool = False

    name = "bound_training"
    paper = "Gowal et al. 2018, arXiv:1810.12715"
    average = 0.0

    def schedule(self, usual: Schedule) -> Schedule:
        plain = super().schedule(usual)
        return replace(plain, epochs=self.epochs or 3 * usual.epochs, rate=min(plain.rate, 2e-3))

    def objective(self, base: Base, learnt: Data) -> Objective:
        layers_of(base.recipe().network(base.data, base.train.seed))  # refused before an hour is spent
        low, high = (
            torch.as_tensor(part, dtype=torch.float32, device=base.train.device)
            for part in (base.data.domain.low, base.data.domain.high)
        )
        return _Worst(self, low, high)

    def worth(self, module: nn.Module, held_out: Data, data: Data) -> tuple[float, str]:
        device = next(module.parameters()).device
        low, high = (
            torch.as_tensor(part, dtype=torch.float32, device=device)
            for part in (data.domain.low, data.domain.high)
        )
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

    def __init__(self, training: BoundTraining, low: Tensor, high: Tensor) -> None:
        self.training, self.low, self.high = training, low, high

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        grown = min(1.0, max(0.0, (batch.done - 0.05) / 0.55))
        plain = functional.cross_entropy(module(batch.x).float(), batch.y)
        if not grown:
            return plain
        told = layers_of(module), batch.x, batch.y, grown * self.training.eps, self.low, self.high
        worst = worst_scores(*told)
        if self.training.crown and grown < 1:
            worst = grown * worst + (1 - grown) * linear_worst_scores(*told)
        share = 1 - grown * (1 - self.training.share)
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
    (middle, radius), _ = _intervals(layers, x, eps, low, high)
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    against = last.weight[None] - last.weight[y][:, None]  # (n, K, d)
    centre = (against @ middle[:, :, None])[:, :, 0] + last.bias - last.bias[y][:, None]
    return centre + (against.abs() @ radius[:, :, None])[:, :, 0]


def linear_worst_scores(
    layers: Sequence[nn.Module], x: Tensor, y: Tensor, eps: float, low: Tensor, high: Tensor
) -> Tensor:
    """The same by linear bounds carried backwards to the input, the units' own bounds by intervals (n, K).

    Above an open unit lies the chord, below it a line of slope 0 or 1, whichever leaves less between.
    """
    _, units = _intervals(layers, x, eps, low, high)
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    slope = last.weight[None] - last.weight[y][:, None]  # (n, K, d)
    bound = (last.bias - last.bias[y][:, None])[..., None]
    n, classes = slope.shape[:2]
    for number in range(len(layers) - 2, -1, -1):
        layer = layers[number]
        least, most = units[number]
        if isinstance(layer, nn.ReLU):
            chord = most.clamp_min(0) / (most.clamp_min(0) - least.clamp_max(0)).clamp_min(1e-12)
            line = (most > -least).to(least)
            up, down = slope.clamp_min(0), slope.clamp_max(0)
            bound = bound + (up * (-least.clamp_max(0) * chord)[:, None]).flatten(2).sum(2, keepdim=True)
            slope = up * chord[:, None] + down * line[:, None]
        elif isinstance(layer, nn.Linear):
            bound = bound + (slope @ layer.bias)[..., None]
            slope = slope @ layer.weight
        elif isinstance(layer, nn.Conv2d):
            bias = layer.bias if layer.bias is not None else x.new_zeros(layer.out_channels)
            bound = bound + (slope.sum((3, 4)) @ bias)[..., None]
            before = conv2d_input(  # type: ignore[no-untyped-call]
                (n * classes, *least.shape[1:]), layer.weight, slope.flatten(0, 1), layer.stride,
                layer.padding, layer.dilation, layer.groups,
            )  # fmt: skip
            slope = before.view(n, classes, *least.shape[1:])
        elif isinstance(layer, nn.Flatten | nn.Identity):
            slope = slope.reshape(n, classes, *least.shape[1:])
        else:
            raise Unsupported(f"crown=true carries no bounds through {type(layer).__name__}")
    below, above = torch.maximum(x - eps, low), torch.minimum(x + eps, high)
    ends = slope.clamp_min(0) * above[:, None] + slope.clamp_max(0) * below[:, None]
    return bound[..., 0] + ends.flatten(2).sum(2)


def _intervals(
    layers: Sequence[nn.Module], x: Tensor, eps: float, low: Tensor, high: Tensor
) -> tuple[tuple[Tensor, Tensor], list[tuple[Tensor, Tensor]]]:
    """Middle and radius of what the last layer takes, and the ends of what each layer takes."""
    below, above = torch.maximum(x - eps, low), torch.minimum(x + eps, high)
    middle, radius = (above + below) / 2, (above - below) / 2
    taken = []
    for layer in layers[:-1]:
        taken.append((middle - radius, middle + radius))
        if isinstance(layer, nn.Linear):
            middle = layer(middle)
            radius = functional.linear(radius, layer.weight.abs())
        elif isinstance(layer, nn.Conv2d):
            middle = layer(middle)
            radius = functional.conv2d(
                radius, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        else:
            below, above = (layer(end) for end in taken[-1])
            middle, radius = (above + below) / 2, (above - below) / 2
    return (middle, radius), taken
