"""A cell: one model, attack, threat and goal on a slice of samples; what it is, and carrying it out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.data.data import Data
from robustbench_lite.judging.judge import clean_scores, judge
from robustbench_lite.records.schema import frame
from robustbench_lite.search.attack import Attack, Fitted, as_text, parameters_json
from robustbench_lite.search.driver import Outcome, Progress, Samples, Search, fit, search
from robustbench_lite.threats.ball import Lp
from robustbench_lite.threats.box import Box


@dataclass(frozen=True)
class Cell:
    """What is attacked with what. clean: the model's scores of the data (n, K), on the CPU.

    source: the model that the search asks, where it is another than the one that is judged: a transferred
    attack; source_clean: that one's scores.
    """

    data: Data
    model: Model
    attack: Attack
    threat: Lp | Box
    goal: Goal
    clean: Tensor
    search: Search = field(default_factory=Search)
    eight_bit: bool = False
    given: Tensor | None = None
    source: Model | None = None
    source_clean: Tensor | None = None

    def __str__(self) -> str:
        origin = f" from {self.source.name}" if self.source else ""
        parts = [self.model.name, as_text(self.attack) + origin, str(self.threat)]
        return " × ".join(parts + ([str(self.goal)] if self.goal.targeted else []))

    @property
    def sought(self) -> Cell:
        """The cell whose search this one takes its points from: itself, or the source's."""
        if self.source is None or self.source_clean is None:
            return self
        return replace(self, model=self.source, clean=self.source_clean, source=None, source_clean=None)

    def identity(self) -> str:
        """Hash of everything that determines the records; the batch size and the device are not among it."""
        how = self.search
        facts = [
            self.data.name,
            self.data.fingerprint(),
            self.model.name,
            self.model.fingerprint(),
            as_text(self.attack),
            parameters_json(self.attack),
            self.attack.revision,
            str(self.threat),
            str(self.goal),
            None if self.given is None else self.given.tolist(),
            [how.seed, how.budget, how.time_limit, how.eot, str(how.precision), self.eight_bit],
        ] + ([] if self.source is None else [self.source.name, self.source.fingerprint()])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Finished:
    """A cell's records, one row a sample, and what the attack returned (n, …)."""

    records: pd.DataFrame
    adversarial: Tensor


def execute(
    cell: Cell,
    run: str = "",
    artifact: str = "",
    learnt: Mapping[str, Tensor] | None = None,
    progress: Progress = lambda fraction: None,
) -> Finished:
    """Attack, then judge. learnt: what a fitted attack learnt; artifact: where successes are stored."""
    return concluded(cell, attempt(cell, learnt, progress), run, artifact)


def attempt(
    cell: Cell,
    learnt: Mapping[str, Tensor] | None = None,
    progress: Progress = lambda fraction: None,
) -> Outcome:
    """The search alone, on the cell's source."""
    at = cell.sought
    samples = Samples(at.data.x, at.data.y, at.data.ids, at.clean, at.given)
    return search(at.attack, at.model, at.threat, at.goal, samples, at.search, learnt, progress)


def concluded(cell: Cell, outcome: Outcome, run: str = "", artifact: str = "") -> Finished:
    """The judge's word on what a search brought back, as records; its cost is the source's."""
    data, how = cell.data, cell.search
    here = cell.source is None
    verdict = judge(
        cell.model,
        cell.threat,
        cell.goal,
        data.x,
        data.y,
        outcome.adversarial,
        cell.clean,
        outcome.target,
        data.ids,
        batch=how.batch_size or 1024,
        eight_bit=cell.eight_bit,
    )
    reason = verdict.reason.copy()
    reason[outcome.late.numpy()] = "not attacked: the time limit was reached"
    columns = {name: value for name, value in vars(verdict).items() if name != "reason"}
    names = np.array([*outcome.attacks, None], dtype=object)
    stored = np.array([artifact if won and artifact else None for won in verdict.success], dtype=object)
    size = getattr(verdict, str(cell.threat.norm)) if isinstance(cell.threat, Lp) else verdict.l2
    known = np.where(verdict.success & cell.attack.exact & here, size, np.nan)
    records = frame(
        {
            **columns,
            "exact_distance": known,
            **_in_units(data, outcome),
            "run": run,
            "data": data.name,
            "model": cell.model.name,
            "family": cell.model.family,
            "source_model": None if cell.source is None else cell.source.name,
            "attack": as_text(cell.attack),
            "parameters": parameters_json(cell.attack),
            "threat": str(cell.threat),
            "eps": cell.threat.eps,
            "goal": str(cell.goal),
            "sample_id": data.ids.numpy(),
            "label": data.y.numpy(),
            "reason": reason,
            "winner": names[outcome.winner.numpy()],
            "queries_at_success": outcome.queries_at_success.numpy(),
            "forwards": outcome.forwards.numpy() * here,
            "backwards": outcome.backwards.numpy() * here,
            "seconds": outcome.seconds.numpy() * here,
            "precision": outcome.precision,
            "stand_in": cell.attack.access is Access.GRADIENT and not cell.sought.model.gradient_is_truth,
            "seed": how.seed,
            "artifact": stored,
        },
        len(data),
    )
    return Finished(records, outcome.adversarial)


def learn(cell: Cell, data: Data) -> Mapping[str, Tensor] | None:
    """What the cell's attack learns from the data's training split; None for attacks that learn nothing."""
    if not isinstance(cell.attack, Fitted):
        return None
    cell, training = cell.sought, data.training()
    scores = clean_scores(cell.model, training.x)
    given = (
        cell.given if torch.equal(training.ids, cell.data.ids) else None
    )  # it may learn on what it attacks
    samples = Samples(training.x, training.y, training.ids, scores, given)
    assert isinstance(cell.attack, Fitted)
    return fit(cell.attack, cell.model, cell.threat, cell.goal, samples, cell.search)


def estimate(cell: Cell) -> tuple[int, float]:
    """Passes a cell takes at most, and their seconds, from the speed of the model on a few samples."""
    rows = len(cell.data) * cell.attack.lanes * max(1, cell.attack.aims)
    passes = rows * (3 + (1 + max(1, cell.attack.points)) * max(1, cell.attack.iterations))
    x = cell.data.x[:64].to(cell.model.device)
    cell.model.scores(x[:2])
    began = time.perf_counter()
    cell.model.scores(x)
    each = (time.perf_counter() - began) / len(x)
    return passes, 1.5 * passes * each  # a backward pass costs about two forward ones


def _in_units(data: Data, outcome: Outcome) -> dict[str, object]:
    """Distances in the features' own units, for tables."""
    if data.units is None:
        return {}
    delta = (outcome.adversarial.double() - data.x.double()) * data.units
    return {
        f"l{name}_units": torch.linalg.vector_norm(delta, float(name), dim=1).numpy()
        for name in ("1", "2", "inf")
    }
