"""Tables: functions from records to frames; they know nothing but the records."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

CELL = ["model", "attack", "threat", "goal"]
Z95 = 1.959963984540054
WEAK = 1.1  # how much further than the exact answer a stand-in may lead


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927); (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    low, high = ((centre + sign * half) / (1 + z * z / trials) for sign in (-1, 1))
    return low if successes else 0.0, high if successes < trials else 1.0


def direct(records: pd.DataFrame) -> pd.DataFrame:
    """The records of points that were sought on the model itself."""
    return records.loc[records["source_model"].isna()]


def transfer(records: pd.DataFrame) -> pd.DataFrame:
    """One row a source, target, attack, threat and goal: whether points made on one model break another.

    success: of the samples that the target had right, how many it loses to the source's points, with Wilson's
    interval; of_broken: of those among them that broke the source. A source is its own target too.
    """
    source = records["source_model"].fillna(records["model"]).rename("source")
    moved = set(records["source_model"].dropna())
    at = ["attack", "threat", "goal"]
    own = direct(records).loc[lambda part: part["success"].astype(bool)]
    broke = pd.MultiIndex.from_frame(own[["model", *at, "sample_id"]])
    keys = pd.MultiIndex.from_frame(records.assign(source=source)[["source", *at, "sample_id"]])
    rows = []
    marked = records.assign(source=source, broke=keys.isin(broke))
    for key, cell in marked.groupby([*at, "source", "model"], sort=False):
        if key[3] not in moved:
            continue
        right = cell.loc[cell["clean_prediction"] == cell["label"]]
        success = right["success"].astype(bool)
        low, high = wilson(int(success.sum()), len(right))
        rows.append(
            {
                "source": key[3],
                "target": key[4],
                **dict(zip(at, key[:3], strict=True)),
                "samples": len(right),
                "success": float(success.mean()) if len(right) else math.nan,
                "low": low,
                "high": high,
                "of_broken": _share(success.loc[right["broke"]]),
            }
        )
    heads = ["source", "target", *at, "samples", "success", "low", "high", "of_broken"]
    return pd.DataFrame(rows, columns=heads)


def summary(records: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: clean accuracy, success rate with its 95 % interval, robust accuracy, medians, cost.

    success: of the samples that the model had right. robust: right and not broken, of all. l2, linf: medians
    over successes. queries: mean forward passes a sample attacked. seconds: for the whole cell. doubtful:
    successes that did not stand at the second look. eight_bit: the share of successes that stood as 8-bit
    images.
    """
    rows = []
    for key, cell in direct(records).groupby(CELL, sort=False):
        right = cell["clean_prediction"] == cell["label"]
        success = cell["success"].astype(bool)
        low, high = wilson(int(success.sum()), int(right.sum()))
        tried = cell.loc[cell["forwards"] > 0]
        broken = cell.loc[success]
        rows.append(
            {
                **dict(zip(CELL, key, strict=True)),
                "samples": len(cell),
                "clean": float(right.mean()),
                "success": float(success.sum() / right.sum()) if right.any() else math.nan,
                "low": low,
                "high": high,
                "robust": float((right & ~success).mean()),
                "l2": _median(broken["l2"]),
                "linf": _median(broken["linf"]),
                "queries": float(tried["forwards"].mean()) if len(tried) else 0.0,
                "seconds": float(cell["seconds"].sum()),
                "invalid": int((~cell["valid"].astype(bool)).sum()),
                "doubtful": int((broken["second_look"] == False).sum()),  # noqa: E712
                "eight_bit": _share(broken["eight_bit"]),
            }
        )
    return pd.DataFrame(rows)


def worst_case(records: pd.DataFrame) -> pd.DataFrame:
    """One row a model, threat and goal: the robust accuracy when every sample meets its worst attack.

    strongest: the attack that broke most by itself.
    """
    rows = []
    origin = (" from " + records["source_model"]).fillna("")
    records = records.assign(attack=records["attack"] + origin)
    for (model, threat, goal), part in records.groupby(["model", "threat", "goal"], sort=False):
        success = part["success"].astype(bool)
        sample = part.assign(
            success=success, right=(part["clean_prediction"] == part["label"]).astype(bool)
        ).groupby("sample_id")
        right, broken = sample["right"].first(), sample["success"].any()
        held = int((right & ~broken).sum())
        low, high = wilson(held, len(right))
        rows.append(
            {
                "model": model,
                "threat": threat,
                "goal": goal,
                "samples": len(right),
                "clean": float(right.mean()),
                "robust": held / len(right),
                "low": low,
                "high": high,
                "strongest": success.groupby(part["attack"], sort=False).sum().idxmax()
                if success.any()
                else "",
            }
        )
    return pd.DataFrame(rows)


def winners(records: pd.DataFrame) -> pd.DataFrame:
    """How many successes each part of a composite attack found."""
    found = direct(records).loc[lambda part: part["success"].astype(bool)]
    return found.groupby([*CELL, "winner"], sort=False).size().rename("successes").reset_index()


def gaps(records: pd.DataFrame) -> pd.DataFrame:
    """One row a cell that sought the smallest perturbation of a model whose exact answer is known.

    distance, exact: medians over the samples that the model had right, failures as infinite; ratio: of the
    two. gap, gap_95: median and 95th percentile of distance / exact - 1, sample by sample. stand_in: the
    gradients were a smooth stand-in's; weak: such a one with a ratio above 1.1.
    """
    rows = []
    records = direct(records)
    right = records.loc[records["eps"].isna() & (records["clean_prediction"] == records["label"])]
    for (model, threat, goal), part in right.groupby(["model", "threat", "goal"], sort=False):
        known = part.loc[part["exact_distance"].notna()].groupby("sample_id")["exact_distance"].min()
        if known.empty:
            continue
        norm = str(threat).partition(":")[0]
        for attack, cell in part.loc[part["sample_id"].isin(known.index)].groupby("attack", sort=False):
            distance = cell[norm].where(cell["success"].astype(bool), math.inf).astype(float)
            exact = known.loc[cell["sample_id"]].to_numpy(float)
            gap = distance.to_numpy() / exact - 1
            ratio = float(distance.median() / known.median())
            stand_in = bool(cell["stand_in"].any())
            rows.append(
                {
                    **{
                        "model": model,
                        "attack": attack,
                        "threat": threat,
                        "goal": goal,
                        "samples": len(cell),
                    },
                    "distance": float(distance.median()),
                    "exact": float(known.median()),
                    "ratio": ratio,
                    "gap": float(pd.Series(gap).median()),
                    "gap_95": float(pd.Series(gap).quantile(0.95, interpolation="higher")),
                    "stand_in": stand_in,
                    "weak": stand_in and ratio > WEAK,
                }
            )
    heads = [*CELL, "samples", "distance", "exact", "ratio", "gap", "gap_95", "stand_in", "weak"]
    return pd.DataFrame(rows, columns=heads)


TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "summary": summary,
    "worst_case": worst_case,
    "winners": winners,
    "gaps": gaps,
    "transfer": transfer,
}


def _median(values: pd.Series[float]) -> float:
    return float(values.median()) if len(values) else math.nan


def _share(values: pd.Series[bool]) -> float:
    known = values.dropna()
    return float(known.mean()) if len(known) else math.nan
