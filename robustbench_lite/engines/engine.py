"""What an engine is: it takes jobs from an agenda, has them carried out, and yields what became of each."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from robustbench_lite.core.errors import RobustError
from robustbench_lite.engines.explanations import explanations
from robustbench_lite.jobs.job import Finished, Job, Work, carry_out
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.records.folder import Claim, Folder
from robustbench_lite.search.attack import Fitted
from robustbench_lite.search.driver import Progress

GRACE = 10.0  # seconds
TRIES = 3  # of a job whose worker is lost
PAUSE = 0.5  # seconds between two looks at jobs that other processes are at
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What became of a job: its records, or the traceback of its failure; files it left beside them.

    read: whether its records were there before.
    """

    job: Job
    records: pd.DataFrame | None
    failure: str = ""
    learnt: tuple[str, ...] = ()
    read: bool = False


@dataclass(frozen=True)
class Carried:
    """What carrying out a job left, before it is kept: arrays of its adversarial examples and pictures.

    learnt: what a fitted attack learnt.
    """

    job: Job
    records: pd.DataFrame | None = None
    failure: str = ""
    fingerprint: str = ""
    adversarial: Mapping[str, np.ndarray] = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] | None = None
    learnt: Mapping[str, np.ndarray] | None = None


class Engine(Protocol):
    """A way to carry out jobs: in this process, in several, on many machines."""

    def run(self, agenda: Agenda, pictures: bool, watch: Watch) -> Iterator[Done]:
        """Carry out what an agenda holds, and yield what became of every job, in any order.

        Parameters
        ----------
        agenda : Agenda
        pictures : bool
            Whether what a report shows of samples is kept.
        watch : callable
            Called with (what is going on, fraction of the whole).
        """


