"""Universal perturbations: one for every sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from robustbench_lite.attacks.minimum_norm.deepfool import smallest_step
from robustbench_lite.attacks.universal.batches import batches, order_of
from robustbench_lite.core.parameters import Count, NonNegative
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import size_of
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Fitted

CANDIDATES = 9  # likeliest other classes that deepfool looks at
PASSES = 10  # of deepfool through the images, at most
INNER = 10  # of deepfool's steps for one image
STARTS = 10  # classes that an untargeted perturbation first tries to send everything to


@dataclass(frozen=True)
class Universal(Fitted):
    """One perturbation that changes the class of most samples; fitted on the training split.

    A goal with targets, such as `class:3`, is gone for directly.

    Parameters
    ----------
    method : {"sga", "sgd", "deepfool", "random"}, default "sga"
        `sga`, the mean of gradients along a short walk through small batches (Liu et al. 2023, algorithm 1);
        `sgd`, of one batch at a time (Shafahi et al. 2020, algorithm 2), both raising the margin up to
        `clamp` a sample, from the best of a few perturbations towards one class; `deepfool`, image after
        image until 1 - 2/10 are fooled (Moosavi-Dezfooli et al. 2016, algorithm 1); `random`, random signs
        or a direction of the same size, the control.
    steps : int, default 100
        Of a batch each, for `sga` and `sgd`.
    images : int, default 2000
        How many of the training split at most, gone through again and again in another order; ten times at
        most by `deepfool`.
    batch : int, default 100
        Images in a batch.
    clamp : float, default 5.0
        Up to which `sga` and `sgd` raise the margin of a sample.
    per_class : bool, default False
        A perturbation for each class of samples instead of one for all.

    Examples
    --------
    >>> Universal(method="adam")
    Traceback (most recent call last):
        ...
    robustbench_lite.core.errors.InvalidParameter: method = 'adam': must be one of sga, sgd, deepfool, random
    """

    method: Literal["sga", "sgd", "deepfool", "random"] = "sga"
    steps: Count = 100
    images: Count = 2000
    batch: Count = 100
    clamp: NonNegative = 5.0
    per_class: bool = False

    name = "universal"
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Moosavi-Dezfooli et al. 2016, arXiv:1610.08401"
    revision = 2

    def learns_from(self) -> int:
        return self.images

    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        if not self.per_class:
            return {"delta": self._of(problem)}
        rows = [problem.y == label for label in range(problem.oracle.model.num_classes)]
        none = torch.zeros_like(problem.x0[:1])
        return {"delta": torch.cat([self._of(problem[r]) if bool(r.any()) else none for r in rows])}

    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        delta = artifact["delta"].to(problem.x0)
        return problem.x0 + (delta[problem.y] if self.per_class else delta)

    def _of(self, problem: Problem) -> Tensor:
        """The perturbation (1, …) of a problem's rows."""
        if self.method == "random":
            noise = (
                problem[torch.zeros_like(problem.row[:1])]
                .random("control")
                .normal(tuple(problem.x0.shape[1:]), problem.x0.dtype)
            )
            return _sized(problem, problem.threat.steepest(noise) * problem.size()[:1])
        problem = problem[order_of(problem, 0)[: self.images]]
        return _by_deepfool(problem, self.batch) if self.method == "deepfool" else self._by_gradients(problem)

    def _by_gradients(self, problem: Problem) -> Tensor:
        """From the best of a few starts: towards one class far more can be pushed than towards another."""
        best = torch.zeros_like(problem.x0[:1])
        if problem.target is None:
            few, most = max(1, self.steps // 5), -1.0
            for target in _likely_classes(problem).tolist():
                aimed = replace(problem, target=torch.full_like(problem.y, target))
                delta = self._climbed(aimed, torch.zeros_like(best), few, 0.2, "sgd")
                rate = float(_fooled(problem, delta).float().mean())
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
                    walk = _sized(problem, walk + size * problem.threat.steepest(gradient))
                    total = total + gradient
            delta = _sized(problem, delta + size * problem.threat.steepest(total))
        return delta

    def _gradient(self, images: Problem, delta: Tensor) -> Tensor:
        def clamped(scores: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
            return margin(scores, y, target).clamp_max(self.clamp)

        x = images.threat.domain.clamp(images.x0 + delta)
        return images.evaluate(x, clamped).gradient.mean(0, keepdim=True)


def _likely_classes(problem: Problem) -> Tensor:
    """The classes that come second most often, at most STARTS of them."""
    scores = problem.scores(problem.x0).scatter(1, problem.y[:, None], -torch.inf)
    first = problem.oracle.model.prediction(scores).clamp_min(0)
    times = torch.bincount(first, minlength=scores.shape[1])
    return times.topk(min(STARTS, int((times > 0).sum()))).indices


def _sized(problem: Problem, delta: Tensor) -> Tensor:
    """A perturbation (1, …) shrunk into the ball and to what may change; the box is each sample's own."""
    eps = problem.size()[:1]
    delta = problem.threat.domain.free(delta)
    if problem.threat.norm is Norm.LINF:
        return torch.minimum(torch.maximum(delta, -eps), eps)
    return delta * (eps / size_of(delta, 2).clamp_min(1e-12)).clamp_max(1)


def _fooled(problem: Problem, delta: Tensor) -> Tensor:
    """Whether each sample is broken by the perturbation (n,), by draws of its own."""
    own = replace(problem, step=1 << 20)
    return own.decisions(own.threat.domain.clamp(own.x0 + delta))


def _by_deepfool(problem: Problem, batch: int) -> Tensor:
    """To the letter one image after the other: a later one meets what the earlier have added."""
    delta = torch.zeros_like(problem.x0[:1])
    if problem.target is not None:
        problem = problem[problem.target != problem.y]
    for _ in range(PASSES):
        if float(_fooled(problem, delta).float().mean()) >= 0.8:
            break
        for images in batches(problem, batch, 1):
            while len(held := (~_fooled(images, delta)).nonzero()[:, 0]):
                delta = _sized(problem, delta + _to_other_side(images[held[:1]], delta))
                images = images[torch.arange(int(held[0]) + 1, len(images), device=held.device)]
                if not len(images):
                    break
    return delta


def _to_other_side(image: Problem, delta: Tensor) -> Tensor:
    """DeepFool's perturbation of one image (1, …) that is perturbed already; nothing where it fails."""
    base = image.threat.domain.clamp(image.x0 + delta)
    if image.target is not None:
        rivals = image.target[:, None]
    else:
        rivals = image.likeliest(image.scores(base), CANDIDATES)
    moved = torch.zeros_like(base)
    for _ in range(INNER):
        normal, scores = image.jacobian(base + 1.02 * moved, rivals, image.y)
        if bool(image.met(scores).all()):
            return 1.02 * moved
        need = scores.gather(1, image.y[:, None]) - scores.gather(1, rivals)
        moved = moved + smallest_step(need, normal, image.threat)
    return torch.zeros_like(moved)
