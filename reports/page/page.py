"""The page: one file that holds all a reader needs, and reaches for nothing else."""

from __future__ import annotations

import io
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from robustbench_lite.reports.figures import images, plots
from robustbench_lite.reports.findings import verdict, warnings
from robustbench_lite.reports.format import number as written
from robustbench_lite.reports.format import share
from robustbench_lite.reports.page.cards import cards, main_threat, said
from robustbench_lite.reports.results import Results
from robustbench_lite.reports.tables.catalogue import RARE, RATES
from robustbench_lite.reports.tables.pairs import compared

DRAWN = 24  # of them with figures of their own
CARDS = 60  # jobs in the gallery; the pictures of all are in the folder
TITLES = {
    "answers": "Pixels, places or labels that are wrong, before and after",
    "worst_case": "Worst case over the attacks, sample by sample",
    "summary": "Every attack",
    "corruptions": "Errors on corrupted samples",
    "defenses": "Defenses: as first claimed, and to attackers who know them",
    "rejections": "What refusing to answer costs, and what passes all the same",
    "gaps": "Against proven distances",
    "missed": "What each attack missed of what is known to fall",
    "distances": "Sizes of successful perturbations",
    "confidence": "Confidence before and after",
    "costs": "Cost",
    "per_class": "By class",
    "pairs": "Attacks compared on the same samples",
    "transfer": "From one model to another",
    "winners": "What each part of an attack won, and its passes",
}
SINGULAR = {"models": "model", "attacks": "attack", "threats": "threat", "goals": "goal"}  # of flags
SWITCHES = {"compile", "pictures"}  # flags that can be said either way
OPEN = {"answers", "worst_case", "summary", "defenses", "rejections", "corruptions"}  # not folded away


@dataclass(frozen=True)
class Shown:
    """What a place in a table shows, what it is sorted by, and whether it is a number."""

    text: str
    key: str
    number: bool


@dataclass(frozen=True)
class Sheet:
    """A table for the page."""

    name: str
    title: str
    heads: list[tuple[str, bool]]
    rows: list[list[Shown]]
    folded: bool


def page(results: Results, others: Sequence[Results] = ()) -> str:
    """The page of a run as HTML; others: earlier runs that it is compared with."""
    tables = {name: results.table(name) for name in TITLES}
    resolved = results.config.get("resolved", {})
    settings = {k: v for k, v in results.config.items() if k != "resolved"}
    return template("report.html").render(
        name=results.name,
        data=results.config.get("data", ""),
        cards=list(cards(results)),
        threat=main_threat(results)[0],
        verdict=verdict(results),
        warnings=warnings(results),
        sheets=[sheet(name, TITLES[name], table) for name, table in tables.items() if len(table)],
        compared=[
            sheet(f"compared_{i}", f"Compared with {o.name}", compared(o.records, results.records), False)
            for i, o in enumerate(others)
        ],
        figures=_grouped(results),
        gallery=list(_gallery(results)),
        answers=len(tables["answers"]) > 0,
        learnt=list(_learnt(results)),
        refused=sorted(set(results.refused.values())),
        notes=results.notes,
        settings=settings,
        resolved=resolved if isinstance(resolved, dict) else {},
        command=command(settings),
    )


def template(name: str) -> Template:
    """One of the page's templates; whatever goes into it is escaped."""
    loader = PackageLoader("robustbench_lite.reports.page")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        name
    )


def sheet(name: str, title: str, table: pd.DataFrame, folded: bool | None = None) -> Sheet:
    """A frame as the page shows it: rates in percent, sizes to three digits, columns of nothing left out."""
    table = table.dropna(axis=1, how="all")
    table = table.drop(columns=[c for c in table.columns if c in RARE and not table[c].any()])
    numeric = [pd.api.types.is_numeric_dtype(table[c]) and table[c].dtype != bool for c in table.columns]
    rows = [
        [
            _shown(head, value, is_number)
            for head, value, is_number in zip(table.columns, row, numeric, strict=True)
        ]
        for row in table.itertuples(index=False, name=None)
    ]
    heads = [(str(c).replace("_", " "), n) for c, n in zip(table.columns, numeric, strict=True)]
    return Sheet(name, title, heads, rows, name not in OPEN if folded is None else folded)


