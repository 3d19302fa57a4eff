"""Success rates and speeds as bars."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from robustbench_lite.reports.figures.plots import SERIES, logarithmic, style


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


def speeds(times: pd.DataFrame) -> Figure:
    """Images a second of every attack on every model, a bar a device and setting, on a logarithmic scale."""
    several = times["asked"].nunique() > 1
    times = times.assign(device=times["device"].astype(str) + (": " + times["asked"] if several else ""))
    devices = list(dict.fromkeys(times["device"]))
    jobs = list(dict.fromkeys(zip(times["model"], times["attack"], times["threat"], strict=True)))
    with style():
        figure = Figure(figsize=(5.4, 0.8 + 0.3 * len(jobs) * len(devices)), layout="constrained")
        axes = figure.subplots()
        height = 0.8 / len(devices)
        for number, device in enumerate(devices):
            part = times.loc[times["device"] == device]
            found = zip(part["model"], part["attack"], part["threat"], part["images_per_second"], strict=True)
            rates = {(model, attack, threat): rate for model, attack, threat, rate in found}
            at = [place + (number - (len(devices) - 1) / 2) * height for place in range(len(jobs))]
            values = [float(rates.get(job, 0.0)) for job in jobs]
            bars = axes.barh(at, values, height=height, color=SERIES[number % len(SERIES)], label=device)
            axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        axes.set_yticks(range(len(jobs)), [" · ".join(job) for job in jobs])
        axes.invert_yaxis()
        logarithmic(axes)
        axes.set_xlabel("images a second")
        axes.legend(fontsize=8)
    return figure
