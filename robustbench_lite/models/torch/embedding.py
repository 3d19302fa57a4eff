"""What a network's last linear layer is given: the features that it has made of an input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.models.torch.module import TorchModel

AT_ONCE = 500  # samples


def embedding(model: TorchModel, x: Tensor) -> Tensor:
    """What the linear layer that is called last takes.

    Parameters
    ----------
    model : TorchModel
    x : Tensor
        (n, …).

    Returns
    -------
    Tensor
        (n, e), with a gradient where x has one.

    Raises
    ------
    Unsupported
        For a network without a linear layer.

    Examples
    --------
    >>> embedding(TorchModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (4,)), torch.ones(3, 4)).shape
    torch.Size([3, 4])
    """
    held: list[tuple[nn.Module, Tensor]] = []
    layers = [part for part in model.module.modules() if isinstance(part, nn.Linear)]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, taken: held.append((layer, taken[0])))
        for layer in layers
    ]
    try:
        model.scores(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not held:
        raise Unsupported(f"{model.name} has no linear layer, whose inputs could be looked at")
    last, taken = held[-1]
    if len(taken) == len(x):
        return taken.flatten(1)
    # A network that takes batches of one size is asked in several, the last filled up.
    return torch.cat([part for layer, part in held if layer is last])[: len(x)].flatten(1)


def embeddings(model: TorchModel, x: Tensor) -> Tensor:
    """The same of many samples (n, …), without a gradient, on the model's device."""
    with torch.no_grad():
        parts = [embedding(model, part.to(model.device)) for part in torch.split(x, AT_ONCE)]
    return torch.cat(parts)
