"""Linear models: their gradient is the same everywhere, so their worst case is known in closed form."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.errors import require
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.structure import Linear
from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import Trained, remember


class LinearModel(Model):
    """scores = weight @ x.flatten() + bias, in float64.

    Parameters
    ----------
    weight : Tensor
        (K, d), K at least 2.
    bias : Tensor
        (K,).
    input_shape : sequence of int
        Of one sample, d values.
    name : str, default "linear"
        What reports call it.
    scaled : bool
        Whether the scores are logits of a softmax, and so give a confidence.

    Raises
    ------
    InvalidParameter
        For a weight or bias of another shape.

    Examples
    --------
    >>> model = LinearModel(torch.eye(2), torch.zeros(2), (2,), scaled=True)
    >>> model.scores(torch.tensor([[0.25, 0.75]]))
    tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """

    family = "linear"
    access = Access.STRUCTURE

    def __init__(
        self, weight: Tensor, bias: Tensor, input_shape: Sequence[int], *, name: str = "linear", scaled: bool
    ) -> None:
        require(weight.dim() == 2 and len(weight) >= 2, "weight", tuple(weight.shape), "(K, d), K at least 2")
        require(bias.shape == weight.shape[:1], "bias", tuple(bias.shape), f"({len(weight)},)")
        self.weight, self.bias = weight.detach().double(), bias.detach().double()
        self.name, self.scaled = name, scaled
        self.num_classes, self.input_shape = len(weight), tuple(input_shape)
        self.device, self.precision = self.weight.device, "float64"

    def scores(self, x: Tensor) -> Tensor:
        # In float64 no batch size flips a point that lies a float32 step beyond the boundary.
        return torch.addmm(self.bias, x.flatten(1).double(), self.weight.T)

    @property
    def structure(self) -> Linear:
        return Linear(self.weight, self.bias)

    def confidence(self, scores: Tensor) -> Tensor | None:
        return super().confidence(scores) if self.scaled else None

    def to(self, device: torch.device | str) -> LinearModel:
        moved = copy.copy(self)
        moved.weight, moved.bias = self.weight.to(device), self.bias.to(device)
        moved.device = moved.weight.device
        return moved

    def facts(self) -> bytes:
        arrays = (self.weight.cpu().numpy(), self.bias.cpu().numpy())
        return b"".join(a.tobytes() for a in arrays) + bytes([self.scaled])


def train_linear(data: Data, train: Trained) -> LinearModel:
    """Least squares on one-hot targets, the class of the largest output."""
    from sklearn.linear_model import LinearRegression

    def fit() -> dict[str, Tensor]:
        training = data.training()
        one_hot = np.eye(data.num_classes)[training.y.numpy()]
        found = LinearRegression().fit(training.x.flatten(1).double().numpy(), one_hot)
        return {"weight": torch.from_numpy(found.coef_), "bias": torch.from_numpy(found.intercept_)}

    weights = remember("linear", 1, data, train, fit)
    model = LinearModel(weights["weight"], weights["bias"], data.x.shape[1:], name="linear", scaled=False)
    return model.to(train.device)


def train_logistic(data: Data, train: Trained) -> LinearModel:
    """Softmax regression by L-BFGS, with scikit-learn's L2 penalty (C = 1; its two-class form for two)."""
    from sklearn.linear_model import LogisticRegression

    def fit() -> dict[str, Tensor]:
        training = data.training()
        found = LogisticRegression(max_iter=200, tol=1e-3)
        found.fit(training.x.flatten(1).double().numpy(), training.y.numpy())
        weight, bias = found.coef_, found.intercept_
        if len(weight) == 1:  # two classes: one logit, so the first class scores 0
            weight, bias = np.vstack([0 * weight, weight]), np.concatenate([0 * bias, bias])
        return {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}

    weights = remember("logistic", 1, data, train, fit)
    model = LinearModel(weights["weight"], weights["bias"], data.x.shape[1:], name="logistic", scaled=True)
    return model.to(train.device)
