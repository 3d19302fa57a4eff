"""What a run found, in sentences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from robustbench_lite.core.registry import entries
from robustbench_lite.reports.format import share
from robustbench_lite.reports.results import Results
from robustbench_lite.reports.tables.corruptions import EVERY, of_attacks
from robustbench_lite.reports.tables.defenses import OBLIVIOUS
from robustbench_lite.reports.tables.rates import GROUP, right

MOST_APPARENT = 5  # defenses that are named
NAMED = 3  # attacks by whose names a doubt is told
LOST = 0.5  # of the task's own measure, before an attack: so much says the model is not what it seems
FEW = 10  # samples, below which an accuracy says nothing of chance
GUIDED = ("gradient", "structure")  # what attacks need that are lost without a gradient
CONTROLS = {"noise", "fgsm", "bim", "linear_demo", OBLIVIOUS}  # attacks that prove little by themselves


def verdict(results: Results) -> list[str]:
    """A sentence or two a threat: what is left of the models' accuracy, and what took the rest."""
    found = _answered(results)
    worst = results.table("worst_case").to_dict("records")
    for threat, goal in dict.fromkeys((row["threat"], row["goal"]) for row in worst):
        part = [row for row in worst if (row["threat"], row["goal"]) == (threat, goal)]
        aim_of = str(threat), str(goal)
        if _ignorant(results, *aim_of):
            continue  # what an attack without knowledge leaves is told beside what the others leave
        met = [row for row in part if not weakly_attacked(results, str(row["model"]), *aim_of)]
        least = min(part, key=lambda row: float(row["robust"]))
        if not met:
            names = ", ".join(str(row["model"]) for row in part)
            said = f"{names} met only attacks too weak to tell anything"
            found.append(f"Under {threat}, {said}.")
            continue
        best = max(met, key=lambda row: float(row["robust"]))
        aim = "" if goal == "untargeted" else f" ({goal})"
        clean = f"{share(best['clean'])} without an attack"
        if len(part) == 1:
            found.append(
                f"Under {threat}{aim}, {best['model']} keeps {_held(best)} of the samples right; {clean}."
            )
            found[-1] += _strongest(best)
        else:
            found.append(f"Under {threat}{aim}, {best['model']} keeps most, {_held(best)} right ({clean}).")
            found[-1] += f"{_strongest(best)} {least['model']} keeps least, {_held(least)}."
            above = [row for row in part if row not in met and row["robust"] > best["robust"]]
            for row in above:
                found[-1] += f" {row['model']}'s {share(row['robust'])} stand on attacks too weak for it."
    found += _apparent(results)
    sizes = results.table("distances")
    minimal = set(results.records.loc[results.records["minimum"].astype(bool), "threat"].astype(str))
    sizes = sizes.loc[sizes["threat"].isin(minimal) & sizes["own"]] if len(sizes) else sizes
    for threat, goal in dict.fromkeys(zip(sizes["threat"], sizes["goal"], strict=True)):
        at = (sizes["threat"] == threat) & (sizes["goal"] == goal)
        norm = sizes.loc[at, "norm"].iloc[0]
        nearest = sizes.loc[at].groupby("model", sort=False, observed=True)["median_all"].min()
        said = ", ".join(f"{model} {value:.3g}" for model, value in nearest.items())
        aim = "" if goal == "untargeted" else f" ({goal})"
        found.append(f"Median smallest {norm} perturbation found{aim}: {said}.")
    return found + _corrupted(results)


def _answered(results: Results) -> list[str]:
    """Under each fixed threat, what the attack that took most left of each model's answers."""
    table = results.table("answers")
    fixed = set(results.records.loc[~results.records["minimum"].astype(bool), "threat"].astype(str))
    table = table.loc[table["threat"].isin(fixed)]
    found = []
    for _, part in table.groupby(["threat", "goal", "model"], sort=False, observed=True):
        row = max(part.to_dict("records"), key=lambda r: float(r["wrong"]))
        threat, goal, model = row["threat"], row["goal"], row["model"]
        aim = "" if goal == "untargeted" else f" ({goal})"
        if math.isnan(row["iou"]):
            what = f"{share(row['clean_edits'])} to {share(row['edits'])} edits a character"
        else:
            what = f"a mean IoU of {share(row['clean_iou'])} to one of {share(row['iou'])}"
        found.append(
            f"Under {threat}{aim}, {row['attack']} takes {model} from {what}; {share(row['wrong'])} of its "
            f"answers' positions are wrong then, {share(row['clean_wrong'])} before."
        )
    return found


