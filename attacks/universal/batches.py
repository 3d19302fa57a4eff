"""The images that something universal is learnt from, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustbench_lite.core.problem import Problem


def order_of(problem: Problem, epoch: int) -> Tensor:
    """The problem's rows in a random order that the samples' names decide."""
    return problem.random("order").fold(epoch).uniform((), torch.float64).argsort()


def batches(problem: Problem, size: int, epochs: int) -> Iterator[Problem]:
    """The problem's rows in batches, in another order in every epoch."""
    for epoch in range(epochs):
        order = order_of(problem, epoch)
        for begin in range(0, len(order), size):
            yield problem[order[begin : begin + size]]
