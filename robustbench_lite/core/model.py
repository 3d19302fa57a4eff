"""The contract of a model: two faces (truth and gradient), perhaps a structure, always a fingerprint."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from robustbench_lite.core.random import Stream


class Access(IntEnum):
    """What an attack needs of a model, each including those below it."""

    DECISION = 0
    SCORE = 1
    GRADIENT = 2
    STRUCTURE = 3


@dataclass(frozen=True)
class Linear:
    """scores = weight @ x.flatten() + bias; weight (K, d), bias (K,), float64."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Boxes:
    """The prediction is label[i] for low[i] < x <= high[i]; low, high (m, d) float32, label (m,)."""

    low: Tensor
    high: Tensor
    label: Tensor


class Model(ABC):
    """A classifier of inputs x (n, *input_shape) float32; immutable, in eval mode, its parameters frozen.

    name: what reports call it; family: linear, tree, cnn, …; access: the most that it allows an attack.
    stochastic: whether `scores` differs from call to call. notes: what a reader of its results should know.
    """

    name: str
    family: str
    num_classes: int
    input_shape: tuple[int, ...]
    device: torch.device
    access: Access = Access.GRADIENT
    stochastic: bool = False
    notes: tuple[str, ...] = ()

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """The truth (n, K), in the model's reference precision; the class is the first largest score."""

    def gradient_scores(self, x: Tensor) -> Tensor:
        """What gradient attacks differentiate (n, K): the truth, or a smooth stand-in for it."""
        return self.scores(x)

    @property
    def gradient_is_truth(self) -> bool:
        """Whether the two faces are one."""
        return type(self).gradient_scores is Model.gradient_scores

    @property
    def structure(self) -> Linear | Boxes | None:
        """What exact methods work on, where there is such a thing."""
        return None

    def confidence(self, scores: Tensor) -> Tensor | None:
        """The probability of the predicted class (n,), or None where the scores have no scale."""
        return scores.softmax(1).amax(1)

    def draw(self, stream: Stream) -> Model:
        """The model with its randomness fixed for the rows of a stream; itself when it has none."""
        return self

    @abstractmethod
    def to(self, device: torch.device | str) -> Model:
        """The same model on another device."""

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of everything that determines its answers."""


@contextlib.contextmanager
def reference_precision() -> Iterator[None]:
    """Float32 products in float32: TensorFloat-32 off, and as it was before afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
