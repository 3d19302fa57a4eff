"""How large perturbations are: distances, gaps to the exact answer, and robust accuracy against eps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from robustbench_lite.reports.tables.rates import GROUP, attacked, direct, framed, right
from robustbench_lite.reports.tables.statistics import wilson

FAR = 1.1  # how much further than the exact answer a surrogate's gradient may lead
NORMS = ("l0", "l1", "l2", "linf")
POINTS = 60  # of a robustness curve


def distances(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job and norm: the sizes of successful perturbations, and the median over all samples.

    mean, lower, median, upper: over successes, with quartiles. median_all: over the samples that the model
    had right, failures counted as infinite. own: whether it is the norm that the threat measures in.
    """
    rows = []
    for key, group in direct(records).groupby(GROUP, sort=False, observed=True):
        broke, able = group["success"].astype(bool), right(group)
        for norm in NORMS:
            size = group[norm].astype(float)
            won = size.loc[broke]
            all_sizes = size.where(broke, math.inf).loc[able]
            lower, middle, upper = won.quantile([0.25, 0.5, 0.75]) if len(won) else [math.nan] * 3
            rows.append(
                {
                    **dict(zip(GROUP, key, strict=True)),
                    "norm": norm,
                    "own": str(group["norm"].iloc[0]) == norm,
                    "successes": len(won),
                    "mean": float(won.mean()) if len(won) else math.nan,
                    "lower": float(lower),
                    "median": float(middle),
                    "upper": float(upper),
                    "median_all": float(all_sizes.median()) if len(all_sizes) else math.nan,
                }
            )
    return framed(rows)


def gaps(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job that sought the smallest perturbation of a model with proven distances.

    distance: the median over the samples that the model had right, failures as infinite. exact, ratio: over
    those whose exact distance is known, its median, and the ratio of both. gap, gap_95: median and 95th
    percentile of distance / exact - 1, sample by sample. bound, above: the median of all proven distances,
    and of distance / bound - 1: no gap is larger than that. surrogate: the gradients were a smooth
    surrogate's; weak: such a one with a ratio above 1.1.
    """
    rows = []
    records = direct(records)
    able = attacked(records.loc[records["minimum"].astype(bool) & right(records)])
    for (model, threat, goal), part in able.groupby(["model", "threat", "goal"], sort=False, observed=True):
        bound = part["lower_bound"].astype(float)
        proven = part.loc[np.isfinite(bound) & (bound > 0)]
        known = proven.groupby("sample_id")["lower_bound"].min().astype(float)
        exact = proven.loc[proven["bound_kind"] == "exact"].groupby("sample_id")["lower_bound"].min()
        if known.empty:
            continue
        for attack, group in part.groupby("attack", sort=False, observed=True):
            size = group["distance"].where(group["success"].astype(bool), math.inf).astype(float)
            size.index = pd.Index(group["sample_id"])
            solved, limited = size[size.index.isin(exact.index)], size[size.index.isin(known.index)]
            gap = solved / exact.loc[solved.index].astype(float) - 1
            ratio = float(solved.median() / exact.median()) if len(solved) else math.nan
            surrogate = bool(group["surrogate"].any())
            rows.append(
                {
                    **dict(zip(GROUP, (model, attack, threat, goal), strict=True)),
                    "samples": len(limited),
                    "distance": float(limited.median()),
                    "exact": float(exact.median()) if len(exact) else math.nan,
                    "ratio": ratio,
                    "gap": float(gap.median()) if len(gap) else math.nan,
                    "gap_95": float(gap.quantile(0.95, interpolation="higher")) if len(gap) else math.nan,
                    "bound": float(known.median()),
                    "above": float((limited / known.loc[limited.index] - 1).median()),
                    "surrogate": surrogate,
                    "weak": surrogate and ratio > FAR,
                }
            )
    heads = ["samples", "distance", "exact", "ratio", "gap", "gap_95", "bound", "above", "surrogate", "weak"]
    return pd.DataFrame(rows, columns=[*GROUP, *heads])


def missed(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job at a fixed eps: what it left standing that is known to fall within eps.

    known: of the samples that the model had right, those with an adversarial example inside eps, by another
    attack or because their exact distance is not above it. missed: of these, the share that this attack did
    not break.
    """
    rows = []
    records = direct(records)
    able = attacked(records.loc[~records["minimum"].astype(bool) & right(records)])
    for (model, threat, goal), part in able.groupby(["model", "threat", "goal"], sort=False, observed=True):
        broken = part.loc[part["success"].astype(bool), "sample_id"]
        within = (part["bound_kind"] == "exact") & (
            part["lower_bound"].astype(float) <= part["eps"].astype(float)
        )
        falls = set(broken) | set(part.loc[within.fillna(False), "sample_id"])
        for attack, group in part.groupby("attack", sort=False, observed=True):
            there = group.loc[group["sample_id"].isin(falls)]
            held = float((~there["success"].astype(bool)).mean()) if len(there) else math.nan
            rows.append(
                {
                    **dict(zip(GROUP, (model, attack, threat, goal), strict=True)),
                    "samples": len(group),
                    "known": len(there),
                    "missed": held,
                }
            )
    return pd.DataFrame(rows, columns=[*GROUP, "samples", "known", "missed"])


def curves(records: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy against eps, of all samples, for jobs that sought the smallest perturbation.

    One row a job and eps, at 0 and at the quantiles of the distances found, with Wilson's interval.
    """
    rows = []
    records = direct(records)
    sought = attacked(records.loc[records["minimum"].astype(bool)])
    for key, group in sought.groupby(GROUP, sort=False, observed=True):
        broke, able = group["success"].astype(bool), right(group)
        size = np.sort(group.loc[broke & able, "distance"].to_numpy(float))
        at = np.linspace(0, 1, POINTS)
        places = np.unique(np.quantile(size, at, method="higher")) if len(size) else np.empty(0)
        for eps in [0.0, *places]:
            held = int(able.sum()) - int(np.searchsorted(size, eps, side="right"))
            low, high = wilson(held, len(group))
            point = {"eps": float(eps), "robust": held / len(group), "low": low, "high": high}
            rows.append({**dict(zip(GROUP, key, strict=True)), **point})
    return pd.DataFrame(rows, columns=[*GROUP, "eps", "robust", "low", "high"])
