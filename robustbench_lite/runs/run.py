"""A run: plan the jobs, carry out those that are not there yet, keep every record."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import TypeVar

import pandas as pd
import torch

from robustbench_lite.certify.networks import why_not
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.model import Model
from robustbench_lite.core.settings import Search
from robustbench_lite.core.threat import Threat
from robustbench_lite.data.load import DataLike
from robustbench_lite.engines.engine import Agenda, Done, Engine
from robustbench_lite.engines.processes import Processes
from robustbench_lite.engines.ray import Ray
from robustbench_lite.engines.serial import Serial
from robustbench_lite.jobs.job import Job
from robustbench_lite.models.load import ModelLike
from robustbench_lite.records.folder import MANY, Folder, Told
from robustbench_lite.records.schema import read
from robustbench_lite.reports.build import rebuild
from robustbench_lite.reports.results import Results
from robustbench_lite.runs.config import ATTACKS, GOALS, THREATS, Config, as_toml
from robustbench_lite.runs.observers import Observer, all_of
from robustbench_lite.runs.plan import AnyCell, Plan, Subject, plan
from robustbench_lite.runs.shard import Shard
from robustbench_lite.runs.suite import every
from robustbench_lite.search.attack import AnyAttack, Attack

Thing = TypeVar("Thing")
PACKAGES = ("robustbench-lite", "numpy", "pandas", "scipy", "scikit-learn")
log = logging.getLogger(__name__)


def run(
    data: DataLike | None = None,
    models: Sequence[ModelLike] | None = None,
    attacks: Sequence[str | AnyAttack] | None = None,
    threats: Sequence[str | Threat] | None = None,
    search: Search | None = None,
    config: Config | None = None,
    out: str | Path | Folder | None = None,
    observers: Observer | Sequence[Observer] = (),
) -> Results:
    """Attack models on data and judge every sample.

    Parameters
    ----------
    data : str, Data, torch Dataset or pair (x, y), optional
        A name (`digits`, `mnist`, `folder:PATH`, …) or the user's own; of one's own all samples are taken
        unless `config.samples` says how many.
    models, attacks, threats : sequences, optional
        Names, or live models, `Attack` and `Threat` objects; None: the config's.
    search : Search, optional
        How attacks are carried out and judged; None: the config's.
    config : Config, optional
        Everything else: goals, samples, transfer, pictures; None: the suite `lectures`.
    out : path or Folder, optional
        Where records and tables go (None: nothing is written). To go on with a run, give
        `Folder.create(path, resume=True)`: jobs whose records are there are read, not run again.
    observers : Observer or sequence of them, optional
        Who is told what goes on: `JsonLines()`, `logger("tensorboard:FOLDER")`, or one's own.

    Returns
    -------
    Results
        `.table("summary")`, `.records`, `.failures`, …

    Raises
    ------
    RobustError
        For what the user can put right; a job that fails by itself is written down in `failures` and the run
        goes on.

    Examples
    --------
    >>> result = run("digits", ["linear"], ["exact"], ["linf:0.1"], config=Config(samples=20))
    >>> len(result.records)
    20
    """
    told = Config() if config is None else config
    if not isinstance(told, Config):
        raise InvalidParameter("config", config, "a Config")
    if search is not None and not isinstance(search, Search):
        raise InvalidParameter("search", search, "a Search")
    own = data is not None and not isinstance(data, str)
    values: dict[str, object] = {"search": told.search if search is None else search}
    if data is not None:
        values["data"] = _name(data)
    if own and "samples" not in told.model_fields_set:
        values["samples"] = None
    if models is not None:
        values["models"] = tuple(map(_name, _several(models, "models")))
    cells: Sequence[AnyCell] = told.cells
    if attacks is not None or threats is not None:
        met = _several(attacks, "attacks") if attacks is not None else told.attacks or ATTACKS
        asked = _several(threats, "threats") if threats is not None else told.threats or THREATS
        within = [":".join(map(str, one)) if isinstance(one, tuple) else one for one in asked]
        cells = every(met, within, told.goals or GOALS)
        named = tuple(map(_name, met)), tuple(map(_name, within))
        values |= {"suite": None, "attacks": named[0], "threats": named[1], "goals": told.goals or GOALS}
    settled = told.model_copy(update=values)
    subject = Subject(told.data if data is None else data, told.models if models is None else models, cells)
    made = plan(settled, subject, all_of(observers).went_on)
    folder = out if isinstance(out, Folder) or out is None else Folder.create(Path(out))
    return carry_out(made, settled, folder, observers)


def carry_out(
    plan: Plan, config: Config, folder: Folder | None, observers: Observer | Sequence[Observer] = ()
) -> Results:
    """Carry out the jobs of a plan; write what they found, the tables and the page."""
    observer = all_of(observers)
    try:
        return _results(plan, config, folder, observer)
    finally:
        observer.closed()


def _results(plan: Plan, config: Config, folder: Folder | None, observer: Observer) -> Results:
    done = _carried_out(plan.jobs, plan, config, folder, observer)
    observer.went_on("done", 1.0)
    records = _records(done, folder)
    told = _told(plan, done)
    results = Results(
        records, None if folder is None else folder.path, told.failures, told.refused, tuple(told.notes),
        tuple(told.class_names), missing=tuple(told.not_begun), finished=told.finished,
    )  # fmt: skip
    if folder is not None:
        folder.tell(told)
        if told.finished:
            folder.clear_locks()
        if len(records):
            observer.went_on("report", 1.0)
            try:
                rebuild([results.in_folder(folder)], ("html", "md", "csv"))
            except Exception:  # the records are there; a report can be made again
                log.exception("no report could be made; try: robust report %s", folder.path)
    observer.ended(results)
    return results


def carry_out_part(
    plan: Plan, config: Config, folder: Folder, part: Shard, observers: Sequence[Observer] = ()
) -> list[Done]:
    """Carry out a part of the jobs into a folder that all parts share.

    When all parts are done, the run is resumed there: it finds every record, and makes tables and page.
    """
    observer = all_of(observers)
    try:
        return _carried_out(part.of(plan.jobs), plan, config, folder, observer)
    finally:
        observer.closed()


def _carried_out(
    jobs: Sequence[Job], plan: Plan, config: Config, folder: Folder | None, observer: Observer
) -> list[Done]:
    """What became of jobs, in their order, whatever engine carried them out."""
    text = as_toml(config, resolved(plan))
    if folder is not None:
        _begin(plan, text, folder)
    observer.planned(jobs, text)
    if not jobs:  # more shards than jobs
        return []
    agenda = Agenda(jobs, plan.workshop, folder, config.stop_after)
    found: dict[Job, Done] = {}
    rows = 0
    try:
        with first_interrupt(lambda: _stop(agenda)):
            for done in engine_of(config).run(agenda, config.pictures, observer.went_on):
                observer.carried_out(done)
                found[done.job] = done
                rows += 0 if done.records is None else len(done.records)
                if folder is not None and rows > MANY:  # they are written: no need to hold them
                    found = {job: replace(one, records=None) for job, one in found.items()}
                    rows = 0
    finally:
        agenda.close()
    if agenda.interrupted:
        raise KeyboardInterrupt
    return [found[job] for job in jobs if job in found]


def _records(done: Sequence[Done], folder: Folder | None) -> pd.DataFrame:
    """All records of jobs, in the jobs' order: those that are held, or as the folder has them."""
    if folder is not None and any(one.records is None and not one.failure for one in done):
        return folder.records([one.job.key() for one in done if not one.failure])
    frames = [one.records for one in done if one.records is not None]
    return pd.concat(frames, ignore_index=True) if frames else read([])


