"""Two attacks, or two runs, on the same samples."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from robustbench_lite.reports.tables.rates import GROUP, attacked, direct, right
from robustbench_lite.reports.tables.statistics import mcnemar, wilson

MOST = 20  # attacks of a model and threat that are compared with each other


def pairs(records: pd.DataFrame) -> pd.DataFrame:
    """One row a model, threat, goal and two attacks: whom each broke alone, and McNemar's exact p."""
    rows = []
    at = ["model", "threat", "goal"]
    for key, part in attacked(direct(records)).groupby(at, sort=False, observed=True):
        broken = {
            str(attack): np.unique(group.loc[group["success"].astype(bool), "sample_id"].to_numpy("int64"))
            for attack, group in part[["attack", "success", "sample_id"]].groupby(
                "attack", sort=False, observed=True
            )
        }
        for first, second in itertools.combinations(list(broken)[:MOST], 2):
            both = len(np.intersect1d(broken[first], broken[second], assume_unique=True))
            alone, other = len(broken[first]) - both, len(broken[second]) - both
            rows.append(
                {
                    **dict(zip(at, key, strict=True)),
                    "first": first,
                    "second": second,
                    "both": both,
                    "only_first": alone,
                    "only_second": other,
                    "p": mcnemar(alone, other),
                }
            )
    return pd.DataFrame(rows, columns=[*at, "first", "second", "both", "only_first", "only_second", "p"])


def compared(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """One row a job that two runs share: robust accuracy in each, on the samples that both have.

    lost, gained: samples robust in one and not in the other, before and after. p: McNemar's exact p of the
    two. verdict: `worse` or `better` where p is below 0.05, else `same`.
    """
    rows = []
    old, new = (
        dict(iter(attacked(direct(r)).groupby(GROUP, sort=False, observed=True))) for r in (before, after)
    )
    for key in [k for k in old if k in new]:
        sides = []
        for group in (old[key], new[key]):
            held = right(group) & ~group["success"].astype(bool)
            sides.append(pd.Series(held.to_numpy(bool), index=group["sample_id"].to_numpy()))
        first, second = sides[0].align(sides[1], join="inner")
        lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
        p = mcnemar(lost, gained)
        low, high = wilson(int(second.sum()), len(second))
        rows.append(
            {
                **dict(zip(GROUP, key, strict=True)),
                "samples": len(first),
                "before": float(first.mean()),
                "after": float(second.mean()),
                "low": low,
                "high": high,
                "lost": lost,
                "gained": gained,
                "p": p,
                "verdict": "same" if p >= 0.05 else "worse" if lost > gained else "better",
            }
        )
    heads = [*GROUP, "samples", "before", "after", "low", "high", "lost", "gained", "p", "verdict"]
    return pd.DataFrame(rows, columns=heads)
