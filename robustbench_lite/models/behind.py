"""A model behind a transformation of its inputs, fixed or drawn at random; one place for what both take."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_lite.core.model import Access, Effort, Model
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Precision


class Transformation(ABC):
    """What is done to inputs before a model sees them: what really is, and what gradients go through.

    Attributes
    ----------
    random : bool, default False
        Whether it draws from the stream.
    differentiable : bool, default True
        Whether autograd leads through `apply` as it is. Where it does not, gradients go through `smooth`,
        and scores that come with a gradient are those of `smooth`'s inputs.

    Examples
    --------
    >>> class Two(Transformation):  # levels
    ...     differentiable = False
    ...
    ...     def apply(self, x, stream):
    ...         return x.round()
    >>> Two().smooth(torch.tensor([[0.2, 0.9]]), Stream.of(0, torch.arange(1)))
    tensor([[0., 1.]])
    """

    random: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True

    @abstractmethod
    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        """What the model sees.

        Parameters
        ----------
        x : Tensor
            (n, …).
        stream : Stream
            One key a row, for what is drawn.

        Returns
        -------
        Tensor
            (n, …), as the model takes it.
        """

    def smooth(self, x: Tensor, stream: Stream) -> Tensor:
        """What gradients go through instead: by default the same values, with the identity's gradient.

        Source: backward pass differentiable approximation, Athalye et al. 2018 (arXiv:1802.00420), section 4.

        Parameters
        ----------
        x : Tensor
            (n, …).
        stream : Stream
            One key a row, for what is drawn.

        Returns
        -------
        Tensor
            (n, …), as the model takes it.
        """
        if self.differentiable:
            return self.apply(x, stream)
        with torch.no_grad():
            seen = self.apply(x, stream)
        return x + (seen - x).detach()

    def to(self, device: torch.device) -> Transformation:
        """The same on another device; by default itself, which holds no tensors."""
        return self

    def facts(self) -> bytes:
        """What determines it, by default its text."""
        return repr(self).encode()


class Behind(Model):
    """A model that sees its inputs through a transformation.

    Attacked with `--eot N` a random one is averaged over N draws (expectation over transformation, Athalye et
    al. 2018, arXiv:1707.07397). Each row's draw is keyed by the row alone.

    Parameters
    ----------
    model : Model
    transformation : Transformation
    name : str
        What reports call it.
    input_shape : sequence of int, optional
        Of one sample before the transformation; None: as the model takes it.
    notes : tuple of str, default ()
        What a reader of its results should know besides.
    """

    def __init__(
        self,
        model: Model,
        transformation: Transformation,
        name: str,
        input_shape: Sequence[int] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.model, self.transformation, self.name = model, transformation, name
        self.family, self.num_classes, self.device = model.family, model.num_classes, model.device
        self.input_shape = tuple(model.input_shape if input_shape is None else input_shape)
        self.access = min(model.access, Access.GRADIENT)
        self.limits, self.precision, self.task = model.limits, model.precision, model.task
        self.stochastic = transformation.random or model.stochastic
        self.votes, self.batch_draws = model.votes, model.batch_draws
        drawn = ("it sees a random transformation of its input; average with --eot",) * transformation.random
        self.notes = (*model.notes, *drawn, *notes)
        self._stream: Stream | None = None

    def scores(self, x: Tensor) -> Tensor:
        return self._drawn(len(x)).scores(self.transformation.apply(x, self._streams(len(x))))

    def gradient_scores(self, x: Tensor) -> Tensor:
        return self._drawn(len(x)).gradient_scores(self.transformation.smooth(x, self._streams(len(x))))

    @property
    def gradient_is_truth(self) -> bool:
        return self.transformation.differentiable and self.model.gradient_is_truth

    @property
    def undefended(self) -> Model:
        return self.model.undefended if self.model.input_shape == self.input_shape else self

    def confidence(self, scores: Tensor) -> Tensor | None:
        return self.model.confidence(scores)

    def for_search(self, precision: Precision, effort: Effort) -> Model | None:
        fast = self.model.for_search(precision, effort)
        if fast is None:
            return None
        wrapped = copy.copy(self)
        wrapped.model, wrapped.precision = fast, fast.precision
        return wrapped

    def draw(self, stream: Stream) -> Model:
        if not self.stochastic:
            return self
        drawn = copy.copy(self)
        drawn._stream = stream
        return drawn

    def to(self, device: torch.device | str) -> Behind:
        moved = copy.copy(self)
        moved.model, moved.device = self.model.to(device), torch.device(device)
        moved.transformation = self.transformation.to(moved.device)
        return moved

    def facts(self) -> bytes:
        return b" ".join([b"behind 2", self.model.fingerprint().encode(), self.transformation.facts()])

    def _streams(self, rows: int) -> Stream:
        return self._stream or Stream.of(0, torch.arange(rows, device=self.device))

    def _drawn(self, rows: int) -> Model:
        return self.model.draw(self._streams(rows).fold("inner")) if self.model.stochastic else self.model
