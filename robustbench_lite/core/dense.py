"""Tasks whose answer has many positions: a class for every pixel, every place of a string, every label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.losses import AnswerLoss, of_rows
from robustbench_lite.core.parameters import Amount, Share, check_fields
from robustbench_lite.core.task import Loss, Task, margin


class Dense(Task):
    """A class at every position of the answer: scores (n, K, …), labels (n, …).

    Positions that are labelled -1 count in nothing.
    """

    reject = None
    graded = True

    def needed(self, labelled: Tensor, targeted: bool) -> Tensor:
        return labelled.clamp_min(1) if targeted else torch.ones_like(labelled)

    def right(self, prediction: Tensor, y: Tensor) -> Tensor:
        return ~self.reached(prediction, y, None)

    def reached(self, prediction: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        changed, labelled = self._changed(prediction, y, target)
        return changed.sum(1) >= self.needed(labelled.sum(1), target is not None)

    def open(self, prediction: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        right = self.right(prediction, y)
        for place in range(0 if target is None else target.shape[1]):
            assert target is not None
            right = right & ~self.reached(prediction, y, target[:, place])
        # What asks for nothing, where the label to change is not known, cannot be reached.
        return right if target is None else right & (target >= 0).flatten(1).any(1)

    def rejected(self, prediction: Tensor) -> Tensor:
        return torch.zeros(len(prediction), dtype=torch.bool, device=prediction.device)

    def loss(self, loss: Loss, scores: Tensor, y: Tensor, target: Tensor | None, rejection: bool) -> Tensor:
        """The mean over labelled positions, or what the loss makes of the whole answer."""
        if isinstance(loss, AnswerLoss):
            return loss(scores, y, target)
        each, labelled = self._each(loss, scores, y, target)
        return (each * labelled).sum(1) / labelled.sum(1).clamp_min(1)

    def margin(
        self, scores: Tensor, y: Tensor, target: Tensor | None = None, rejection: bool = True
    ) -> Tensor:
        """How many more positions than needed are changed, as a share of all.

        Of two answers with as many the one whose other positions are nearer to a change is further. NaN where
        a score is.
        """
        said = self.prediction(scores)
        changed, labelled = self._changed(said, y, target)
        each, _ = self.gaps(scores, y, target)
        near = torch.where(labelled & ~changed, each.sigmoid(), 0.0).sum(1)
        count = labelled.sum(1)
        missing = self.needed(count, target is not None) - changed.sum(1)
        # The first part is below a half, so that the share alone says whether the goal is met.
        come = (near / count.clamp_min(1) - missing) / count.clamp_min(1)
        return torch.where(self.answered(said), come, torch.nan)

    def wrong_share(self, prediction: Tensor, y: Tensor) -> Tensor:
        changed, labelled = self._changed(prediction, y, None)
        return changed.sum(1).double() / labelled.sum(1).clamp_min(1)

    def _changed(self, prediction: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """Which positions (n, P) are where an attack wants them, and which are labelled."""
        pivot = y if target is None else target
        labelled = pivot.flatten(1) >= 0
        same = prediction.flatten(1) == pivot.flatten(1)
        return (same if target is not None else ~same) & labelled, labelled

    def gaps(self, scores: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._each(margin, scores, y, target)

    def _each(self, loss: Loss, scores: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """A loss of single answers at every position (n, P), and which are labelled."""
        labelled = (y if target is None else target).flatten(1) >= 0
        n, positions = labelled.shape
        loss = of_rows(loss, torch.arange(n, device=y.device).repeat_interleave(positions))
        single = scores.flatten(2).movedim(1, 2).flatten(0, 1)
        own, aim = (None if part is None else part.flatten().clamp_min(0) for part in (y, target))
        assert own is not None
        return loss(single, own, aim).view(n, positions), labelled


@dataclass(frozen=True)
class Segmentation(Dense):
    """A class for every pixel; broken where a share of the labelled ones is wrong, or shows the target.

    Parameters
    ----------
    share : float, default 0.99
        Of an image's labelled pixels that have to be wrong for it to be broken; in (0, 1].
    target_share : float, default 0.99
        Of a target's labelled pixels that have to show it.

    Examples
    --------
    >>> task = Segmentation(share=0.5)
    >>> y = torch.zeros(1, 2, 2, dtype=torch.int64)
    >>> task.right(torch.tensor([[[0, 0], [0, 1]]]), y), task.right(torch.tensor([[[0, 0], [1, 1]]]), y)
    (tensor([True]), tensor([False]))
    """

    share: Share = 0.99
    target_share: Share = 0.99

    kind = "segmentation"

    def __post_init__(self) -> None:
        check_fields(self)

    def needed(self, labelled: Tensor, targeted: bool) -> Tensor:
        share = self.target_share if targeted else self.share
        return (share * labelled.double() - 1e-9).ceil().long().clamp_min(1)

    def told(self) -> tuple[str, ...]:
        return (
            f"an image is broken where {100 * self.share:.3g} % of its labelled pixels are wrong, or "
            f"{100 * self.target_share:.3g} % of a target's show it",
        )

    def error(self, prediction: Tensor, y: Tensor, classes: int) -> Tensor:
        """1 - the mean, over the classes that are in the label or the prediction, of intersection over union.

        Of each image by itself (Jaccard; as `metrics per image` of segmentation benchmarks).
        """
        said, meant = prediction.flatten(1), y.flatten(1)
        labelled = meant >= 0
        total = torch.zeros(len(y), dtype=torch.float64, device=y.device)
        present = torch.zeros_like(total)
        for c in range(classes):
            one, other = (said == c) & labelled, meant == c
            both, either = (one & other).sum(1), (one | other).sum(1)
            total += both.double() / either.clamp_min(1)
            present += either > 0
        return 1 - total / present.clamp_min(1)


@dataclass(frozen=True)
class Sequence(Dense):
    """A class for every place of a string; broken where any is wrong, or where all show the target.

    Parameters
    ----------
    blank : int, optional
        The class that means "nothing here": strings are compared without it. None: every class counts.

    Examples
    --------
    >>> task = Sequence(blank=9)
    >>> said, meant = torch.tensor([[1, 2, 9], [2, 3, 9]]), torch.tensor([[1, 2, 9], [1, 2, 3]])
    >>> task.error(said, meant, 10)
    tensor([0.0000, 0.3333], dtype=torch.float64)
    """

    blank: Amount | None = None

    kind = "sequence"

    def __post_init__(self) -> None:
        check_fields(self)

    def told(self) -> tuple[str, ...]:
        return ("a string is broken where any of its places is wrong, or all show the target",)

    def error(self, prediction: Tensor, y: Tensor, classes: int) -> Tensor:
        """The edit distance (Levenshtein) over the length of the true string: the character error rate."""
        said, long = self._packed(prediction.flatten(1), y.flatten(1) >= 0)
        meant, length = self._packed(y.flatten(1), y.flatten(1) >= 0)
        n, places = meant.shape
        before = torch.arange(places + 1, device=y.device).expand(n, -1)
        rows = [before]
        for i in range(places):
            now = [torch.full_like(before[:, 0], i + 1)]
            for j in range(places):
                swap = before[:, j] + (said[:, i] != meant[:, j]).long()
                now.append(torch.minimum(swap, torch.minimum(before[:, j + 1], now[-1]) + 1))
            before = torch.stack(now, 1)
            rows.append(before)
        table = torch.stack(rows, 1)
        distance = table[torch.arange(n, device=y.device), long, length]
        return distance.double() / length.clamp_min(1)

    def _packed(self, string: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
        """The string without blanks, moved to the left (n, P), and its length (n,)."""
        kept = labelled if self.blank is None else labelled & (string != self.blank)
        order = (~kept).long().argsort(dim=1, stable=True)
        return string.gather(1, order), kept.sum(1)


@dataclass(frozen=True)
class MultiLabel(Dense):
    """Any number of labels a sample, each there (1) or not (0); broken where any is wrong.

    A target asks for labels to be there or not, and leaves the others alone (-1).

    Examples
    --------
    >>> said, meant = torch.tensor([[1, 1, 0], [1, 0, 0]]), torch.tensor([[1, 0, 0], [1, 0, 0]])
    >>> MultiLabel().right(said, meant), MultiLabel().error(said, meant, 2)
    (tensor([False,  True]), tensor([0.5000, 0.0000], dtype=torch.float64))
    """

    kind = "multilabel"
    values = 2

    def told(self) -> tuple[str, ...]:
        return (
            "labels are there or not, any number of them a sample, which is broken where any is wrong, or "
            "where those that a target names are as it asks",
        )

    def error(self, prediction: Tensor, y: Tensor, classes: int) -> Tensor:
        """1 - intersection over union of the labels said and meant (Jaccard); 0 where both are none."""
        labelled = y.flatten(1) >= 0
        said, meant = (part.flatten(1) == 1 for part in (prediction, y))
        both, either = ((part & labelled).sum(1).double() for part in (said & meant, said | meant))
        return torch.where(either > 0, 1 - both / either.clamp_min(1), 0.0)
