"""Losses that an attack raises: (scores (n, K), y (n,), target (n,) or None) -> (n,)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.errors import require
from robustbench_lite.core.task import Loss, Task, margin

LEAST_COST = 1e-6  # of an answer that is right: a loss of nothing has no slope
LEAST_SLOPE = 1e-15  # whose square float32 still holds


@runtime_checkable
class RowLoss(Protocol):
    """A loss that holds something for every row, such as weights drawn at random."""

    def __getitem__(self, rows: Tensor | slice) -> RowLoss:
        """The loss of some rows.

        Parameters
        ----------
        rows : Tensor or slice

        Returns
        -------
        RowLoss
        """

    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of all of its rows.

        Parameters
        ----------
        scores, y, target : Tensor
            As of any loss.

        Returns
        -------
        Tensor
            (n,).
        """


def of_rows(loss: Loss, rows: Tensor | slice) -> Loss:
    """A loss for some rows.

    Parameters
    ----------
    loss : callable
    rows : Tensor or slice

    Returns
    -------
    callable
        The same, unless it holds something for every row.

    Examples
    --------
    >>> of_rows(cross_entropy, slice(2)) is cross_entropy
    True
    """
    return loss[rows] if isinstance(loss, RowLoss) else loss


def cross_entropy(scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """-log p(y), or log p(target).

    Written as softplus(logsumexp of the others - own score): the plain form computes p(y) - 1, which is 0 in
    float32 once a model is 99.99999 % sure, and leaves the gradient without its main part.

    Parameters
    ----------
    scores : Tensor
        (n, K), as logits.
    y : Tensor
        (n,) int64, true classes.
    target : Tensor, optional
        (n,) int64, classes to reach; y is then not looked at.

    Returns
    -------
    Tensor
        (n,), differentiable; it rises as an attack gains.

    Examples
    --------
    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6931])
    """
    loss = functional.softplus(_odds(scores, y, target))
    return loss if target is None else -loss


def steep_cross_entropy(scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """`cross_entropy` that does not underflow where a model is very sure, nor its gradient.

    The loss is softplus(u), u the logarithm of the odds against the class, continued along its tangent where
    its slope would be less than 1e-15: the direction is that of u's gradient all the way. For a direction
    alone: where gradients of samples or draws are averaged this would change their weights.

    Parameters
    ----------
    scores, y, target : Tensor
        As in `cross_entropy`.

    Returns
    -------
    Tensor
        (n,), the values of `cross_entropy` where these are above 1e-15.

    Examples
    --------
    >>> sure = torch.tensor([[900.0, 0.0]], requires_grad=True)
    >>> y = torch.tensor([0])
    >>> torch.autograd.grad(cross_entropy(sure, y), sure)[0]
    tensor([[0., 0.]])
    >>> torch.autograd.grad(steep_cross_entropy(sure, y), sure)[0].sign()
    tensor([[-1.,  1.]])
    """
    odds = _odds(scores, y, target)
    straight = LEAST_SLOPE * (1 + odds - math.log(LEAST_SLOPE))  # the tangent where the slope is the least
    loss = torch.where(odds > math.log(LEAST_SLOPE), functional.softplus(odds), straight)
    return loss if target is None else -loss


def _odds(scores: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The logarithm of the odds against y, or against the target (n,)."""
    pivot = (y if target is None else target)[:, None]
    others = scores.scatter(1, pivot, -torch.inf).logsumexp(1)
    return others - scores.gather(1, pivot)[:, 0]


def dlr(scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Difference of logits ratio: a margin that the scale of the scores cannot change.

    (best other - z_y) / (z_1 - z_3) with z sorted from the largest; targeted (z_t - z_y) /
    (z_1 - (z_3 + z_4) / 2) (Croce & Hein 2020, equations 6 and 8). With fewer classes than it asks for, the
    last there is takes their place; with two, z_1 - z_2 would make every value ±1, so the margin is plain.

    Parameters
    ----------
    scores : Tensor
        (n, K), K at least 2.
    y : Tensor
        (n,) int64, true classes.
    target : Tensor, optional
        (n,) int64, classes to reach.

    Returns
    -------
    Tensor
        (n,), differentiable; it rises as an attack gains.

    Examples
    --------
    >>> dlr(torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([0]))
    tensor([-0.5000])
    """
    classes = scores.shape[1]
    if target is None:
        gap = margin(scores, y)
    else:
        gap = (scores.gather(1, target[:, None]) - scores.gather(1, y[:, None]))[:, 0]
    if classes == 2:
        return gap
    top = scores.topk(min(4, classes), dim=1).values
    low = top[:, 2] if target is None else (top[:, 2] + top[:, -1]) / 2
    return gap / (top[:, 0] - low).clamp_min(1e-12)


class AnswerLoss(ABC):
    """A loss of a whole answer (n, K, …) with labels (n, …), not of its positions one by one."""

    @abstractmethod
    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of each answer.

        Parameters
        ----------
        scores : Tensor
            (n, K, …).
        y : Tensor
            (n, …) int64, -1 where a position has no label.
        target : Tensor, optional
            (n, …) int64, the answer to reach.

        Returns
        -------
        Tensor
            (n,), differentiable; it rises as an attack gains.
        """

    def __getitem__(self, rows: Tensor | slice) -> AnswerLoss:
        """The loss of some rows: the same, unless it holds something for every row."""
        return self


@dataclass(frozen=True)
class Houdini(AnswerLoss):
    """The task's own loss times the probability of a stochastic margin (Cisse et al. 2017, equation 3).

    L(y', y) · mean over positions of P[g(y) - g(y') < Z], Z standard normal, y' the answer given, g the score
    of a class at its position. Where y' is right the probability of its own class has no slope, so that the
    best other class stands in its place. Towards a target it is the same with the target in y's place, and
    is lowered.

    Parameters
    ----------
    task : Task
        Its `error` is L; of a classification 1.
    logarithm : bool, default False
        The logarithm of it, or the negative logarithm towards a target: the same direction, which does not
        underflow where all margins are wide.

    Examples
    --------
    >>> from robustbench_lite.core.task import Classification
    >>> Houdini(Classification())(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([0]))
    tensor([0.5000])
    """

    task: Task
    logarithm: bool = False

    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        # Towards a target the others are to lose: its gaps have the other sign.
        gaps, labelled = self.task.gaps(scores, y, target)
        lead, sign = (gaps, 1.0) if target is None else (-gaps, -1.0)
        meant = y if target is None else target
        cost = self.task.error(self.task.prediction(scores.detach()), meant, scores.shape[1])
        cost = cost.nan_to_num(nan=1.0).to(scores)
        count = labelled.sum(1).clamp_min(1)
        if self.logarithm:
            each = torch.special.log_ndtr(lead).masked_fill(~labelled, -torch.inf).logsumexp(1)
            logarithm: Tensor = sign * (each - count.log() + cost.clamp_min(LEAST_COST).log())
            return logarithm
        share = torch.where(labelled, torch.special.ndtr(lead), 0.0).sum(1) / count
        loss: Tensor = sign * cost * share
        return loss


STEEP: dict[Loss, Loss] = {cross_entropy: steep_cross_entropy}  # of losses whose slope may underflow
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "dlr": dlr, "margin": margin}
HOUDINI = "houdini"


def steep(loss: Loss) -> Loss:
    """A loss with the same direction whose slope does not underflow.

    Parameters
    ----------
    loss : callable

    Returns
    -------
    callable
        The same where its slope does not.

    Examples
    --------
    >>> steep(cross_entropy) is steep_cross_entropy
    True
    """
    return Houdini(loss.task, logarithm=True) if isinstance(loss, Houdini) else STEEP.get(loss, loss)


def loss_named(name: str, task: Task | None = None) -> Loss:
    """The loss of a name.

    Parameters
    ----------
    name : {"ce", "dlr", "margin", "houdini"}
        Cross-entropy, difference of logits ratio, the best other score less y's, or the task's own loss
        behind a stochastic margin.
    task : Task, optional
        What scores mean, for houdini.

    Returns
    -------
    callable
        (scores (n, K), y (n,), target (n,) or None) -> (n,).

    Raises
    ------
    InvalidParameter
        For another name.

    Examples
    --------
    >>> loss_named("dlr") is dlr
    True
    """
    if name == HOUDINI and task is not None:
        return Houdini(task)
    require(name in LOSSES, "loss", name, f"one of {', '.join(LOSSES)}")
    return LOSSES[name]
