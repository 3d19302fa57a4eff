"""Universal perturbations: one for every sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from robustbench_lite.attacks.universal.parts import batches, by_deepfool, fooled, order_of, sized
from robustbench_lite.core.errors import require
from robustbench_lite.core.goal import margin
from robustbench_lite.core.model import Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Fitted

METHODS = ("sga", "sgd", "deepfool", "random")
STARTS = 10  # classes that an untargeted perturbation first tries to send everything to


@dataclass(frozen=True)
class Universal(Fitted):
    """One perturbation that changes the class of most samples; fitted on the training split.

    method: `sga`, the mean of gradients along a short walk through small batches (Liu et al. 2023, algorithm
    1); `sgd`, of one batch at a time (Shafahi et al. 2020, algorithm 2), both raising the margin up to
    `clamp` a sample, from the best of a few perturbations towards one class; `deepfool`, image after image
    until 1 - 2/10 are fooled (Moosavi-Dezfooli et al. 2016, algorithm 1); `random`, random signs or a
    direction of the same size, the control. A goal with targets, such as `class:3`, is gone for directly.

    steps: of a batch each, for the first two. images: how many of the training split at most, gone through
    again and again in another order; ten times at most by deepfool.
    """

    method: str = "sga"
    steps: int = 100
    images: int = 2000
    batch: int = 100
    clamp: float = 5.0

    name = "universal"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Moosavi-Dezfooli et al. 2016, arXiv:1610.08401"

    def __post_init__(self) -> None:
        require(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.images >= 1, "images", self.images, "at least 1")
        require(self.batch >= 1, "batch", self.batch, "at least 1")
        require(self.clamp >= 0, "clamp", self.clamp, "at least 0")

    def refuses(self, model: Model, threat: Threat) -> str | None:
        if threat.eps is None:
            return f"universal needs a fixed eps, such as linf:0.1; not {threat}"
        return super().refuses(model, threat)

    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        if self.method == "random":
            noise = (
                problem[torch.zeros_like(problem.row[:1])]
                .random("control")
                .normal(tuple(problem.x0.shape[1:]), problem.x0.dtype)
            )
            return {"delta": sized(problem, problem.threat.steepest(noise) * problem.size()[:1])}
        problem = problem[order_of(problem, 0)[: self.images]]
        found = by_deepfool(problem, self.batch) if self.method == "deepfool" else self._by_gradients(problem)
        return {"delta": found}

    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        return problem.x0 + artifact["delta"].to(problem.x0)

    def _by_gradients(self, problem: Problem) -> Tensor:
        """From the best of a few starts: towards one class far more can be pushed than towards another."""
        best = torch.zeros_like(problem.x0[:1])
        if problem.target is None:
            few, most = max(1, self.steps // 5), -1.0
            for target in _likely_classes(problem).tolist():
                aimed = replace(problem, target=torch.full_like(problem.y, target))
                delta = self._climbed(aimed, torch.zeros_like(best), few, 0.2, "sgd")
                rate = float(fooled(problem, delta).float().mean())
                best, most = (delta, rate) if rate > most else (best, most)
        return self._climbed(problem, best, self.steps, 0.1, self.method)

    def _climbed(self, problem: Problem, delta: Tensor, steps: int, rate: float, method: str) -> Tensor:
        """The perturbation after so many steps, the first of them `rate` · eps long, the last nearly 0."""
        for step, images in enumerate(islice(batches(problem, self.batch, 1 << 30), steps)):
            images = replace(images, step=step + 1)  # a stochastic model draws anew
            size = problem.size(rate * (1 - step / steps))[:1]
            if method == "sgd":
                total = self._gradient(images, delta)
            else:
                total, walk = torch.zeros_like(delta), delta
                for few in batches(images, max(1, self.batch // 10), 1):
                    gradient = self._gradient(few, walk)
                    walk = sized(problem, walk + size * problem.threat.steepest(gradient))
                    total = total + gradient
            delta = sized(problem, delta + size * problem.threat.steepest(total))
        return delta

    def _gradient(self, images: Problem, delta: Tensor) -> Tensor:
        def clamped(scores: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
            return margin(scores, y, target).clamp_max(self.clamp)

        x = images.threat.domain.clamp(images.x0 + delta)
        return images.evaluate(x, clamped).gradient.mean(0, keepdim=True)


def _likely_classes(problem: Problem) -> Tensor:
    """The classes that come second most often, at most STARTS of them."""
    scores = problem.scores(problem.x0).scatter(1, problem.y[:, None], -torch.inf)
    times = torch.bincount(scores.argmax(1), minlength=scores.shape[1])
    return times.topk(min(STARTS, int((times > 0).sum()))).indices
