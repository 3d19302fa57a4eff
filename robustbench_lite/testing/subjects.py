"""Small models that the laws are tested on."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robustbench_lite.core.dense import Segmentation, Sequence
from robustbench_lite.core.model import Model
from robustbench_lite.core.structure import Structure
from robustbench_lite.data.data import Data
from robustbench_lite.models.sklearn.lift import lift
from robustbench_lite.models.sklearn.lifted import Lifted
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.linear import LinearModel

SHAPE = (1, 4, 4)


def linear_model(classes: int = 3, seed: int = 0) -> LinearModel:
    """Random weights on 4 × 4 images."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 16, generator=generator)
    return LinearModel(weight, torch.randn(classes, generator=generator) * 0.1, SHAPE, scaled=True)


def small_forest(classes: int = 3) -> Lifted:
    """Six trees on 4 × 4 images."""
    generator = np.random.default_rng(0)
    x = generator.random((300, 16))
    y = (classes * x[:, :4].mean(1)).astype(int)
    y[:classes] = np.arange(classes)
    forest = RandomForestClassifier(6, max_depth=5, random_state=0).fit(x, y)
    return lift(forest, SHAPE, x.reshape(-1, *SHAPE), name="forest")


class SmallNetwork(nn.Module):
    """One hidden layer; plateau: with no slope at all near grey images."""

    def __init__(self, classes: int, double: bool, plateau: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, classes))
        for parameter in self.body.parameters():
            parameter.data *= 4
        self.plateau = plateau
        if double:
            self.body.double()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(next(self.body.parameters()).dtype)
        if self.plateau:
            apart = x - 0.5
            largest = apart.flatten(1).abs().amax(1).clamp_min(1e-6)[:, None, None, None]
            x = 0.5 + apart * ((largest - 0.02) / largest).clamp_min(0)
        scores: Tensor = self.body(x)
        return scores


def small_network(classes: int = 3, *, double: bool = False, plateau: bool = False) -> TorchModel:
    """Random weights on 4 × 4 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SmallNetwork(classes, double, plateau)
    return TorchModel(module, SHAPE, name="small")


class SmallAnswers(nn.Module):
    """A class for every one of 4 × 4 pixels, or for each of their rows."""

    def __init__(self, classes: int, double: bool, rows: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, classes, 4 if rows else 1)
        )
        self.rows = rows
        for parameter in self.body.parameters():
            parameter.data *= 3
        if double:
            self.body.double()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(next(self.body.parameters()).dtype)
        scores: Tensor = self.body(nn.functional.pad(x, (0, 0, 0, 3)) if self.rows else x)
        return scores[..., 0] if self.rows else scores


def small_answers(task: str, classes: int = 3, *, double: bool = False) -> TorchModel:
    """Random weights on 4 × 4 images, for a segmentation or a sequence."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SmallAnswers(classes, double, rows=task == "sequence")
    kind = Sequence() if task == "sequence" else Segmentation(share=0.25, target_share=0.5)
    shape = (4,) if task == "sequence" else (4, 4)
    names = tuple(map(str, range(classes)))
    data = Data("small", torch.zeros(2, *SHAPE), torch.zeros((2, *shape), dtype=torch.int64),
                torch.arange(2), names, task=kind)  # fmt: skip
    return TorchModel(module, SHAPE, name="small", data=data)


class Flat(Model):
    """The same scores everywhere: nothing to climb."""

    name, family, num_classes, input_shape, device = "flat", "test", 3, SHAPE, torch.device("cpu")

    def scores(self, x: Tensor) -> Tensor:
        return torch.tensor([3.0, 1.0, 0.0]) + 0 * x.flatten(1)[:, :1]

    def to(self, device: torch.device | str) -> Model:
        return self


def flat_model() -> Flat:
    """Three classes on 4 × 4 images, the first everywhere."""
    return Flat()


class Counting(Model):
    """A model that counts what it is asked."""

    def __init__(self, inner: Model) -> None:
        self.inner, self.forwards, self.backwards = inner, 0, 0
        self.name, self.family, self.num_classes = "counting", inner.family, inner.num_classes
        self.input_shape, self.device, self.access = inner.input_shape, inner.device, inner.access
        self.task = inner.task

    def scores(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        scores = self.inner.scores(x)
        if scores.requires_grad:
            self._hook(scores)
        return scores

    def _hook(self, scores: Tensor) -> RemovableHandle:
        def count(gradient: Tensor) -> None:
            self.backwards += len(gradient)

        handle: RemovableHandle = scores.register_hook(count)  # type: ignore[no-untyped-call]
        return handle

    @property
    def structure(self) -> Structure | None:
        return self.inner.structure

    def to(self, device: torch.device | str) -> Model:
        return self

    def reset(self) -> None:
        """Count anew."""
        self.forwards = self.backwards = 0

    def looked(self, samples: int, successes: int) -> int:
        """Forward passes that are not the attack's: the clean look, the verdict, the second look."""
        return 2 * samples + successes
