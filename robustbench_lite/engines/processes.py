"""The engine of processes: jobs side by side in workers on this machine, each with a device or cores."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.settings import Search
from robustbench_lite.engines.serial import Done, done_by
from robustbench_lite.jobs.job import Job
from robustbench_lite.jobs.make import Source, Watch, Workshop
from robustbench_lite.records.folder import Folder

TRIES = 3  # of a job whose worker dies
INTERVAL = 0.2  # seconds between two words of how far a job has come
PATIENCE = 5.0  # seconds that a worker has to end by itself
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker makes its workshop of, and where it works: texts and numbers only."""

    source: Source
    search: Search
    folder: Folder | None
    pictures: bool
    threads: int


@dataclass
class Worker:
    """A process, the pipe to it, and what it is at.

    models: those it has loaded, for whose jobs it is asked first.
    """

    process: BaseProcess
    pipe: Connection
    job: int | None = None
    fraction: float = 0.0
    models: set[str] = field(default_factory=set)


def side_by_side(
    jobs: Sequence[Job], workshop: Workshop, folder: Folder | None, pictures: bool, watch: Watch, workers: int
) -> Iterator[Done]:
    """Carry out jobs side by side, and yield what became of them in their order.

    Every worker loads data and models once. One that dies is replaced, and its job tried again; a job that
    has taken three workers with it is written down as failed. Records are those of the serial engine, row for
    row, as far as arithmetic does not depend on the number of threads.

    Parameters
    ----------
    jobs : sequence of Job
    workshop : Workshop
    folder : Folder, optional
    pictures : bool
    watch : callable
    workers : int
        Processes, at least 1; no more are started than there are jobs.

    Yields
    ------
    Done
        One a job.

    Raises
    ------
    RobustError
        For live objects, which exist in this process only.
    """
    _check(jobs, workshop)
    pool = _WorkerPool(jobs, _settings_of_workers(workshop, folder, pictures, min(workers, len(jobs))))
    try:
        for index in range(len(jobs)):
            while index not in pool.done:
                pool.hand_out()
                told = pool.listen()
                if told is not None:
                    watch(str(jobs[told]), pool.fraction)
            yield pool.done.pop(index)
    finally:
        pool.stop()


class _WorkerPool:
    """The workers, the jobs that wait for one, and what became of the others."""

    def __init__(self, jobs: Sequence[Job], settings: Sequence[WorkerSettings]) -> None:
        self.jobs, self.settings = jobs, settings
        self.waiting = list(range(len(jobs)))
        self.tries = [0] * len(jobs)
        self.done: dict[int, Done] = {}
        self.finished = 0
        self.workers = [_started(one) for one in settings]

    @property
    def fraction(self) -> float:
        """How much of all jobs is done."""
        return min(1.0, (self.finished + sum(w.fraction for w in self.workers)) / len(self.jobs))

    def hand_out(self) -> None:
        """Give every idle worker a job."""
        for place, worker in enumerate(self.workers):
            if worker.job is None and self.waiting:
                index = self._next_for(worker)
                self.waiting.remove(index)
                try:
                    worker.pipe.send(self.jobs[index])
                except OSError:  # it died while it had nothing to do, which is not the job's fault
                    self.waiting.insert(0, index)
                    _stop(worker)
                    self.workers[place] = _started(self.settings[place])
                    continue
                worker.job = index
                worker.models.add(self.jobs[index].model)

    def listen(self) -> int | None:
        """Wait for a word from workers: a job that came further; None where one is over, or nobody works."""
        busy = [worker.pipe for worker in self.workers if worker.job is not None]
        ready = wait(busy) if busy else []
        further = None
        for place, worker in enumerate(list(self.workers)):
            if worker.job is None or worker.pipe not in ready:
                continue
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                self._replace(place)
                continue
            if isinstance(answer, Done):
                self._note(worker.job, answer)
                worker.job, worker.fraction = None, 0.0
            else:
                worker.fraction = float(answer)
                further = worker.job
        return further

    def stop(self) -> None:
        """End all workers."""
        for worker in self.workers:
            _stop(worker)

    def _note(self, index: int, done: Done) -> None:
        self.done[index] = done
        self.finished += 1

    def _next_for(self, worker: Worker) -> int:
        """The job a worker takes next: of a model it has, else of one that nobody has, else the first."""
        taken = set[str]().union(*(other.models for other in self.workers if other is not worker))
        own = (i for i in self.waiting if self.jobs[i].model in worker.models)
        free = (i for i in self.waiting if self.jobs[i].model not in taken)
        return next(own, next(free, self.waiting[0]))

    def _replace(self, place: int) -> None:
        """A new worker in the place of one that died; its job waits again, or has failed."""
        worker = self.workers[place]
        worker.process.join(PATIENCE)
        index = worker.job
        assert index is not None
        self.tries[index] += 1
        said = f"its worker ended with status {worker.process.exitcode}"
        log.warning("%s: %s, try %d of %d", self.jobs[index], said, self.tries[index], TRIES)
        if self.tries[index] < TRIES:
            self.waiting.insert(0, index)
        else:
            self._note(index, Done(self.jobs[index], None, f"RobustError: {said}, {TRIES} times"))
        _stop(worker)
        self.workers[place] = _started(self.settings[place])


def _check(jobs: Sequence[Job], workshop: Workshop) -> None:
    live = [text for job in jobs for text in (job.data, job.model, job.attack, job.threat) if _is_live(text)]
    if live or not isinstance(workshop.source.data, str):
        raise RobustError(
            "workers make everything anew from its name; live objects have none: use one worker"
        )


def _is_live(text: str) -> bool:
    return text.startswith("object:")


def _settings_of_workers(
    workshop: Workshop, folder: Folder | None, pictures: bool, workers: int
) -> list[WorkerSettings]:
    """One a worker: GPUs in turn where there are several, else a share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // workers)
    found = []
    for number in range(workers):
        device = str(workshop.device)
        if device == "cuda" and torch.cuda.device_count() > 1:
            device = f"cuda:{number % torch.cuda.device_count()}"
        search = replace(workshop.search, device=device)
        found.append(WorkerSettings(workshop.source, search, folder, pictures, threads))
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
                workshop = workshop or Workshop(settings.source, settings.search)
            except Exception:  # data that can no longer be read, say
                pipe.send(Done(job, None, traceback.format_exc()))
                continue
            pipe.send(done_by(job, workshop, settings.folder, settings.pictures, progress))
