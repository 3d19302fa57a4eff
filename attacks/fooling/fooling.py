"""Fooling images: they mean nothing, and the model is sure of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustbench_lite.attacks.fooling.cppn import Genomes
from robustbench_lite.attacks.fooling.map_elites import Archive, laplacian, noise_around_middle
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Count, Fraction, NonNegative
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Fitted

ETA = 15  # of polynomial mutation (Deb & Goyal 1996)


@dataclass(frozen=True)
class Fooling(Fitted):
    """An image for every class, made from nothing; under the threat `box`, whatever the sample.

    Go for a class each with a goal such as `random,confidence=0.996`; `untargeted` takes the surest.

    Parameters
    ----------
    method : {"gradient", "direct", "cppn", "rubbish"}, default "direct"
        `gradient`, ascent from noise with priors; `direct`, MAP-Elites on pixels, one cell a class,
        polynomial mutation, and `cppn`, the same on compositional pattern networks (Nguyen et al. 2014);
        `rubbish`, standard normal noise in units of the box, clipped to it, one image a sample (Goodfellow et
        al. 2014, appendix A: how often is a class claimed? With the goal
        `untargeted,confidence=0.5,own=success` the sample's own class is as wrong a claim as any).
    steps : int, default 500
        Generations, or gradient steps.
    population : int, default 200
        Children a generation.
    confidence : float, default 0.996
        Where a class counts as reached, between 0 and 1; of a model whose scores have no scale, the largest
        margin of any training sample takes its place.
    l2 : float, default 0.0
        Weight of the prior of `gradient` that draws towards the middle of the box.
    smoothness : float, default 0.0
        Weight of the prior of `gradient` that smooths.

    Notes
    -----
    What it asks while it fits is told in what it learnt, and is not limited by a budget.

    Examples
    --------
    >>> Fooling(confidence=1.0)
    Traceback (most recent call last):
        ...
    robustbench_lite.core.errors.InvalidParameter: confidence = 1.0: must be between 0 and 1
    """

    method: Literal["gradient", "direct", "cppn", "rubbish"] = "direct"
    steps: Count = 500
    population: Count = 200
    confidence: Fraction = 0.996
    l2: NonNegative = 0.0
    smoothness: NonNegative = 0.0

    name = "fooling"
    access = Access.SCORE
    norms = frozenset()
    threats = frozenset({"box"})
    paper = "Nguyen et al. 2014, arXiv:1412.1897"
    revision = 2

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if threat.kind != "box":
            return f"fooling starts from nothing: its threat is box; not {threat}"
        if self.method == "gradient" and model.access < Access.GRADIENT:
            return f"fooling:method=gradient needs gradient access; {model.name} has none"
        return super().refuses(model, threat, goal)

    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        if self.method == "rubbish":
            return {}
        classes = problem.oracle.model.num_classes
        archive = Archive(problem, classes, self._threshold(problem))
        make = {"gradient": self._ascending, "direct": self._direct, "cppn": self._patterns}[self.method]
        make(problem, archive)
        return {
            "images": archive.images,
            "confidence": archive.fitness,
            "reached_at": archive.reached_at,
            "queries": torch.tensor(archive.queries),
        }

    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        if self.method == "rubbish":
            low, high = problem.threat.domain.bounds(problem.x0)
            drawn = problem.random("rubbish").gaussian(tuple(problem.x0.shape[1:])).to(problem.x0)
            return problem.threat.domain.clamp(low + (high - low) * drawn)
        sure = artifact["confidence"].to(problem.x0.device).expand(len(problem), -1)
        best = sure.scatter(1, problem.y[:, None], -torch.inf).argmax(1)
        return artifact["images"].to(problem.x0)[best if problem.target is None else problem.target]

    def _threshold(self, problem: Problem) -> float:
        scores = problem.scores(problem.x0)
        if problem.oracle.model.confidence(scores) is not None:
            return self.confidence
        return float(margin(scores, problem.y, problem.y).max())

    def _children(self, problem: Problem) -> Stream:
        return Stream.of(problem.seed, torch.arange(self.population, device=problem.x0.device))

    def _direct(self, problem: Problem, archive: Archive) -> None:
        stream = self._children(problem).fold("direct")
        low, high = problem.threat.domain.bounds(problem.x0)
        shape = tuple(problem.x0.shape[1:])
        archive.meet(low + (high - low) * stream.fold("first").uniform(shape, problem.x0.dtype), 0)
        for generation in range(1, self.steps + 1):
            draw = stream.fold(generation)
            parent = archive.images[draw.fold("parent").integers(len(archive.images), ())]
            hit = draw.fold("hit").uniform(shape) < 0.1 / 2 ** ((generation - 1) // 1000)
            u = draw.fold("move").uniform(shape, problem.x0.dtype)
            power = 1 / (ETA + 1)
            move = torch.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
            archive.meet(torch.where(hit, parent + (high - low) * move, parent), generation)
            if archive.complete:
                break

    def _patterns(self, problem: Problem, archive: Archive) -> None:
        stream = self._children(problem).fold("cppn")
        low, high = problem.threat.domain.bounds(problem.x0)
        shape = tuple(problem.x0.shape[1:])
        children = Genomes.simplest(stream.fold("first"), shape)
        elites = children[torch.zeros(len(archive.images), dtype=torch.long, device=problem.x0.device)]
        for generation in range(self.steps + 1):
            better, child = archive.meet(low + (high - low) * children.images(shape), generation)
            elites = elites.where(better, children[child])
            if archive.complete:
                break
            draw = stream.fold(generation)
            parents = elites[draw.fold("parent").integers(len(archive.images), ())]
            children = parents.mutated(draw)

    def _ascending(self, problem: Problem, archive: Archive) -> None:
        count = len(archive.images)
        target = torch.arange(count, device=problem.x0.device)
        x = noise_around_middle(problem, Stream.of(problem.seed, target).fold("ascent"))
        low, high = problem.threat.domain.bounds(problem.x0)
        drift = torch.zeros_like(x)
        for step in range(self.steps + 1):
            archive.meet(x, step)
            if archive.complete:
                break
            gradient, _, _ = problem.oracle.gradient(
                x, lambda scores, rows: -margin(scores, target[rows]), archive.draws(count, step)
            )
            archive.queries += problem.oracle.draws * count
            gradient = gradient / per_row(size_of(gradient, 2).clamp_min(1e-30), x)
            gradient = gradient - self.l2 * (x - (low + high) / 2) + self.smoothness * laplacian(x)
            drift = 0.9 * drift + gradient
            rate = 0.02 * math.sqrt(x[0].numel()) * (1 - step / (self.steps + 1))
            x = problem.threat.domain.clamp(x + rate * (high - low) * drift)
