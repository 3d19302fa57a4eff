"""The task: what a prediction is, when it is right, how far it is from wrong, and when it is refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.parameters import Amount, check_fields

SHARPNESS = 2.0  # per unit of score, of the larger of being right and being refused
NOTHING = -1  # the prediction of scores that hold a NaN, and the label of a position that has none
Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def margin(scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """How far an attack has come, (n,): the best other score less y's, or the target's less the best other.

    Negative until the class changes (Carlini & Wagner 2017, f6).
    """
    pivot = (y if target is None else target)[:, None]
    own = scores.gather(1, pivot)[:, 0]
    other = scores.scatter(1, pivot, -torch.inf).amax(1)
    return other - own if target is None else own - other


class Task(ABC):
    """What scores (n, K, …) mean: one of K classes for a sample, or for every position of its answer.

    Attributes
    ----------
    kind : str
        What records and errors call it.
    graded : bool, default False
        Whether one wrong answer may be worse than another, so that a search in a given ball goes on after the
        first.
    values : int or None, default None
        How many classes a position has, where these are not what the data names; None: as many as it names.
    reject : int or None
        The class that means "I will not say".
    """

    kind: ClassVar[str]
    values: ClassVar[int | None] = None
    graded: ClassVar[bool] = False
    reject: int | None

    def prediction(self, scores: Tensor) -> Tensor:
        """The class of each row of scores (n, K, …), (n, …) int64; -1 where a score is NaN."""
        return torch.where(scores.isnan().any(1), NOTHING, scores.argmax(1))

    def answered(self, prediction: Tensor) -> Tensor:
        """Whether there is a prediction at all (n,)."""
        return (prediction != NOTHING)[:, None].flatten(1).all(1)

    def confidence(self, scores: Tensor) -> Tensor:
        """The largest softmax (n,), the mean over the positions of an answer."""
        return scores.softmax(1).amax(1, keepdim=True).flatten(1).mean(1)

    def told(self) -> tuple[str, ...]:
        """What a reader of results should know of it."""
        return ()

    @abstractmethod
    def right(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Whether each prediction is as good as the true answer (n,)."""

    @abstractmethod
    def reached(self, prediction: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """Whether each prediction is no longer right, or the target (n,)."""

    @abstractmethod
    def open(self, prediction: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """Which predictions without an attack leave something to reach (n,); target: (n, k, …)."""

    @abstractmethod
    def rejected(self, prediction: Tensor) -> Tensor:
        """Whether each sample is refused (n,)."""

    @abstractmethod
    def loss(self, loss: Loss, scores: Tensor, y: Tensor, target: Tensor | None, rejection: bool) -> Tensor:
        """A loss of each sample (n,) that is to lead away from y, or to the target."""

    def gaps(self, scores: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """The margin of every position (n, P), above 0 where it is changed, and which are labelled (n, P)."""
        each = margin(scores, y, target)[:, None]
        return each, torch.ones_like(each, dtype=torch.bool)

    def needed(self, labelled: Tensor, targeted: bool) -> Tensor:
        """Of how many labelled positions (n,) an attack has to change the class, or reach its target (n,)."""
        return torch.ones_like(labelled)

    @abstractmethod
    def margin(
        self, scores: Tensor, y: Tensor, target: Tensor | None = None, rejection: bool = True
    ) -> Tensor:
        """How far an attack has come (n,); below 0 until it has. rejection: whether a refusal will do."""

    def wrong(self, scores: Tensor, y: Tensor, rejection: bool) -> Tensor:
        """Scores (n, K) with -inf for y, and for the class that rejects where a refusal will not do."""
        raise Unsupported(f"a {self.kind} has no class that a whole sample could be led to")

    @abstractmethod
    def wrong_share(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The share of an answer's positions that are wrong (n,) float64; NaN where it has none."""

    @abstractmethod
    def error(self, prediction: Tensor, y: Tensor, classes: int) -> Tensor:
        """What the task counts as its loss (n,) float64, 0 for a perfect answer; NaN where it has none."""


@dataclass(frozen=True)
class Classification(Task):
    """One class a sample: the first of the largest score.

    Parameters
    ----------
    reject : int, optional
        The class that means "I will not say"; None: there is none.
    """

    reject: Amount | None = None

    kind = "classification"

    def __post_init__(self) -> None:
        check_fields(self)

    def right(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Whether each prediction is the true class (n,)."""
        return prediction == y

    def reached(self, prediction: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        missed = ~self.right(prediction, y)
        return missed if target is None else missed & (prediction == target)

    def open(self, prediction: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        return self.right(prediction, y)

    def rejected(self, prediction: Tensor) -> Tensor:
        """Whether each sample is refused (n,)."""
        return (
            torch.zeros_like(prediction, dtype=torch.bool)
            if self.reject is None
            else prediction == self.reject
        )

    def attacked(
        self, scores: Tensor, y: Tensor, target: Tensor | None, rejection: bool
    ) -> tuple[Tensor, Tensor]:
        """Scores and classes as a loss should read them that is to lead away from y.

        To be refused is then as good as to be right, unless a refusal will do: the class that rejects is
        merged with y's, so that every loss also leads past a detector. Softly, for the gradient of the larger
        one sees one of two walls at a time, and attacks go back and forth between them.
        """
        if self.reject is None or rejection or target is not None:
            return scores, y
        refused = scores[:, self.reject : self.reject + 1]
        right = scores.gather(1, y[:, None])
        own = torch.logaddexp(SHARPNESS * right, SHARPNESS * refused) / SHARPNESS
        merged = scores.scatter(1, y[:, None], own)
        rest = [merged[:, : self.reject], merged[:, self.reject + 1 :]]
        return torch.cat(rest, 1), y - (y > self.reject).long()

    def loss(self, loss: Loss, scores: Tensor, y: Tensor, target: Tensor | None, rejection: bool) -> Tensor:
        return loss(*self.attacked(scores, y, target, rejection), target)

    def wrong(self, scores: Tensor, y: Tensor, rejection: bool) -> Tensor:
        wrong = scores.scatter(1, y[:, None], -torch.inf)
        if self.reject is None or rejection:
            return wrong
        return wrong.scatter(1, torch.full_like(y, self.reject)[:, None], -torch.inf)

    def margin(
        self, scores: Tensor, y: Tensor, target: Tensor | None = None, rejection: bool = True
    ) -> Tensor:
        if target is not None or rejection or self.reject is None:
            return margin(scores, y, target)
        own = torch.maximum(scores.gather(1, y[:, None])[:, 0], scores[:, self.reject])
        return self.wrong(scores, y, rejection).amax(1) - own

    def wrong_share(self, prediction: Tensor, y: Tensor) -> Tensor:
        return torch.full(y.shape, torch.nan, dtype=torch.float64, device=y.device)

    def error(self, prediction: Tensor, y: Tensor, classes: int) -> Tensor:
        return self.wrong_share(prediction, y)
