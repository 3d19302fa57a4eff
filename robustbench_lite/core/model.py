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
from robustbench_lite.core.structure import Structure
from robustbench_lite.core.task import Classification, Task


class Access(IntEnum):
    """What an attack needs of a model, each including those below it.

    `DECISION`: the predicted class; `SCORE`: the scores; `GRADIENT`: their gradient; `STRUCTURE`: what
    `Model.structure` holds.

    Examples
    --------
    >>> Access.GRADIENT >= Access.SCORE
    True
    """

    DECISION = 0
    SCORE = 1
    GRADIENT = 2
    STRUCTURE = 3


@dataclass(frozen=True)
class Effort:
    """What a search is about to spend on gradients, by which a model decides how much a copy may cost.

    Parameters
    ----------
    rows : int, default 1
        To be attacked, lanes included.
    steps : int, default 1
        Of each row.
    compile : bool, optional
        Kernels of its own; None: where they pay.
    """

    rows: int = 1
    steps: int = 1
    compile: bool | None = None


class Model(ABC):
    """A classifier of inputs x (n, *input_shape) float32; immutable, in eval mode, its parameters frozen.

    A model has two faces: `scores` is the truth, on which every success is judged, and `gradient_scores` what
    gradient attacks differentiate. They are one unless a model says otherwise.

    To implement: `scores`, `to`, and the attributes without a default. Optional: `gradient_scores` where the
    truth has no useful gradient; `structure` for exact methods; `confidence` where the scores are no logits;
    `draw` where the model is stochastic; `for_search` where a faster copy can be made; `facts`, so that the
    fingerprint tells models apart that answer a few fixed inputs alike. `to`, `draw` and `for_search` return
    another model and leave this one as it is.

    What fails: a class without `scores` or `to` cannot be made (TypeError). An attack that needs more than
    `access` allows is refused (`Unsupported`); a model that claims a gradient whose scores autograd cannot
    differentiate fails while it is attacked (RuntimeError). Scores that hold a NaN have no class: the
    prediction is -1.

    Attributes
    ----------
    name : str
        What reports call it.
    family : str
        linear, tree, cnn, ….
    num_classes : int
        K, the number of scores.
    input_shape : tuple of int
        Of one sample.
    device : torch.device
        Where it computes and expects its inputs.
    access : Access, default Access.GRADIENT
        The most that it allows an attack.
    task : Task, default Classification()
        What its scores mean.
    stochastic : bool, default False
        Whether `scores` differs from call to call.
    votes : bool, default False
        Whether the answer of a stochastic model is the vote of its draws rather than one of them.
    batch_draws : bool, default False
        Whether what it draws for a sample depends on the samples beside it.
    notes : tuple of str
        What a reader of its results should know.
    defense : str, default ""
        The outermost defense that it has, by name.
    limits : str, default ""
        Why it allows an attack no more than `access`.
    precision : str, default "float32"
        What it computes in.
    unread : str, default ""
        Why it has no structure, of a model of a kind that might have one.

    Examples
    --------
    >>> import copy
    >>> class Brightness(Model):
    ...     name, family, num_classes, input_shape = "brightness", "rule", 2, (4,)
    ...     device = torch.device("cpu")
    ...
    ...     def scores(self, x):
    ...         mean = x.mean(1)
    ...         return torch.stack([0.5 - mean, mean - 0.5], 1)
    ...
    ...     def to(self, device):
    ...         moved = copy.copy(self)
    ...         moved.device = torch.device(device)
    ...         return moved
    >>> model = Brightness()
    >>> model.prediction(model.scores(torch.tensor([[0.0] * 4, [1.0] * 4])))
    tensor([0, 1])
    """

    name: str
    family: str
    num_classes: int
    input_shape: tuple[int, ...]
    device: torch.device
    access: Access = Access.GRADIENT
    task: Task = Classification()
    stochastic: bool = False
    votes: bool = False
    batch_draws: bool = False
    notes: tuple[str, ...] = ()
    defense: str = ""
    limits: str = ""
    precision: str = "float32"
    unread: str = ""

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """The truth, in the model's reference precision; the class is the first largest score.

        Parameters
        ----------
        x : Tensor
            (n, *input_shape) float32, on the model's device.

        Returns
        -------
        Tensor
            (n, K).
        """

    def gradient_scores(self, x: Tensor) -> Tensor:
        """What gradient attacks differentiate: the truth, or a smooth surrogate for it.

        Parameters
        ----------
        x : Tensor
            (n, *input_shape) float32, on the model's device.

        Returns
        -------
        Tensor
            (n, K), differentiable.
        """
        return self.scores(x)

    @property
    def gradient_is_truth(self) -> bool:
        """Whether the two faces are one: by default, whether `gradient_scores` is left as it is."""
        return type(self).gradient_scores is Model.gradient_scores

    @property
    def structure(self) -> Structure | None:
        """What exact methods work on, where there is such a thing; None by default."""
        return None

    @property
    def undefended(self) -> Model:
        """The model behind a defense that stands before it; by default itself."""
        return self

    def confidence(self, scores: Tensor) -> Tensor | None:
        """The probability of the predicted class; by default the largest softmax.

        Parameters
        ----------
        scores : Tensor
            (n, K).

        Returns
        -------
        Tensor or None
            (n,) in [0, 1]; None where the scores have no scale.
        """
        return self.task.confidence(scores)

    def prediction(self, scores: Tensor) -> Tensor:
        """The class of each row of scores, as the task reads them.

        Parameters
        ----------
        scores : Tensor
            (n, K).

        Returns
        -------
        Tensor
            (n,) int64; -1 where there is none.
        """
        return self.task.prediction(scores)

    def for_search(self, precision: Precision, effort: Effort) -> Model | None:
        """A faster copy to take gradients of, whose word is only a candidate.

        Parameters
        ----------
        precision : {"auto", "float32", "tf32", "bfloat16"}
            What the search may compute in.
        effort : Effort
            What the search is about to spend.

        Returns
        -------
        Model or None
            None, the default: the model itself.
        """
        return None

    def draw(self, stream: Stream) -> Model:
        """The model with its randomness fixed for the rows of a stream.

        Parameters
        ----------
        stream : Stream
            One key a row of the inputs that follow.

        Returns
        -------
        Model
            Itself, the default, when it has no randomness.
        """
        return self

    @abstractmethod
    def to(self, device: torch.device | str) -> Model:
        """The same model on another device."""

    def facts(self) -> bytes:
        """What determines the model's answers, as far as it can be read: weights, settings, code.

        By default the name of the class alone.
        """
        return type(self).__qualname__.encode()

    def fingerprint(self) -> str:
        """sha256 of the model's facts, its task and what it answers to a few fixed inputs; computed once."""
        known: str | None = self.__dict__.get("_fingerprint")
        if known is None:
            digest = hashlib.sha256(self.facts() + repr(self.task).encode())
            digest.update(self._answers_to_probes().encode())
            known = self.__dict__["_fingerprint"] = digest.hexdigest()
        return known

    def probes(self) -> Tensor:
        """Fixed inputs (n, *input_shape) whose answers are part of the fingerprint."""
        return torch.cat([probes(self.input_shape), shades(self.input_shape)])

    def _answers_to_probes(self) -> str:
        x = self.probes().to(self.device)
        fixed = self.draw(Stream.of(0, torch.arange(len(x), device=self.device)))
        with torch.no_grad(), reference_precision():
            scores = fixed.scores(x).double().cpu()
        return " ".join(f"{value:.4g}" for value in scores.flatten().tolist())


def probes(shape: Sequence[int]) -> Tensor:
    """Black, white, grey and noise (4, *shape)."""
    noise = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    return torch.cat([torch.zeros_like(noise), torch.ones_like(noise), noise * 0 + 0.5, noise])


def shades(shape: Sequence[int], count: int = 16) -> Tensor:
    """Noise (count, *shape) of every brightness and contrast: where a model may branch."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand((count, *shape), generator=generator)
    share = torch.arange(1, count + 1).reshape(-1, *[1] * len(shape)) / count
    return noise * share


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
