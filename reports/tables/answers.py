"""Answers with positions: how many pixels or places are wrong, and what the task counts, before and after."""

from __future__ import annotations

import math

import pandas as pd

from robustbench_lite.reports.tables.rates import GROUP, attacked, direct
from robustbench_lite.reports.tables.statistics import Z95

HEADS = ["samples", "clean_wrong", "wrong", "clean_iou", "iou", "clean_edits", "edits", "low", "high"]


def answers(records: pd.DataFrame) -> pd.DataFrame:
    """One row a job on models of segmentation or strings: means over the samples, attacked or not.

    clean_wrong, wrong: the share of labelled pixels or places that are wrong, before and after. clean_iou,
    iou: of a segmentation the intersection over union, the mean over the classes of each image, then over
    images; clean_edits, edits: of strings the edit distance over the length. low, high: the 95 % interval of
    `iou` or `edits`, by the normal approximation over samples. Where the smallest perturbation is sought,
    after is at the nearest success.
    """
    held = direct(records)
    held = attacked(held.loc[held["wrong_share"].notna()])
    rows: list[dict[str, object]] = []
    for key, group in held.groupby(GROUP, sort=False, observed=True):
        strings = bool((group["task"] == "sequence").all())
        before, after = (group[c].astype(float) for c in ("clean_error", "error"))
        if not strings:
            before, after = 1 - before, 1 - after
        half = Z95 * float(after.std()) / math.sqrt(len(after)) if len(after) > 1 else math.nan
        mean = float(after.mean())
        values = {"clean_edits": float(before.mean()), "edits": mean}
        if not strings:
            values = {"clean_iou": float(before.mean()), "iou": mean}
        rows.append(
            {
                **dict(zip(GROUP, key, strict=True)),
                "samples": len(group),
                "clean_wrong": float(group["clean_wrong_share"].astype(float).mean()),
                "wrong": float(group["wrong_share"].astype(float).mean()),
                **values,
                "low": max(0.0, mean - half),
                "high": mean + half if strings else min(1.0, mean + half),
            }
        )
    return pd.DataFrame(rows, columns=[*GROUP, *HEADS])
