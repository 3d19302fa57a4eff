"""The checks of a finished run."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from robustbench_lite.core.errors import UnknownName
from robustbench_lite.diagnosis.checks import HEADS, can_be_checked, diagnose_work
from robustbench_lite.jobs.make import Watch
from robustbench_lite.runs.config import Config
from robustbench_lite.runs.plan import Subject, plan


def diagnose_run(
    config: Config, attacks: Sequence[str] = (), watch: Watch = lambda what, fraction: None
) -> pd.DataFrame:
    """The checks of every job of a run that can be diagnosed; attacks: only these of the run's."""
    known = dict.fromkeys(cell.attack for cell in config.cells)
    unknown = [name for name in attacks if name not in known]
    if unknown:
        raise UnknownName("attack of the run", unknown[0], known)
    cells = [cell for cell in config.cells if not attacks or cell.attack in attacks]
    subject = Subject(config.data, config.models, cells)
    made = plan(config, subject, watch)
    shop = made.workshop
    plain = shop.data.task.kind == "classification"
    jobs = [
        job for job in made.jobs if plain and can_be_checked(shop.attack(job.attack), shop.threat(job.threat))
    ]
    found = []
    for index, job in enumerate(jobs):

        def progress(check: str, what: str = str(job), done: int = index) -> None:
            watch(f"{what}: {check}", done / len(jobs))

        found.append(diagnose_work(shop.work(job), progress))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=HEADS)
