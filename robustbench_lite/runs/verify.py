"""The judge alone, on the points a run has stored: does what it claims hold, here and now?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel
from torch import Tensor

from robustbench_lite.core.errors import InvalidData, RobustError
from robustbench_lite.jobs.job import Job, Judged
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.judging.judge import Originals, judge
from robustbench_lite.records.folder import Folder
from robustbench_lite.records.schema import whole
from robustbench_lite.runs.config import Config
from robustbench_lite.runs.plan import Plan, Subject, plan

NEAR = 1e-5  # relative, of a distance that is to be the same
COLUMNS = ["job", "samples", "successes", "stored", "confirmed", "refuted", "cannot_be_judged", "told"]


@dataclass(frozen=True)
class Checked:
    """What became of a job's claims: each success that was recorded, on whichever model, by its sample."""

    claimed: int
    stored: int
    confirmed: int
    refuted: tuple[int, ...]
    told: tuple[str, ...] = ()


class Verdict(BaseModel):
    """What judging a run again came to: how many of its claims hold."""

    confirmed: int
    refuted: int
    unjudged: int
    when: str

    @classmethod
    def of(cls, table: pd.DataFrame) -> Verdict:
        """Of what `verify` returns."""
        counts = [int(table[name].sum()) for name in ("confirmed", "refuted", "cannot_be_judged")]
        return cls(
            confirmed=counts[0],
            refuted=counts[1],
            unjudged=counts[2],
            when=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        )

    def __str__(self) -> str:
        return f"{self.confirmed} claims confirmed, {self.refuted} refuted, {self.unjudged} cannot be judged"


class Verdicts(BaseModel):
    """Verdicts by the hash of what was claimed, in a file of whoever judges: a run's own word is no proof."""

    of: dict[str, Verdict] = {}

    @classmethod
    def read(cls, file: Path) -> Verdicts:
        """Those of a file; none where there is no file. Raises `RobustError` where it cannot be read."""
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise RobustError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from None

    def write(self, file: Path) -> None:
        """Into a file, whole or not at all."""
        with whole(file) as temporary:
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def verify_run(config: Config, folder: Folder, watch: Watch = lambda what, fraction: None) -> pd.DataFrame:
    """`verify` of the run that a config describes."""
    return verify(plan(config, Subject.of(config), watch), folder, watch)


def verify(made: Plan, folder: Folder, watch: Watch = lambda what, fraction: None) -> pd.DataFrame:
    """Judge the stored adversarial examples of a run again.

    Nothing is searched. A claim is confirmed where the point that was stored reaches the goal within the
    threat, at the distance recorded; where it does not, it is refuted.

    Parameters
    ----------
    made : Plan
        Of the run's config.
    folder : Folder
        The run's.
    watch : callable
        Called with (what is going on, fraction of the whole).

    Returns
    -------
    DataFrame
        One row a job: samples, recorded successes, points stored, confirmed, refuted; claims that cannot
        be judged, whose points were not stored; what a reader is told.

    Raises
    ------
    RobustError
        When the folder holds none of the jobs.
    """
    rows: list[dict[str, object]] = []
    for index, job in enumerate(made.jobs):
        watch(str(job), index / len(made.jobs))
        records = folder.records_of(job.key(), None)
        if records is None:
            continue
        checked = _checked(job, records, made.workshop, folder)
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
    missing = [str(job) for job in made.jobs if str(job) not in {row["job"] for row in rows}]
    rows += [dict.fromkeys(COLUMNS[1:-1], 0) | {"job": name, "told": "no records"} for name in missing]
    return pd.DataFrame(rows, columns=COLUMNS)


def _checked(job: Job, records: pd.DataFrame, shop: Workshop, folder: Folder) -> Checked:
    told = []
    if not (records["fingerprint"] == shop.fingerprint(job)).all():
        told.append("the data or the models are not those that the run had")
    success = records["success"].astype(bool)
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
    stored, confirmed = 0, 0
    refuted: list[int] = []
    for judged in (Judged(job.model, job.name), *job.others):
        own = judged.name == job.name
        won = records.loc[
            success & (records["model"] == judged.name) & (records["source_model"].isna() == own)
        ]
        won = won.loc[won["sample_id"].isin(list(place))]
        held = _holds(job, judged, won, z[[place[int(sample)] for sample in won["sample_id"]]], shop)
        stored, confirmed = stored + len(won), confirmed + int(held.sum())
        refuted += [int(sample) for sample in won["sample_id"].to_numpy()[~held]]
    return Checked(claimed, stored, confirmed, tuple(refuted), tuple(told))


def _holds(job: Job, judged: Judged, won: pd.DataFrame, z: Tensor, shop: Workshop) -> np.ndarray:
    """Which recorded successes (m,) on a model the judge meets again, at the distance recorded."""
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
    originals = Originals(some.x, some.y, some.ids, shop.clean(judged.model)[rows][chosen])
    target = won.loc[known, "target"]
    aimed = None if target.isna().any() else torch.from_numpy(target.to_numpy(dtype="int64"))[:, None]
    model = shop.model_named(judged.model, judged.name)
    verdict = judge(
        model, shop.threat(job.threat), shop.goal(job.goal), originals, z[torch.from_numpy(known)], aimed,
        job.search,
    )  # fmt: skip
    distance = won.loc[known, "distance"].to_numpy(dtype=float)
    same = np.isclose(verdict.distance, distance, rtol=NEAR, atol=1e-9) | ~np.isfinite(distance)
    held[known] = verdict.success & same
    return held
