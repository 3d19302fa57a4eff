"""Defensive distillation: a network learns another's answers at a high temperature, and is asked at 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.parameters import Positive
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.training.training import Training
from robustbench_lite.models.defense import Base
from robustbench_lite.models.zoo.training import Batch, Objective


@dataclass(frozen=True)
class Distillation(Training):
    """Both teacher and pupil learn with scores divided by a temperature; the pupil answers without.

    Its scores are then that many times larger, and the gradient of plain cross-entropy dies in float32: an
    attack that uses it as it comes finds nothing. One whose loss does not die is not held up.

    Parameters
    ----------
    temperature : float, default 100.0
    epochs : int, default 0
        0: as many as the network is trained for without it.

    Source: Papernot et al. 2016 (arXiv:1511.04508); broken by Carlini & Wagner 2017 (arXiv:1608.04644).

    Examples
    --------
    >>> Distillation(temperature=20.0).temperature
    20.0
    """

    temperature: Positive = 100.0

    name = "distillation"
    paper = "Papernot et al. 2016, arXiv:1511.04508"

    def objective(self, base: Base, learnt: Data) -> Objective:
        teacher = _Teacher(self.epochs, self.temperature).trained(base)
        with torch.no_grad():
            answers = [teacher.scores(part.to(teacher.device)) for part in torch.split(learnt.x, 1000)]
        return _Pupil(self.temperature, (torch.cat(answers) / self.temperature).softmax(1))


@dataclass(frozen=True)
class _Teacher(Training):
    """The teacher: the same network on the labels themselves, at the same temperature."""

    temperature: Positive = 100.0

    name = "teacher"

    def objective(self, base: Base, learnt: Data) -> Objective:
        labels = functional.one_hot(learnt.y, base.data.num_classes).float().to(base.train.device)
        return _Pupil(self.temperature, labels)


class _Pupil(Objective):
    """Cross-entropy with given probabilities (N, K), scores divided by the temperature."""

    def __init__(self, temperature: float, answers: Tensor) -> None:
        self.temperature, self.answers = temperature, answers

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        wanted = self.answers[batch.rows.to(self.answers.device)]
        return functional.cross_entropy(module(batch.x).float() / self.temperature, wanted)
