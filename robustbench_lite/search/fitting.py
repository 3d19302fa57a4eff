"""Learning what a fitted attack needs, under the same budget, time limit and counting as any search."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.settings import Search
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Attack, Fitted, Iterate
from robustbench_lite.search.batching import batch_size, oracle_for
from robustbench_lite.search.driver import Samples, check, in_lanes, problem_of, targets_of
from robustbench_lite.search.normal import NormalForm


class OutOfTime(Exception):
    """The time limit came while something was learnt."""


@dataclass(frozen=True)
class Fitting:
    """What was learnt, and what it cost in all.

    Parameters
    ----------
    artifact : mapping of str to Tensor
        What `Fitted.apply` is given.
    forwards, backwards : int
        Passes, summed over the samples learnt from.
    seconds : float
    """

    artifact: Mapping[str, Tensor]
    forwards: int
    backwards: int
    seconds: float

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as arrays, which `of_arrays` reads."""
        costs = {
            "cost_forwards": self.forwards,
            "cost_backwards": self.backwards,
            "cost_seconds": self.seconds,
        }
        held = {name: value.detach().cpu().numpy() for name, value in self.artifact.items()}
        return held | {name: np.array(value) for name, value in costs.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Fitting:
        """What `arrays` gave, on the CPU."""
        costs = {name: arrays[name].item() for name in arrays if name.startswith("cost_")}
        held = {name: torch.from_numpy(value) for name, value in arrays.items() if name not in costs}
        return cls(held, costs["cost_forwards"], costs["cost_backwards"], costs["cost_seconds"])


def fit(
    attack: Fitted, model: Model, threat: Threat, goal: Goal, samples: Samples, search: Search | None = None
) -> Fitting:
    """What a fitted attack learns from samples.

    A budget is spent sample by sample: beyond it a sample's gradients are zero and its scores NaN, so that it
    no longer counts in what is learnt. Raises `OutOfTime` at the time limit.
    """
    search = search or Search()
    check(attack, model, threat, goal)
    form = NormalForm.of(model.input_shape, threat.domain)
    if not form.plain:
        seen = cast(Fitted, form.attack(attack)), form.model(model), form.threat(threat)
        return fit(*seen, goal, samples.seen(form, threat), search)
    began = time.perf_counter()
    target = targets_of(goal, model.task, samples, search)
    oracle = oracle_for(attack, model, threat, search, len(samples.y))
    oracle.chunk = search.batch_size or batch_size(attack, model, threat, samples.x[:1], 1)
    problem = problem_of(oracle, threat, goal, samples, target, torch.arange(len(samples.y)), search)
    problem.ledger.attacks.append(str(attack))
    # Gradients of many samples are averaged: as they are, zero where they are zero.
    problem = replace(in_lanes(attack.schedule(model, threat), problem), explore=False)
    if search.time_limit is not None:
        clock = Clock(time.monotonic() + search.time_limit)
        problem = replace(problem, observers=(*problem.observers, clock))
    artifact = attack.fit(problem)
    asked = int(artifact["queries"]) if "queries" in artifact else 0  # of images made from nothing
    ledger = problem.ledger
    return Fitting(
        artifact,
        int(ledger.forwards.sum()) + asked,
        int(ledger.backwards.sum()),
        time.perf_counter() - began,
    )


@dataclass(frozen=True)
class Clock:
    """Ends what is being learnt when its time is over."""

    deadline: float

    def asked(self) -> None:
        """Raises `OutOfTime` after the deadline."""
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def evaluated(self, problem: Problem, z: Tensor, scores: Tensor) -> None:
        """Likewise."""
        self.asked()


@dataclass(frozen=True)
class Applied(Attack[Iterate]):
    """A fitted attack with what it has learnt: one-shot."""

    attack: Fitted
    artifact: Mapping[str, Tensor]

    every_sample = True

    def __post_init__(self) -> None:
        """What was learnt has no ranges."""

    def __str__(self) -> str:
        return str(self.attack)

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        return self.attack.refuses(model, threat, goal)

    def start(self, problem: Problem) -> Iterate:
        held = {name: value.to(problem.x0.device) for name, value in self.artifact.items()}
        return Iterate(z=problem.project(self.attack.apply(problem, held)))
