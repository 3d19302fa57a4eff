"""Models ranked by what they keep, in RobustBench's columns and its JSON."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from robustbench_lite.reports.results import Results
from robustbench_lite.reports.tables.rates import attacked, direct, right, worst_case

log = logging.getLogger(__name__)
HEADS = [
    "rank", "model", "data", "threat", "norm", "goal", "clean", "proven", "autoattack", "best_known",
    "low", "high", "strongest", "extra_data", "architecture", "samples", "left_out",
    "who", "when", "runs", "verified",
]  # fmt: skip
KNOWN = ("model", "threat", "goal", "clean", "proven", "low", "high", "strongest", "samples")


def leaderboard(runs: Sequence[Results], confirmed: Mapping[Path, int] | None = None) -> pd.DataFrame:
    """One row a model, data set, threat and goal, ranked by worst-case robust accuracy.

    autoattack: robust accuracy under `auto` alone, NaN where it was not run. best_known: the worst case over
    all attacks of all runs given, on the samples that all of them met; low, high: its 95 % interval.
    left_out: samples that not all of the attacks met. who, when, runs: whose runs it stands on. verified:
    claims in them that the judge has confirmed again, empty where nobody asked; then what was proven is left
    out, for it is not proven again.

    Parameters
    ----------
    runs : sequence of Results
        Models of one name are one model where their runs say the same hash of it.
    confirmed : mapping, optional
        Claims confirmed, by the path of the run.
    """
    by_name = dict(zip(_names(runs), runs, strict=True))
    records = pd.concat([_told_apart(name, by_name) for name in by_name], ignore_index=True)
    if confirmed is not None:
        records = records.assign(lower_bound=math.nan)
    rows = []
    for (data, _), part in records.groupby(["data", "seed"], sort=False, observed=True, dropna=False):
        for _, every in part.groupby(["model", "threat", "goal"], sort=False, observed=True):
            group = _met_by_all(every)
            if group.empty:
                what = f"{every['model'].iloc[0]}, {every['threat'].iloc[0]}, {every['goal'].iloc[0]}"
                log.warning("left out: %s: no sample was met by all of its attacks", what)
                continue
            for row in worst_case(group).to_dict("records"):
                auto = attacked(direct(group)).loc[lambda c: c["attack_name"] == "auto"]
                kept = right(auto) * (1 - auto["success_rate"].astype(float))
                held = kept.mean() if len(auto) else math.nan
                rows.append(
                    {
                        **{head: row[head] for head in KNOWN},
                        "data": data,
                        "norm": str(group["norm"].iloc[0]),
                        "autoattack": float(held),
                        "best_known": row["robust"],
                        "left_out": every["sample_id"].nunique() - group["sample_id"].nunique(),
                        "extra_data": "",
                        "architecture": group["family"].iloc[0],
                        **_standing({name: by_name[name] for name in dict.fromkeys(group["run"])}, confirmed),
                    }
                )
    table = pd.DataFrame(rows, columns=HEADS)
    by = ["data", "threat", "goal"]
    place = table.groupby(by, sort=False)["best_known"].rank(ascending=False, method="min")
    table["rank"] = place.astype("Int64")
    return table.sort_values([*by, "rank"], kind="stable").reset_index(drop=True)


def _names(runs: Sequence[Results]) -> list[str]:
    """What each run is called: its folder, with the folder around it where two are called alike."""
    names = [run.name for run in runs]
    paths = [Path(run.name) if run.path is None else run.path.resolve() for run in runs]
    longer = [
        name if names.count(name) == 1 else f"{p.parent.name}/{name}"
        for name, p in zip(names, paths, strict=True)
    ]
    return [name if longer.count(name) == 1 else str(p) for name, p in zip(longer, paths, strict=True)]


def _told_apart(name: str, runs: Mapping[str, Results]) -> pd.DataFrame:
    """A run's records; a model is named after the run too where others mean another one by its name."""
    own = runs[name].records
    models = own["model"].astype(str)
    renamed = {}
    for model in dict.fromkeys(models):
        hashes = {_hash(other, model) for other in runs.values() if (other.records["model"] == model).any()}
        if len(hashes) > 1:
            renamed[model] = f"{model} ({name})"
    return own.assign(model=models.map(lambda model: renamed.get(model, model)), run=name)


def _hash(run: Results, model: str) -> str:
    return str(_resolved(run).get(f"model_sha256 {model}", ""))


def _resolved(run: Results) -> Mapping[str, object]:
    told = run.config.get("resolved")
    return told if isinstance(told, dict) else {}


def _standing(runs: Mapping[str, Results], confirmed: Mapping[Path, int] | None) -> dict[str, str]:
    """Whose runs, when, which; and how many claims in them were confirmed."""
    who = dict.fromkeys(str(run.config.get("author") or "") for run in runs.values())
    when = [str(_resolved(run).get("started", ""))[:10] for run in runs.values()]
    counts = [(confirmed or {}).get(run.path, 0) for run in runs.values() if run.path is not None]
    return {
        "who": ", ".join(filter(None, who)),
        "when": max(when, default=""),
        "runs": ", ".join(runs),
        "verified": "" if confirmed is None else f"{sum(counts):,} claims",
    }


def _met_by_all(records: pd.DataFrame) -> pd.DataFrame:
    """The samples that every attack met: one that only a weak one has seen is no robust sample."""
    attacks = attacked(records).groupby(["attack", "source_model"], dropna=False, observed=True)
    ids = [set(group["sample_id"]) for _, group in attacks]
    return records.loc[records["sample_id"].isin(set.intersection(*ids) if ids else set())]


def model_info(table: pd.DataFrame) -> list[dict[str, object]]:
    """The ranked models in the fields of RobustBench's `model_info` files; what is unknown is empty."""

    def percent(rate: float) -> str:
        return "" if pd.isna(rate) else f"{100 * rate:.2f}"  # two digits, as theirs

    return [
        {
            "link": "",
            "name": row["model"],
            "authors": "",
            "additional_data": None,
            "number_forward_passes": 1,
            "dataset": row["data"],
            "venue": "",
            "architecture": row["architecture"],
            "eps": str(row["threat"]).removeprefix(f"{row['norm']}:"),  # as it was written
            "threat_model": row["norm"],
            "clean_acc": percent(row["clean"]),
            "reported": "",
            "autoattack_acc": percent(row["autoattack"]),
            "external": percent(row["best_known"]),
            "unreliable": False,
            "footnote": f"external: worst case over the attacks run; the strongest was {row['strongest']}",
        }
        for row in table.to_dict("records")
    ]
