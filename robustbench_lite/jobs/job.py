"""A job: one model, attack, threat and goal on a slice of samples; what it is, and carrying it out.

A `Job` is text and numbers and can be sent anywhere; `Work` is what a worker makes of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.certify.certifier import Bounds
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.machine import forget_peak, peak_memory
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.problem import Pool
from robustbench_lite.core.settings import Search
from robustbench_lite.core.threat import Threat
from robustbench_lite.data.data import Data
from robustbench_lite.judging.judge import Clean, Originals, judge
from robustbench_lite.judging.verdict import Outcome as Became
from robustbench_lite.judging.verdict import Reason
from robustbench_lite.records.schema import frame
from robustbench_lite.search.attack import AnyAttack, Fitted, parameters_json
from robustbench_lite.search.driver import (
    Outcome,
    Progress,
    Samples,
    attackable,
    nothing_yet,
    search,
    targets_of,
)
from robustbench_lite.search.fitting import Applied, Fitting
from robustbench_lite.threats.projection import in_fewer_bits


@dataclass(frozen=True)
class Judged:
    """A model by its text, and the name that reports call it by."""

    model: str
    name: str


@dataclass(frozen=True)
class Job:
    """What to search, on whom to judge it, which samples: texts and numbers only.

    Parameters
    ----------
    data, model, attack, threat, goal : str
        In the grammar of names; `object:…` names a live object of this process.
    name : str
        What reports call the model.
    search : Search
    samples : int or None
        How many of the test split were asked for.
    begin, end, of : int
        The slice, and how many samples there are in all.
    others : tuple of Judged
        Models that what is found is judged on too.
    domain : str
        Fingerprint of the box, mask and steps.
    parameters : str
        Every parameter of the attack, defaults included.
    revision : int
        Of the attack.
    """

    data: str
    model: str
    name: str
    attack: str
    threat: str
    goal: str
    search: Search
    samples: int | None
    begin: int
    end: int
    of: int
    others: tuple[Judged, ...] = ()
    domain: str = ""
    parameters: str = ""
    revision: int = 1

    def __str__(self) -> str:
        whole = title(self.name, self.attack, self.threat, self.goal)
        part = self.begin > 0 or self.end < self.of
        return f"{whole}, samples {self.begin} to {self.end - 1}" if part else whole

    def key(self) -> str:
        """Hash of the job's texts; what it runs on and in which batches is not among them."""
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "search"}
        held["others"] = [[other.model, other.name] for other in self.others]
        shaping = {f.name: getattr(self.search, f.name) for f in fields(Search) if f.metadata["shapes"]}
        text = json.dumps([held, shaping], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def title(model: str, attack: object, threat: object, goal: object) -> str:
    """What a reader calls one cell; the goal is left out where it is the plain one."""
    parts = [model, str(attack), str(threat), str(goal)]
    return " × ".join(parts[:3] if parts[3] == "untargeted" else parts)


@dataclass(frozen=True)
class Work:
    """A job made real: everything it names, loaded; what is known of its samples beforehand.

    clean: the model's answers without an attack. others: models that judge too, with theirs. bounds: what
    certifiers have proven, and certify_seconds, what that took in all. fitting: what a fitted attack learnt;
    None where it learns nothing, or its time was over. given (n, …): targets that a user chose. starts:
    samples that the attack may begin at, where it asks for such. written: the type of number that what is
    found is handed back in; None: the data's own. key: the job's; fingerprint: hash of the data and models
    that it became; both empty where nothing is kept.
    """

    data: Data
    model: Model
    clean: Clean
    attack: AnyAttack
    threat: Threat
    goal: Goal
    search: Search = field(default_factory=Search)
    others: tuple[tuple[Model, Clean], ...] = ()
    bounds: Bounds | None = None
    certify_seconds: float = 0.0
    fitting: Fitting | None = None
    given: Tensor | None = None
    starts: Data | None = None
    written: torch.dtype | None = None
    key: str = ""
    fingerprint: str = ""

    def __str__(self) -> str:
        return title(self.model.name, self.attack, self.threat, self.goal)

    def __getitem__(self, rows: Tensor) -> Work:
        """The same on some of the samples, a mask or indices."""
        return replace(
            self,
            data=self.data[rows],
            clean=self.clean[rows],
            others=tuple((model, clean[rows]) for model, clean in self.others),
            bounds=None if self.bounds is None else self.bounds[rows],
            given=None if self.given is None else self.given[rows],
        )

    @property
    def seen(self) -> Samples:
        """The samples as a search sees them."""
        data, clean, proven = self.data, self.clean, self.bounds
        pool = None if self.starts is None else Pool(self.starts.x, self.starts.y)
        bound, nearest = (None, None) if proven is None else (proven.distance.nan_to_num(0.0), proven.nearest)
        return Samples(
            data.x, data.y, data.ids, clean.scores, clean.prediction, self.given, bound, nearest, pool
        )


@dataclass(frozen=True)
class Finished:
    """A job's records, one row a sample and judge, and the inputs that the attack made (n, …), their z."""

    records: pd.DataFrame
    adversarial: Tensor
    z: Tensor

    def arrays(self) -> dict[str, np.ndarray]:
        """What the folder keeps: ids and inputs of what broke any model, and z where it is another."""
        own = self.records.loc[self.records["source_model"].isna()]
        every = (
            self.records["success"].to_numpy(dtype=bool).reshape(-1, len(own))
        )  # a row a model that judged
        won = every.any(0)
        found = {
            "ids": own["sample_id"].to_numpy(dtype="int64")[won],
            "adversarial": self.adversarial.numpy()[won],
        }
        if not torch.equal(self.z, self.adversarial):
            found["z"] = self.z.numpy()[won]
        return found


def carry_out(
    work: Work, run: str = "", artifact: str = "", progress: Progress = lambda fraction: None
) -> Finished:
    """Search, then judge on the model and on all others.

    run, artifact: the run's name and where its examples are stored, for the records. Raises what a model or
    an attack raises, `BoundBroken` and `Unsupported`.
    """
    forget_peak(work.model.device)
    outcome = attempt(work, progress)
    memory = peak_memory(work.model.device) / 2**20
    if work.written is not None and work.threat.over_inputs:
        how = work.written, work.threat.minimum, work.threat.domain
        outcome = replace(outcome, z=in_fewer_bits(outcome.z, work.data.x, *how))
    frames = [_records(work, outcome, work.model, work.clean, run, artifact).assign(memory_mib=memory)]
    frames += [_records(work, outcome, model, clean, run, artifact) for model, clean in work.others]
    adversarial = work.threat.render(outcome.z, work.data.x)
    return Finished(pd.concat(frames, ignore_index=True), adversarial, outcome.z)


def attempt(work: Work, progress: Progress = lambda fraction: None) -> Outcome:
    """The search alone."""
    attack = work.attack
    if isinstance(attack, Fitted):
        if work.fitting is None:
            return _left_out(work)
        attack = Applied(attack, work.fitting.artifact)
    return search(attack, work.model, work.threat, work.goal, work.seen, work.search, progress)


def _left_out(work: Work) -> Outcome:
    """What a fitted attack brings whose time was over before it had learnt anything."""
    target = targets_of(work.goal, work.model.task, work.seen, work.search)
    outcome = nothing_yet(work.threat, work.seen, target, work.model.precision)
    task = work.model.task
    outcome.cut.copy_(attackable(work.attack, task, work.threat, work.seen, target, work.search))
    return outcome


def _records(
    work: Work, outcome: Outcome, model: Model, clean: Clean, run: str, artifact: str
) -> pd.DataFrame:
    """The judge's word on what a search brought back; its cost is counted once, where it was sought."""
    data, own = work.data, model is work.model
    proven = work.bounds if own else None
    bound = None if proven is None or proven.alpha is not None else proven.distance
    originals = Originals(data.x, data.y, data.ids, clean, bound)
    verdict = judge(model, work.threat, work.goal, originals, outcome.z, outcome.target, work.search)
    columns = dict(vars(verdict))
    cut = outcome.cut.numpy()
    columns["outcome"] = _became(columns["outcome"], outcome, cut, own)
    for name, text in (("reason", "not attacked: a limit was reached"), ("reason_kind", Reason.UNATTACKED)):
        columns[name] = np.where(cut, str(text), columns[name])
    names = np.array([*outcome.attacks, None], dtype=object)
    stored = [artifact if won and own and artifact else None for won in verdict.success]
    fitting = work.fitting
    counted = {
        name: getattr(outcome, name).numpy() * own
        for name in ("forwards", "backwards", "seconds", "zero_gradients", "nans")
    }
    return frame(
        {
            **columns,
            **counted,
            **_in_units(data, work.threat.render(outcome.z, data.x)),
            "run": run,
            "data": data.name,
            "model": model.name,
            "family": model.family,
            "defense": model.defense or None,
            "source_model": None if own else work.model.name,
            "attack": str(work.attack),
            "attack_name": work.attack.name,
            "parameters": parameters_json(work.attack),
            "threat": str(work.threat),
            "threat_kind": work.threat.kind,
            "norm": None if work.threat.norm is None else str(work.threat.norm),
            "eps": work.threat.eps,
            "minimum": work.threat.minimum,
            "goal": str(work.goal),
            "sample_id": data.ids.numpy(),
            "task": model.task.kind,
            "label": None if data.y.dim() > 1 else data.y.numpy(),
            "clean_rejected": _rejected(model, clean),
            "winner": names[outcome.winner.numpy()],
            "lower_bound": None if proven is None else proven.distance.numpy(),
            "bound_kind": None if proven is None else np.array(proven.kinds, dtype=object),
            "bound_by": None if proven is None else proven.by,
            "bound_alpha": None if proven is None else proven.alpha,
            "queries_at_success": outcome.queries_at_success.numpy(),
            "fit_forwards": None if fitting is None else float(fitting.forwards),
            "fit_backwards": None if fitting is None else float(fitting.backwards),
            "fit_seconds": None if fitting is None else fitting.seconds,
            "certify_seconds": work.certify_seconds,
            "precision": outcome.precision,
            "surrogate": work.attack.access is Access.GRADIENT and not work.model.gradient_is_truth,
            "batch_draws": model.batch_draws or work.model.batch_draws or work.attack.batch_draws,
            "seed": work.search.seed,
            "artifact": np.array(stored, dtype=object),
            "job": work.key or None,
            "fingerprint": work.fingerprint or None,
        },
        len(data),
    )


def _rejected(model: Model, clean: Clean) -> np.ndarray | None:
    """Whether each sample is refused without an attack; None for a model that always answers."""
    return None if model.task.reject is None else model.task.rejected(clean.prediction).numpy()


def _became(judged: object, outcome: Outcome, cut: np.ndarray, own: bool) -> np.ndarray:
    """The judge's outcomes, with what only the search knows: limits, and answers of NaN on the way."""
    found = np.array(judged, dtype=object)
    met_nan = (outcome.nans > 0).numpy() & own & (found == str(Became.HELD))
    found[met_nan] = str(Became.NAN)
    found[cut & (found != str(Became.WRONG))] = str(Became.UNATTACKED)
    return found


def _in_units(data: Data, adversarial: Tensor) -> dict[str, object]:
    """Distances in the features' own units, for tables."""
    if data.units is None:
        return {}
    delta = (adversarial.double() - data.x.double()) * data.units
    return {
        f"l{name}_units": torch.linalg.vector_norm(delta, float(name), dim=1).numpy()
        for name in ("1", "2", "inf")
    }
