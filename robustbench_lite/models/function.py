"""A function on NumPy arrays as a score model: no gradient, any library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.model import Access, Model

ArrayFunction = Callable[[np.ndarray], object]


class ScoreFunction(Model):
    """Probabilities or scores from `function(x)`: x (n, *input_shape) float32 NumPy -> (n, K).

    flatten: the function wants (n, d). Runs on the CPU, whatever the device of the rest. Raises
    `InvalidModel` when it returns something else.
    """

    family = "function"
    access = Access.SCORE
    notes = ("a NumPy function: scores only, on the CPU",)

    def __init__(
        self,
        function: ArrayFunction,
        input_shape: Sequence[int],
        *,
        name: str = "",
        flatten: bool = False,
        num_classes: int | None = None,
    ) -> None:
        self.function, self.flatten = function, flatten
        self.name = name or getattr(function, "__name__", "function")
        self.input_shape = tuple(input_shape)
        self.device = torch.device("cpu")
        self.num_classes = num_classes or 0
        trial = self.scores(torch.full((2, *self.input_shape), 0.5))
        if num_classes not in (None, trial.shape[1]):
            raise InvalidModel(
                f"{self.name}: gives {trial.shape[1]} scores; the data has {num_classes} classes"
            )
        self.num_classes = trial.shape[1]
        self._scaled = bool((trial >= 0).all()) and bool(((trial.sum(1) - 1).abs() < 1e-5).all())

    def scores(self, x: Tensor) -> Tensor:
        array = x.detach().cpu().numpy()
        found = np.asarray(self.function(array.reshape(len(array), -1) if self.flatten else array))
        if found.ndim != 2 or len(found) != len(array) or found.dtype.kind not in "fiu":
            raise InvalidModel(
                f"{self.name}: returned {found.dtype} {found.shape} for {len(array)} inputs; must be (n, K)"
            )
        return torch.from_numpy(np.ascontiguousarray(found, dtype=np.float64))

    def confidence(self, scores: Tensor) -> Tensor | None:
        return scores.amax(1) if self._scaled else None

    def to(self, device: torch.device | str) -> ScoreFunction:
        return self

    def fingerprint(self) -> str:
        """Of what the function answers to fixed inputs: its code cannot be hashed."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((16, *self.input_shape), generator=generator)
        return hashlib.sha256(self.scores(x).numpy().tobytes()).hexdigest()
