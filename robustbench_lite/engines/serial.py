"""The serial engine: one job after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from robustbench_lite.engines.engine import Agenda, Done, carried, kept, wait_for_others
from robustbench_lite.jobs.make import Watch


@dataclass(frozen=True)
class Serial:
    """Carries out jobs one after the other; the only engine for live objects."""

    def run(self, agenda: Agenda, pictures: bool, watch: Watch) -> Iterator[Done]:
        """Carry out what an agenda holds; see `Engine`."""
        agenda.workshop.shelf = agenda.folder
        while agenda.unfinished:
            taken = agenda.take()
            if taken is None:
                watch("waiting for jobs that other processes are at", agenda.fraction())
                wait_for_others()
            elif isinstance(taken, Done):
                yield taken
            else:

                def progress(fraction: float, what: str = str(taken)) -> None:
                    watch(what, agenda.fraction(fraction))

                progress(0.0)
                left = carried(taken, agenda.workshop, agenda.folder, pictures, progress)
                yield agenda.end(kept(left, agenda.folder))
