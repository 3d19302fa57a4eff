"""The task: what a prediction is, when it is right, how far it is from wrong, and when it is refused."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.parameters import Amount, check_fields

NOTHING = -1  # the prediction of scores that hold a NaN


def margin(scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """How far an attack has come, (n,): the best other score less y's, or the target's less the best other.

    Negative until the class changes (Carlini & Wagner 2017, f6).
    """
    pivot = (y if target is None else target)[:, None]
    own = scores.gather(1, pivot)[:, 0]
    other = scores.scatter(1, pivot, -torch.inf).amax(1)
    return other - own if target is None else own - other


@dataclass(frozen=True)
class Classification:
    """One class a sample: the first of the largest score.

    Parameters
    ----------
    reject : int, optional
        The class that means "I will not say"; None: there is none.
    """

    reject: Amount | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def prediction(self, scores: Tensor) -> Tensor:
        """The class of each row of scores (n, K), (n,) int64; -1 where a score is NaN."""
        return torch.where(scores.isnan().any(1), NOTHING, scores.argmax(1))

    def answered(self, prediction: Tensor) -> Tensor:
        """Whether there is a prediction at all (n,)."""
        return prediction != NOTHING

    def right(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Whether each prediction is the true class (n,)."""
        return prediction == y

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
        merged with y's, whichever is larger, so that every loss also leads past a detector.
        """
        if self.reject is None or rejection or target is not None:
            return scores, y
        refused = scores[:, self.reject : self.reject + 1]
        own = torch.maximum(scores.gather(1, y[:, None]), refused)
        merged = scores.scatter(1, y[:, None], own)
        rest = [merged[:, : self.reject], merged[:, self.reject + 1 :]]
        return torch.cat(rest, 1), y - (y > self.reject).long()

    def wrong(self, scores: Tensor, y: Tensor, rejection: bool) -> Tensor:
        """Scores (n, K) with -inf for y, and for the class that rejects where a refusal will not do."""
        wrong = scores.scatter(1, y[:, None], -torch.inf)
        if self.reject is None or rejection:
            return wrong
        return wrong.scatter(1, torch.full_like(y, self.reject)[:, None], -torch.inf)

    def margin(
        self, scores: Tensor, y: Tensor, target: Tensor | None = None, rejection: bool = True
    ) -> Tensor:
        """How far an attack has come (n,); below 0 until it has. rejection: whether a refusal will do."""
        if target is not None or rejection or self.reject is None:
            return margin(scores, y, target)
        own = torch.maximum(scores.gather(1, y[:, None])[:, 0], scores[:, self.reject])
        return self.wrong(scores, y, rejection).amax(1) - own
