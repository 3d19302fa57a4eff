"""The serial engine: one job after the other, in this process; what is done already is read."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from robustbench_lite.core.errors import RobustError
from robustbench_lite.engines.explanations import explanations
from robustbench_lite.jobs.job import Finished, Job, Work, carry_out
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.records.folder import Folder
from robustbench_lite.search.driver import Progress

GRACE = 10.0  # seconds
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What became of a job: its records, or the traceback of its failure; files it left beside them."""

    job: Job
    records: pd.DataFrame | None
    failure: str = ""
    learnt: tuple[str, ...] = ()


def serial(
    jobs: Sequence[Job], workshop: Workshop, folder: Folder | None, pictures: bool, watch: Watch
) -> Iterator[Done]:
    """Carry out jobs, one after the other."""
    for index, job in enumerate(jobs):

        def progress(fraction: float, what: str = str(job), done: int = index) -> None:
            watch(what, (done + fraction) / len(jobs))

        progress(0.0)
        yield done_by(job, workshop, folder, pictures, progress)


def done_by(job: Job, workshop: Workshop, folder: Folder | None, pictures: bool, progress: Progress) -> Done:
    """Carry out a job, or read its records where the folder holds them, of the same data and models."""
    try:
        work = workshop.work(job)
        known = None if folder is None else folder.records_of(job.key(), work.fingerprint)
        learnt = _keep_learnt(work, job, folder)
        if known is not None:
            return Done(job, known, learnt=learnt)
        names = ("", "") if folder is None else (folder.name, folder.artifact(job.key()))
        with ended_by(job.search.time_limit):
            finished = carry_out(work, *names, progress)
    except Exception:  # whatever a model or an attack does, the other jobs still count
        return Done(job, None, traceback.format_exc())
    if folder is not None:
        if pictures:
            _explain(work, finished, job, folder)
        folder.save(job.key(), finished.records, finished.arrays())
    return Done(job, finished.records, learnt=learnt)


class Hung(RobustError):
    """A model or an attack that does not come back long after its time limit."""


@contextlib.contextmanager
def ended_by(limit: float | None) -> Iterator[None]:
    """End what runs twice as long as its time limit and ten seconds more; in the main thread only."""
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if limit is None or not able:
        yield
        return
    patience = 2 * limit + GRACE

    def give_up(number: int, frame: object) -> None:
        raise Hung(f"still at work after {patience:g} s, with a time limit of {limit:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, patience)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _keep_learnt(work: Work, job: Job, folder: Folder | None) -> tuple[str, ...]:
    """Keep what a fitted attack learnt; the name of its file."""
    if folder is None or work.fitting is None:
        return ()
    arrays = {key: _array(value) for key, value in work.fitting.artifact.items()}
    key = json.dumps([work.fingerprint, job.model, job.attack, job.parameters, job.threat, job.goal])
    return (folder.save_learnt(str(work), key, arrays),)


def _array(value: Tensor) -> np.ndarray:
    array: np.ndarray = value.detach().cpu().numpy()
    return array


def _explain(work: Work, finished: Finished, job: Job, folder: Folder) -> None:
    """Keep what a reader is shown; a model that fails at it loses nothing but the pictures."""
    try:
        shown = explanations(work, finished)
    except Exception as error:
        log.warning("no pictures of %s: %s", job, error)
        return
    if shown is not None:
        folder.save_pictures(job.key(), shown)
