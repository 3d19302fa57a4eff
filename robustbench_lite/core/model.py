"""The contract of a model: two faces (truth and gradient), perhaps a structure, always a fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Precision
from robustbench_lite.core.task import Classification


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


@dataclass(frozen=True)
class Effort:
    """What a search is about to spend on gradients, by which a model decides how much a copy may cost.

    rows: to be attacked, lanes included; steps: of each. compile: kernels of its own; None: where they pay.
    """

    rows: int = 1
    steps: int = 1
    compile: bool | None = None


class Model(ABC):
    """A classifier of inputs x (n, *input_shape) float32; immutable, in eval mode, its parameters frozen.

    name: what reports call it; family: linear, tree, cnn, …; access: the most that it allows an attack.
    stochastic: whether `scores` differs from call to call. votes: whether the answer of a stochastic model is
    the vote of its draws rather than one of them. batch_draws: whether what it draws for a sample depends on
    the samples beside it. notes: what a reader of its results should know. precision: what it computes in.
    task: what its scores mean.
    """

    name: str
    family: str
    num_classes: int
    input_shape: tuple[int, ...]
    device: torch.device
    access: Access = Access.GRADIENT
    task: Classification = Classification()
    stochastic: bool = False
    votes: bool = False
    batch_draws: bool = False
    notes: tuple[str, ...] = ()
    precision: str = "float32"

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

    def prediction(self, scores: Tensor) -> Tensor:
        """The class of each row of scores (n, K), (n,) int64; -1 where there is none."""
        return self.task.prediction(scores)

    def for_search(self, precision: Precision, effort: Effort) -> Model | None:
        """A faster copy to take gradients of, whose word is only a candidate; None: the model itself."""
        return None

    def draw(self, stream: Stream) -> Model:
        """The model with its randomness fixed for the rows of a stream; itself when it has none."""
        return self

    @abstractmethod
    def to(self, device: torch.device | str) -> Model:
        """The same model on another device."""

    def facts(self) -> bytes:
        """What determines the model's answers, as far as it can be read: weights, settings, code."""
        return type(self).__qualname__.encode()

    def fingerprint(self) -> str:
        """sha256 of the model's facts and of what it answers to a few fixed inputs; computed once."""
        known: str | None = self.__dict__.get("_fingerprint")
        if known is None:
            digest = hashlib.sha256(self.facts() + repr(self.task).encode())
            digest.update(self._answers_to_probes().encode())
            known = self.__dict__["_fingerprint"] = digest.hexdigest()
        return known

    def _answers_to_probes(self) -> str:
        x = probes(self.input_shape).to(self.device)
        fixed = self.draw(Stream.of(0, torch.arange(len(x), device=self.device)))
        with torch.no_grad(), reference_precision():
            scores = fixed.scores(x).double().cpu()
        return " ".join(f"{value:.4g}" for value in scores.flatten().tolist())


def probes(shape: Sequence[int]) -> Tensor:
    """Black, white, grey and noise (4, *shape)."""
    noise = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    return torch.cat([torch.zeros_like(noise), torch.ones_like(noise), noise * 0 + 0.5, noise])


def reference_precision() -> AbstractContextManager[None]:
    """Float32 products in float32: TensorFloat-32 off, and as it was before afterwards."""
    return _tf32(False)


def fast_arithmetic() -> AbstractContextManager[None]:
    """Float32 products in TensorFloat-32 where the hardware has it."""
    return _tf32(True)


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = allowed, allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
