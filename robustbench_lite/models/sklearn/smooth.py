"""Estimators that are smooth functions already: linear and quadratic ones, and multi-layer perceptrons."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.structure import Layers, Linear, Product, Step
from robustbench_lite.models.sklearn.lifted import Core, Front


@dataclass(frozen=True)
class LinearCore(Core):
    """scores = z @ weight.T + bias; weight (K, d), bias (K,); probabilities: whether softmax gives them."""

    weight: Tensor
    bias: Tensor
    probabilities: bool = False

    family = "linear"

    def scores(self, z: Tensor) -> Tensor:
        return z @ self.weight.T + self.bias

    def confidence(self, scores: Tensor) -> Tensor | None:
        return scores.softmax(1).amax(1) if self.probabilities else None

    def structure(self, front: Front | None) -> Linear:
        front = front or Front.none(self.weight)
        return Linear(self.weight @ front.matrix, self.bias + self.weight @ front.offset)


@dataclass(frozen=True)
class QuadraticCore(Core):
    """scores = offset - |(z - mean) root|² / 2, class by class; mean (K, d), offset (K,).

    roots: of each class's inverse covariance, (d, m), or (d,) where features are independent.
    """

    mean: Tensor
    roots: tuple[Tensor, ...]
    offset: Tensor

    family = "quadratic"

    def scores(self, z: Tensor) -> Tensor:
        parts = []
        for mean, root in zip(self.mean, self.roots, strict=True):
            apart = z - mean
            parts.append((apart * root if root.dim() == 1 else apart @ root).square().sum(1))
        return self.offset - torch.stack(parts, 1) / 2

    def confidence(self, scores: Tensor) -> Tensor:
        return scores.softmax(1).amax(1)


ACTIVATIONS = {
    "identity": lambda z: z,
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


@dataclass(frozen=True)
class PerceptronCore(Core):
    """Layers z -> activation(z @ weight + bias), the last without activation; its outputs are logits."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activation: str

    family = "mlp"

    def scores(self, z: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = z @ weight + bias
            if i < last:
                z = ACTIVATIONS[self.activation](z)
        return torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z

    def structure(self, front: Front | None) -> Layers | None:
        """Its layers, where they are rectified or plain."""
        if self.activation not in ("relu", "identity"):
            return None
        front = front or Front.none(self.weights[0].T)
        steps = [Product(front.matrix, front.offset).step(0)]
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            steps.append(Product(weight.T, bias).step(len(steps)))
            if i < last and self.activation == "relu":
                steps.append(Step("relu", (len(steps),)))
        if len(self.biases[-1]) == 1:
            wide = weight.new_tensor([[0.0], [1.0]])
            steps.append(Product(wide, wide[:, 0] * 0).step(len(steps)))
        return Layers(
            tuple(steps),
            (front.matrix.shape[1],),
            max(2, len(self.biases[-1])),
            front.matrix.dtype,
            front.matrix.device,
        )

    def confidence(self, scores: Tensor) -> Tensor:
        return scores.softmax(1).amax(1)
