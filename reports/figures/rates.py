"""Success rates as bars."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from robustbench_lite.reports.figures.plots import style


def bars(summary: pd.DataFrame, threat: str) -> Figure:
    """The success of every attack on every model, with its 95 % interval, under one threat."""
    models = list(dict.fromkeys(summary["model"].astype(str)))
    with style():
        figure = Figure(figsize=(5.4, 0.6 + 0.22 * len(summary) + 0.3 * len(models)), layout="constrained")
        axes = figure.subplots()
        at, ticks, labels = 0.0, [], []
        for model in models:
            for row in summary.loc[summary["model"] == model].to_dict("records"):
                rate = float(row["success"])
                spread = [[max(0.0, rate - float(row["low"]))], [max(0.0, float(row["high"]) - rate)]]
                axes.barh(at, rate, xerr=spread, height=0.8)
                ticks.append(at)
                labels.append(f"{model} · {row['attack']}")
                at += 1
            at += 0.6
        axes.set_yticks(ticks, labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel(f"attack success rate, {threat}")
    return figure
