"""The path of an attack: what the model said of every iterate whose gradient was asked for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robustbench_lite.core.model import Access, Model
from robustbench_lite.jobs.job import Cell, attempt
from robustbench_lite.search.attack import Composite, Fitted


class Watched(Model):
    """A model that keeps the scores of every batch of so many rows, or a multiple, asked for gradients."""

    def __init__(self, model: Model, rows: int) -> None:
        self.inner, self.rows = model, rows
        self.path, self.truth = list[Tensor](), list[Tensor]()
        self.name, self.family, self.num_classes = model.name, model.family, model.num_classes
        self.input_shape, self.device, self.access = model.input_shape, model.device, model.access
        self.stochastic = model.stochastic

    def scores(self, x: Tensor) -> Tensor:
        return self.inner.scores(x)

    def gradient_scores(self, x: Tensor) -> Tensor:
        scores = self.inner.gradient_scores(x)
        if len(scores) % self.rows == 0:
            self.path.append(scores.detach().cpu())
            with torch.no_grad():
                self.truth.append(self.inner.scores(x.detach()).cpu())
        return scores

    def confidence(self, scores: Tensor) -> Tensor | None:
        return self.inner.confidence(scores)

    def to(self, device: torch.device | str) -> Model:
        return self

    def fingerprint(self) -> str:
        return self.inner.fingerprint()


def can_be_followed(cell: Cell) -> bool:
    """Whether a path says something: many steps along gradients, of a model that stands still."""
    single = not isinstance(cell.attack, Composite | Fitted)
    steps = single and cell.attack.access is Access.GRADIENT and cell.attack.iterations > 1
    return steps and not cell.goal.targeted and not cell.model.stochastic


def follow(cell: Cell, rows: Tensor, truth: bool = False) -> Tensor:
    """The scores (steps, lanes · rows, K) along the whole path of some of a cell's samples.

    Of the face that gradients are taken of, or the truth. Success ends nothing here. Empty for attacks that
    ask for no gradients of the scores.
    """
    watched = Watched(cell.model, len(rows))
    attempt(
        replace(
            cell,
            data=cell.data[rows],
            clean=cell.clean[rows],
            given=None,
            model=watched,
            goal=replace(cell.goal, stop=False),
            search=replace(cell.search, batch_size=len(rows)),
        )
    )
    path = watched.truth if truth else watched.path
    same = [scores for scores in path if len(scores) == len(path[-1])]
    return torch.stack(same[-cell.attack.iterations :]) if same else torch.empty(0, len(rows), 1)
