"""Jitter: scores on one scale and a little noise on them, so that every wrong class is tried."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.attacks.fixed_budget.pgd import PGD
from robustbench_lite.core.errors import require
from robustbench_lite.core.parameters import NonNegative, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.task import Loss


@dataclass(frozen=True)
class Jitter(PGD):
    """`pgd` that drives noisy softmaxes of scaled scores away from the class
    (Schwinn et al. 2021, equation 5).

    With a target, towards it.

    Parameters
    ----------
    scale : float, default 10.0
        Of the scores, once divided by their largest.
    noise : float, default 0.1
        The deviation of what is added to the softmax, drawn anew in every step.

    Notes
    -----
    Cost: as `pgd`. The loss is its own, and `loss` stays at its default.

    Raises
    ------
    InvalidParameter
        For another `loss`.

    Examples
    --------
    >>> Jitter(steps=3).scale
    10.0
    """

    scale: Positive = 10.0
    noise: NonNegative = 0.1

    name = "jitter"
    paper = "Schwinn et al. 2021, arXiv:2105.10304"
    revision = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.loss == "ce", "loss", self.loss, "left out: jitter has a loss of its own")

    def objective(self, problem: Problem) -> Loss:
        draw = problem.random("jitter").gaussian((problem.oracle.model.num_classes,))
        return JitterLoss(self.noise * draw, self.scale)


@dataclass(frozen=True, eq=False)
class JitterLoss:
    """The distance of noisy softmaxes from certainty of the class; noise (n, K)."""

    noise: Tensor
    scale: float

    def __getitem__(self, rows: Tensor | slice) -> JitterLoss:
        return JitterLoss(self.noise[rows], self.scale)

    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        classes = scores.shape[1]
        scaled = self.scale * scores / scores.abs().amax(1, keepdim=True).clamp_min(1e-12)
        said = scaled.softmax(1) + self.noise[:, :classes].to(scores)
        certain = torch.nn.functional.one_hot(y if target is None else target, classes).to(said)
        away: Tensor = torch.linalg.vector_norm(said - certain, dim=1)
        return away if target is None else -away
