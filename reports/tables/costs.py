"""What attacks cost, and what they do to the model's confidence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from robustbench_lite.reports.tables.rates import GROUP, direct, framed, median, right


def costs(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job: mean passes a sample attacked, median passes to success, time, samples a second.

    fit_forwards, fit_backwards, fit_seconds: of what the attack learnt beforehand, in all; certify_seconds:
    of proving bounds in all, certify_passes: that time a sample, in passes of the attack. memory_mib: the
    most held, by a GPU in the search, by the process up to its end. zero_gradients: the share of samples that
    met a gradient of exactly zero.
    """
    rows = []
    for key, group in direct(records).groupby(GROUP, sort=False, observed=True):
        tried = group.loc[group["forwards"] > 0]
        seconds, proving = float(group["seconds"].sum()), _first(group["certify_seconds"])
        passes = float((group["forwards"] + group["backwards"]).sum())
        priced = seconds > 0 and passes > 0
        found = group.loc[group["success"].astype(bool), "queries_at_success"].dropna()
        rows.append(
            {
                **dict(zip(GROUP, key, strict=True)),
                "attacked": len(tried),
                "forwards": float(tried["forwards"].mean()) if len(tried) else 0.0,
                "backwards": float(tried["backwards"].mean()) if len(tried) else 0.0,
                "to_success": median(found.astype(float)),
                "seconds": seconds,
                "per_second": len(tried) / seconds if seconds > 0 else float("nan"),
                **{name: _first(group[name]) for name in ("fit_forwards", "fit_backwards", "fit_seconds")},
                "certify_seconds": proving,
                "certify_passes": proving / len(group) * passes / seconds if priced else float("nan"),
                "memory_mib": float(group["memory_mib"].astype(float).max()),
                "zero_gradients": float((group["zero_gradients"] > 0).mean()),
            }
        )
    return framed(rows)


def _first(values: pd.Series[float]) -> float:
    """What every record of a job says alike; NaN where it says nothing."""
    known = values.dropna()
    return float(known.iloc[0]) if len(known) else float("nan")


def confidence(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job: mean confidence in the clean prediction, and in what broken samples became."""
    rows = []
    for key, group in direct(records).groupby(GROUP, sort=False, observed=True):
        broken = group.loc[group["success"].astype(bool)]
        rows.append(
            {
                **dict(zip(GROUP, key, strict=True)),
                "clean": float(group.loc[right(group), "clean_confidence"].mean()),
                "before": float(broken["clean_confidence"].mean()),
                "after": float(broken["adversarial_confidence"].mean()),
                "median_after": median(broken["adversarial_confidence"].dropna()),
            }
        )
    return framed(rows)


def queries(records: pd.DataFrame) -> pd.DataFrame:
    """Success against forward passes: one row a job and number of passes."""
    rows = []
    for key, group in direct(records).groupby(GROUP, sort=False, observed=True):
        able = int(right(group).sum())
        found = group.loc[group["success"].astype(bool), "queries_at_success"].dropna().to_numpy(float)
        if not len(found):
            continue
        for passes in np.unique(np.quantile(found, np.linspace(0, 1, 40), method="higher")).tolist():
            reached = float((found <= passes).sum()) / able
            rows.append({**dict(zip(GROUP, key, strict=True)), "queries": int(passes), "success": reached})
    return pd.DataFrame(rows, columns=[*GROUP, "queries", "success"])
