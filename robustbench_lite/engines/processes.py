"""The engine of processes: jobs side by side in workers on this machine, each with a device or cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import cast

import torch

from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.settings import Search
from robustbench_lite.engines.engine import PAUSE, Agenda, Done, carried, kept, wait_for_others
from robustbench_lite.jobs.job import Job
from robustbench_lite.jobs.make import Source, Watch, Workshop
from robustbench_lite.records.folder import Folder

INTERVAL = 0.2  # seconds between two words of how far a job has come
PATIENCE = 5.0  # seconds that a worker has to end by itself


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker makes its workshop of, and where it works: texts and numbers only."""

    source: Source
    search: Search
    folder: Folder | None
    pictures: bool
    threads: int


@dataclass(eq=False)
class Worker:
    """A process, the pipe to it, and what it is at.

    models: those it has loaded, for whose jobs it is asked first.
    """

    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    fraction: float = 0.0
    models: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Processes:
    """Carries out jobs side by side in workers on this machine, each with a device or a share of the cores.

    Every worker loads data and models once. One that dies is replaced, and its job tried again; a job that
    has taken three workers with it is written down as failed. Records are those of the serial engine, row for
    row, as far as arithmetic does not depend on the number of threads.

    Parameters
    ----------
    workers : int
        Processes, at least 1; no more are started than there are jobs.
    """

    workers: int

    def run(self, agenda: Agenda, pictures: bool, watch: Watch) -> Iterator[Done]:
        """Carry out what an agenda holds; see `Engine`.

        Raises
        ------
        RobustError
            For live objects, which exist in this process only.
        OSError
            Where records cannot be written.
        """
        check_names_only(agenda)
        pool = _WorkerPool(agenda, _settings_of_workers(agenda, pictures, self.workers))
        try:
            while agenda.unfinished:
                yield from pool.hand_out()
                told = pool.listen()
                if isinstance(told, Done):
                    yield told
                elif told is not None:
                    watch(str(told), pool.fraction)
        finally:
            pool.stop()


class _WorkerPool:
    """The workers, which are started when there is something to do."""

    def __init__(self, agenda: Agenda, settings: Sequence[WorkerSettings]) -> None:
        self.agenda, self.settings = agenda, settings
        self.workers: list[Worker | None] = [None] * len(settings)

    @property
    def busy(self) -> list[Worker]:
        """The workers that are at a job."""
        return [worker for worker in self.workers if worker is not None and worker.job is not None]

    @property
    def fraction(self) -> float:
        """How much of all jobs is done."""
        return self.agenda.fraction(sum(worker.fraction for worker in self.busy))

    def hand_out(self) -> Iterator[Done]:
        """Give every idle worker a job; yield those whose records are there."""
        for place in range(len(self.workers)):
            worker = self.workers[place]
            while worker is None or worker.job is None:
                taken = self.agenda.take(self._choice_of(worker))
                if taken is None:
                    return
                if isinstance(taken, Done):
                    yield taken
                    continue
                worker = worker or _started(self.settings[place])
                self.workers[place] = worker
                try:
                    worker.pipe.send(taken)
                except OSError:  # it died while it had nothing to do, which is not the job's fault
                    self.agenda.hand_back(taken)
                    _stop(worker)
                    worker = None
                    continue
                worker.job = taken
                worker.models.add(taken.model)

    def listen(self) -> Job | Done | None:
        """Wait for a word of a worker: a job that came further, what became of one; None: nobody has one."""
        busy = {worker.pipe: worker for worker in self.busy}
        if not busy:
            if self.agenda.waiting:
                wait_for_others()
            return None
        for pipe in wait(list(busy), PAUSE if self.agenda.waiting else None):
            worker = busy[cast(Connection, pipe)]
            try:
                answer: Done | OSError | float = worker.pipe.recv()
            except (EOFError, OSError):
                return self._bury(worker)
            if isinstance(answer, OSError):
                raise answer
            job = worker.job
            if isinstance(answer, Done):
                worker.job, worker.fraction = None, 0.0
                return self.agenda.end(answer)
            worker.fraction = answer
            return job
        return None

    def stop(self) -> None:
        """End all workers."""
        for worker in self.workers:
            if worker is not None:
                _stop(worker)

    def _choice_of(self, worker: Worker | None) -> Callable[[Sequence[Job]], Job]:
        """The job a worker takes next: of a model it has, else of one that nobody has, else the first."""
        own = set() if worker is None else worker.models
        taken = set[str]().union(*(one.models for one in self.workers if one is not None))

        def choose(jobs: Sequence[Job]) -> Job:
            had = (job for job in jobs if job.model in own)
            free = (job for job in jobs if job.model not in taken)
            return next(had, next(free, jobs[0]))

        return choose

    def _bury(self, worker: Worker) -> Done | None:
        """Do without a worker that died; its job is tried again, or has failed."""
        worker.process.join(PATIENCE)
        job = worker.job
        assert job is not None
        self.workers[self.workers.index(worker)] = None
        _stop(worker)
        return self.agenda.retry(job, f"its worker ended with status {worker.process.exitcode}")


