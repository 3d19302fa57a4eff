"""Making jobs real: names become data, models, attacks, threats and goals, each once a process."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

import numpy as np
import torch

import robustbench_lite
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.certify.certifier import certifiers
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData, RobustError, UnknownName
from robustbench_lite.core.goal import Goal, parse_goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.random import Stream
from robustbench_lite.core.registry import entries
from robustbench_lite.core.settings import Search
from robustbench_lite.core.structure import SOLVED
from robustbench_lite.core.threat import Threat
from robustbench_lite.data.data import Data, chosen
from robustbench_lite.data.load import DataLike, load_data
from robustbench_lite.jobs.job import Job, Work
from robustbench_lite.jobs.proofs import Proof, prove
from robustbench_lite.judging.judge import Clean, look_clean
from robustbench_lite.models.cache import cache_folder
from robustbench_lite.models.load import ModelLike, load_model
from robustbench_lite.records.folder import Folder
from robustbench_lite.records.once import once
from robustbench_lite.search.attack import AnyAttack, Attack, Fitted
from robustbench_lite.search.driver import Samples
from robustbench_lite.search.fitting import Fitting, OutOfTime, fit
from robustbench_lite.threats.named import parse_threat

LITTLE = 0.5  # effort below which bounds are shared among goals
POOL = 2000  # samples that attacks may begin at
WORTH = 1.0  # seconds of proving from which what was proven is kept for other runs
Watch = Callable[[str, float], None]


@dataclass(frozen=True)
class Source:
    """Which data a run is about.

    Parameters
    ----------
    data : str or Data
    samples : int, optional
        How many of the test split, chosen by the seed; None: all.
    data_dir : str, optional
    download : bool, default False
    """

    data: DataLike
    samples: int | None = None
    data_dir: str | None = None
    download: bool = False


class Workshop:
    """Makes what jobs name, and keeps it: live objects are known as `object:…` in this process only.

    Parameters
    ----------
    source : Source
    search : Search
    watch : callable
        Called with (what is going on, fraction of it).
    shelf : Folder, optional
        Of a run, where what is proven and learnt is kept for other processes and for a resume; None: it is
        made anew in each.
    """

    def __init__(
        self,
        source: Source,
        search: Search,
        watch: Watch = lambda what, fraction: None,
        shelf: Folder | None = None,
    ) -> None:
        self.source, self.search, self.watch, self.shelf = source, search, watch, shelf
        self.device = find_device(search.device)
        self.objects: dict[str, object] = {}
        self.data = load_data(
            source.data, "test", source.samples, source.data_dir, search.seed, source.download
        )
        self._data_fingerprint = self.data.fingerprint()
        live = f"object:{self._data_fingerprint[:16]}"
        self.data_text = source.data if isinstance(source.data, str) else live
        self._attacks: dict[str, AnyAttack] = {}
        self._threats: dict[str, Threat] = {}
        self._models: dict[str, Model] = {}
        self._named: dict[tuple[str, str], Model] = {}
        self._clean: dict[str, Clean] = {}
        self._proofs: dict[tuple[str, str, str], Proof] = {}
        self._fittings: dict[tuple[str, ...], Fitting | None] = {}

    def text_of_model(self, model: ModelLike) -> str:
        """The text that a job names a model by."""
        if isinstance(model, str):
            return model
        made = load_model(model, self.data, self.device)
        text = f"object:{made.fingerprint()[:16]}:{made.name}"
        self._models[text] = made
        return text

    def text_of_attack(self, attack: str | AnyAttack) -> str:
        """The text that a job names an attack by: its own where that makes the same attack again."""
        if isinstance(attack, str):
            return attack
        attack = get_attack(attack)
        try:
            if get_attack(str(attack)) == attack:
                return str(attack)
        except (RobustError, UnknownName):
            pass
        try:
            code = inspect.getsource(type(attack))
        except (OSError, TypeError):
            code = type(attack).__qualname__
        text = f"object:{hashlib.sha256(f'{attack!r} {code}'.encode()).hexdigest()[:16]}"
        self.objects[text] = attack
        return text

    def text_of_threat(self, threat: str | Threat | tuple[str, object]) -> str:
        """The text that a job names a threat by."""
        if isinstance(threat, tuple):
            threat = ":".join(map(str, threat))
        if isinstance(threat, str):
            return threat
        threat = parse_threat(threat)
        if threat.domain.fingerprint() == Domain().fingerprint():  # none of its own
            threat = threat.within(self.data.domain)
        text = f"object:{hashlib.sha256(identity_of(threat).encode()).hexdigest()[:16]}"
        self.objects[text] = threat
        return text

    def model(self, text: str) -> Model:
        """The model of a text, trained or read once."""
        if text not in self._models:
            if text.startswith("object:"):
                raise RobustError(f"model {text}: a live object exists in the process that made it only")
            self._models[text] = load_model(
                text, self.data, self.device, self.search.seed, lambda w, f: self.watch(f"training {w}", f)
            )
        return self._models[text]

    def model_named(self, text: str, name: str) -> Model:
        """The model of a text under the name that reports call it by."""
        if (text, name) not in self._named:
            held = copy.copy(self.model(text))
            held.name = name
            self._named[text, name] = held
        return self._named[text, name]

    def rows(self, samples: int | None) -> torch.Tensor:
        """Which of the data's rows are so many samples, chosen as `load_data` chooses them; None: all."""
        if samples is None or samples >= len(self.data):
            return torch.arange(len(self.data))
        return torch.isin(self.data.ids, chosen(self.data.ids, samples, self.search.seed)).nonzero()[:, 0]

    def clean(self, text: str) -> Clean:
        """What a model says of all samples without an attack."""
        if text not in self._clean:
            data = self.data
            self._clean[text] = look_clean(self.model(text), data.x, data.y, data.ids, self.search)
        return self._clean[text]

    def attack(self, text: str) -> AnyAttack:
        """The attack of a text."""
        if text not in self._attacks:
            held = self.objects.get(text)
            self._attacks[text] = held if isinstance(held, Attack) else get_attack(text)
        return self._attacks[text]

    def threat(self, text: str) -> Threat:
        """The threat of a text, in the data's domain."""
        if text not in self._threats:
            held = self.objects.get(text)
            made = parse_threat(text, self.data.domain) if held is None else cast(Threat, held)
            self._threats[text] = made
        return self._threats[text]

    def goal(self, text: str) -> Goal:
        """The goal of a text."""
        return parse_goal(text)

    def work(self, job: Job) -> Work:
        """What a job becomes; what it learns or proves beforehand is learnt and proven now."""
        made = self.outline(job)
        proof = self._proven(job)
        rows = self.rows(job.samples)[job.begin : job.end]
        bounds = None if proof.bounds is None else proof.bounds[rows]
        return replace(made, bounds=bounds, certify_seconds=proof.seconds, fitting=self._learnt(job, made))

    def outline(self, job: Job) -> Work:
        """The same without what is learnt and proven."""
        rows = self.rows(job.samples)[job.begin : job.end]
        model = self.model_named(job.model, job.name)
        return Work(
            self.data[rows],
            model,
            self.clean(job.model)[rows],
            self.attack(job.attack),
            self.threat(job.threat),
            self.goal(job.goal),
            job.search,
            tuple((self.model_named(o.model, o.name), self.clean(o.model)[rows]) for o in job.others),
            starts=starts_for(self.attack(job.attack), self.data),
            key=job.key(),
            fingerprint=self.fingerprint(job),
        )

    def fingerprint(self, job: Job) -> str:
        """Hash of the data and the models that a job becomes; each of them is hashed once."""
        hashes = [self.model(text).fingerprint() for text in (job.model, *(o.model for o in job.others))]
        starts = starts_for(self.attack(job.attack), self.data)
        hashes += [] if starts is None else [starts.fingerprint()]
        return hashlib.sha256(" ".join([self._data_fingerprint, *hashes]).encode()).hexdigest()[:24]

    def _proven(self, job: Job) -> Proof:
        """What certifiers prove of all samples, once a model, norm, domain and goal."""
        threat = self.threat(job.threat)
        # What no other class can reach no target can: with little effort that is proven once, but for models
        # whose answers are exact.
        dear = not isinstance(self.model(job.model).structure, SOLVED)
        aim = self.goal(job.goal)
        alike = not (aim.nan or aim.rejection)  # no answer will do but another class
        goal = str(Goal()) if dear and alike and job.search.certify < LITTLE else job.goal
        key = job.model, f"{threat.norm} {threat.domain.fingerprint()}", goal
        if key not in self._proofs:

            def tell(fraction: float) -> None:
                self.watch(f"proving bounds of {job.name}, {threat.norm}", fraction)

            def proven() -> dict[str, np.ndarray]:
                clean, model = self.clean(job.model), self.model(job.model)
                found = prove(model, threat, self.goal(goal), self.data, clean, job.search, progress=tell)
                return found.arrays()

            asked = certifiers(self.model(job.model), threat, aim)
            own = all(type(one).__module__.startswith("robustbench_lite.") for one in asked)
            cached = own and type(self.model(job.model)).facts is not Model.facts
            # The code of others may be another tomorrow, and a model that does not tell what it is another.
            arrays = self._once("bounds", job, key[1:], proven, cached)
            self._proofs[key] = Proof.of_arrays(arrays)
        proof = self._proofs[key]
        if proof.bounds is not None and goal != job.goal:
            shared = replace(proof.bounds, exact=proof.bounds.exact & False, nearest=None)
            proof = replace(proof, bounds=shared)
        return proof

    def _once(
        self,
        what: str,
        job: Job,
        about: Sequence[str],
        make: Callable[[], Mapping[str, np.ndarray]],
        cached: bool = False,
    ) -> Mapping[str, np.ndarray]:
        """What is made of a job's data and model, or read where another process has made it.

        cached: in any run of the same user, where it took a while.
        """
        search = {f.name: getattr(job.search, f.name) for f in fields(Search) if f.metadata["shapes"]}
        told = [self._data_fingerprint, self.model(job.model).fingerprint(), search, *about]
        told += [_release(), sorted(entries("certifiers"))]
        key = json.dumps(told, sort_keys=True, default=str)

        def made() -> Mapping[str, np.ndarray]:
            name = hashlib.sha256(f"{key} {_code()}".encode()).hexdigest()
            return once(cache_folder() / what / f"{name}.npz", make, WORTH) if cached else make()

        return made() if self.shelf is None else self.shelf.once(what, key, made)

    def _learnt(self, job: Job, work: Work) -> Fitting | None:
        """What a fitted attack learns, once for all slices."""
        if not isinstance(work.attack, Fitted) or work.attack.refuses(work.model, work.threat, work.goal):
            return None
        key = job.model, job.attack, job.threat, job.goal, job.parameters
        if key not in self._fittings:

            def learnt() -> dict[str, np.ndarray]:
                return learn(work, self.data).arrays()

            try:
                training = self.data.training().fingerprint()
                arrays = self._once("fits", job, [*key[1:], str(work.attack.revision), training], learnt)
                self._fittings[key] = Fitting.of_arrays(arrays)
            except OutOfTime:
                self._fittings[key] = None
        return self._fittings[key]


