"""Estimators that are smooth functions already: linear and quadratic ones, and multi-layer perceptrons."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.model import Linear
from robustbench_lite.models.sklearn.lifted import Core


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

    def linear(self) -> Linear:
        return Linear(self.weight, self.bias)


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

    def confidence(self, scores: Tensor) -> Tensor:
        return scores.softmax(1).amax(1)