def check_names_only(agenda: Agenda) -> None:
    """Raise `RobustError` for live objects: what is made anew elsewhere is made from its name."""
    texts = [text for job in agenda.jobs for text in (job.data, job.model, job.attack, job.threat)]
    if any(text.startswith("object:") for text in texts) or not isinstance(agenda.workshop.source.data, str):
        raise RobustError(
            "workers make everything anew from its name; live objects have none: use one worker"
        )


def _settings_of_workers(agenda: Agenda, pictures: bool, workers: int) -> list[WorkerSettings]:
    """One a worker: GPUs in turn where there are several, else a share of the cores."""
    shop, workers = agenda.workshop, min(workers, len(agenda.jobs))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // workers)
    found = []
    for number in range(workers):
        device = str(shop.device)
        if device == "cuda" and torch.cuda.device_count() > 1:
            device = f"cuda:{number % torch.cuda.device_count()}"
        search = replace(shop.search, device=device)
        found.append(WorkerSettings(shop.source, search, agenda.folder, pictures, threads))
    return found


def _started(settings: WorkerSettings) -> Worker:
    """A new worker at a settings."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(settings, there), daemon=True)
    with _by_itself():
        process.start()
    there.close()
    return Worker(process, here)


@contextlib.contextmanager
def _by_itself() -> Iterator[None]:
    """Start a process that imports nothing of the script that is running, and leaves Ctrl-C to this one.

    Jobs are texts: the script is not needed, and without a guard would start workers of its own.
    """
    script = sys.modules["__main__"]
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, and end too, whatever is going on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _stop(worker: Worker) -> None:
    """End a worker, in good order where it waits, at once where it works."""
    worker.pipe.close()
    if worker.job is not None:
        worker.process.terminate()
    worker.process.join(PATIENCE)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _work(settings: WorkerSettings, pipe: Connection) -> None:
    """What a worker does: jobs, until nobody sends any more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(sys.stderr.fileno(), 1)  # what a model prints is not what the command prints
    torch.set_num_threads(settings.threads)
    workshop: Workshop | None = None
    last = 0.0

    def progress(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > INTERVAL:
            last = now
            pipe.send(fraction)

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionError, KeyboardInterrupt):
        while True:
            job: Job = pipe.recv()
            try:
                workshop = workshop or Workshop(settings.source, settings.search, shelf=settings.folder)
            except Exception:  # data that can no longer be read, say
                pipe.send(Done(job, None, traceback.format_exc()))
                continue
            left = carried(job, workshop, settings.folder, settings.pictures, progress)
            try:
                pipe.send(kept(left, settings.folder))
            except OSError as error:  # nothing can be written any more, which ends the run
                pipe.send(error)
