"""What is proven of all samples before any attack: asked of the certifiers once, and kept with the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from robustbench_lite.certify.certifier import Bounds, Question, certifiers, certify
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.settings import Search
from robustbench_lite.core.structure import Noise
from robustbench_lite.core.threat import Threat
from robustbench_lite.data.data import Data
from robustbench_lite.judging.judge import Clean
from robustbench_lite.search.driver import Progress, Samples, targets_of


@dataclass(frozen=True)
class Proof:
    """What was proven of n samples, None for nothing, and what that took.

    Parameters
    ----------
    bounds : Bounds or None
    seconds : float
    """

    bounds: Bounds | None
    seconds: float = 0.0

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as arrays, which `of_arrays` reads."""
        held = {} if self.bounds is None else self.bounds.arrays()
        return held | {"seconds": np.array(self.seconds)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Proof:
        """What `arrays` gave."""
        bounds = Bounds.of_arrays(arrays) if "distance" in arrays else None
        return cls(bounds, float(arrays["seconds"]))


def prove(
    model: Model,
    threat: Threat,
    goal: Goal,
    data: Data,
    clean: Clean,
    search: Search,
    given: torch.Tensor | None = None,
    progress: Progress = lambda fraction: None,
) -> Proof:
    """The lower bounds of all samples, 0 for those the model has wrong, and the seconds they took."""
    began = time.perf_counter()
    samples = Samples(data.x, data.y, data.ids, clean.scores, clean.prediction, given)
    if threat.norm is None or not search.certify:
        return Proof(None)
    if model.stochastic and not isinstance(model.structure, Noise):
        return Proof(None)
    target = targets_of(goal, model.task, samples, search)
    if not certifiers(model, threat, goal):  # before samples are copied, which may be more than memory holds
        return Proof(None)
    device = model.device
    right = model.task.right(clean.prediction, data.y).nonzero()[:, 0]
    question = Question(
        model,
        threat.within(threat.domain.to(device)),
        goal,
        data.x[right].to(device),
        data.y[right].to(device),
        None if target is None else target[right].to(device),
        search.certify,
        progress,
    )
    found = certify(question)
    if found is None:
        return Proof(None)
    nearest = None if found.nearest is None else data.x.index_copy(0, right, found.nearest.cpu())
    none = torch.zeros(len(data), dtype=torch.float64)
    bounds = replace(
        found,
        distance=none.index_copy(0, right, found.distance.cpu()),
        exact=torch.full_like(none, bool(found.exact.any()), dtype=torch.bool).index_copy(
            0, right, found.exact.cpu()
        ),
        nearest=nearest,
    )
    return Proof(bounds, time.perf_counter() - began)
