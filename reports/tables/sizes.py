"""How large perturbations are: distances, gaps to the exact answer, and robust accuracy against eps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from robustbench_lite.reports.tables.rates import GROUP, attacked, direct, right
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
    return pd.DataFrame(rows)


def gaps(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job that sought the smallest perturbation of a model whose exact answer is known.

    distance, exact: medians over the samples that the model had right, failures as infinite; ratio: of the
    two. gap, gap_95: median and 95th percentile of distance / exact - 1, sample by sample. surrogate: the
    gradients were a smooth surrogate's; weak: such a one with a ratio above 1.1.
    """
    rows = []
    records = direct(records)
    able = attacked(records.loc[records["minimum"].astype(bool) & right(records)])
    for (model, threat, goal), part in able.groupby(["model", "threat", "goal"], sort=False, observed=True):
        solved = part.loc[(part["bound_kind"] == "exact") & np.isfinite(part["lower_bound"].astype(float))]
        known = solved.groupby("sample_id")["lower_bound"].min()
        if known.empty:
            continue
        there = part.loc[part["sample_id"].isin(known.index)]
        for attack, group in there.groupby("attack", sort=False, observed=True):
            distance = group["distance"].where(group["success"].astype(bool), math.inf).astype(float)
            exact = known.loc[group["sample_id"]].to_numpy(float)
            gap = pd.Series(distance.to_numpy() / exact - 1)
            ratio = float(distance.median() / known.median())
            surrogate = bool(group["surrogate"].any())
            rows.append(
                {
                    **dict(zip(GROUP, (model, attack, threat, goal), strict=True)),
                    "samples": len(group),
                    "distance": float(distance.median()),
                    "exact": float(known.median()),
                    "ratio": ratio,
                    "gap": float(gap.median()),
                    "gap_95": float(gap.quantile(0.95, interpolation="higher")),
                    "surrogate": surrogate,
                    "weak": surrogate and ratio > FAR,
                }
            )
    heads = [*GROUP, "samples", "distance", "exact", "ratio", "gap", "gap_95", "surrogate", "weak"]
    return pd.DataFrame(rows, columns=heads)


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
