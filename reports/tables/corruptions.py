"""Errors on corrupted samples: no adversary, so in no table of attacks."""

from __future__ import annotations

import json

import pandas as pd

NAME = "corruption"
EVERY = "mean"  # the row of all corruptions together
SEVERITIES = range(1, 6)


def of_attacks(records: pd.DataFrame) -> pd.DataFrame:
    """The records but those of corruptions."""
    corrupted = records["attack_name"].astype(str) == NAME
    return records.loc[~corrupted] if corrupted.any() else records


def corruptions(records: pd.DataFrame) -> pd.DataFrame:
    """One row a model and corruption, and one of all: the share of all samples that are classified wrongly.

    clean_error: without a corruption. error: the mean over the severities that were run, and of all over the
    corruptions (Hendrycks & Dietterich 2019, section 4.1, without their division by the errors of AlexNet).
    severity_1 to severity_5: at each. What a model refuses to answer counts as an error.
    """
    heads = ["model", "corruption", "samples", "clean_error", "error", *map(_head, SEVERITIES)]
    held = records.loc[(records["attack_name"].astype(str) == NAME) & (records["outcome"] != "unattacked")]
    if held.empty:
        return pd.DataFrame(columns=heads)
    told = {text: json.loads(text) for text in held["parameters"].astype(str).unique()}
    kind, severity = (
        held["parameters"].astype(str).map(lambda t, k=key: told[t][k]) for key in ("kind", "severity")
    )
    wrong = (held["adversarial_prediction"] != held["label"]).fillna(True).astype(float)
    held = held.assign(corruption=kind, severity=severity, error=wrong)
    rows = []
    for model, part in held.groupby("model", sort=False, observed=True):
        errors = (
            part.groupby(["corruption", "severity"], sort=False)["error"].mean().unstack().sort_index(axis=1)
        )
        errors = errors.loc[list(dict.fromkeys(part["corruption"]))]
        first = part.groupby("sample_id").first()
        facts = {"model": model, "samples": len(first), "clean_error": 1 - float(first["clean_rate"].mean())}
        each = errors.mean(axis=1)
        every = {EVERY: float(each.mean())} | {str(name): float(error) for name, error in each.items()}
        lines = {EVERY: errors.mean()} | {str(name): errors.loc[name] for name in errors.index}
        for name, error in every.items():
            at = {_head(s): float(lines[name].get(s, float("nan"))) for s in SEVERITIES}
            rows.append({**facts, "corruption": name, "error": error, **at})
    return pd.DataFrame(rows, columns=heads)


def _head(severity: int) -> str:
    return f"severity_{severity}"
