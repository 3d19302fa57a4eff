"""The command `judge`: adversarial examples made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from robustbench_lite.cli.options import chosen, with_settings


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--model", required=True, help="Name, or package.module:function.")
@click.option("--threat", required=True, help="linf:8/255, l2:0.5, l0:1, …")
@click.option("--data", default="digits", show_default=True, help="What the model is for.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where torchvision's files are.")
@click.option("--goal", default="untargeted", show_default=True, help="untargeted, or given (array target).")
@with_settings(("seed", "device", "batch_size", "draws", "eight_bit"))
@click.option("--out", type=click.Path(path_type=Path), help="Write the records to this Parquet file.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def judge(ctx: click.Context, /, file: str, out: Path | None, as_json: bool, **claimed: str) -> None:
    """Judge adversarial examples made elsewhere.

    FILE is an .npz with the array `adversarial`, and either `x` and `y` or the `ids` of samples of --data.
    """
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_result
    from robustbench_lite.core.registry import build
    from robustbench_lite.core.settings import Search
    from robustbench_lite.jobs.foreign import Claim, judge_file
    from robustbench_lite.records.schema import write
    from robustbench_lite.reports.results import Results

    claim = Claim(file, **claimed)  # type: ignore[arg-type]
    records, notes = judge_file(claim, build(Search, chosen(ctx)))
    if out is not None:
        write(records, out)
    result = Results(records, notes=notes)
    if as_json:
        click.echo(result.table("summary").to_json(orient="records", indent=2))
    else:
        show_result(result, Console())
