"""A function on NumPy arrays as a model: no gradient, any library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.dense import MultiLabel
from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.guard import foreign
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.task import Task
from robustbench_lite.models.checks import (
    answers_twice_alike,
    fitted_to,
    in_batches_of,
    needs_its_batch,
    rows_taken,
)
from robustbench_lite.models.code import function_facts

TRIED = 256  # samples that a function of classes is asked about, to learn how many it knows
ArrayFunction = Callable[[np.ndarray], object]


class ScoreFunction(Model):
    """A function on NumPy arrays as a model: no gradient, any library.

    Runs on the CPU, whatever the device of the rest. A function that answers differently from call to call is
    marked `stochastic`.

    Parameters
    ----------
    function : callable
        x (n, *input_shape) float32 NumPy -> probabilities or scores (n, K), or classes (n,), whole numbers
        from 0. One that returns classes allows attacks its decisions only.
    input_shape : sequence of int
        Of one sample.
    name : str, optional
        What reports call it; by default the function's own.
    taken : callable, optional
        Inputs (n, *input_shape) -> what the function is given; None: a NumPy array of them.
    num_classes : int, optional
        K; needed where the function returns classes, else compared with what it returns.
    notes : sequence of str
        What a reader of results should know.
    samples : Tensor, optional
        x (n, *input_shape): inputs to try it on, where it takes no random ones.

    Raises
    ------
    InvalidModel
        Where the function returns something else or NaN, or answers differently for a sample alone.

    Examples
    --------
    >>> model = ScoreFunction(lambda x: np.stack([1 - x[:, 0], x[:, 0]], 1), (3,), name="first feature")
    >>> model.num_classes, model.access.name
    (2, 'SCORE')
    >>> model.prediction(model.scores(torch.tensor([[0.9, 0.0, 0.0]])))
    tensor([1])
    """

    family = "function"

    def __init__(
        self,
        function: ArrayFunction,
        input_shape: Sequence[int],
        *,
        name: str = "",
        taken: Callable[[Tensor], object] | None = None,
        num_classes: int | None = None,
        notes: Sequence[str] = (),
        samples: Tensor | None = None,
    ) -> None:
        self.function, self.taken = function, taken or _copied
        self.name = name or getattr(function, "__name__", "function")
        self.input_shape = tuple(input_shape)
        self.device = torch.device("cpu")
        self.num_classes = num_classes or 0
        x = torch.rand((4, *self.input_shape), generator=torch.Generator().manual_seed(0))
        self._widen(*(x,) if samples is None else (x, samples[:TRIED]))
        try:
            self._rows = rows_taken(self._ask, x)
        except InvalidModel:
            if samples is None:
                raise
            x = samples[torch.arange(4) % len(samples)].cpu().float()
            self._rows = rows_taken(self._ask, x)
            notes = (*notes, "it takes no random inputs, and was tried on samples")
        self._tried = x
        decides = self._decides(self._ask(x[: self._rows or len(x)]))
        self.access = Access.DECISION if decides else Access.SCORE
        trial = self.scores(x)
        self.num_classes = trial.shape[1]
        fitted_to(self, num_classes)
        if not bool(trial.isfinite().all()):
            raise InvalidModel(f"{self.name}: returns NaN or infinite scores for inputs in [0, 1]")
        whole = bool((trial >= 0).all()) and bool(((trial.sum(1) - 1).abs() < 1e-5).all())
        self._scaled = whole and not decides and trial.dim() == 2
        what = "decisions" if decides else "scores"
        self.limits = f"a function returns {what}"
        self.notes = (*notes, f"a NumPy function: {what} only, on the CPU")
        if not answers_twice_alike(self, x):
            self.stochastic = True
            self.batch_draws = True
            self.notes += ("it answers the same input differently from call to call, whatever the seed",)
        elif needs_its_batch(self, x):
            raise InvalidModel(f"{self.name}: answers differently for a sample alone and in a batch")

    def scores(self, x: Tensor) -> Tensor:
        if not len(x):
            return torch.empty(0, self.num_classes, dtype=torch.float64)
        return in_batches_of(self._rows, self._asked, x) if self._rows else self._asked(x)

    def _asked(self, x: Tensor) -> Tensor:
        found = self._ask(x)
        if found.ndim == 1:
            found = np.eye(self.num_classes)[found]
        return torch.from_numpy(np.ascontiguousarray(found, dtype=np.float64))

    def _decides(self, found: np.ndarray) -> bool:
        """Whether what it returned for a trial is decisions."""
        return found.ndim == 1

    def confidence(self, scores: Tensor) -> Tensor | None:
        return scores.amax(1) if self._scaled else None

    def to(self, device: torch.device | str) -> ScoreFunction:
        return self

    def facts(self) -> bytes:
        return b"|".join(function_facts(self.function))

    def probes(self) -> Tensor:
        try:
            x = super().probes()
            self._ask(x[: self._rows or len(x)])
            return x
        except InvalidModel:
            return self._tried

    def _widen(self, *tried: Tensor) -> None:
        """Of a function that returns classes: it may know more of them than the labels have."""
        for x in tried if self.num_classes else ():
            with contextlib.suppress(InvalidModel):
                found = self._raw(x)
                if found.ndim == 1 and found.dtype.kind in "iu" and len(found):
                    self.num_classes = max(self.num_classes, 1 + int(found.max()))

    def _raw(self, x: Tensor) -> np.ndarray:
        with foreign(self.name, f"a call with {len(x)} inputs"):
            return _as_array(self.function(cast(np.ndarray, self.taken(x))))

    def _ask(self, x: Tensor) -> np.ndarray:
        found = self._raw(x)
        scores = found.ndim == 2 and found.dtype.kind in "fiu"
        classes = found.ndim == 1 and found.dtype.kind in "iu" and self.num_classes > 1
        if found.shape[:1] != (len(x),) or not (scores or classes):
            what = f"{found.dtype} {found.shape} for {len(x)} inputs"
            raise InvalidModel(
                f"{self.name}: returned {what}; must be scores (n, K), or classes (n,) below K"
            )
        if classes and not ((found >= 0) & (found < self.num_classes)).all():
            raise InvalidModel(f"{self.name}: returned a class outside 0 … {self.num_classes - 1}")
        return found


class LabelFunction(ScoreFunction):
    """A function whose answer is labels (n, L) that are there or not.

    It may return them as 0 and 1, whole numbers or truths; as probabilities, where all that it returns for a
    trial lies in [0, 1]; or as scores, above 0 for those that are there. A list of L arrays (n, 2), a
    probability of no and of yes each, serves as well.

    Parameters
    ----------
    function, input_shape, name, taken, notes, samples
        As in `ScoreFunction`.
    labels : int
        L.
    shares : bool, optional
        Whether it returns probabilities; None: found out.
    """

    task: Task = MultiLabel()

    def __init__(
        self,
        function: ArrayFunction,
        input_shape: Sequence[int],
        labels: int,
        *,
        name: str = "",
        taken: Callable[[Tensor], object] | None = None,
        notes: Sequence[str] = (),
        samples: Tensor | None = None,
        shares: bool | None = None,
    ) -> None:
        self.labels, self._told, self._shares = labels, shares, True
        super().__init__(
            function, input_shape, name=name, taken=taken, num_classes=2, notes=notes, samples=samples
        )
        if self.access is Access.SCORE:
            kind = "probabilities, there above 0.5" if self._shares else "scores, there above 0"
            self.notes += (f"what it returns of a label is taken for {kind}",)

    def _decides(self, found: np.ndarray) -> bool:
        inside = bool(((found >= 0) & (found <= 1)).all())
        self._shares = inside if self._told is None else self._told
        return found.dtype.kind in "iub"

    def _widen(self, *tried: Tensor) -> None:
        """There are as many labels as the data has."""

    def _asked(self, x: Tensor) -> Tensor:
        yes = torch.from_numpy(np.ascontiguousarray(self._ask(x), dtype=np.float64))
        return torch.stack([1 - yes if self._shares else torch.zeros_like(yes), yes], 1)

    def _ask(self, x: Tensor) -> np.ndarray:
        with foreign(self.name, f"a call with {len(x)} inputs"):
            answer = self.function(cast(np.ndarray, self.taken(x)))
            if isinstance(answer, list) and len(answer) == self.labels:
                parts = [_as_array(part) for part in answer]
                if all(part.shape == (len(x), 2) for part in parts):
                    answer = np.stack([part[:, 1] for part in parts], 1)
            found = _as_array(answer)
        if found.shape != (len(x), self.labels) or found.dtype.kind not in "fiub":
            what = f"{found.dtype} {found.shape} for {len(x)} inputs"
            raise InvalidModel(
                f"{self.name}: returned {what}; must be ({len(x)}, {self.labels}), a number a label"
            )
        return found


def _as_array(found: object) -> np.ndarray:
    """What a function returned, as an array; tensors leave their graph."""
    if isinstance(found, Tensor):
        found = found.detach().cpu()
    return np.asarray(found)


def _copied(x: Tensor) -> np.ndarray:
    """Inputs as an array of the function's own, to change as it likes."""
    array: np.ndarray = x.detach().cpu().numpy().copy()
    return array
