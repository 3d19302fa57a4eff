"""Who is told what a run does while it does it: progress bars, job systems, experiment trackers."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from robustbench_lite.core.errors import InvalidParameter, RobustError
from robustbench_lite.core.guard import one_line
from robustbench_lite.engines.engine import Done
from robustbench_lite.jobs.job import Job
from robustbench_lite.reports.results import Results

log = logging.getLogger(__name__)
EVERY = 1.0  # seconds between two lines of one thing that goes on


class Observer:
    """Is told what a run does; a subclass overrides what it wants to know, and changes nothing."""

    def planned(self, jobs: Sequence[Job], config: str) -> None:
        """Is told once, before the first job.

        Parameters
        ----------
        jobs : sequence of Job
            All of the run.
        config : str
            What the run is, as TOML.
        """

    def went_on(self, what: str, fraction: float) -> None:
        """Is told often.

        Parameters
        ----------
        what : str
            What is going on.
        fraction : float
            Of the whole, between 0 and 1; of that alone while a model is trained or bounds are proven
            (`is_aside`).
        """

    def carried_out(self, done: Done) -> None:
        """Is told what became of a job, in whatever order they end."""

    def ended(self, results: Results) -> None:
        """Is told once, when all that was found is written."""

    def closed(self) -> None:
        """Is told last, however the run came to its end."""


def is_aside(what: str) -> bool:
    """Whether what goes on is no job but something that jobs need, with a fraction of its own."""
    return what.startswith(("training ", "proving "))


def all_of(observers: Observer | Sequence[Observer]) -> Observer:
    """One observer that tells all others; raises `InvalidParameter` for what is none."""
    several = (observers,) if isinstance(observers, Observer) else tuple(observers)
    for one in several:
        if not isinstance(one, Observer):
            raise InvalidParameter("observers", one, "an Observer, or several")
    return _All(several)


class _All(Observer):
    """Tells others; one that fails is told nothing more, and stops nobody."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = list(observers)

    def planned(self, jobs: Sequence[Job], config: str) -> None:
        for one in self.observers:  # what cannot even begin is put right before hours are spent
            try:
                one.planned(jobs, config)
            except Exception as error:
                raise RobustError(f"{type(one).__name__} cannot begin: {one_line(error)}") from error

    def went_on(self, what: str, fraction: float) -> None:
        self._tell(lambda one: one.went_on(what, fraction))

    def carried_out(self, done: Done) -> None:
        self._tell(lambda one: one.carried_out(done))

    def ended(self, results: Results) -> None:
        self._tell(lambda one: one.ended(results))

    def closed(self) -> None:
        self._tell(lambda one: one.closed())

    def _tell(self, word: Callable[[Observer], None]) -> None:
        for one in list(self.observers):
            try:
                word(one)
            except Exception as error:  # a server that does not answer, say
                log.warning("%s is told nothing more: %s", type(one).__name__, one_line(error))
                self.observers.remove(one)


class Meter(Observer):
    """Counts what is done, how fast, and what was broken so far."""

    def __init__(self) -> None:
        self.jobs = self.done = self.failed = self.read = 0
        self.samples = self.attacked = self.right = self.broken = 0
        self.fraction = 0.0
        self.began = time.monotonic()

    def planned(self, jobs: Sequence[Job], config: str) -> None:
        self.jobs, self.began = len(jobs), time.monotonic()

    def went_on(self, what: str, fraction: float) -> None:
        if not self.jobs or is_aside(what):
            return
        self.fraction = fraction

    def carried_out(self, done: Done) -> None:
        self.done += 1
        self.read += done.read
        if done.records is None:
            self.failed += 1
            return
        own = done.records.loc[done.records["source_model"].isna()]
        self.samples += len(own)
        self.attacked += 0 if done.read else len(own)
        self.right += int((own["outcome"] != "wrong").sum())
        self.broken += int(own["success"].astype(bool).sum())

    @property
    def rate(self) -> float:
        """Samples a second since the first job began, those that an earlier run had done left out."""
        return self.attacked / max(time.monotonic() - self.began, 1e-9)

    @property
    def success(self) -> float | None:
        """Of the samples that models had right, the share that attacks have broken so far."""
        return self.broken / self.right if self.right else None

    @property
    def seconds_left(self) -> float | None:
        """At the pace up to now; None before there is one."""
        gone = self.fraction - self.read / max(self.jobs, 1)  # what an earlier run left took no time
        spent = time.monotonic() - self.began
        return spent * (1 - self.fraction) / gone if gone > 0 else None


class JsonLines(Meter):
    """Writes a JSON object a line: as each job ends, and once a second while one goes on.

    Keys: time (of the clock), what, fraction, jobs, done, failed, samples, samples_per_second, success,
    seconds_left. Of anything else that a reader should know: time, said.

    Parameters
    ----------
    stream : file, optional
        None: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self.stream = stream
        self.last = -EVERY

    def went_on(self, what: str, fraction: float) -> None:
        super().went_on(what, fraction)
        if time.monotonic() - self.last >= EVERY or (fraction == 1.0 and not is_aside(what)):
            self._say(what)

    def carried_out(self, done: Done) -> None:
        super().carried_out(done)
        self.fraction = self.done / self.jobs
        self._say(f"{done.job}: {'failed' if done.records is None else 'done'}")

    def said(self, text: str) -> None:
        """Write what is no progress: a warning, or how to go on."""
        self._write({"said": text})

    def _say(self, what: str) -> None:
        self.last = time.monotonic()
        facts = {
            "what": what,
            "fraction": round(self.fraction, 6),
            "jobs": self.jobs,
            "done": self.done,
            "failed": self.failed,
            "samples": self.samples,
            "samples_per_second": round(self.rate, 3),
            "success": self.success,
            "seconds_left": self.seconds_left,
        }
        self._write(facts)

    def _write(self, facts: Mapping[str, object]) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        print(json.dumps({"time": now, **facts}), file=self.stream or sys.stderr, flush=True)
