"""The command `leaderboard`: models ranked over many runs, whose claims are judged again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustbench_lite.cli.run import ask_for_code

if TYPE_CHECKING:
    from robustbench_lite.reports.results import Results

RUN = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN)
@click.option("--verify", is_flag=True, help="Judge the stored examples of each run again; leave out a run "
              "with a claim that does not hold. What was judged before is not judged again.")  # fmt: skip
@click.option("--verdicts", type=click.Path(dir_okay=False, path_type=Path), default="verdicts.json",
              show_default=True, help="Where --verify keeps what it found.")  # fmt: skip
@click.option("--device", help="Of --verify: cpu, cuda, cuda:1 or auto.  [default: the run's]")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file.")
@click.option("--title", default="Leaderboard", show_default=True, help="Of the page.")
@click.option("--json", "as_json", is_flag=True, help="Print RobustBench's model_info fields as JSON.")
@click.option("--trust", is_flag=True, help="Of --verify: call the code that runs name without asking.")
def leaderboard(
    runs: Sequence[Path], verify: bool, verdicts: Path, device: str | None, html: Path | None, title: str,
    as_json: bool, trust: bool,
) -> None:  # fmt: skip
    """Rank the models of runs by worst-case robust accuracy, threat by threat.

    RUNS are folders of runs, or folders that hold such.
    """
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_table
    from robustbench_lite.core.errors import RobustError
    from robustbench_lite.records.folder import runs_in
    from robustbench_lite.records.schema import whole
    from robustbench_lite.reports.leaderboard import leaderboard as ranked
    from robustbench_lite.reports.leaderboard import model_info
    from robustbench_lite.reports.page.board import board
    from robustbench_lite.reports.results import Results

    notes: list[str] = []
    found = []
    for folder in runs_in(runs):
        try:
            found.append(Results.open(folder))
        except RobustError as error:
            notes.append(f"left out: {folder}: {error}")
    confirmed: dict[Path, int] | None = None
    if verify:
        told, confirmed = _verified(found, verdicts, device, trust)
        notes += told
        found = [run for run in found if run.path in confirmed]
    if not found:
        raise RobustError("; ".join(notes) or f"{', '.join(map(str, runs))}: no run in there")
    for note in notes:
        click.echo(note, err=True)
    table = ranked(found, confirmed)
    if html is not None:
        if not verify:
            notes.append("The claims of these runs were not judged again (--verify does).")
        with whole(html) as temporary:
            temporary.write_text(board(table, notes, title), encoding="utf-8")
        click.echo(html, err=True)
    if as_json:
        click.echo(json.dumps(model_info(table), indent=2))
    elif html is None:
        show_table("Leaderboard", table, Console())


def _verified(
    runs: Sequence[Results], verdicts: Path, device: str | None, trust: bool
) -> tuple[list[str], dict[Path, int]]:
    """What is left out and why, and how many claims of each other run were confirmed."""
    from robustbench_lite.core.guard import one_line
    from robustbench_lite.runs.config import make, read
    from robustbench_lite.runs.verify import Verdict, Verdicts, verify_run

    known, notes, confirmed = Verdicts.read(verdicts), [], {}
    for run in runs:
        assert run.folder is not None
        assert run.path is not None
        digest = run.folder.digest()
        verdict = known.of.get(digest)
        if verdict is None:
            try:
                written = read(run.folder.path / "config.toml")
                settled = make({**written, "device": device} if device else written)
                ask_for_code(settled, True, trust)
                verdict = Verdict.of(verify_run(settled, run.folder))
            except click.Abort:
                notes.append(f"left out: {run.path}: its code was not to be called")
                continue
            except Exception as error:  # whatever is in one run, the others are judged
                notes.append(f"left out: {run.path}: it cannot be judged again: {one_line(error)}")
                continue
            known.of[digest] = verdict
            known.write(verdicts)
        if verdict.stands:
            confirmed[run.path] = verdict.confirmed
        else:
            notes.append(f"left out: {run.path}: {verdict}")
    return notes, confirmed