def _release() -> str:
    """The version of this package, whose bounds are those of another no longer."""
    try:
        return version("robustbench-lite")
    except PackageNotFoundError:
        return ""


@functools.cache
def _code() -> str:
    """Hash of this package's code: what one state of it proved is not taken for what another would prove."""
    digest = hashlib.sha256(" ".join(version(name) for name in ("torch", "scipy")).encode())
    # In a checkout some packages are links to folders, which `Path.rglob` passes by.
    walked = os.walk(Path(robustbench_lite.__file__).parent, followlinks=True)
    for file in sorted(Path(place, name) for place, _, names in walked for name in names):
        if file.suffix == ".py":
            digest.update(file.read_bytes())
    return digest.hexdigest()


def starts_for(attack: AnyAttack, data: Data) -> Data | None:
    """Samples that an attack may begin at, where it asks for such: of the training split, if there is one."""
    if not attack.uses_starts:
        return None
    try:
        pool = data if data.source is None else data.training()
    except InvalidData:  # a file of samples for testing alone
        pool = data
    order = Stream.of(0, pool.ids).fold("starts").uniform((), torch.float64).argsort()
    return pool[order[:POOL].sort().values]


def learn(work: Work, data: Data) -> Fitting:
    """What the work's attack learns from the data's training split; raises `OutOfTime`."""
    assert isinstance(work.attack, Fitted)
    training, given = data.training(), work.given
    few = work.attack.learns_from()
    if few is not None and few < len(training):  # what is not learnt from is not looked at
        order = Stream.of(work.search.seed, training.ids).fold("learnt from").uniform((), torch.float64)
        rows = order.argsort()[:few].sort().values
        training, given = training[rows], None if given is None else given[rows]
    clean = look_clean(work.model, training.x, training.y, training.ids, work.search)
    samples = Samples(training.x, training.y, training.ids, clean.scores, clean.prediction, given)
    return fit(work.attack, work.model, work.threat, work.goal, samples, work.search)


def identity_of(threat: Threat) -> str:
    """Everything that makes a threat what it is, however it was written."""
    kept = [f for f in fields(threat) if f.compare and f.name != "domain"]  # type: ignore[arg-type]
    told = [f"{f.name}={getattr(threat, f.name)!r}" for f in kept]
    return f"{type(threat).__qualname__} {threat.kind} {' '.join(told)} {threat.domain.fingerprint()}"


def told_apart(models: Sequence[Model]) -> list[str]:
    """Names for models, the second of a name called `name#2`: records and tables know them by name."""
    found: list[str] = []
    for model in models:
        names = itertools.chain([model.name], (f"{model.name}#{times}" for times in itertools.count(2)))
        found.append(next(name for name in names if name not in found))
    return found


def find_device(name: str) -> torch.device:
    """auto: CUDA where there is one; raises `RobustError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RobustError(f"device {name!r}: must be auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        kind = getattr(torch, device.type, None)
        if kind is None or not hasattr(kind, "is_available") or not kind.is_available():
            raise RobustError(f"device {name!r}: this machine has none, or models do not run on it")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RobustError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device