def _shown(head: str, value: object, numeric: bool) -> Shown:
    if not numeric:
        return Shown("" if value is None else str(value), str(value), False)
    size = float(str(value))
    if math.isnan(size):
        return Shown(written(size), "-1e999", True)
    if head in RATES and math.isfinite(size):
        return Shown(share(size), repr(size), True)
    if math.isinf(size):
        return Shown(written(size), "1e999", True)
    shown = f"{size:,.0f}" if size == int(size) and abs(size) < 1e15 else written(size)
    return Shown(shown, repr(size), True)


def _pictures(results: Results) -> Iterator[tuple[dict[str, list[object]], dict[str, np.ndarray]]]:
    return iter(()) if results.folder is None else results.folder.pictures()


def _learnt_arrays(results: Results) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    return iter(()) if results.folder is None else results.folder.learnt()


def drawn(results: Results) -> Iterator[tuple[str, str, Figure]]:
    """Every figure of a run that has something to show: its group, its title and itself."""
    rates = results.table("summary")
    fixed = set(results.records.loc[~results.records["minimum"].astype(bool), "threat"].astype(str))
    norms = dict(zip(results.records["threat"].astype(str), results.records["norm"].astype(str), strict=True))
    rates = rates.loc[rates["threat"].isin(fixed)] if len(rates) else rates
    for (threat, goal), part in rates.groupby(["threat", "goal"], sort=False) if len(rates) else []:
        matrix = part.pivot_table(index="model", columns="attack", values="success", sort=False)
        if matrix.size:
            yield "", f"Success, {threat}, {goal}", plots.heat(matrix, "success, %", "", "")
    for threat, title, part in _by_threat(results.table("curves")):
        yield "", f"Robust accuracy against eps, {title}", plots.curves(part, norms.get(threat, threat))
    if len(results.table("corruptions")):
        yield "", "Errors on corrupted samples", plots.corruptions(results.table("corruptions"))
    for _, title, part in _by_threat(results.table("rejections")):
        yield "Attacks that pass, against samples refused without one", title, plots.rejections(part)
    for threat, title, part in _by_threat(results.table("queries")):
        yield "Success against queries", title, plots.queries(part, threat)
    for threat, title, part in _by_threat(results.table("distances")):
        own = part.loc[part["own"], "norm"]
        norm = str(own.iloc[0]) if len(own) and threat not in fixed else "l2"
        if (part.loc[part["norm"] == norm, "successes"] > 0).any():
            yield "Sizes of perturbations", title, plots.spread(part, norm)
    moved = results.table("transfer")
    for key, part in moved.groupby(["attack", "threat", "goal"], sort=False) if len(moved) else []:
        matrix = part.pivot_table(index="source", columns="target", values="success", sort=False)
        if matrix.size:
            figure = plots.heat(matrix, "success, %", "made on", "judged by")
            yield "From one model to another", ", ".join(map(str, key)), figure
    yield from _mistaken(results, results.table("confusion"))


