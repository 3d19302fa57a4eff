"""How often attacks succeed: by job, by class, over all attacks, and from one model to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from robustbench_lite.reports.tables.statistics import clopper_pearson, wilson

GROUP = ["model", "attack", "threat", "goal"]


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
    found: pd.Series[bool] = (records["outcome"] != "wrong").astype(bool)
    return found


def attacked(records: pd.DataFrame) -> pd.DataFrame:
    """The records but those of samples that a limit left out: they are neither broken nor robust."""
    return records.loc[records["outcome"] != "unattacked"]


def proven(records: pd.DataFrame) -> float:
    """The share of samples that are right and proven to stay so; NaN where nothing is proven."""
    bound, eps = records["lower_bound"].astype(float), records["eps"].astype(float)
    if bound.isna().all() or eps.isna().all():
        return math.nan
    return float((right(records) & (bound > eps)).mean())


def framed(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """A frame of rows; of none, with the columns that every table of jobs has."""
    return pd.DataFrame(rows, columns=None if rows else GROUP)


def rates(group: pd.DataFrame) -> dict[str, float]:
    """What became of the samples of a group: see `success` for what each number is."""
    tried = attacked(group)
    able = right(tried)
    broke = float(tried.loc[able, "success_rate"].sum())
    n, whole = int(able.sum()), right(group)
    clean = float(group["clean_rate"].mean())
    low, high = wilson(broke, n)
    cp_low, cp_high = clopper_pearson(round(broke), n)
    share_broken = broke / n if n else math.nan
    held = (n - broke) / len(group) if len(tried) == len(group) else float(whole.mean()) * (1 - share_broken)
    outcome = group["outcome"]
    return {
        "samples": len(group),
        "right": int(whole.sum()),
        "broken": int(tried["success"].sum()),
        "success": share_broken,
        "low": low,
        "high": high,
        "cp_low": cp_low,
        "cp_high": cp_high,
        "clean": clean,
        "robust": held,
        "proven": proven(group),
        "invalid": int((~group["valid"].astype(bool)).sum()),
        "rejected": int((outcome == "rejected").sum()),
        "nan": int((outcome == "nan").sum()),
        "unattacked": int((outcome == "unattacked").sum()),
    }


def success(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job: of the samples that the model had right, how many were broken, with both intervals.

    success: of the samples attacked; of a model that draws at random the mean success rate over draws. low,
    high: Wilson's 95 % interval; cp_low, cp_high: Clopper and Pearson's. clean: mean accuracy without an
    attack. robust: right and not broken, of all samples. proven: right and proven to stay so: what no attack
    can take. invalid: points that were not admissible, and count as failures. rejected, nan: samples the
    model refused, or answered with NaN; unattacked: those that a limit left out, which count in no rate.
    """
    groups = direct(records).groupby(GROUP, sort=False, observed=True)
    return framed([{**dict(zip(GROUP, key, strict=True)), **rates(group)} for key, group in groups])


