"""A network trained to tell adversarial examples of a model from its samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Positive
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.detection.detector import Detector, Statistic
from robustbench_lite.defenses.training.adversarial import REACH, cross_entropy
from robustbench_lite.defenses.training.inner import Ball, ascent
from robustbench_lite.defenses.transformation.purification import frozen
from robustbench_lite.models.cache import remember
from robustbench_lite.models.code import tensor_facts
from robustbench_lite.models.defense import Base
from robustbench_lite.models.zoo.networks import conv_small, recipe_named
from robustbench_lite.models.zoo.training import Batch, Objective, fit_network

VERSION = 1
STEPS = 10


@dataclass(frozen=True)
class BinaryDetector(Detector):
    """Refuses what a second network, trained on adversarial examples of the first, takes for one.

    Parameters
    ----------
    eps : float, default 0.1
        Size of the linf ball of the examples that it is trained on.
    rate : float, default 0.05
        The share of training samples that are refused.

    Source: Metzen et al. 2017 (arXiv:1702.04267), on the input itself.

    Examples
    --------
    >>> BinaryDetector(eps=0.2).eps
    0.2
    """

    eps: Positive = 0.1

    name = "binary_detector"
    paper = "Metzen et al. 2017, arXiv:1702.04267"

    def statistic(self, model: Model, base: Base, known: Data) -> Statistic:
        data, train = base.data, base.train
        recipe = recipe_named("conv_small", data)
        channels, height, width = data.x.shape[1:]

        def network() -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(train.seed)
                return conv_small(channels, height, width, 2).to(train.device)

        def fit() -> dict[str, Tensor]:
            module = network()
            objective = _Told(model, Ball.of("linf", self.eps, data.domain, train.device))
            fit_network(
                module, known, recipe.schedule, train.seed,
                lambda done: train.report(f"{self.name}({base.text})", done), objective,
            )  # fmt: skip
            return dict(module.state_dict())

        title = f"{self.name} eps={self.eps} of {model.fingerprint()}"
        weights: Mapping[str, Tensor] = remember(title, VERSION, data, train, fit)
        module = network()
        module.load_state_dict(dict(weights))
        return _Taken(frozen(module))


class _Told(Objective):
    """Cross-entropy of samples against what gradient ascent makes of them on the model."""

    def __init__(self, model: Model, ball: Ball) -> None:
        self.victim, self.ball = _Face(model), ball

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        start = self.ball.random(batch.x, batch.stream)
        size = REACH * self.ball.eps / STEPS
        adversarial = ascent(self.victim, batch.x, batch.y, start, self.ball, STEPS, size, cross_entropy)
        said = module(torch.cat([batch.x, adversarial])).float()
        wanted = torch.arange(2, device=said.device).repeat_interleave(len(batch.x))
        return functional.cross_entropy(said, wanted)


class _Face(nn.Module):
    """A model's gradient face, as a module."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.gradient_scores(x)


@dataclass(frozen=True, eq=False)
class _Taken(Statistic):
    """How much more the detector believes in an adversarial example than in a sample."""

    network: nn.Module

    def value(self, model: Model, x: Tensor, scores: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        said = self.network(x)
        lead: Tensor = (said[:, 1] - said[:, 0]).to(scores)
        return lead

    def to(self, device: torch.device) -> Statistic:
        return _Taken(frozen(copy.deepcopy(self.network).to(device)))

    def facts(self) -> bytes:
        return b"".join(part for value in self.network.state_dict().values() for part in tensor_facts(value))
