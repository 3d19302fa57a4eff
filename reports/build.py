"""Reports made again from what runs left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from robustbench_lite.core.errors import RobustError, require
from robustbench_lite.records.schema import whole
from robustbench_lite.reports.figures import plots
from robustbench_lite.reports.format import cell
from robustbench_lite.reports.page.markdown import report as plain_report
from robustbench_lite.reports.page.page import drawn, page
from robustbench_lite.reports.results import Results
from robustbench_lite.reports.tables.catalogue import TABLES
from robustbench_lite.reports.tables.pairs import compared

FORMATS = ("html", "md", "latex", "csv", "parquet", "png", "pdf")


def rebuild(
    runs: Sequence[Results], formats: Sequence[str] = ("html",), out: Path | None = None
) -> list[Path]:
    """Write the report of the last run, compared with the ones before it.

    Parameters
    ----------
    runs : sequence of Results
        At least one.
    formats : sequence of str, default ("html",)
        html: report.html; md: report.md; latex, csv, parquet: a file a table; png, pdf: a file a figure.
    out : Path, optional
        The folder to write to; None: the last run's own.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InvalidParameter
        For another format.
    RobustError
        Where there is neither a folder of the run nor `out`.
    """
    for name in formats:
        require(name in FORMATS, "format", name, f"one of {', '.join(FORMATS)}")
    *before, results = runs
    home = out or results.path
    if home is None:
        raise RobustError("results without a results: say where the report goes")
    written: list[Path] = []

    def text(name: str, content: str) -> None:
        with whole(home / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
        written.append(home / name)

    if "html" in formats:
        text("report.html", page(results, before))
    if "md" in formats:
        text("report.md", plain_report(results))
    wanted_tables = {"csv", "latex", "parquet"} & set(formats)
    tables = {name: results.table(name) for name in TABLES} if wanted_tables else {}
    tables |= {f"compared_{other.name}": compared(other.records, results.records) for other in before}
    for name, table in tables.items():
        if "csv" in formats:
            text(f"tables/{name}.csv", pd.DataFrame(table).map(cell).to_csv(index=False))
        if "latex" in formats:
            text(f"tables/{name}.tex", latex(table))
        if "parquet" in formats:
            with whole(home / "tables" / f"{name}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
            written.append(home / "tables" / f"{name}.parquet")
    wanted = [kind for kind in ("png", "pdf") if kind in formats]
    for group, title, figure in drawn(results) if wanted else ():
        name = re.sub(r"\W+", "-", f"{group} {title}").strip("-").lower()
        for kind in wanted:
            with whole(home / "figures" / f"{name}.{kind}") as temporary, plots.style():
                figure.savefig(temporary, format=kind, dpi=200, facecolor="white")
            written.append(home / "figures" / f"{name}.{kind}")
    return written


def latex(table: pd.DataFrame) -> str:
    """A table for LaTeX with booktabs; rates and sizes to three digits, everything escaped."""
    named = table.rename(columns=lambda head: str(head).replace("_", " "))
    styled = named.style.hide(axis="index").format(escape="latex", precision=3, na_rep="--")
    styled = styled.format_index(escape="latex", axis=1)
    return str(
        styled.to_latex(hrules=True, column_format="".join("r" if n else "l" for n in _numeric(table)))
    )


def _numeric(table: pd.DataFrame) -> list[bool]:
    return [pd.api.types.is_numeric_dtype(table[c]) and table[c].dtype != bool for c in table.columns]