def _corrupted(results: Results) -> list[str]:
    """How often models err on corrupted samples, in the mean."""
    table = results.table("corruptions")
    rows = table.loc[table["corruption"] == EVERY].to_dict("records")
    if not rows:
        return []
    said = ", ".join(
        f"{r['model']} {share(r['error'])} ({share(r['clean_error'])} on clean ones)" for r in rows
    )
    return [f"Errors on corrupted samples, in the mean over corruptions and severities: {said}."]


def warnings(results: Results) -> list[str]:
    """What a reader should know before believing a number."""
    found = [f"{job} failed: {text.strip().splitlines()[-1]}" for job, text in results.failures.items()]
    if results.missing:
        found.append(f"{lacking(results)}: this is not the whole run.")
    table = results.table("summary")
    found += doubts_told(results.records, table)
    for row in results.table("worst_case").to_dict("records"):
        if row["by_transfer"] > 0:
            found.append(
                f"{row['model']}, {row['threat']}: only points made on other models broke "
                f"{share(row['by_transfer'])} of the samples; they count in the worst case only."
            )
    for (model, threat), _ in table.groupby(["model", "threat"], sort=False, observed=True):
        held = results.records
        at = (held["model"] == model) & (held["threat"] == threat)
        names = set(held.loc[at, "attack_name"].astype(str))
        if names <= CONTROLS:
            met = ", ".join(sorted(names))
            found.append(f"{model} met only {met} under {threat}: run auto before believing it.")
    for row in results.table("gaps").to_dict("records"):
        if row["weak"]:
            found.append(
                f"{_job(row)}: the gradient of its surrogate leads {row['ratio']:.2f} times as far as exact."
            )
    found += _transferred(results)
    for row in results.flags.to_dict("records"):
        if row["raised"]:
            found.append(f"{_job(row)}: {row['meaning']} ({row['value']:.3g}). Next: {row['next']}.")
    of_classes = of_attacks(results.records)
    of_classes = of_classes.loc[of_classes["wrong_share"].isna()]
    if results.flags.empty and len(of_classes):
        found.append(f"The attacks were not diagnosed: robust diagnose {results.path}")
    return found


def _ignorant(results: Results, threat: str, goal: str) -> bool:
    """Whether only attacks that do not know a defense were run under a threat with a goal."""
    records = results.records
    here = records.loc[(records["threat"] == threat) & (records["goal"] == goal), "attack_name"]
    return set(here.astype(str)) == {OBLIVIOUS}


def _apparent(results: Results) -> list[str]:
    """How much of each defense's robustness an attacker who knows it takes away."""
    table = results.table("defenses")
    found = []
    for threat, part in table.groupby("threat", sort=False, observed=True):
        lost = part.loc[part["apparent"] > 0.05].sort_values("apparent", ascending=False)
        if len(lost):
            said = [
                f"{row['model']} keeps {share(row['claimed'])} where the attack does not know it, "
                f"{share(row['adaptive'])} where one does"
                for row in lost.head(MOST_APPARENT).to_dict("records")
            ]
            more = len(lost) - len(said)
            also = f"; {more} more" * bool(more)
            found.append(f"Robustness that is apparent only, under {threat}: {'; '.join(said)}{also}.")
    return found


def weakly_attacked(results: Results, model: str, threat: str, goal: str = "untargeted") -> bool:
    """Whether a model met only attacks under a threat that say little of it.

    Controls say little of any; the gradient of a stand-in says little of a model without one, where neither
    an exact bound nor an attack that needs no gradient stands beside it.
    """
    records = results.records
    here = records.loc[
        (records["model"] == model) & (records["threat"] == threat) & (records["goal"] == goal)
    ]
    here = here.loc[here["source_model"].isna()]
    names = set(here["attack_name"].astype(str))
    known = entries("attacks")
    enough = {name for name in names - CONTROLS if name in known and known[name].access not in GUIDED}
    if (here["bound_kind"] == "exact").any() or enough or "auto" in names:  # which ends with random squares
        return False
    return names <= CONTROLS or bool(
        here.loc[~here["attack_name"].isin(CONTROLS), "surrogate"].astype(bool).all()
    )


def lacking(results: Results) -> str:
    """What is missing of a run, in words."""
    jobs = f"{len(results.missing)} job{'s' * (len(results.missing) > 1)}"
    return f"The records of {jobs} are gone" if results.finished else f"The run was stopped with {jobs} to go"


