"""Figures of tables: functions that return a matplotlib Figure; ink stands for the colour of the text."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

INK = "#010203"  # replaced by the page's own text colour
ACCENT = "#2f6f8f"
SERIES = ("#2f6f8f", "#c2703d", "#5b8c5a", "#8a5a94", "#b3993b", "#a04a5a", "#4a7fb5", "#7a7a7a")
STYLES = ("-", "--", "-.", ":")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of every figure, undone afterwards."""
    look: dict[str, object] = {
        "font.size": 9,
        "font.family": "sans-serif",
        "svg.fonttype": "none",
        "svg.hashsalt": "robust",
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "legend.frameon": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with mpl.rc_context(look):  # type: ignore[arg-type]
        yield


def curves(part: pd.DataFrame, norm: str) -> Figure:
    """Robust accuracy against eps, a panel a model, a line an attack with its 95 % band; one scale."""
    models = list(dict.fromkeys(part["model"]))
    attacks = list(dict.fromkeys(part["attack"]))
    with style():
        figure, panels = _panels(len(models))
        finite = part["eps"].replace(np.inf, np.nan)
        most = float(finite.max()) or 1.0
        for model, axes in zip(models, panels, strict=False):
            for number, attack in enumerate(attacks):
                line = part.loc[(part["model"] == model) & (part["attack"] == attack)].sort_values("eps")
                if line.empty:
                    continue
                colour = SERIES[number % len(SERIES)]
                eps = [*line["eps"], most]
                robust, low, high = ([*line[c], line[c].iloc[-1]] for c in ("robust", "low", "high"))
                dash = STYLES[(number // len(SERIES)) % len(STYLES)]
                axes.step(eps, robust, where="post", color=colour, lw=1.4, ls=dash, label=attack)
                axes.fill_between(eps, low, high, step="post", color=colour, alpha=0.12, lw=0)
            axes.set(title=model, xlim=(0, most), ylim=(0, 1))
        figure.supxlabel(f"eps, {norm}", fontsize=9)
        figure.supylabel("robust accuracy", fontsize=9)
        _legend(figure, panels)
    return figure


def corruptions(table: pd.DataFrame) -> Figure:
    """The error against severity, from no corruption on: a panel a corruption, a line a model."""
    models, kinds = (list(dict.fromkeys(table[head])) for head in ("model", "corruption"))
    heads = [head for head in table if str(head).startswith("severity_")]
    with style():
        figure, panels = _panels(len(kinds))
        for kind, axes in zip(kinds, panels, strict=False):
            for number, model in enumerate(models):
                line = table.loc[(table["model"] == model) & (table["corruption"] == kind)]
                if not line.empty:
                    errors = line.iloc[0][["clean_error", *heads]].to_numpy(float)
                    colour, dash = SERIES[number % len(SERIES)], STYLES[(number // len(SERIES)) % len(STYLES)]
                    run = np.flatnonzero(~np.isnan(errors))
                    axes.plot(run, errors[run], "o", color=colour, lw=1.4, ls=dash, ms=2, label=model)
            axes.set(title=kind.replace("_", " "), xlim=(0, len(heads)), ylim=(0, 1))
        figure.supxlabel("severity", fontsize=9)
        figure.supylabel("error", fontsize=9)
        _legend(figure, panels)
    return figure


def rejections(table: pd.DataFrame) -> Figure:
    """Attacks that pass against samples refused without one: a panel an attack, a line a detector."""
    attacks, detectors = (list(dict.fromkeys(table[head])) for head in ("attack", "detector"))
    most = max(0.05, float(table["false_rejections"].max()) * 1.1)
    with style():
        figure, panels = _panels(len(attacks))
        for attack, axes in zip(attacks, panels, strict=False):
            for number, detector in enumerate(detectors):
                line = table.loc[(table["attack"] == attack) & (table["detector"] == detector)]
                line = line.sort_values("false_rejections")
                colour, dash = SERIES[number % len(SERIES)], STYLES[(number // len(SERIES)) % len(STYLES)]
                axes.plot(line["false_rejections"], line["passed"], "o", color=colour, lw=1.4, ls=dash, ms=3,
                          label=detector)  # fmt: skip
            name = textwrap.fill(attack.replace(",", ", "), 34)
            axes.set(title=name, xlim=(0, most), ylim=(0, 1))
        figure.supxlabel("refused without an attack", fontsize=9)
        figure.supylabel("attacks that pass", fontsize=9)
        _legend(figure, panels)
    return figure


def queries(part: pd.DataFrame, threat: str) -> Figure:
    """Success against forward passes, a panel a model, on a logarithmic scale that all share."""
    models = list(dict.fromkeys(part["model"]))
    attacks = list(dict.fromkeys(part["attack"]))
    with style():
        figure, panels = _panels(len(models))
        most = max(2.0, float(part["queries"].max()))
        for model, axes in zip(models, panels, strict=False):
            for number, attack in enumerate(attacks):
                line = part.loc[(part["model"] == model) & (part["attack"] == attack)].sort_values("queries")
                if line.empty:
                    continue
                x, y = [*line["queries"], most], [*line["success"], line["success"].iloc[-1]]
                colour = SERIES[number % len(SERIES)]
                axes.step(x, y, where="post", color=colour, lw=1.4, label=attack)
            axes.set(title=model, xlim=(1, most * 1.05), ylim=(0, 1))
            logarithmic(axes)
        figure.supxlabel("forward passes a sample", fontsize=9)
        figure.supylabel("success", fontsize=9)
        _legend(figure, panels)
    return figure


def spread(table: pd.DataFrame, norm: str) -> Figure:
    """Sizes of successful perturbations: the quartiles and the median of each job, a row an attack."""
    part = table.loc[(table["norm"] == norm) & (table["successes"] > 0)]
    models = list(dict.fromkeys(part["model"]))
    attacks = list(dict.fromkeys(part["attack"]))
    with style():
        figure, panels = _panels(len(models), height=0.7 + 0.22 * len(attacks))
        most = float(part["upper"].max()) or 1.0
        for model, axes in zip(models, panels, strict=False):
            for number, attack in enumerate(attacks):
                for row in part.loc[(part["model"] == model) & (part["attack"] == attack)].itertuples():
                    axes.plot([row.lower, row.upper], [number, number], color=ACCENT, lw=3, alpha=0.45)
                    axes.plot([row.median], [number], "o", color=ACCENT, ms=4)
            axes.set(title=model, xlim=(0, most * 1.05), ylim=(len(attacks) - 0.5, -0.5))
            axes.set_yticks(range(len(attacks)), attacks)
        figure.supxlabel(f"{norm} distance of successes", fontsize=9)
    return figure


def heat(matrix: pd.DataFrame, title: str, rows: str, columns: str) -> Figure:
    """Rates as shades of one colour, each with its number."""
    with style():
        below, beside = (max(len(str(name)) for name in names) for names in (matrix.columns, matrix.index))
        size = (1.2 + 0.62 * len(matrix.columns) + 0.07 * beside, 0.9 + 0.34 * len(matrix) + 0.05 * below)
        figure = Figure(figsize=(min(size[0], 11), size[1]), layout="constrained")
        axes = figure.subplots()
        values = matrix.to_numpy(float)
        colours = mpl.colors.LinearSegmentedColormap.from_list("accent", ["#ffffff00", ACCENT])
        axes.imshow(values, cmap=colours, vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                dark = value > 0.6
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center",
                          color="#ffffff" if dark else INK, fontsize=8)  # fmt: skip
        axes.set_xticks(range(len(matrix.columns)), map(str, matrix.columns), rotation=35, ha="right")
        axes.set_yticks(range(len(matrix)), map(str, matrix.index))
        axes.set(xlabel=columns, ylabel=rows)
        axes.set_title(title, fontsize=9, loc="left")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def regions(cut: np.ndarray, reach: float, names: Sequence[str]) -> Figure:
    """The classes on a plane through a sample: along the gradient and along a random direction."""
    with style():
        figure = Figure(figsize=(3.0, 2.1))
        axes = figure.add_axes((0.17, 0.2, 0.52, 0.75))
        present = np.unique(cut)
        place = np.searchsorted(present, cut)
        colours = mpl.colors.ListedColormap([SERIES[i % len(SERIES)] for i in range(len(present))])
        extent = (-reach, reach, -reach, reach)
        axes.imshow(place, origin="lower", extent=extent, cmap=colours, alpha=0.55, vmin=-0.5,
                    vmax=len(present) - 0.5, interpolation="nearest")  # fmt: skip
        axes.plot([0], [0], "+", color=INK, ms=8)
        for number in range(len(present)):
            axes.plot([], [], "s", color=SERIES[number % len(SERIES)], alpha=0.7, label=names[number])
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, handletextpad=0.1)
        axes.set_xlabel("along the gradient, l2", fontsize=8)
        axes.set_ylabel("across", fontsize=8)
        axes.tick_params(labelsize=7)
    return figure


def path(margins: np.ndarray, sure: np.ndarray | None) -> Figure:
    """The margin (steps, lanes) along an attack's path, and the probability of the class, if it has one."""
    with style():
        figure = Figure(figsize=(3.0, 1.7))
        axes = figure.add_axes((0.17, 0.26, 0.62, 0.66))
        steps = np.arange(1, len(margins) + 1)
        axes.plot(steps, margins, color=ACCENT, lw=1.2, alpha=0.8)
        axes.axhline(0, color=INK, lw=0.5)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel("margin", fontsize=8, color=ACCENT)
        axes.tick_params(labelsize=7)
        if sure is not None:
            right = axes.twinx()
            right.plot(steps, sure, color=SERIES[1], lw=1.2, alpha=0.8)
            right.set_ylim(0, 1)
            right.set_ylabel("probability", fontsize=8, color=SERIES[1])
            right.tick_params(labelsize=7)
    return figure


def logarithmic(axes: Axes) -> None:
    """Powers of ten across, as plain numbers: formulas are not drawn, since names may hold a dollar."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _panels(count: int, height: float = 1.9) -> tuple[Figure, list[Axes]]:
    columns = min(3, max(1, count))
    rows = -(-count // columns)
    figure = Figure(figsize=(max(4.2, 2.7 * columns), height * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.set_axis_off()
    return figure, panels


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    known: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        known |= {label: known.get(label, handle) for handle, label in zip(handles, labels, strict=True)}
    longest = 0.55 + 0.065 * max(map(len, known), default=0)  # inches that a line and its name take
    columns = max(1, min(4, len(known), int(figure.get_figwidth() / longest)))
    figure.legend(list(known.values()), list(known), loc="outside upper center", ncols=columns, fontsize=8)