def _stop(agenda: Agenda) -> None:
    """Give up the jobs that are not begun; called while anything may be going on."""
    agenda.interrupted = True
    os.write(2, b"\nending what is under way; Ctrl-C again stops at once\n")


@contextlib.contextmanager
def first_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """Act at the first Ctrl-C instead of stopping; the second stops. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        act()

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def engine_of(config: Config) -> Engine:
    """What carries out the jobs of a run."""
    if config.engine == "ray":
        return Ray(config.workers, config.ray_address, config.worker_cpus, config.worker_gpus)
    return Processes(config.workers) if config.workers > 1 else Serial()


def _begin(plan: Plan, text: str, folder: Folder) -> None:
    """Write down what is going to be done."""
    folder.text("config.toml", text)
    folder.tell(_told(plan, []).model_copy(update={"not_begun": []}))


def _told(plan: Plan, done: Sequence[Done]) -> Told:
    data, not_begun = plan.workshop.data, _not_begun(plan, done)
    models = [plan.workshop.model_named(one.model, one.name) for one in plan.models]
    notes = [
        *data.notes,
        *data.task.told(),
        *plan.notes,
        *(f"{m.name}: {note}" for m in models for note in m.notes),
        *_unproven(plan, models),
    ]
    return Told(
        refused=dict(plan.refused),
        failures={str(one.job): one.failure for one in done if one.failure},
        notes=list(dict.fromkeys(notes)),
        class_names=list(data.class_names),
        jobs=[job.key() for job in plan.jobs],
        not_begun=not_begun,
        finished=not not_begun,
        failed=[one.job.key() for one in done if one.failure],
        learnt=sorted({name for one in done for name in one.learnt}),
    )


def _unproven(plan: Plan, models: Sequence[Model]) -> list[str]:
    """Why networks have no linear bounds, where bounds are sought."""
    normed = any(plan.workshop.threat(job.threat).norm is not None for job in plan.jobs)
    if not normed or not plan.workshop.search.certify:
        return []
    told = [(one.name, why_not(one)) for one in models]
    return [f"{name}: no linear bounds: {why}" for name, why in told if why]


def _not_begun(plan: Plan, done: Sequence[Done]) -> list[str]:
    """Keys of the jobs that nothing has become of, because it was time to stop."""
    ended = {one.job for one in done}
    return [job.key() for job in plan.jobs if job not in ended]


def _several(things: Sequence[Thing], field: str) -> Sequence[Thing]:
    """One thing or more; a single name is no list."""
    if isinstance(things, str) or not isinstance(things, Sequence) or not things:
        raise InvalidParameter(field, things, f"a list of {field}, one at least")
    return things


def _name(thing: object) -> str:
    """What a config calls something that may be an object."""
    if isinstance(thing, str | Attack) or hasattr(thing, "contains"):
        return str(thing)
    if isinstance(thing, type) and issubclass(thing, Attack):
        return thing.name
    return str(
        getattr(thing, "name", "") or ("own data" if isinstance(thing, tuple) else type(thing).__name__)
    )


def resolved(plan: Plan) -> dict[str, object]:
    """What a config came to: versions, revision, hardware, attacks, and the hashes of data and models."""
    shop = plan.workshop
    facts: dict[str, object] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": str(shop.device),
        "hardware": _hardware(shop.device),
        "python": platform.python_version(),
        "git_revision": _git_revision(),
        "data_sha256": shop.data.fingerprint(),
    }
    facts |= {f"version {package}": _version(package) for package in PACKAGES}
    facts["version torch"] = str(torch.__version__)  # names its CUDA too
    facts |= {f"model_sha256 {one.name}": shop.model(one.model).fingerprint() for one in plan.models}
    attacks = {job.attack: shop.attack(job.attack) for job in plan.jobs}
    return facts | {f"attack {attack.name}": repr(attack) for attack in attacks.values()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _git_revision() -> str:
    """The project's own revision, where it runs from a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "none"
    return found.stdout.strip() or "none"
