"""A network that is a linear model, as one."""

from __future__ import annotations

import copy

import torch

from robustbench_lite.core.model import Model, reference_precision
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.linear import LinearModel

LARGEST = 50_000_000  # numbers of a weight matrix that is written out


def collapsed(model: TorchModel) -> Model:
    """The linear model that a chain of affine layers is, computed in float64; any other model as it is.

    Parameters
    ----------
    model : TorchModel

    Returns
    -------
    Model
        With exact answers and bounds where the network is affine and its answers are its scores.

    Examples
    --------
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    >>> collapsed(TorchModel(module, (1, 2, 2))).family
    'linear'
    """
    layers = model.structure
    affine = layers is not None and all(step.kind == "affine" for step in layers.steps)
    features = int(torch.Size(model.input_shape).numel())
    if not affine or model.num_classes < 2 or model.num_classes * features > LARGEST:
        return model
    module = copy.deepcopy(model.module).double()
    with torch.enable_grad(), reference_precision():
        x = torch.zeros(1, *model.input_shape, dtype=torch.float64, device=model.device, requires_grad=True)
        scores = module(model.as_taken(x))[0]
        rows = [torch.autograd.grad(score, x, retain_graph=True)[0].flatten() for score in scores]
    made = LinearModel(
        torch.stack(rows), scores.detach(), model.input_shape, name=model.name, scaled=True
    ).to(model.device)
    made.notes = (*model.notes, "its layers are affine: it is judged as the linear model that it is")
    return made