class Agenda:
    """The jobs of a run that nobody has done yet, as far as this process can tell.

    A job whose records are in the folder, of the same data and models, is read; one that another process is
    carrying out there waits until its records come, or that process is gone.

    Parameters
    ----------
    jobs : sequence of Job
    workshop : Workshop
    folder : Folder, optional
        None: nothing is kept, and nobody else is at work.
    stop_after : float, optional
        Seconds after which no job is begun; None: as long as it takes.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        workshop: Workshop,
        folder: Folder | None,
        stop_after: float | None = None,
    ) -> None:
        self.jobs, self.workshop, self.folder = jobs, workshop, folder
        self.deadline = None if stop_after is None else time.monotonic() + stop_after
        self.waiting = list(jobs)
        self.again: list[Job] = []  # whose worker was lost
        self.tries: Counter[Job] = Counter()
        self.interrupted = False  # set from outside: what is not begun is given up
        self.given_up: list[Job] = []
        self.finished = 0
        self._claims: dict[Job, Claim] = {}

    @property
    def unfinished(self) -> bool:
        """Whether there is a job that something is still to become of."""
        return self.finished + len(self.given_up) < len(self.jobs)

    @property
    def stopping(self) -> bool:
        """Whether no job is begun any more."""
        return self.interrupted or (self.deadline is not None and time.monotonic() >= self.deadline)

    def take(self, choose: Callable[[Sequence[Job]], Job] = lambda jobs: jobs[0]) -> Job | Done | None:
        """The job that is chosen, now held by this process; what became of it, where its records are there.

        None where nothing is left, or what is left is held by other processes.
        """
        if self.again:
            return self.again.pop()
        if self.interrupted:
            self.given_up = self.waiting
            return None
        stopping, others = self.stopping, list(self.waiting)
        while others:
            job = choose(others)
            others.remove(job)
            claim = None
            done = self._read(job)
            if done is None and stopping:  # what is done is read all the same
                continue
            if done is None and self.folder is not None:
                claim = self.folder.claim(job.key())
                if claim is None:
                    continue
                done = self._read(job)  # another process may have ended it just before
            if done is None:
                self.waiting.remove(job)
                if claim is not None:
                    self._claims[job] = claim
                return job
            if claim is not None:
                claim.release()
            self.waiting.remove(job)
            self.finished += 1
            return done
        if stopping:
            self.given_up = self.waiting
        return None

    def end(self, done: Done) -> Done:
        """Note what became of a job that was taken, and hold it no longer."""
        self.finished += 1
        claim = self._claims.pop(done.job, None)
        if claim is not None:
            claim.release()
        return done

    def retry(self, job: Job, said: str) -> Done | None:
        """Have a job tried again whose worker was lost; the failure it is when that was the last try."""
        self.tries[job] += 1
        log.warning("%s: %s, try %d of %d", job, said, self.tries[job], TRIES)
        if self.tries[job] < TRIES:
            self.again.append(job)
            return None
        return self.end(Done(job, None, f"RobustError: {said}, {TRIES} times"))

    def hand_back(self, job: Job) -> None:
        """Have a job taken anew that was never begun."""
        self.again.append(job)

    def close(self) -> None:
        """Hold nothing any longer."""
        for claim in self._claims.values():
            claim.release()
        self._claims.clear()

    def fraction(self, under_way: float = 0.0) -> float:
        """How much of all jobs is done; under_way: the sum of what is done of those that are begun."""
        return min(1.0, (self.finished + under_way) / len(self.jobs))

    def _read(self, job: Job) -> Done | None:
        if self.folder is None or not self.folder.holds(job.key()):
            return None
        fingerprint = self.workshop.fingerprint(job)
        known = self.folder.records_of(job.key(), fingerprint)
        if known is None:
            return None
        learns = isinstance(self.workshop.attack(job.attack), Fitted)
        name = self.folder.learnt_name(_key_of_learnt(job, fingerprint)) if learns else None
        return Done(job, known, learnt=() if name is None else (name,), read=True)


def carried(
    job: Job, workshop: Workshop, folder: Folder | None, pictures: bool, progress: Progress
) -> Carried:
    """Carry out a job and keep nothing of it; the folder is asked for names alone."""
    try:
        work = workshop.work(job)
        names = ("", "") if folder is None else (folder.name, folder.artifact(job.key()))
        with ended_by(job.search.time_limit):
            finished = carry_out(work, *names, progress)
    except Exception:  # whatever a model or an attack does, the other jobs still count
        return Carried(job, failure=traceback.format_exc())
    learnt = None
    if work.fitting is not None:
        learnt = {key: value.detach().cpu().numpy() for key, value in work.fitting.artifact.items()}
        learnt["title"] = np.array(str(work))
    first = job.begin == 0  # of the slices of a cell; the others look like it
    shown = _explained(work, finished, job) if pictures and first and folder is not None else None
    return Carried(job, finished.records, "", work.fingerprint, finished.arrays(), shown, learnt)


def kept(left: Carried, folder: Folder | None) -> Done:
    """Write into the folder what a job left; with its records, last of all, it is done."""
    if folder is None or left.records is None:
        return Done(left.job, left.records, left.failure)
    key = left.job.key()
    names: tuple[str, ...] = ()
    if left.learnt is not None:
        names = (folder.save_learnt(_key_of_learnt(left.job, left.fingerprint), left.learnt),)
    if left.pictures is not None:
        folder.save_pictures(key, left.pictures)
    folder.save(key, left.records, left.adversarial)
    return Done(left.job, left.records, learnt=names)


def _key_of_learnt(job: Job, fingerprint: str) -> str:
    """What keys that which a fitted attack learns: all slices of the samples share it."""
    return json.dumps([fingerprint, job.model, job.attack, job.parameters, job.threat, job.goal])


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


def _explained(work: Work, finished: Finished, job: Job) -> dict[str, np.ndarray] | None:
    """What a reader is shown; a model that fails at it loses nothing but the pictures."""
    try:
        return explanations(work, finished)
    except Exception as error:
        log.warning("no pictures of %s: %s", job, error)
        return None


def wait_for_others() -> None:
    """Wait a little for jobs that other processes hold."""
    time.sleep(PAUSE)
