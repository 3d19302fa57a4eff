"""What every detector shares: a number that says how odd an input looks, and a class that means "refused"."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Fraction
from robustbench_lite.core.random import Stream
from robustbench_lite.core.task import Classification
from robustbench_lite.data.data import Data
from robustbench_lite.models.defense import Base, Defense

CALIBRATED = 2000  # training samples that the limit is set on, at most
FEWEST = 20  # at least


class Statistic(ABC):
    """How odd inputs look to a model: larger is odder, and autograd leads through it."""

    @abstractmethod
    def value(self, model: Model, x: Tensor, scores: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """Of inputs x (n, …) with the model's scores (n, K) of them, (n,).

        ask: the model's scores of other inputs, by the face that `scores` came from.
        """

    def to(self, device: torch.device) -> Statistic:
        """The same on another device; by default itself, which holds no tensors."""
        return self

    def facts(self) -> bytes:
        """What determines it, by default its text."""
        return repr(self).encode()


class Guarded(Model):
    """A model that refuses what looks odd: one class more, the last, which wins where the limit is passed.

    Its score is the largest of the others plus a multiple of how far the limit is passed, so that gradients
    of a margin against it lower the statistic.

    Parameters
    ----------
    model : Model
    statistic : Statistic
    limit : float
        Above it inputs are refused.
    gain : float
        Score per unit of the statistic.
    name : str
    """

    def __init__(self, model: Model, statistic: Statistic, limit: float, gain: float, name: str) -> None:
        self.model, self.statistic, self.limit, self.gain, self.name = model, statistic, limit, gain, name
        self.family, self.num_classes = model.family, model.num_classes + 1
        self.input_shape, self.device = model.input_shape, model.device
        self.access = min(model.access, Access.GRADIENT)
        self.limits, self.precision = model.limits, model.precision
        self.task = Classification(reject=model.num_classes)
        self.stochastic, self.batch_draws, self.votes = model.stochastic, model.batch_draws, model.votes
        self.notes = (*model.notes, f"class {model.num_classes} means that it refuses to answer")

    def scores(self, x: Tensor) -> Tensor:
        return self._with_refusal(x, self.model.scores)

    def gradient_scores(self, x: Tensor) -> Tensor:
        return self._with_refusal(x, self.model.gradient_scores)

    @property
    def gradient_is_truth(self) -> bool:
        return self.model.gradient_is_truth

    @property
    def undefended(self) -> Model:
        return self.model.undefended

    def statistics(self, x: Tensor) -> Tensor:
        """How odd inputs x (n, …) look (n,)."""
        return self.statistic.value(self.model, x, self.model.scores(x), self.model.scores)

    def confidence(self, scores: Tensor) -> Tensor | None:
        return self.model.confidence(scores[:, :-1])

    def draw(self, stream: Stream) -> Model:
        if not self.stochastic:
            return self
        drawn = copy.copy(self)
        drawn.model = self.model.draw(stream)
        return drawn

    def to(self, device: torch.device | str) -> Guarded:
        moved = copy.copy(self)
        moved.model, moved.device = self.model.to(device), torch.device(device)
        moved.statistic = self.statistic.to(moved.device)
        return moved

    def facts(self) -> bytes:
        told = ["guarded 2", self.model.fingerprint(), self.limit, self.gain, type(self.statistic).__name__]
        return " ".join(map(str, told)).encode() + self.statistic.facts()

    def _with_refusal(self, x: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        scores = ask(x)
        beyond = self.gain * (self.statistic.value(self.model, x, scores, ask) - self.limit)
        return torch.cat([scores, (scores.amax(1) + beyond.to(scores))[:, None]], 1)


def known_and_held_out(training: Data, seed: int) -> tuple[Data, Data]:
    """Samples that a statistic may know, and a third that its limit is set on, drawn by the seed.

    Both in the order drawn, so that the first of them are as good as any: files are often sorted by class.
    """
    order = Stream.of(seed, training.ids).fold("calibration").uniform((), torch.float64).argsort()
    count = min(CALIBRATED, len(order) // 3)
    return training[order[count:]], training[order[:count]]


@dataclass(frozen=True)
class Detector(Defense):
    """What detectors share.

    Parameters
    ----------
    rate : float, default 0.05
        The share of held-out training samples that are refused; it sets the limit.
    """

    rate: Fraction = 0.05

    def defend(self, base: Base) -> Model:
        model = self.guarded(base)
        if model.access < Access.GRADIENT:
            raise Unsupported(f"{self.name} is for models with gradients; {base.text} has none")
        if model.task.reject is not None:
            raise Unsupported(f"{self.name} is for models that always answer; {base.text} may refuse already")
        known, held_out = known_and_held_out(base.data.training(), base.train.seed)
        if len(held_out) < FEWEST:
            raise Unsupported(
                f"{self.name} sets its limit on a third of the training samples, {3 * FEWEST} at least; "
                f"{base.data.name} has {len(known) + len(held_out)}"
            )
        statistic = self.statistic(model, base, known)
        with torch.no_grad():
            values, leads = [], []
            for part in torch.split(held_out.x, 500):
                held = part.to(model.device)
                scores = model.scores(held)
                values.append(statistic.value(model, held, scores, model.scores).double().cpu())
                first, second = scores.topk(2, dim=1).values.double().cpu().unbind(1)
                leads.append(first - second)
        value, lead = torch.cat(values), torch.cat(leads)
        limit = float(value.quantile(1 - self.rate))
        gain = float(lead.mean() / value.std().clamp_min(1e-12))  # a typical lead for a typical oddness
        return Guarded(model, statistic, limit, gain, base.text)

    def guarded(self, base: Base) -> Model:
        """The model that answers what is not refused."""
        return base.model()

    @abstractmethod
    def statistic(self, model: Model, base: Base, known: Data) -> Statistic:
        """How odd an input looks to the model, by training samples that it may know."""
