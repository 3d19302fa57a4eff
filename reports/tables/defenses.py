"""What defenses are worth: to an attacker who does not know them, and to those who do."""

from __future__ import annotations

import math

import pandas as pd

from robustbench_lite.core.registry import entries
from robustbench_lite.reports.tables.rates import counted, proven, right

OBLIVIOUS = "oblivious"
BLIND = ("score", "decision")  # access of attacks that use no gradients
AUTO = "auto"  # needs decisions, and uses whatever else there is
NEVER = ",stop=never"


def defenses(records: pd.DataFrame) -> pd.DataFrame:
    """One row a model, threat and goal that an oblivious attack met too: robust accuracy to each attacker.

    claimed: right and not broken by attacks that do not know the defense, all of them together. adaptive: by
    those that do: every other attack on the model itself. transfer: by points made on others. black_box:
    by attacks on the model that use no gradients. proven: what no attack can take. apparent: claimed less
    adaptive. zero_gradients: the share of samples whose gradient was exactly zero at least once, as it came,
    for the oblivious attacks. NaN where no such attack was run.
    """
    heads = [
        "model", "threat", "goal", "samples", "clean", "claimed", "adaptive", "transfer", "black_box",
        "proven", "apparent", "zero_gradients",
    ]  # fmt: skip
    held = counted(records)
    held = held.assign(goal=held["goal"].astype(str).str.replace(NEVER, "", regex=False))
    known = entries("attacks")
    access = {
        name: known[name].access if name in known else "" for name in held["attack_name"].astype(str).unique()
    }
    rows = []
    for key, part in held.groupby(["model", "threat", "goal"], sort=False, observed=True):
        own = part["source_model"].isna()
        names = part["attack_name"].astype(str)
        blind, ignorant = names.map(access).isin(BLIND) & (names != AUTO), names == OBLIVIOUS
        if not (ignorant & own).any():
            continue
        claimed, adaptive = kept(part.loc[own & ignorant]), kept(part.loc[own & ~ignorant])
        rows.append(
            {
                **dict(zip(heads, key, strict=False)),
                "samples": part["sample_id"].nunique(),
                "clean": float(part.loc[own].groupby("sample_id")["clean_rate"].first().mean()),
                "claimed": claimed,
                "adaptive": adaptive,
                "transfer": kept(part.loc[~own]),
                "black_box": kept(part.loc[own & blind]),
                "proven": proven(part.loc[own & ignorant]),
                "apparent": claimed - adaptive,
                "zero_gradients": float((part.loc[own & ignorant, "zero_gradients"] > 0).mean()),
            }
        )
    return pd.DataFrame(rows, columns=heads)


def kept(records: pd.DataFrame) -> float:
    """The share of samples that are right and that none of the records breaks; NaN of none."""
    if not len(records):
        return math.nan
    broke = records["success_rate"].astype(float).where(right(records), 1.0)
    return float(1 - broke.groupby(records["sample_id"]).max().mean())
