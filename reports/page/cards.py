"""The page's first screen: a card a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from robustbench_lite.reports.figures import images
from robustbench_lite.reports.findings import weakly_attacked
from robustbench_lite.reports.format import share
from robustbench_lite.reports.results import Results


@dataclass(frozen=True)
class Card:
    """A model: its accuracy without an attack, the interval in which it is robust, what broke it.

    proven, robust, clean: in percent, for the bar. weak: whether only attacks too weak for it were run.
    """

    model: str
    clean: float
    proven: float
    robust: float
    told: str
    strongest: str
    weak: bool
    before: str = ""
    after: str = ""
    caption: str = ""


def main_threat(results: Results) -> tuple[str, str]:
    """The fixed threat, and its goal, that most models met; without a target where there is such."""
    table = results.table("worst_case")
    if not len(table):
        return "", ""
    plain = table.loc[table["goal"] == "untargeted"]
    counts = (plain if len(plain) else table).groupby(["threat", "goal"], sort=False)["model"].nunique()
    threat, goal = counts.index[int(counts.to_numpy().argmax())]
    return str(threat), str(goal)


def cards(results: Results) -> Iterator[Card]:
    """A card for every model under the main threat, in the order of the run."""
    threat, goal = main_threat(results)
    table = results.table("worst_case")
    pictures = _pictures(results, threat)
    if not len(table):
        return
    at = (table["threat"] == threat) & (table["goal"] == goal)
    for row in table.loc[at].to_dict("records"):
        model, robust = str(row["model"]), float(row["robust"])
        proven = float(row["proven"]) if row["proven"] == row["proven"] else 0.0
        exact = round(proven, 3) == round(robust, 3)
        told = share(robust) if exact else f"{share(proven)} to {share(robust)}"
        before, after, caption = pictures.get(model, ("", "", ""))
        yield Card(
            model, 100 * float(row["clean"]), 100 * proven, 100 * robust, told, str(row["strongest"] or ""),
            weakly_attacked(results, model, threat, goal), before, after, caption,
        )  # fmt: skip


def _pictures(results: Results, threat: str) -> dict[str, tuple[str, str, str]]:
    """For each model an image that broke it under a threat, and what it became."""
    found: dict[str, tuple[str, str, str]] = {}
    for facts, arrays in results.folder.pictures() if results.folder is not None else ():
        model = str(facts["model"][0])
        if str(facts["threat"][0]) != threat or model in found or arrays["original"].ndim != 4:
            continue
        label, taken = said(results, {name: values[0] for name, values in facts.items()})
        shown = images.picture(arrays["original"][0]), images.picture(arrays["adversarial"][0])
        between = "then" if facts.get("task", [None])[0] == "segmentation" else "taken for"
        found[model] = (*shown, f"{label}, {between} {taken}")
    return found


def said(results: Results, fact: Mapping[str, object]) -> tuple[str, str]:
    """What a sample is, and what a model made of it in the end: classes, strings, or shares of pixels."""
    if fact.get("said") is not None:
        both = [fact[key] for key in ("meant", "said")]
        first, second = (
            (" ".join(results.class_name(c) for c in one) or "nothing") if isinstance(one, list) else ""
            for one in both
        )
        return first, second
    if fact.get("task") == "segmentation":
        first, second = (share(float(str(fact[key]))) for key in ("clean_wrong_share", "wrong_share"))
        return f"{first} of the pixels wrong", f"{second} wrong"
    return results.class_name(fact["label"]), results.class_name(fact["adversarial_prediction"])
