"""How often attacks succeed: by cell, by class, over all attacks, and from one model to another."""

from __future__ import annotations

import math

import pandas as pd

from robustbench_lite.reports.tables.statistics import clopper_pearson, wilson

CELL = ["model", "attack", "threat", "goal"]


def direct(records: pd.DataFrame) -> pd.DataFrame:
    """The records of points that were sought on the model itself."""
    records = counted(records)
    own = records["source_model"].isna()
    return records if own.all() else records.loc[own]


def counted(records: pd.DataFrame) -> pd.DataFrame:
    """The records but those of samples that are of the class to be reached already."""
    there = (records["target"] == records["label"]).fillna(False).astype(bool)
    return records.loc[~there] if there.any() else records


def right(records: pd.DataFrame) -> pd.Series[bool]:
    """Whether the model had each sample right before the attack."""
    found: pd.Series[bool] = (records["clean_prediction"] == records["label"]).astype(bool)
    return found


def success(records: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: of the samples that the model had right, how many were broken, with both intervals.

    low, high: Wilson's 95 % interval; cp_low, cp_high: Clopper and Pearson's. robust: right and not broken,
    of all samples. invalid: points that were not admissible, and count as failures.
    """
    rows = []
    for key, cell in direct(records).groupby(CELL, sort=False, observed=True):
        able, broken = int(right(cell).sum()), int(cell["success"].sum())
        low, high = wilson(broken, able)
        cp_low, cp_high = clopper_pearson(broken, able)
        rows.append(
            {
                **dict(zip(CELL, key, strict=True)),
                "samples": len(cell),
                "right": able,
                "broken": broken,
                "success": broken / able if able else math.nan,
                "low": low,
                "high": high,
                "cp_low": cp_low,
                "cp_high": cp_high,
                "clean": able / len(cell),
                "robust": (able - broken) / len(cell),
                "invalid": int((~cell["valid"].astype(bool)).sum()),
            }
        )
    return pd.DataFrame(rows)


def summary(records: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: clean accuracy, success rate with its 95 % interval, robust accuracy, medians, cost.

    success: of the samples that the model had right. robust: right and not broken, of all. l2, linf: medians
    over successes. queries: mean forward passes a sample attacked. seconds: for the whole cell. doubtful:
    successes that did not stand at the second look. eight_bit: the share of successes that stood as 8-bit
    images.
    """
    rows = []
    for key, cell in direct(records).groupby(CELL, sort=False, observed=True):
        able, broke = right(cell), cell["success"].astype(bool)
        low, high = wilson(int(broke.sum()), int(able.sum()))
        tried = cell.loc[cell["forwards"] > 0]
        broken = cell.loc[broke]
        rows.append(
            {
                **dict(zip(CELL, key, strict=True)),
                "samples": len(cell),
                "clean": float(able.mean()),
                "success": float(broke.sum() / able.sum()) if able.any() else math.nan,
                "low": low,
                "high": high,
                "robust": float((able & ~broke).mean()),
                "l2": median(broken["l2"]),
                "linf": median(broken["linf"]),
                "queries": float(tried["forwards"].mean()) if len(tried) else 0.0,
                "seconds": float(cell["seconds"].sum()),
                "invalid": int((~cell["valid"].astype(bool)).sum()),
                "doubtful": int((broken["second_look"] == False).sum()),  # noqa: E712
                "eight_bit": share(broken["eight_bit"]),
            }
        )
    return pd.DataFrame(rows)


def worst_case(records: pd.DataFrame) -> pd.DataFrame:
    """One row a model, threat and goal: the robust accuracy when every sample meets its worst attack.

    strongest: the attack that broke most by itself. Threats whose smallest perturbation is sought have no
    such accuracy, and are left out.
    """
    rows = []
    at = ["model", "threat", "goal"]
    for (model, threat, goal), part in counted(records).groupby(at, sort=False, observed=True):
        if str(threat).endswith(":min") and part["eps"].isna().all():
            continue
        broke = part["success"].astype(bool)
        sample = pd.DataFrame({"id": part["sample_id"], "broke": broke, "right": right(part)}).groupby("id")
        able, broken = sample["right"].first(), sample["broke"].any()
        held = int((able & ~broken).sum())
        low, high = wilson(held, len(able))
        rows.append(
            {
                "model": model,
                "threat": threat,
                "goal": goal,
                "samples": len(able),
                "clean": float(able.mean()),
                "robust": held / len(able),
                "low": low,
                "high": high,
                "strongest": _strongest(part.loc[broke]),
            }
        )
    heads = [*at, "samples", "clean", "robust", "low", "high", "strongest"]
    return pd.DataFrame(rows, columns=heads)


def _strongest(broken: pd.DataFrame) -> str:
    """The attack that broke most samples, with the model it was made on where that is another."""
    if broken.empty:
        return ""
    groups = broken.groupby(["attack", "source_model"], sort=False, observed=True, dropna=False)
    (attack, source), _ = max(groups, key=lambda item: len(item[1]))
    return f"{attack} from {source}" if isinstance(source, str) else str(attack)


def winners(records: pd.DataFrame) -> pd.DataFrame:
    """How many successes each part of a composite attack found."""
    found = direct(records).loc[lambda part: part["success"].astype(bool)]
    sizes = found.groupby([*CELL, "winner"], sort=False, observed=True).size()
    return sizes.rename("successes").reset_index()


def per_class(records: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and class: how many samples, clean and robust accuracy with Wilson's interval."""
    rows = []
    for key, cell in direct(records).groupby([*CELL, "label"], sort=False, observed=True):
        able = right(cell)
        held = int((able & ~cell["success"].astype(bool)).sum())
        low, high = wilson(held, len(cell))
        rows.append(
            {
                **dict(zip([*CELL, "label"], key, strict=True)),
                "samples": len(cell),
                "clean": float(able.mean()),
                "robust": held / len(cell),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def confusion(records: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, class and prediction: how many broken samples of the class were turned into it."""
    found = direct(records).loc[lambda part: part["success"].astype(bool)]
    by = [*CELL, "label", "adversarial_prediction"]
    return found.groupby(by, sort=True, observed=True).size().rename("samples").reset_index()


def transfer(records: pd.DataFrame) -> pd.DataFrame:
    """One row a source, target, attack, threat and goal: whether points made on one model break another.

    success: of the samples that both had right, how many the target loses to the source's points, with
    Wilson's interval; of_broken: of those among them that broke the source. A source is its own target too.
    """
    at = ["attack", "threat", "goal"]
    heads = ["source", "target", *at, "samples", "success", "low", "high", "of_broken"]
    moved = set(records["source_model"].dropna())
    if not moved:
        return pd.DataFrame(columns=heads)
    source = records["source_model"].astype("string").fillna(records["model"].astype("string"))
    records = counted(records.assign(source=source))
    own = direct(records).loc[right, ["source", *at, "sample_id", "success"]]  # what was sought at all
    own = own.rename(columns={"success": "broke"})
    marked = records.merge(own, "left", on=["source", *at, "sample_id"])
    rows = []
    for key, cell in marked.groupby([*at, "source", "model"], sort=False, observed=True):
        if key[3] not in moved:
            continue
        able = cell.loc[right(cell) & cell["broke"].notna()]
        broken = able["success"].astype(bool)
        low, high = wilson(int(broken.sum()), len(able))
        rows.append(
            {
                "source": key[3],
                "target": key[4],
                **dict(zip(at, key[:3], strict=True)),
                "samples": len(able),
                "success": float(broken.mean()) if len(able) else math.nan,
                "low": low,
                "high": high,
                "of_broken": share(broken.loc[able["broke"].astype(bool)]),
            }
        )
    return pd.DataFrame(rows, columns=heads)


def median(values: pd.Series[float]) -> float:
    """The median; NaN of nothing."""
    return float(values.median()) if len(values) else math.nan


def share(values: pd.Series[bool]) -> float:
    """How many of those known are true; NaN of nothing."""
    known = values.dropna()
    return float(known.mean()) if len(known) else math.nan
