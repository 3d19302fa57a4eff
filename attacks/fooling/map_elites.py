"""The best image met for every class, and what images are made of when they are made from nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.model import Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import margin


class Archive:
    """The best image met for every class (K, …), and what it has cost."""

    def __init__(self, problem: Problem, classes: int, threshold: float) -> None:
        self.problem, self.threshold, self.queries = problem, threshold, 0
        self.images = problem.x0[:1].expand(classes, *problem.x0.shape[1:]).clone()
        self.fitness = torch.full((classes,), -torch.inf, device=problem.x0.device, dtype=torch.float64)
        self.reached_at = torch.full((classes,), -1, device=problem.x0.device)

    @property
    def complete(self) -> bool:
        """Whether every class is reached."""
        return bool((self.reached_at >= 0).all())

    def draws(self, count: int, generation: int) -> Stream | None:
        """What a stochastic model draws for each image of a generation."""
        keys = torch.arange(count, device=self.problem.x0.device)
        stream = Stream.of(self.problem.seed, keys).fold("model", generation)
        return stream if self.problem.oracle.model.stochastic else None

    def meet(self, images: Tensor, generation: int) -> tuple[Tensor, Tensor]:
        """Keep what is better than before; returns for which classes (K,), and the best for each (K,)."""
        images = self.problem.threat.domain.clamp(images)
        oracle = self.problem.oracle
        fitness = _fitness(oracle.model, oracle.truth(images, self.draws(len(images), generation)).mean(0))
        self.queries += oracle.draws * len(images)
        best, which = fitness.max(0)
        better = best > self.fitness
        self.images = torch.where(per_row(better, images), images[which], self.images)
        self.fitness = torch.where(better, best, self.fitness)
        new = (self.fitness >= self.threshold) & (self.reached_at < 0)
        self.reached_at = torch.where(new, generation, self.reached_at)
        return better, which


def _fitness(model: Model, scores: Tensor) -> Tensor:
    """How well each image does for each class (n, K): what it is sure of, below 0 for all other classes."""
    scores = scores.double()
    first = model.prediction(scores).clamp_min(0)
    sure = model.confidence(scores)
    lead = margin(scores, first, first) if sure is None else sure.double()
    behind = scores - scores.amax(1, keepdim=True)
    return behind.scatter(1, first[:, None], lead[:, None])


def noise_around_middle(problem: Problem, stream: Stream) -> Tensor:
    """Normal noise around the middle of the box, half its width its deviation, one image a key."""
    low, high = problem.threat.domain.bounds(problem.x0)
    drawn = stream.gaussian(tuple(problem.x0.shape[1:])).to(problem.x0)
    return problem.threat.domain.clamp((low + high) / 2 + (high - low) / 2 * drawn)


def laplacian(x: Tensor) -> Tensor:
    """What smooths an image (n, C, H, W): its pixels' neighbours less the pixels; 0 for other inputs."""
    if x.dim() != 4:
        return torch.zeros_like(x)
    edge = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    around = edge[:, :, :-2, 1:-1] + edge[:, :, 2:, 1:-1] + edge[:, :, 1:-1, :-2] + edge[:, :, 1:-1, 2:]
    return around - 4 * x
