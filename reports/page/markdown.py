"""The plain report: a run's tables as Markdown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from robustbench_lite.reports.format import number
from robustbench_lite.reports.results import Results

TITLES = {
    "answers": "Pixels, places or labels that are wrong, before and after",
    "worst_case": "Worst case over the attacks",
    "defenses": "Defenses: as first claimed, and to attackers who know them",
    "rejections": "What refusing to answer costs, and what passes all the same",
    "corruptions": "Errors on corrupted samples",
    "gaps": "Against proven distances",
    "missed": "What each attack missed of what is known to fall",
    "transfer": "From one model to another",
    "summary": "Every attack",
}


def report(results: Results) -> str:
    """The page: worst case, every attack, what failed, what could not be, and what a reader should know."""
    lines = [f"# robust run: {results.config.get('data', '')}", ""]
    if len(results.records):
        for name, title in TITLES.items():
            table = results.table(name)
            if len(table):
                lines += [f"## {title}", "", markdown(table), ""]
    failures = {job: told.strip().splitlines()[-1] for job, told in results.failures.items()}
    for heading, entries in (("Failed", failures), ("Not possible", results.refused)):
        if entries:
            lines += [f"## {heading}", ""]
            lines += [f"- {_plain(job)}: {_plain(why)}" for job, why in entries.items()]
            lines += [""]
    if results.notes:
        lines += ["## Notes", "", *(f"- {_plain(note)}" for note in results.notes), ""]
    return "\n".join(lines)


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; rates and sizes to three digits, pipes escaped."""
    lines = [list(table.columns), ["---"] * len(table.columns)]
    lines += [[_shown(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(_plain(str(v)) for v in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """One line, without what Markdown or a browser would act on."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")


def _shown(value: object) -> str:
    return number(float(value)) if isinstance(value, float | np.floating) else str(value)
