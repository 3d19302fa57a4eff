"""What a run found, in sentences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from robustbench_lite.reports.results import Folder

WEAK = {"noise", "fgsm", "bim", "linear_demo"}  # attacks that prove little by themselves


def percent(rate: float) -> str:
    """A rate as people read it."""
    return "–" if not math.isfinite(rate) else f"{100 * rate:.1f} %"


def verdict(folder: Folder) -> list[str]:
    """A sentence or two a threat: what is left of the models' accuracy, and what took the rest."""
    found = []
    worst = folder.table("worst_case").to_dict("records")
    for threat, goal in dict.fromkeys((row["threat"], row["goal"]) for row in worst):
        part = [row for row in worst if (row["threat"], row["goal"]) == (threat, goal)]
        best, least = (choose(part, key=lambda row: float(row["robust"])) for choose in (max, min))
        aim = "" if goal == "untargeted" else f" ({goal})"
        clean = f"{percent(best['clean'])} without an attack"
        if len(part) == 1:
            found.append(
                f"Under {threat}{aim}, {best['model']} keeps {_held(best)} of the samples right; {clean}."
            )
            found[-1] += _strongest(best)
        else:
            found.append(f"Under {threat}{aim}, {best['model']} keeps most, {_held(best)} right ({clean}).")
            found[-1] += f"{_strongest(best)} {least['model']} keeps least, {_held(least)}."
    sizes = folder.table("distances")
    sizes = sizes.loc[sizes["threat"].astype(str).str.endswith(":min")] if len(sizes) else sizes
    for threat, goal in dict.fromkeys(zip(sizes["threat"], sizes["goal"], strict=True)):
        norm = str(threat).partition(":")[0]
        at = (sizes["threat"] == threat) & (sizes["goal"] == goal) & (sizes["norm"] == norm)
        nearest = sizes.loc[at].groupby("model", sort=False, observed=True)["median_all"].min()
        said = ", ".join(f"{model} {value:.3g}" for model, value in nearest.items())
        aim = "" if goal == "untargeted" else f" ({goal})"
        found.append(f"Median smallest {norm} perturbation found{aim}: {said}.")
    return found


def warnings(folder: Folder) -> list[str]:
    """What a reader should know before believing a number."""
    found = [f"{cell} failed: {text.strip().splitlines()[-1]}" for cell, text in folder.failures.items()]
    table = folder.table("summary")
    for row in table.loc[(table["invalid"] > 0) | (table["doubtful"] > 0)].to_dict("records"):
        found.append(
            f"{_cell(row)}: {row['invalid']} returned points were not admissible, {row['doubtful']} "
            "successes did not stand at the second look."
        )
    for (model, threat), part in table.groupby(["model", "threat"], sort=False, observed=True):
        names = {str(attack).partition(":")[0] for attack in part["attack"]}
        if names <= WEAK:
            met = ", ".join(sorted(names))
            found.append(f"{model} met only {met} under {threat}: run auto before believing it.")
    for row in folder.table("gaps").to_dict("records"):
        if row["weak"]:
            found.append(
                f"{_cell(row)}: its stand-in gradient leads {row['ratio']:.2f} times as far as exact."
            )
    found += _transferred(folder)
    for row in folder.flags.to_dict("records"):
        if row["raised"]:
            found.append(f"{_cell(row)}: {row['meaning']} ({row['value']:.3g}). Next: {row['next']}.")
    if folder.flags.empty:
        found.append(f"The attacks were not diagnosed: robust diagnose {folder.path}")
    return found


def _transferred(folder: Folder) -> list[str]:
    """Models that others' points break more often than any attack on the model itself did."""
    found = []
    own = folder.table("summary").to_dict("records")
    others = [r for r in folder.table("transfer").to_dict("records") if r["source"] != r["target"]]
    for key in dict.fromkeys((r["target"], r["threat"], r["goal"]) for r in others):
        part = [r for r in others if (r["target"], r["threat"], r["goal"]) == key]
        mine = [r["success"] for r in own if (r["model"], r["threat"], r["goal"]) == key]
        best = max(part, key=lambda r: -1.0 if math.isnan(r["success"]) else float(r["success"]))
        if mine and best["success"] > max(mine) + 0.01:
            found.append(
                f"{key[0]} falls more often to points made on {best['source']} ({percent(best['success'])}) "
                f"than to any attack on itself ({percent(max(mine))}), {key[1]}: its gradients may mislead."
            )
    return found


def _cell(row: Mapping[Hashable, Any]) -> str:
    return f"{row['model']} × {row['attack']} × {row['threat']}"


def _held(row: Mapping[Hashable, Any]) -> str:
    return f"{100 * row['robust']:.1f} % ± {50 * (row['high'] - row['low']):.1f}"


def _strongest(row: Mapping[Hashable, Any]) -> str:
    name = row["strongest"]
    return f" The strongest attack on it was {name}." if name else " No attack broke any."
