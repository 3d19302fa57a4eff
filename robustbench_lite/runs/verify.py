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
from robustbench_lite.records.schema import count, whole
from robustbench_lite.runs.config import Config
from robustbench_lite.runs.plan import Plan, Subject, plan
from robustbench_lite.search.driver import Samples, targets_of

UNLIKE = "the data or the models are not those that the run had"
TURNED = 0.01  # of the samples, whose class without an attack another machine's arithmetic may turn
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
    unlike: bool
    when: str

    @property
    def stands(self) -> bool:
        """Whether every claim holds, of the models and data that the config names."""
        return not (self.refuted or self.unjudged or self.unlike)

    @classmethod
    def of(cls, table: pd.DataFrame) -> Verdict:
        """Of what `verify` returns."""
        counts = [int(table[name].sum()) for name in ("confirmed", "refuted", "cannot_be_judged")]
        unlike = bool(table["told"].str.contains(UNLIKE, regex=False).any())
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        return cls(confirmed=counts[0], refuted=counts[1], unjudged=counts[2], unlike=unlike, when=when)

    def __str__(self) -> str:
        said = f"{self.confirmed} claims confirmed, {self.refuted} refuted, {self.unjudged} cannot be judged"
        return f"{said}; {UNLIKE}" if self.unlike else said


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
    rows += _strangers(made, folder)
    watch("done", 1.0)
    if not rows:
        raise RobustError(f"{folder.path}: holds no records of the jobs that its config names")
    missing = [str(job) for job in made.jobs if str(job) not in {row["job"] for row in rows}]
    rows += [dict.fromkeys(COLUMNS[1:-1], 0) | {"job": name, "told": "no records"} for name in missing]
    return pd.DataFrame(rows, columns=COLUMNS)


def _strangers(made: Plan, folder: Folder) -> list[dict[str, object]]:
    """Records of jobs that the config does not name: nobody can say what they are, and all are refuted."""
    known = {job.key() for job in made.jobs}
    found: list[dict[str, object]] = []
    for file in folder.shards():
        if file.stem not in known:
            rows = count([file])
            told = "records of no job that the config names"
            found.append(
                dict.fromkeys(COLUMNS, 0)
                | {"job": file.stem, "samples": rows, "refuted": max(rows, 1), "told": told}
            )
    return found


def _checked(job: Job, records: pd.DataFrame, shop: Workshop, folder: Folder) -> Checked:
    told = []
    if not (records["fingerprint"] == shop.fingerprint(job)).all():
        told.append(UNLIKE)
    success = records["success"].astype(bool)
    claimed = int(success.sum())
    misfiled = _misfiled(job, records, shop)
    if misfiled:
        everyone = tuple(int(sample) for sample in records["sample_id"].unique()) or (-1,)
        return Checked(claimed, 0, 0, everyone, (*told, misfiled))
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
        won = records.loc[success & (records["model"] == judged.name)]
        won = won.loc[won["sample_id"].isin(list(place))]
        held = _holds(job, judged, won, z[[place[int(sample)] for sample in won["sample_id"]]], shop)
        stored, confirmed = stored + len(won), confirmed + int(held.sum())
        refuted += [int(sample) for sample in won["sample_id"].to_numpy()[~held]]
    return Checked(claimed, stored, confirmed, tuple(refuted), tuple(told))


def _misfiled(job: Job, records: pd.DataFrame, shop: Workshop) -> str:
    """Why records cannot be those of a job, in words; empty where they can.

    They name it, hold every sample of its slice once a model, and say of the model without an attack what it
    says here, but for a few that another machine's arithmetic may turn.
    """
    threat = shop.threat(job.threat)
    facts: dict[str, object] = {
        "job": job.key(),
        "data": shop.data.name,
        "attack": str(shop.attack(job.attack)),
        "threat": str(threat),
        "goal": str(shop.goal(job.goal)),
        "seed": job.search.seed,
    }
    wrong = [name for name, value in facts.items() if not (records[name] == value).fillna(False).all()]
    sizes = records["eps"].astype(float)
    if not (sizes.isna().all() if threat.eps is None else (sizes == threat.eps).all()):
        wrong.append("eps")
    rows = shop.rows(job.samples)[job.begin : job.end]
    expected = sorted(shop.data.ids[rows].tolist())
    for judged in (Judged(job.model, job.name), *job.others):
        part = records.loc[records["model"] == judged.name]
        sources = part["source_model"]
        from_here = sources.isna() if judged.name == job.name else sources == job.name
        if sorted(part["sample_id"].astype(int)) != expected or not from_here.fillna(False).all():
            wrong.append(f"the samples of {judged.name}")
            continue
        clean, task = shop.clean(judged.model)[rows], shop.model(judged.model).task
        right = task.right(clean.prediction, shop.data.y[rows]).numpy()
        told = part.set_index(part["sample_id"].astype(int))["outcome"].reindex(shop.data.ids[rows].tolist())
        if ((told != "wrong").to_numpy(dtype=bool) != right).mean() > TURNED:
            wrong.append(f"what {judged.name} says without an attack")
    if len(records) != len(expected) * (1 + len(job.others)):
        wrong.append("how many there are")
    return f"its records are not those of this job: {', '.join(wrong)}" if wrong else ""


def _holds(job: Job, judged: Judged, won: pd.DataFrame, z: Tensor, shop: Workshop) -> np.ndarray:
    """Which recorded successes (m,) on a model the judge meets again, at the distance recorded.

    What a sample was to become is worked out again too: a record's own word is no proof of it.
    """
    if not len(won):
        return np.zeros(0, dtype=bool)
    rows, data = shop.rows(job.samples)[job.begin : job.end], shop.data
    at = {int(sample): index for index, sample in enumerate(data.ids[rows])}
    chosen = rows[torch.tensor([at[int(sample)] for sample in won["sample_id"]], dtype=torch.long)]
    some, goal = data[chosen], shop.goal(job.goal)
    seen = shop.clean(job.model)
    samples = Samples(data.x, data.y, data.ids, seen.scores, seen.prediction)
    target = targets_of(goal, shop.model(job.model).task, samples, job.search)
    verdict = judge(
        shop.model_named(judged.model, judged.name),
        shop.threat(job.threat),
        goal,
        Originals(some.x, some.y, some.ids, shop.clean(judged.model)[chosen]),
        z,
        None if target is None else target[chosen],
        job.search,
    )
    distance = won["distance"].to_numpy(dtype=float)
    same = np.isclose(verdict.distance, distance, rtol=NEAR, atol=1e-9) | ~np.isfinite(distance)
    held: np.ndarray = verdict.success & same
    return held
