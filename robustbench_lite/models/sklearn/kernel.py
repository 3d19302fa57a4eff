"""Support vector machines: libsvm's one-versus-one votes, and their margins for gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.structure import Kernel
from robustbench_lite.models.sklearn.lifted import Core, Front


@dataclass(frozen=True)
class KernelCore(Core):
    """decision of pair p = kernel(z, vectors) @ coefficients[:, p] + intercept[p]; first (P,), second (P,).

    vectors (m, d), coefficients (m, P), intercept (P,). A pair votes for its first class when its decision is
    above 0, else for its second; the class of most votes wins, the first of equals (libsvm's rule).
    """

    vectors: Tensor
    coefficients: Tensor
    intercept: Tensor
    first: Tensor
    second: Tensor
    classes: int
    kernel: str
    gamma: float
    coef0: float
    degree: float

    family = "svm"
    smooth = False

    def decisions(self, z: Tensor) -> Tensor:
        """The decision of every pair of classes (n, P)."""
        return self._kernel(z) @ self.coefficients + self.intercept

    def scores(self, z: Tensor) -> Tensor:
        """Votes, plus less than a third for the margins, plus two thirds for the class that wins.

        The margins tell a score-based attack whether it comes nearer; they never change the winner.
        """
        votes, informed = self._counted(self.decisions(z))
        winner = votes.argmax(1, keepdim=True)
        return informed + torch.zeros_like(votes).scatter(1, winner, 2 / 3)

    def decision(self, z: Tensor, smooth: bool) -> Tensor:
        decision = self.decisions(z)
        if self.classes == 2:
            return -decision
        return self.surrogate(z) if smooth else self._counted(decision)[1]

    def _counted(self, decision: Tensor) -> tuple[Tensor, Tensor]:
        """The votes (n, K), and the same plus less than a third for the margins."""
        won = (decision > 0).to(decision)
        votes = self._add(won, 1 - won)
        margin = self._add(decision, -decision)
        return votes, votes + margin / (3 * (margin.abs() + 1))

    def surrogate(self, z: Tensor) -> Tensor:
        """Every class's worst margin against another: above 0 for the class that wins all its pairs."""
        decision = self.decisions(z)
        rows = torch.full((len(z), self.classes, self.classes), torch.inf, dtype=z.dtype, device=z.device)
        rows[:, self.first, self.second] = decision
        rows[:, self.second, self.first] = -decision
        return rows.amin(2)

    def structure(self, front: Front | None) -> Kernel | None:
        """The vectors of a Gaussian kernel."""
        if self.kernel != "rbf":
            return None
        front = front or Front.none(self.vectors)
        return Kernel(
            self.vectors, self.coefficients, self.intercept, self.first, self.second, self.classes,
            self.gamma, front.matrix, front.offset,
        )  # fmt: skip

    def _add(self, to_first: Tensor, to_second: Tensor) -> Tensor:
        total = torch.zeros(len(to_first), self.classes, dtype=to_first.dtype, device=to_first.device)
        return total.index_add(1, self.first, to_first).index_add(1, self.second, to_second)

    def _kernel(self, z: Tensor) -> Tensor:
        product = z @ self.vectors.T
        match self.kernel:
            case "linear":
                return product
            case "poly":
                return (self.gamma * product + self.coef0) ** self.degree
            case "sigmoid":
                return torch.tanh(self.gamma * product + self.coef0)
        squared = z.square().sum(1, keepdim=True) + self.vectors.square().sum(1) - 2 * product
        return torch.exp(-self.gamma * squared)
