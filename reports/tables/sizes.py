"""How large perturbations are: distances, gaps to the exact answer, and robust accuracy against eps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from robustbench_lite.reports.tables.rates import CELL, direct, right
from robustbench_lite.reports.tables.statistics import wilson

WEAK = 1.1  # how much further than the exact answer a stand-in may lead
NORMS = ("l0", "l1", "l2", "linf")
POINTS = 60  # of a robustness curve


def distances(records: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and norm: the sizes of successful perturbations, and the median over all samples.

    mean, lower, median, upper: over successes, with quartiles. median_all: over the samples that the model
    had right, failures counted as infinite.
    """
    rows = []
    for key, cell in direct(records).groupby(CELL, sort=False, observed=True):
        broke, able = cell["success"].astype(bool), right(cell)
        for norm in NORMS:
            size = cell[norm].astype(float)
            won = size.loc[broke]
            all_sizes = size.where(broke, math.inf).loc[able]
            lower, middle, upper = won.quantile([0.25, 0.5, 0.75]) if len(won) else [math.nan] * 3
            rows.append(
                {
                    **dict(zip(CELL, key, strict=True)),
                    "norm": norm,
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
    """One row a cell that sought the smallest perturbation of a model whose exact answer is known.

    distance, exact: medians over the samples that the model had right, failures as infinite; ratio: of the
    two. gap, gap_95: median and 95th percentile of distance / exact - 1, sample by sample. stand_in: the
    gradients were a smooth stand-in's; weak: such a one with a ratio above 1.1.
    """
    rows = []
    records = direct(records)
    able = records.loc[records["eps"].isna() & right(records)]
    for (model, threat, goal), part in able.groupby(["model", "threat", "goal"], sort=False, observed=True):
        known = part.loc[part["exact_distance"].notna()].groupby("sample_id")["exact_distance"].min()
        if known.empty:
            continue
        norm = str(threat).partition(":")[0]
        there = part.loc[part["sample_id"].isin(known.index)]
        for attack, cell in there.groupby("attack", sort=False, observed=True):
            distance = cell[norm].where(cell["success"].astype(bool), math.inf).astype(float)
            exact = known.loc[cell["sample_id"]].to_numpy(float)
            gap = pd.Series(distance.to_numpy() / exact - 1)
            ratio = float(distance.median() / known.median())
            stand_in = bool(cell["stand_in"].any())
            rows.append(
                {
                    **dict(zip(CELL, (model, attack, threat, goal), strict=True)),
                    "samples": len(cell),
                    "distance": float(distance.median()),
                    "exact": float(known.median()),
                    "ratio": ratio,
                    "gap": float(gap.median()),
                    "gap_95": float(gap.quantile(0.95, interpolation="higher")),
                    "stand_in": stand_in,
                    "weak": stand_in and ratio > WEAK,
                }
            )
    heads = [*CELL, "samples", "distance", "exact", "ratio", "gap", "gap_95", "stand_in", "weak"]
    return pd.DataFrame(rows, columns=heads)


def curves(records: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy against eps, of all samples, for cells that sought the smallest perturbation.

    One row a cell and eps, at 0 and at the quantiles of the distances found, with Wilson's interval.
    """
    rows = []
    records = direct(records)
    for key, cell in records.loc[records["eps"].isna()].groupby(CELL, sort=False, observed=True):
        norm = str(key[2]).partition(":")[0]
        if norm not in NORMS:
            continue
        broke, able = cell["success"].astype(bool), right(cell)
        size = np.sort(cell.loc[broke & able, norm].to_numpy(float))
        at = np.linspace(0, 1, POINTS)
        places = np.unique(np.quantile(size, at, method="higher")) if len(size) else np.empty(0)
        for eps in [0.0, *places]:
            held = int(able.sum()) - int(np.searchsorted(size, eps, side="right"))
            low, high = wilson(held, len(cell))
            point = {"eps": float(eps), "robust": held / len(cell), "low": low, "high": high}
            rows.append({**dict(zip(CELL, key, strict=True)), **point})
    return pd.DataFrame(rows, columns=[*CELL, "eps", "robust", "low", "high"])
