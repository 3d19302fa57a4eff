"""The judge alone, on the points a run has stored: does what it claims hold, here and now?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidData, RobustError
from robustbench_lite.jobs.job import Job
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.judging.judge import Originals, judge
from robustbench_lite.records.folder import Folder
from robustbench_lite.runs.plan import Plan

NEAR = 1e-5  # relative, of a distance that is to be the same
COLUMNS = ["job", "samples", "successes", "stored", "confirmed", "refuted", "cannot_be_judged", "told"]


@dataclass(frozen=True)
class Checked:
    """What became of a job's claims: each success that was recorded, by the ids of its samples."""

    claimed: int
    stored: int
    confirmed: int
    refuted: tuple[int, ...]
    told: tuple[str, ...] = ()


def verify(plan: Plan, folder: Folder, watch: Watch = lambda what, fraction: None) -> pd.DataFrame:
    """Judge the stored adversarial examples of a run again.

    Nothing is searched. A claim is confirmed where the point that was stored reaches the goal within the
    threat, at the distance recorded; where it does not, it is refuted.

    Parameters
    ----------
    plan : Plan
        Of the run's config.
    folder : Folder
        The run's.
    watch : callable
        Called with (what is going on, fraction of the whole).

    Returns
    -------
    DataFrame
        One row a job: samples, recorded successes, points stored, confirmed, refuted; claims that cannot
        be judged (whose points were not stored, such as those found on another model); what a reader is told.

    Raises
    ------
    RobustError
        When the folder holds none of the jobs.
    """
    rows: list[dict[str, object]] = []
    for index, job in enumerate(plan.jobs):
        watch(str(job), index / len(plan.jobs))
        records = folder.records_of(job.key(), None)
        if records is None:
            continue
        checked = _checked(job, records, plan.workshop, folder)
        named = ", ".join(map(str, checked.refuted[:10]))
        refuted = f"refuted: samples {named}" if checked.refuted else ""
        rows.append(
            {
                "job": str(job),
                "samples": int(records["source_model"].isna().sum()),
                "successes": checked.claimed,
                "stored": checked.stored,
                "confirmed": checked.confirmed,
                "refuted": len(checked.refuted),
                "cannot_be_judged": checked.claimed - checked.confirmed - len(checked.refuted),
                "told": "; ".join(filter(None, (refuted, *checked.told))),
            }
        )
    watch("done", 1.0)
    if not rows:
        raise RobustError(f"{folder.path}: holds no records of the jobs that its config names")
    missing = [str(job) for job in plan.jobs if str(job) not in {row["job"] for row in rows}]
    rows += [dict.fromkeys(COLUMNS[1:-1], 0) | {"job": name, "told": "no records"} for name in missing]
    return pd.DataFrame(rows, columns=COLUMNS)


def _checked(job: Job, records: pd.DataFrame, shop: Workshop, folder: Folder) -> Checked:
    told = []
    if not (records["fingerprint"] == shop.fingerprint(job)).all():
        told.append("the data or the models are not those that the run had")
    success = records["success"].astype(bool)
    won = records.loc[success & records["source_model"].isna()]
    claimed = int(success.sum())
    try:
        arrays = folder.adversarial(job.key())
        ids = arrays["ids"]
        z = torch.from_numpy(np.array(arrays["z"] if "z" in arrays else arrays["adversarial"]))
        if len(z) != len(ids) or len(set(ids.tolist())) != len(ids):
            raise InvalidData("its points and their names do not match")
    except (InvalidData, KeyError) as error:
        return Checked(claimed, 0, 0, (), (*told, f"what it stored cannot be read: {error}"))
    place = {int(sample): at for at, sample in enumerate(ids)}
    won = won.loc[won["sample_id"].isin(list(place))]
    z = z[[place[int(sample)] for sample in won["sample_id"]]]
    held = _holds(job, won, z, shop)
    ids_won = won["sample_id"].to_numpy()
    refuted = tuple(int(sample) for sample in ids_won[~held])
    return Checked(claimed, len(won), int(held.sum()), refuted, tuple(told))


def _holds(job: Job, won: pd.DataFrame, z: Tensor, shop: Workshop) -> np.ndarray:
    """Which recorded successes (m,) the judge meets again, at the distance recorded."""
    if not len(won):
        return np.zeros(0, dtype=bool)
    rows = shop.rows(job.samples)[job.begin : job.end]
    data = shop.data[rows]
    at = {int(sample): index for index, sample in enumerate(data.ids)}
    known = np.array([int(sample) in at for sample in won["sample_id"]])
    held = np.zeros(len(won), dtype=bool)
    chosen = torch.tensor([at[int(sample)] for sample in won.loc[known, "sample_id"]], dtype=torch.long)
    if not len(chosen):
        return held
    some = data[chosen]
    originals = Originals(some.x, some.y, some.ids, shop.clean(job.model)[rows][chosen])
    target = won.loc[known, "target"]
    aimed = None if target.isna().any() else torch.from_numpy(target.to_numpy(dtype="int64"))[:, None]
    model = shop.model_named(job.model, job.name)
    verdict = judge(
        model, shop.threat(job.threat), shop.goal(job.goal), originals, z[torch.from_numpy(known)], aimed,
        job.search,
    )  # fmt: skip
    distance = won.loc[known, "distance"].to_numpy(dtype=float)
    same = np.isclose(verdict.distance, distance, rtol=NEAR, atol=1e-9) | ~np.isfinite(distance)
    held[known] = verdict.success & same
    return held
