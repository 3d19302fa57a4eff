"""The engine of Ray: jobs on the machines of a cluster; needs the extra `ray`."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from robustbench_lite.core.errors import RobustError
from robustbench_lite.engines.engine import (
    PAUSE,
    TRIES,
    Agenda,
    Carried,
    Done,
    carried,
    kept,
    wait_for_others,
)
from robustbench_lite.jobs.job import Job
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.records.folder import Folder

Actor = Any  # of Ray, which makes its types when it runs
Reference = Any
KNOCK = 5.0  # seconds


@dataclass(frozen=True)
class Ray:
    """Carries out jobs in workers that Ray places on the machines of a cluster.

    Data, models and attacks are sent once and shared by reference, live objects among them; what workers
    find comes back, and this process alone writes the folder: machines need no files in common. A worker that
    is lost, with its machine or without it, is replaced where there is room, and its job tried again.

    Parameters
    ----------
    workers : int, default 1
        At most so many, as the cluster has room for.
    address : str, optional
        Of the cluster: `auto`, `ray://host:10001`; None: one on this machine, for this run alone. A Ray that
        this process is connected to already is used as it is.
    cpus : int, default 1
        Cores that a worker is given, which it computes with.
    gpus : float, optional
        GPUs that a worker is given, such as 0.5; None: one where models run on CUDA, else none.
    """

    workers: int = 1
    address: str | None = None
    cpus: int = 1
    gpus: float | None = None

    def run(self, agenda: Agenda, pictures: bool, watch: Watch) -> Iterator[Done]:
        """Carry out what an agenda holds; see `Engine`.

        Raises
        ------
        RobustError
            Where Ray is not installed, or the cluster does not answer.
        OSError
            Where records cannot be written.
        """
        try:
            import ray
        except ImportError:
            raise RobustError("engine ray: needs the extra: pip install 'robustbench-lite[ray]'") from None

        mine = not ray.is_initialized()
        try:
            if mine:
                where = self.address or "local"
                _knock(where)
                ray.init(where, log_to_driver=False, logging_level="warning")
        except (OSError, ValueError, RuntimeError) as error:
            raise RobustError(f"engine ray: {self.address or 'local'}: {error}") from None
        try:
            team = _Team(self, agenda, pictures)
            try:
                watch("waiting for workers", agenda.fraction())
                while agenda.unfinished:
                    yield from team.hand_out()
                    for done in team.listen():
                        watch(str(done.job), agenda.fraction())
                        yield done
            finally:
                team.stop()
        finally:
            if mine:
                ray.shutdown()


class _Team:
    """The workers, those among them that have nothing to do, and what the others are at."""

    def __init__(self, engine: Ray, agenda: Agenda, pictures: bool) -> None:
        import ray

        shop = copy.copy(agenda.workshop)
        shop.watch = _nobody
        gpus = float(shop.device.type == "cuda") if engine.gpus is None else engine.gpus
        made: Actor = ray.remote(_Worker)
        made = made.options(num_cpus=engine.cpus, num_gpus=gpus)
        given = ray.put(shop), agenda.folder, pictures, engine.cpus
        self._new: Callable[[], Actor] = lambda: made.remote(*given)
        self.agenda = agenda
        self.actors: list[Actor] = []
        self.idle: list[Actor] = []
        self.at: dict[Reference, tuple[Actor, Job | None]] = {}
        self.stillborn = 0
        for _ in range(min(engine.workers, len(agenda.jobs))):
            self._start()

    def hand_out(self) -> Iterator[Done]:
        """Give every idle worker a job; yield those whose records are there."""
        while self.idle:
            taken = self.agenda.take()
            if taken is None:
                return
            if isinstance(taken, Done):
                yield taken
            else:
                actor = self.idle.pop()
                self.at[actor.carry_out.remote(taken)] = actor, taken

    def listen(self) -> Iterator[Done]:
        """Wait a little for words of workers; yield what became of jobs, once it is written."""
        import ray

        if not self.at:
            wait_for_others()
            return
        ready, _ = ray.wait(list(self.at), timeout=PAUSE)
        for reference in ready:
            actor, job = self.at.pop(reference)
            try:
                left: Carried | None = ray.get(reference)
            except ray.exceptions.RayError as error:
                yield from self._replace(actor, job, str(error).strip().splitlines()[0])
                continue
            self.idle.append(actor)
            if left is not None:
                yield self.agenda.end(kept(left, self.agenda.folder))

    def stop(self) -> None:
        """End all workers."""
        import ray

        for actor in self.actors:
            ray.kill(actor)

    def _start(self) -> None:
        """A new worker, which is given a job once the cluster has found room for it."""
        actor = self._new()
        self.actors.append(actor)
        self.at[actor.ready.remote()] = actor, None

    def _replace(self, actor: Actor, job: Job | None, said: str) -> Iterator[Done]:
        """A new worker in the place of one that was lost; its job is tried again, or has failed."""
        self.actors.remove(actor)
        if job is None:
            self.stillborn += 1
            if self.stillborn == TRIES:
                raise RobustError(f"engine ray: no worker can be started: {said}")
        else:
            done = self.agenda.retry(job, f"its worker was lost: {said}")
            if done is not None:
                yield done
        self._start()


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens at host:port, which Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK).close()


class _Worker:
    """What runs on a machine of the cluster."""

    def __init__(self, workshop: Workshop, folder: Folder | None, pictures: bool, threads: int) -> None:
        torch.set_num_threads(threads)
        self.workshop, self.folder, self.pictures = workshop, folder, pictures

    def ready(self) -> None:
        """Answers once it is placed."""

    def carry_out(self, job: Job) -> Carried:
        """What a job leaves, of which nothing is kept here."""
        return carried(job, self.workshop, self.folder, self.pictures, lambda fraction: None)


def _nobody(what: str, fraction: float) -> None:
    """Nobody watches."""
