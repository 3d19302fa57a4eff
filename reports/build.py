"""Reports made again from what runs left, and a server that shows them on this machine only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

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


def server(paths: Sequence[Path], port: int) -> ThreadingHTTPServer:
    """A server of runs on 127.0.0.1, not started yet: an index, and every run's folder below its number.

    Parameters
    ----------
    paths : sequence of Path
        The runs' folders.
    port : int

    Returns
    -------
    http.server.ThreadingHTTPServer
    """
    folders = [path.resolve() for path in paths]
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, folders))


class _Handler(SimpleHTTPRequestHandler):
    """Files of the runs' folders and an index of them; nothing else, and no listing."""

    def __init__(self, folders: Sequence[Path], *others: object) -> None:
        self.folders = folders
        super().__init__(*others)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            self.send_error(403)  # another site's name that leads here
            return
        file = self._file()
        if urlsplit(self.path).path == "/":
            self._answer(_index(self.folders).encode(), "text/html; charset=utf-8")
        elif file is None:
            self.send_error(404)
        else:
            self._answer(file.read_bytes(), self.guess_type(str(file)))

    do_HEAD = do_GET

    def _file(self) -> Path | None:
        """The file that a path means, links followed; None where it leaves its run's folder."""
        number, _, rest = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        known = number.isascii() and number.isdecimal() and len(number) < 10
        if not known or int(number) >= len(self.folders) or "\0" in rest:
            return None
        home = self.folders[int(number)]
        try:
            file = (home / (rest or "report.html")).resolve()
            return file if file.is_relative_to(home) and file.is_file() else None
        except (OSError, RuntimeError, ValueError):  # a name that is too long, a link to itself
            return None

    def _answer(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "sandbox allow-scripts allow-popups")  # sees no neighbour
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: who serves to himself needs no log."""


def _index(folders: Sequence[Path]) -> str:
    rows = "".join(
        f'<li><a href="/{number}/report.html">{escape(path.name)}</a></li>'
        for number, path in enumerate(folders)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>robust runs</title>'
        '<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}'
        "body{font:16px/1.6 system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem}</style>"
        f"<h1>Runs</h1><ul>{rows}</ul></html>"
    )
