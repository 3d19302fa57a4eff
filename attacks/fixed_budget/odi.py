"""Starts that differ in what the model says of them, rather than in where they lie."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.core.problem import Problem


def diversified_start(problem: Problem, steps: int) -> Tensor:
    """Random points after steps of eps along a random mixture of the scores (Tashiro et al. 2020, section 3).

    They use 2; with none, the random points.
    """
    x = problem.random_start()
    if not steps:
        return x
    weights = 2 * problem.random("mixture").uniform((problem.oracle.model.num_classes,)) - 1
    for _ in range(steps):
        gradient = problem.evaluate(x, Mixture(weights)).gradient
        x = problem.project(x + problem.size() * problem.threat.steepest(gradient))
    return x


@dataclass(frozen=True, eq=False)
class Mixture:
    """Each row's own weighted sum of its scores, weights (n, K), as a loss."""

    weights: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Mixture:
        return Mixture(self.weights[rows])

    def __call__(self, scores: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        return (self.weights[:, : scores.shape[1]].to(scores) * scores).sum(1)
