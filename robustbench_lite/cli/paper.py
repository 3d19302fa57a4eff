"""The commands `print` and `photo`: adversarial examples on paper, and photographs of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from robustbench_lite.cli.run import ask_for_code

RUN = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
TRUST = click.option("--trust", is_flag=True, help="Call the code that the run names without asking.")


@click.command("print")
@RUN
@click.option("--sample", "samples", type=int, multiple=True,
              help="Its sample_id, as often as wanted.  [default: the first of each job]")  # fmt: skip
@click.option("--pairs", default=10, show_default=True, type=click.IntRange(1), help="Of each job, at most.")
@click.option("--size", default=4.0, show_default=True, help="The side of an image, in cm.")
@TRUST
def print_(folder: Path, samples: Sequence[int], pairs: int, size: float, trust: bool) -> None:
    """Write sheets with samples of the run in FOLDER and their adversarial examples side by side.

    They are to be printed at their own size, photographed, and judged by `robust photo`.
    """
    from robustbench_lite.cli.terminal import watching
    from robustbench_lite.records.folder import Folder
    from robustbench_lite.runs.config import make, read
    from robustbench_lite.runs.paper import print_sheets
    from robustbench_lite.runs.plan import Subject, plan

    held = Folder.open(folder)
    settled = make(read(folder / "config.toml"))
    ask_for_code(settled, True, trust)
    with watching(True) as watch:
        planned = plan(settled, Subject.of(settled), watch)
        files = print_sheets(planned, held, samples, pairs, size)
    for file in files:
        click.echo(file)


@click.command()
@RUN
@click.argument("photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@TRUST
def photo(folder: Path, photographs: Path, as_json: bool, trust: bool) -> None:
    """Judge PHOTOGRAPHS, a folder, of sheets that `robust print` made of the run in FOLDER.

    Sub-folders are told apart: one for daylight, one for a lamp, … Each photograph shows a whole sheet.
    destroyed is the share of adversarial examples that no longer are one.
    """
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_table, watching
    from robustbench_lite.records.folder import Folder
    from robustbench_lite.runs.config import make, read
    from robustbench_lite.runs.paper import judge_photographs
    from robustbench_lite.runs.plan import Subject, plan

    held = Folder.open(folder)
    settled = make(read(folder / "config.toml"))
    ask_for_code(settled, True, trust)
    with watching(as_json) as watch:
        planned = plan(settled, Subject.of(settled), watch)
        table, left_out = judge_photographs(planned, held, photographs, watch)
    if as_json:
        click.echo(table.to_json(orient="records", indent=2))
    else:
        show_table("photographs", table, Console())
    for said in left_out:
        click.echo(f"left out: {said}", err=as_json)
