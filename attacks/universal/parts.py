"""What universal perturbations are made with: batches, their size, and DeepFool's way of adding up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from robustbench_lite.attacks.minimum_norm.deepfool import smallest_step
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.threats.ball import Lp

CANDIDATES = 9  # likeliest other classes that deepfool looks at
PASSES = 10  # of deepfool through the images, at most
INNER = 10  # of deepfool's steps for one image


def order_of(problem: Problem, epoch: int) -> Tensor:
    """The problem's rows in a random order that the samples' names decide."""
    return problem.random("order").fold(epoch).uniform((), torch.float64).argsort()


def batches(problem: Problem, size: int, epochs: int) -> Iterator[Problem]:
    """The problem's rows in batches, in another order in every epoch."""
    for epoch in range(epochs):
        order = order_of(problem, epoch)
        for begin in range(0, len(order), size):
            yield problem[order[begin : begin + size]]


def sized(problem: Problem, delta: Tensor) -> Tensor:
    """A perturbation (1, …) shrunk into the ball and to what may change; the box is each sample's own."""
    eps = problem.size()[:1]
    if problem.threat.domain.mask is not None:
        delta = delta * problem.threat.domain.mask
    if isinstance(problem.threat, Lp) and problem.threat.norm is Norm.LINF:
        return torch.minimum(torch.maximum(delta, -eps), eps)
    return delta * (eps / size_of(delta, 2).clamp_min(1e-12)).clamp_max(1)


def fooled(problem: Problem, delta: Tensor) -> Tensor:
    """Whether each sample is broken by the perturbation (n,), by draws of its own."""
    problem = replace(problem, step=1 << 20)
    return problem.decisions(problem.threat.domain.clamp(problem.x0 + delta))


def by_deepfool(problem: Problem, batch: int) -> Tensor:
    """To the letter one image after the other: a later one meets what the earlier have added."""
    delta = torch.zeros_like(problem.x0[:1])
    if problem.target is not None:
        problem = problem[problem.target != problem.y]
    for _ in range(PASSES):
        if float(fooled(problem, delta).float().mean()) >= 0.8:
            break
        for images in batches(problem, batch, 1):
            while len(held := (~fooled(images, delta)).nonzero()[:, 0]):
                delta = sized(problem, delta + _to_other_side(images[held[:1]], delta))
                images = images[torch.arange(int(held[0]) + 1, len(images), device=held.device)]
                if not len(images):
                    break
    return delta


def _to_other_side(image: Problem, delta: Tensor) -> Tensor:
    """DeepFool's perturbation of one image (1, …) that is perturbed already; nothing where it fails."""
    base = image.threat.domain.clamp(image.x0 + delta)
    if image.target is not None:
        classes = torch.stack([image.y, image.target], 1)
    else:
        scores = image.scores(base).scatter(1, image.y[:, None], -torch.inf)
        others = scores.topk(min(CANDIDATES, scores.shape[1] - 1), dim=1).indices
        classes = torch.cat([image.y[:, None], others], 1)
    moved = torch.zeros_like(base)
    for _ in range(INNER):
        gradient, scores = image.jacobian(base + 1.02 * moved, classes)
        score = scores.gather(1, classes)
        if bool(image.met(scores).all()):
            return 1.02 * moved
        step = smallest_step(score[:, :1] - score[:, 1:], gradient[:, 1:] - gradient[:, :1], image.threat)
        moved = moved + step
    return torch.zeros_like(moved)
