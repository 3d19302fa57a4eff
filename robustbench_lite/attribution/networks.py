"""What only networks show: maps of their layers (by Captum), embeddings, and images made to please them."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.models.torch.embedding import embedding
from robustbench_lite.models.torch.module import TorchModel

ROUGHNESS = 0.01  # the price of neighbours that differ, in images that are made
RATE = 0.05  # of the steps that make them


def grad_cam(model: TorchModel, x: Tensor, classes: Tensor) -> Tensor:
    """Where the last convolution's channels that raise a score are active (Selvaraju et al. 2017, section 3).

    Parameters
    ----------
    model : TorchModel
        With a convolution.
    x : Tensor
        (m, C, H, W).
    classes : Tensor
        (m,) int64.

    Returns
    -------
    Tensor
        (m, H, W), at least 0.

    Raises
    ------
    Unsupported
        Without a convolution, or without Captum.
    """
    layers = _called(model, x, nn.Conv2d)
    if not layers:
        raise Unsupported(f"{model.name}: has no convolution that Grad-CAM could look at")
    _need_captum()
    from captum.attr import LayerAttribution, LayerGradCam

    found = LayerGradCam(model.gradient_scores, layers[-1]).attribute(
        x, target=classes, relu_attributions=True
    )
    shown: Tensor = LayerAttribution.interpolate(found, tuple(x.shape[2:]), "bilinear")
    return shown[:, 0].detach()


def guided_gradient(model: TorchModel, x: Tensor, classes: Tensor) -> Tensor:
    """The gradient without what rectified units hold back, on the way back too (Springenberg et al. 2015).

    Parameters
    ----------
    model : TorchModel
        With rectified units that are layers.
    x : Tensor
        (m, C, H, W).
    classes : Tensor
        (m,) int64.

    Returns
    -------
    Tensor
        (m, H, W), at least 0: the largest over channels.

    Raises
    ------
    Unsupported
        Without such units, or without Captum.
    """
    if not any(isinstance(layer, nn.ReLU) for layer in model.module.modules()):
        raise Unsupported(f"{model.name}: has no rectified units that guided backpropagation could guide")
    _need_captum()
    from captum.attr import GuidedBackprop

    with warnings.catch_warnings():  # that it sets and removes hooks
        warnings.simplefilter("ignore", UserWarning)
        found: Tensor = GuidedBackprop(_Scores(model)).attribute(x, target=classes)
    return found.detach().abs().amax(1)


def inverted(model: TorchModel, x: Tensor, steps: int = 200) -> Tensor:
    """Smooth images whose embedding is that of others (Mahendran & Vedaldi 2015, equation 1).

    Parameters
    ----------
    model : TorchModel
    x : Tensor
        (m, C, H, W) in [0, 1].
    steps : int, default 200

    Returns
    -------
    Tensor
        (m, C, H, W) in [0, 1].
    """
    with torch.no_grad():
        wanted = embedding(model, x)
    size = wanted.square().sum(1).clamp_min(1e-12)
    return _made(x, steps, lambda image: (embedding(model, image) - wanted).square().sum(1) / size)


def class_images(model: TorchModel, classes: Tensor, steps: int = 200) -> Tensor:
    """Smooth images of which the network is surest (Simonyan et al. 2013, section 2).

    Parameters
    ----------
    model : TorchModel
    classes : Tensor
        (m,) int64.
    steps : int, default 200

    Returns
    -------
    Tensor
        (m, C, H, W) in [0, 1].
    """
    like = torch.zeros(len(classes), *model.input_shape, device=model.device)
    return _made(like, steps, lambda image: functional.cross_entropy(
        model.gradient_scores(image), classes, reduction="none"))  # fmt: skip


def _called(model: TorchModel, x: Tensor, kind: type[nn.Module]) -> list[nn.Module]:
    """The layers of a kind in the order in which they end; a shortcut may be declared after what it skips."""
    order: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda layer, taken, given: order.append(layer))
        for layer in model.module.modules()
        if isinstance(layer, kind)
    ]
    try:
        with torch.no_grad():
            model.gradient_scores(x)
    finally:
        for hook in hooks:
            hook.remove()
    return order


class _Scores(nn.Module):
    """A model's scores as a module that holds its layers."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.held, self.scores = model.module, model.gradient_scores

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x)


def _made(like: Tensor, steps: int, price: Callable[[Tensor], Tensor]) -> Tensor:
    """Images from an even grey on, down a price (m,) and their own roughness."""
    image = torch.full_like(like, 0.5).requires_grad_()
    optimiser = torch.optim.Adam([image], RATE)
    for _ in range(steps):
        with torch.enable_grad():
            down, across = image.diff(dim=2).abs(), image.diff(dim=3).abs()
            rough = down.flatten(1).sum(1) + across.flatten(1).sum(1)
            (slope,) = torch.autograd.grad((price(image) + ROUGHNESS * rough).sum(), image)
        image.grad = slope
        optimiser.step()
        with torch.no_grad():
            image.clamp_(0, 1)
    return image.detach()


def _need_captum() -> None:
    if importlib.util.find_spec("captum") is None:
        raise Unsupported(
            "Grad-CAM and guided gradients are Captum's: pip install 'robustbench-lite[explain]'"
        )
