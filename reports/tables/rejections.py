"""What refusing costs and brings: samples refused without an attack, against attacks that pass."""

from __future__ import annotations

import re

import pandas as pd

from robustbench_lite.reports.tables.defenses import NEVER
from robustbench_lite.reports.tables.rates import attacked, direct, right

# The rate of a detector, which alone sets it apart from others of its kind.
RATE = re.compile(r",\s*rate=[^,()]*|(?<=\()rate=[^,()]*,\s*")


def rejections(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job on a model that may refuse to answer, with what became of the samples.

    detector: the model's name without the rate that its limit was set by: along a detector's rows lies its
    trade-off. false_rejections: the share of samples refused without an attack. passed, refused, held: of the
    samples attacked, those that an attack brought where its goal is, those refused, and all others. Goals to
    which a refusal is a success are left out.
    """
    heads = [
        "detector", "model", "attack", "threat", "goal", "samples", "false_rejections", "passed", "refused",
        "held",
    ]  # fmt: skip
    may = direct(records)
    welcome = may["goal"].astype(str).str.contains("rejection=success", regex=False)
    may = may.loc[may["clean_rejected"].notna() & ~welcome]
    may = may.assign(goal=may["goal"].astype(str).str.replace(NEVER, "", regex=False))
    rows = []
    for key, part in may.groupby(["model", "attack", "threat", "goal"], sort=False, observed=True):
        tried = attacked(part)
        tried = tried.loc[right(tried)]
        passed = tried["success"].astype(bool)
        refused = tried["outcome"] == "rejected"
        rows.append(
            {
                "detector": RATE.sub("", str(key[0])),
                **dict(zip(heads[1:], key, strict=False)),
                "samples": len(part),
                "false_rejections": float(part["clean_rejected"].astype(float).mean()),
                "passed": float(passed.mean()),
                "refused": float((refused & ~passed).mean()),
                "held": float((~refused & ~passed).mean()),
            }
        )
    return pd.DataFrame(rows, columns=heads)