def _by_threat(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The parts of a table that share a threat and a goal: the threat, what to call both, the part."""
    for (threat, goal), part in table.groupby(["threat", "goal"], sort=False, observed=True):
        yield str(threat), str(threat) if goal == "untargeted" else f"{threat}, {goal}", part


def _mistaken(results: Results, turned: pd.DataFrame) -> Iterator[tuple[str, str, Figure]]:
    """For every model, what its strongest attack turns each class into."""
    for model, part in turned.groupby("model", sort=False, observed=True) if len(turned) else []:
        totals = part.groupby(["attack", "threat"], sort=False, observed=True)["samples"].sum()
        attack, threat = list(totals.index)[int(totals.to_numpy().argmax())]
        turned_by = part.loc[(part["attack"] == attack) & (part["threat"] == threat)]
        if turned_by["label"].nunique() > 30:
            continue
        by = ["label", "adversarial_prediction"]
        counts = turned_by.groupby(by, observed=True)["samples"].sum().unstack()
        shares = counts.div(counts.sum(axis=1), axis=0)
        shares.index = [results.class_name(c) for c in shares.index]
        shares.columns = [results.class_name(c) for c in shares.columns]
        figure = plots.heat(shares, "of the broken samples of a class, %", "class", "taken for")
        yield "What broken samples are taken for", f"{model}, {attack}, {threat}", figure


def vector(figure: Figure, title: str) -> Markup:
    """A figure as SVG inside the page, its ink in the colour of the text, its names its own."""
    held = io.StringIO()
    with plots.style():
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    text = held.getvalue()
    text = text[text.index("<svg") :].replace(plots.INK, "currentColor")
    own = re.sub(r"\W+", "-", title)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{own}-", text)
    return Markup(text.replace("<svg ", '<svg role="img" aria-hidden="true" ', 1))


def _grouped(results: Results) -> dict[str, list[tuple[str, Markup]]]:
    """The figures by group, those without one first."""
    groups: dict[str, list[tuple[str, Markup]]] = {"": []}
    for group, title, figure in drawn(results):
        groups.setdefault(group, []).append((title, vector(figure, f"{group} {title}")))
    return groups


def command(settings: Mapping[str, object]) -> str:
    """The command that makes the run again."""
    words = ["robust", "run"]
    for name, value in settings.items():
        flag = "--" + SINGULAR.get(name, name).replace("_", "-")
        if name in SWITCHES:
            words += [flag] if value else [f"--no-{flag[2:]}"]
        elif isinstance(value, bool):
            words += [flag] if value else []
        else:
            for one in value if isinstance(value, list) else [value]:
                words += [flag, str(one)]
    return shlex.join(words)


def _gallery(results: Results) -> Iterator[dict[str, object]]:
    for number, (facts, arrays) in enumerate(_pictures(results)):
        if number == CARDS:
            return
        shown = []
        for row, (before, after) in enumerate(zip(arrays["original"], arrays["adversarial"], strict=True)):
            change, factor = images.signed(after - before)
            fact = {name: values[row] for name, values in facts.items()}
            label, prediction = said(results, fact)
            shown.append(
                {
                    "before": images.picture(before),
                    "after": images.picture(after),
                    "change": change,
                    "factor": f"{factor:.3g}",
                    "label": label,
                    "prediction": prediction,
                    "masks": _masks(arrays, row),
                    "sure": _sure(fact["adversarial_confidence"]),
                    "sure_before": _sure(fact["clean_confidence"]),
                    "l0": f"{float(str(fact['l0'])):.0f}",
                    "l2": f"{float(str(fact['l2'])):.3g}",
                    "linf": f"{float(str(fact['linf'])):.3g}",
                    "id": fact["sample_id"],
                }
            )
        maps = [
            (f"{what} {when}", images.heat(arrays[key][place]))
            for key, what in (("saliency", "gradient"), ("occlusion", "occlusion"))
            if key in arrays
            for place, when in enumerate(("before", "after"))
        ]
        first = {name: values[0] for name, values in facts.items()}
        yield {
            "title": f"{first['model']} × {first['attack']} × {first['threat']}",
            "goal": first["goal"],
            "samples": shown,
            "maps": maps,
            "cut": _cut(results, arrays, number) if number < DRAWN else None,
            "path": _path(arrays, number) if number < DRAWN else None,
            "moving": images.moving(arrays["frames"]) if "frames" in arrays and number < DRAWN else None,
        }


def _masks(arrays: dict[str, np.ndarray], row: int) -> list[tuple[str, str]]:
    """The label of a segmented image, and what the model made of it before and after."""
    if "masks" not in arrays:
        return []
    names = ("label", "before", "after")
    return [(name, images.mask(mask)) for name, mask in zip(names, arrays["masks"][:, row], strict=True)]


def _cut(results: Results, arrays: dict[str, np.ndarray], number: int) -> Markup | None:
    if "cut" not in arrays:
        return None
    names = [results.class_name(c) for c in np.unique(arrays["cut"])]
    figure = plots.regions(arrays["cut"], float(arrays["reach"]), names)
    return vector(figure, f"cut {number}")


def _path(arrays: dict[str, np.ndarray], number: int) -> Markup | None:
    if "margins" not in arrays:
        return None
    return vector(plots.path(arrays["margins"], arrays.get("sure")), f"path {number}")


def _learnt(results: Results) -> Iterator[dict[str, object]]:
    for title, arrays in _learnt_arrays(results):
        if "delta" in arrays and arrays["delta"].ndim == 4:
            change, factor = images.signed(arrays["delta"][0])
            yield {"title": title, "images": [(change, f"× {factor:.3g}")]}
        elif "patch" in arrays:
            yield {"title": title, "images": [(images.picture(arrays["patch"][0]), "the patch")]}
        elif "images" in arrays and arrays["images"].ndim == 4:
            sure = arrays["confidence"]
            shown = [
                (images.picture(image), f"{results.class_name(c)}, {sure[c]:.3f}")
                for c, image in enumerate(arrays["images"][:30])
            ]
            yield {"title": title, "images": shown}


def _sure(value: object) -> str:
    try:
        share = float(str(value))
    except ValueError:
        return ""
    return "" if math.isnan(share) else f"{100 * share:.1f} %"