def summary(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job: clean accuracy, success rate with its 95 % interval, robust accuracy, medians, cost.

    As `success`; and l2, linf: medians over successes. queries: mean forward passes a sample attacked.
    seconds: for the whole job. doubtful: successes that did not stand at the second look. eight_bit: the
    share of successes that stood as 8-bit images.
    """
    rows = []
    heads = ("samples", "clean", "success", "low", "high", "robust", "proven")
    for key, group in direct(records).groupby(GROUP, sort=False, observed=True):
        told = rates(group)
        tried = group.loc[group["forwards"] > 0]
        broken = group.loc[group["success"].astype(bool)]
        rows.append(
            {
                **dict(zip(GROUP, key, strict=True)),
                **{head: told[head] for head in heads},
                "l2": median(broken["l2"]),
                "linf": median(broken["linf"]),
                "queries": float(tried["forwards"].mean()) if len(tried) else 0.0,
                "seconds": float(group["seconds"].sum()),
                **{head: told[head] for head in ("invalid", "rejected", "nan", "unattacked")},
                "doubtful": int((broken["second_look"] == False).sum()),  # noqa: E712
                "eight_bit": share(broken["eight_bit"]),
            }
        )
    return framed(rows)


def worst_case(records: pd.DataFrame) -> pd.DataFrame:
    """One row a model, threat and goal: the robust accuracy when every sample meets its worst attack.

    robust: an upper bound, as far as these attacks can tell; proven: a lower bound. strongest: the attack
    that broke most by itself. by_transfer: the share of all samples that only points made on other models
    broke: they count here, and not in the table of attacks. unattacked: samples that no attack came to.
    Threats whose smallest perturbation is sought have no such accuracy, and are left out.
    """
    rows = []
    at = ["model", "threat", "goal"]
    for (model, threat, goal), part in counted(records).groupby(at, sort=False, observed=True):
        if part["minimum"].astype(bool).all():
            continue
        every = part.groupby("sample_id").first()
        tried = attacked(part)
        # A sample that the source had wrong was not moved for it: that is no attack on this model.
        tried = tried.loc[tried["source_model"].isna() | (tried["linf"] != 0)]
        own = tried.loc[tried["source_model"].isna()]
        most = tried.groupby("sample_id")["success_rate"].max().astype(float).reindex(every.index)
        most_own = own.groupby("sample_id")["success_rate"].max().astype(float).reindex(every.index)
        able = right(every) & most.notna()
        broken = float(most.loc[able].sum())
        n, count = int(able.sum()), len(every)
        left_out = int((right(every) & most.isna()).sum())
        share_held = (n - broken) / n if n else math.nan
        robust = (n - broken) / count if not left_out else float(right(every).mean()) * share_held
        known = count - left_out  # wrong by itself, or attacked
        low, high = wilson(robust * known, known) if not math.isnan(robust) else (0.0, 1.0)
        bound = part.groupby("sample_id").agg(
            dict.fromkeys(("outcome", "eps"), "first") | {"lower_bound": "max"}
        )
        rows.append(
            {
                "model": model,
                "threat": threat,
                "goal": goal,
                "samples": count,
                "clean": float(every["clean_rate"].mean()),
                "proven": proven(bound),
                "robust": robust,
                "low": low,
                "high": high,
                "strongest": _strongest(tried.loc[tried["success"].astype(bool)]),
                "by_transfer": float((able & (most > 0.5) & ~(most_own > 0.5)).mean()),
                "unattacked": left_out,
            }
        )
    heads = ["samples", "clean", "proven", "robust", "low", "high", "strongest", "by_transfer", "unattacked"]
    return pd.DataFrame(rows, columns=[*at, *heads])


def _strongest(broken: pd.DataFrame) -> str:
    """The attack that broke most samples, with the model it was made on where that is another."""
    if broken.empty:
        return ""
    groups = broken.groupby(["attack", "source_model"], sort=False, observed=True, dropna=False)
    (attack, source), _ = max(groups, key=lambda item: len(item[1]))
    return f"{attack} from {source}" if isinstance(source, str) else str(attack)


def winners(records: pd.DataFrame) -> pd.DataFrame:
    """What each part of a composite attack found, and what that took: one row a job and part, as they came.

    points: successes in percent of the samples that the model has right. to_success: median forward passes to
    them. forwards: passes that all samples spent from the last success of the part before to that of this
    one; forwards_a_point: of each percent.
    """
    rows = []
    for key, group in direct(records).groupby(GROUP, sort=False, observed=True):
        found = group.loc[group["success"].astype(bool) & group["winner"].notna()]
        passes = found["queries_at_success"].astype(float).fillna(0.0)
        parts = passes.groupby(found["winner"], sort=False, observed=True).agg(["size", "median", "max"])
        before, able = 0.0, max(1, int(right(group).sum()))
        ordered = parts.sort_values(["max", "median"], kind="stable")
        for part, size, middle, last in ordered.itertuples():
            spent = float(group["forwards"].astype(float).clip(upper=last).sum())
            points = 100 * size / able
            rows.append(
                {
                    **dict(zip(GROUP, key, strict=True)),
                    "winner": part,
                    "successes": int(size),
                    "points": points,
                    "to_success": middle,
                    "forwards": spent - before,
                    "forwards_a_point": (spent - before) / points,
                }
            )
            before = spent
    columns = ["winner", "successes", "points", "to_success", "forwards", "forwards_a_point"]
    return pd.DataFrame(rows, columns=[*GROUP, *columns])


def per_class(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job and class: how many samples, clean and robust accuracy with Wilson's interval."""
    rows = []
    for key, group in direct(records).groupby([*GROUP, "label"], sort=False, observed=True):
        group = attacked(group)
        able = right(group)
        held = float((able * (1 - group["success_rate"].astype(float))).sum())
        low, high = wilson(held, len(group))
        rows.append(
            {
                **dict(zip([*GROUP, "label"], key, strict=True)),
                "samples": len(group),
                "clean": float(able.mean()),
                "robust": held / len(group) if len(group) else math.nan,
                "low": low,
                "high": high,
            }
        )
    return framed(rows)


def confusion(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job, class and prediction: how many broken samples of the class were turned into it."""
    found = direct(records).loc[lambda part: part["success"].astype(bool)]
    by = [*GROUP, "label", "adversarial_prediction"]
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
    records = attacked(counted(records.assign(source=source)))
    own = direct(records).loc[right, ["source", *at, "sample_id", "success"]]  # what was sought at all
    own = own.rename(columns={"success": "broke"})
    marked = records.merge(own, "left", on=["source", *at, "sample_id"])
    rows = []
    for key, group in marked.groupby([*at, "source", "model"], sort=False, observed=True):
        if key[3] not in moved:
            continue
        able = group.loc[right(group) & group["broke"].notna()]
        broken = able["success_rate"].astype(float)
        low, high = wilson(float(broken.sum()), len(able))
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


def share(values: pd.Series[float] | pd.Series[bool]) -> float:
    """How many of those known are true; NaN of nothing."""
    known = values.dropna()
    return float(known.mean()) if len(known) else math.nan
