"""What every training of a network shares: its recipe, held-out samples, the cache, going on after a kill."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Amount
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import place_of, remember
from robustbench_lite.models.defense import Base, Defense
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.networks import Recipe, loaded
from robustbench_lite.models.zoo.training import Objective, Schedule, fit_network

HELD_OUT = 0.1  # of the training split, for choosing an epoch
MOST_HELD_OUT = 1000
VERSION = 1  # raised when what a training makes changes


@dataclass(frozen=True)
class Training(Defense):
    """A training of one of our networks with an objective of its own.

    Parameters
    ----------
    epochs : int, default 0
        0: as many as the network is trained for without it.
    """

    epochs: Amount = 0

    average = 0.995  # decay of the mean of the weights

    def defend(self, base: Base) -> Model:
        return self.trained(base)

    def trained(self, base: Base) -> TorchModel:
        """The network that the base names, trained; read where it was trained before."""
        recipe, data, train = base.recipe(), base.data, base.train
        text = self.title(recipe)

        def fit() -> dict[str, Tensor]:
            learnt, held_out = parted(data.training(), train.seed)
            module = self.network(recipe, data, train.seed).to(train.device)
            partial = place_of(text, VERSION, data, train, "part")
            schedule = self.schedule(recipe.schedule)
            said = [""]

            def look(now: nn.Module) -> float:
                worth, said[0] = self.worth(now, held_out, data)
                return worth

            with torch.random.fork_rng():  # dropout
                torch.manual_seed(train.seed)
                fit_network(
                    module, learnt, schedule, train.seed,
                    lambda done: train.report(f"{self.name}({base.text}){said[0]}", done),
                    self.objective(base, learnt), look, partial,
                )  # fmt: skip
            return dict(module.state_dict())

        return self.made(recipe, base, remember(text, VERSION, data, train, fit))

    def title(self, recipe: Recipe) -> str:
        """Everything that makes the weights what they are, but for the data and the seed."""
        return f"{self.name}({recipe.name}) {self.parameters}"

    def network(self, recipe: Recipe, data: Data, seed: int) -> nn.Module:
        """The module that is trained."""
        return recipe.network(data, seed)

    def made(self, recipe: Recipe, base: Base, weights: Mapping[str, Tensor]) -> TorchModel:
        """The model of trained weights."""
        return loaded(recipe, base.data, weights, base.train, base.text)

    def schedule(self, usual: Schedule) -> Schedule:
        """How long and how fast, by what the network is trained without it."""
        return replace(usual, epochs=self.epochs or usual.epochs, average=self.average)

    @abstractmethod
    def objective(self, base: Base, learnt: Data) -> Objective:
        """What is minimised on the samples that are learnt from."""

    def worth(self, module: nn.Module, held_out: Data, data: Data) -> tuple[float, str]:
        """What weights are worth on held-out samples, and how a progress line says it."""
        right = accuracy(module, held_out.x, held_out.y)
        return right, f" {right:.1%} clean"


def parted(training: Data, seed: int) -> tuple[Data, Data]:
    """The samples that are learnt from, and those that are held out to choose an epoch by."""
    drawn = Stream.of(seed, training.ids).fold("held out").uniform((), torch.float64)
    count = min(MOST_HELD_OUT, int(HELD_OUT * len(training)))
    out = drawn.argsort()[:count].sort().values
    kept = torch.ones(len(training), dtype=torch.bool)
    kept[out] = False
    return training[kept.nonzero()[:, 0]], training[out]


def accuracy(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    changed: Callable[[Tensor, Tensor, slice], Tensor] | None = None,
) -> float:
    """The share of samples that a module in eval mode has right, as they are or changed."""
    device = next(module.parameters()).device
    right = 0
    for begin in range(0, len(y), 500):
        part = slice(begin, begin + 500)
        held, labels = x[part].to(device), y[part].to(device)
        if changed is not None:
            held = changed(held, labels, part)
        with torch.no_grad():
            right += int((module(held).argmax(1) == labels).sum())
    return right / max(1, len(y))
