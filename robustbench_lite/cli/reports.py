"""The commands that read runs: `report`, `show`, `merge`, `status` and `serve`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

RUN = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN)
@click.option("--format", "formats", default="html", show_default=True,
              help="html, md, latex, csv, parquet, png, pdf; several separated by commas.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: the last run's]")
def report(runs: Sequence[Path], formats: str, out: Path | None) -> None:
    """Build the report of a run again; with several, of the last one, compared with those before it."""
    from robustbench_lite.reports.build import rebuild
    from robustbench_lite.reports.results import Results

    for file in rebuild(
        [Results.open(run) for run in runs], [name.strip() for name in formats.split(",")], out
    ):
        click.echo(str(file))


@click.command()
@click.argument("run", type=RUN)
@click.option("--table", "names", multiple=True, help="Name of a table; may be repeated.")
def show(run: Path, names: Sequence[str]) -> None:
    """Print the tables of the run in RUN."""
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_result, show_table
    from robustbench_lite.reports.results import Results

    result = Results.open(run)
    if not names:
        show_result(result, Console())
    for name in names:
        show_table(name, result.table(name), Console())


@click.command()
@click.argument("parts", nargs=-1, required=True, type=RUN)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder that holds no run yet.")
def merge(parts: Sequence[Path], out: Path) -> None:
    """Join shards of one run that were carried out in folders of their own.

    Ends with status 1 where jobs are missing or have failed; robust run --resume --out OUT does them.
    """
    from robustbench_lite.records.folder import Folder
    from robustbench_lite.runs.merge import merge as joined

    folder = joined([Folder.open(part) for part in parts], out)
    told = folder.told()
    missing, jobs = folder.missing(), told.jobs or []
    failed, done = len(told.failed), len(jobs) - len(missing) - len(told.failed)
    click.echo(f"{done} of {len(jobs)} jobs, {failed} failed, {len(missing)} missing: {folder.path}")
    sys.exit(1 if missing or told.failed else 0)


@click.command()
@click.argument("run", type=RUN)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(run: Path, as_json: bool) -> None:
    """How far the run in RUN has come: jobs done, failed and missing, and about how long the rest takes.

    Ends with status 1 while a job is missing or has failed.
    """
    from robustbench_lite.records.folder import Folder
    from robustbench_lite.reports.format import number

    begun = (run / "notes.json").is_file()  # perhaps before the first job has ended
    facts = (Folder(run) if begun else Folder.open(run)).progress()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        left = facts["seconds_left"]
        running = f" ({facts['running']} of them running)" if facts["missing"] else ""
        rest = "" if left is None else f"; about {number(left)} s of attacks left, one job at a time"
        click.echo(f"{facts['done']} of {facts['jobs']} jobs done, {facts['failed']} failed, "
                   f"{facts['missing']} missing{running}{rest}")  # fmt: skip
        if facts["missing"] or facts["failed"]:
            click.echo(f"go on with: robust run --resume --out {run}")
    sys.exit(1 if facts["missing"] or facts["failed"] else 0)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN)
@click.option("--port", default=8765, show_default=True, help="0 takes any that is free.")
def serve(runs: Sequence[Path], port: int) -> None:
    """Show runs in a browser on this machine; a folder of runs stands for all in it."""
    from robustbench_lite.core.errors import RobustError
    from robustbench_lite.records.folder import runs_in
    from robustbench_lite.reports.build import rebuild
    from robustbench_lite.reports.results import Results
    from robustbench_lite.reports.serve import server

    found = runs_in(runs)
    for run in list(found):
        try:
            if not (run / "report.html").is_file():
                rebuild([Results.open(run)])
        except RobustError as error:
            click.echo(f"left out: {error}", err=True)
            found.remove(run)
    if not found:
        raise RobustError(f"{', '.join(map(str, runs))}: no run in there")
    try:
        held = server(found, port)
    except (OSError, OverflowError) as error:
        raise RobustError(f"port {port}: {error}") from None
    click.echo(f"http://127.0.0.1:{held.server_address[1]}/  (Ctrl-C ends it)")
    try:
        held.serve_forever()
    except KeyboardInterrupt:
        held.server_close()
