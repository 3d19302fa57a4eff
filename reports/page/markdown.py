"""The plain report: a run's tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from robustbench_lite.reports.tables.rates import summary, transfer, worst_case
from robustbench_lite.reports.tables.sizes import gaps


def report(
    title: str,
    records: pd.DataFrame,
    failures: Mapping[str, str],
    refused: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """The page: worst case, every attack, what failed, what could not be, and what a reader should know."""
    lines = [f"# {title}", ""]
    if len(records):
        lines += ["## Worst case over the attacks", "", markdown(worst_case(records)), ""]
        against_exact = gaps(records)
        if len(against_exact):
            lines += ["## Against the exact distance", "", markdown(against_exact), ""]
        moved = transfer(records)
        if len(moved):
            lines += ["## From one model to another", "", markdown(moved), ""]
        lines += ["## Every attack", "", markdown(summary(records)), ""]
    for heading, entries in (("Failed", failures), ("Not possible", refused)):
        if entries:
            lines += [
                f"## {heading}",
                "",
                *(f"- {_plain(cell)}: {_plain(why)}" for cell, why in entries.items()),
            ]
            lines += [""]
    if notes:
        lines += ["## Notes", "", *(f"- {_plain(note)}" for note in notes), ""]
    return "\n".join(lines)


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; rates and sizes to three digits, pipes escaped."""
    lines = [list(table.columns), ["---"] * len(table.columns)]
    lines += [[shown(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(_plain(str(v)) for v in line) + " |" for line in lines)


def shown(value: object) -> str:
    """A cell as people read it."""
    if isinstance(value, float | np.floating):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _plain(text: str) -> str:
    """One line, without what Markdown or a browser would act on."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")