def doubts_told(records: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """The doubts about rows of the summary; once where they are the same of several attacks on a model."""
    met: dict[tuple[str, str, str], list[str]] = {}
    for row in summary.to_dict("records"):
        for said in doubts(records, row):
            aim = "" if row["goal"] == "untargeted" else f" ({row['goal']})"
            met.setdefault((str(row["model"]), f"{row['threat']}{aim}", said), []).append(str(row["attack"]))
    found = []
    for (model, aim, said), attacks in met.items():
        names = ", ".join(attacks[:NAMED]) + f" and {len(attacks) - NAMED} more" * (len(attacks) > NAMED)
        found.append(f"{model} × {names} × {aim}: {said}")
    return found


def doubts(records: pd.DataFrame, row: Mapping[Hashable, Any]) -> list[str]:
    """What makes a row of the summary doubtful, in words, with counts."""
    found = []
    here = records.loc[(records[GROUP] == [row[head] for head in GROUP]).all(axis=1)]
    here = here.loc[here["source_model"].isna()]
    if row["invalid"]:
        bad = here.loc[~here["valid"].astype(bool), "reason_kind"].value_counts()
        why = ", ".join(f"{count} {kind}" for kind, count in bad.items())
        found.append(f"{row['invalid']} returned points were not admissible ({why})")
    if row["doubtful"]:
        found.append(
            f"{row['doubtful']} success{'es' * (row['doubtful'] > 1)} did not stand at the second look"
        )
    if row["unattacked"]:
        found.append(f"{row['unattacked']} samples were not attacked, because a limit was reached")
    if len(here) >= FEW and here["label"].notna().any():
        usual = here["label"].value_counts(normalize=True)
        if row["clean"] <= usual.iloc[0] + 0.02:
            found.append(
                f"the model is right for {share(row['clean'])} without an attack, no more than if it always "
                f"said {usual.index[0]}: were its inputs and outputs read as it was trained?"
            )
    lost = here["clean_error"].astype(float).mean()
    if lost >= LOST:
        found.append(
            f"without an attack the answers are {share(lost)} wrong by the task's own measure (1 - IoU, or "
            "edits over length): were the model's inputs and outputs read as it was trained?"
        )
    tried = max(1, int(row["samples"]) - int(row["unattacked"]))
    if row["nan"] > 0.01 * tried:
        found.append(
            f"the model answered {row['nan']} of {tried} samples with NaN: neither held nor broken (goal "
            "option nan=success counts them)"
        )
    bound = here.loc[right(here), "lower_bound"]
    if bound.notna().any() and bound.isna().any():
        found.append(
            f"bounds were sought for {bound.notna().sum()} of {len(bound)} samples only; the others count as "
            "not proven (--certify 1 seeks all)"
        )
    if row["rejected"]:
        found.append(f"the model refused {row['rejected']} samples, which count as held")
    if len(here) and (here["zero_gradients"] > 0).mean() > 0.01:
        zero = float((here["zero_gradients"] > 0).mean())
        found.append(f"{share(zero)} of the samples met a gradient of exactly zero")
    if here["batch_draws"].fillna(False).astype(bool).any():
        found.append("what is drawn for a sample depends on the batch it is in")
    return found


def _transferred(results: Results) -> list[str]:
    """Models that others' points break more often than any attack on the model itself did."""
    found = []
    own = results.table("summary").to_dict("records")
    others = [r for r in results.table("transfer").to_dict("records") if r["source"] != r["target"]]
    for key in dict.fromkeys((r["target"], r["threat"], r["goal"]) for r in others):
        part = [r for r in others if (r["target"], r["threat"], r["goal"]) == key]
        mine = [r["success"] for r in own if (r["model"], r["threat"], r["goal"]) == key]
        best = max(part, key=lambda r: -1.0 if math.isnan(r["success"]) else float(r["success"]))
        if mine and best["success"] > max(mine) + 0.01:
            found.append(
                f"{key[0]} falls more often to points made on {best['source']} ({share(best['success'])}) "
                f"than to any attack on itself ({share(max(mine))}), {key[1]}: its gradients may mislead."
            )
    return found


def _job(row: Mapping[Hashable, Any]) -> str:
    return f"{row['model']} × {row['attack']} × {row['threat']}"


def _held(row: Mapping[Hashable, Any]) -> str:
    held = f"{100 * row['robust']:.1f} % ± {50 * (row['high'] - row['low']):.1f}"
    if math.isnan(row["proven"]):
        return held
    if round(row["proven"], 3) == round(row["robust"], 3):
        return f"{held} (proven)"
    return f"between {share(row['proven'])} (proven) and {held} (attacked)"


def _strongest(row: Mapping[Hashable, Any]) -> str:
    name = row["strongest"]
    return f" The strongest attack on it was {name}." if name else " No attack broke any."
