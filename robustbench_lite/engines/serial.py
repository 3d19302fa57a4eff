"""The serial engine: one job after the other, in this process; what is done already is read."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from robustbench_lite.engines.explanations import explanations
from robustbench_lite.jobs.job import Finished, Job, Work, carry_out
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.records.folder import Folder

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
    """Carry out jobs; those whose records the folder holds, of the same data and models, are read."""
    for index, job in enumerate(jobs):

        def progress(fraction: float, what: str = str(job), done: int = index) -> None:
            watch(what, (done + fraction) / len(jobs))

        progress(0.0)
        try:
            work = workshop.work(job)
            known = None if folder is None else folder.records_of(job.key(), work.fingerprint)
            learnt = _keep_learnt(work, job, folder)
            if known is not None:
                yield Done(job, known, learnt=learnt)
                continue
            names = ("", "") if folder is None else (folder.name, folder.artifact(job.key()))
            finished = carry_out(work, *names, progress)
        except Exception:  # whatever a model or an attack does, the other jobs still count
            yield Done(job, None, traceback.format_exc())
            continue
        if folder is not None:
            if pictures:
                _explain(work, finished, job, folder)
            folder.save(job.key(), finished.records, finished.arrays())
        yield Done(job, finished.records, learnt=learnt)


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
