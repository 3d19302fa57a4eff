"""The commands `bench` and `plan`: how fast attacks run, and what a run would take."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

from robustbench_lite.cli.options import chosen, with_settings
from robustbench_lite.cli.run import MANY, ask_for_code


@click.command()
@click.option("--data", default="digits", show_default=True, help="What the models are for.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where torchvision's files are.")
@click.option("--model", "models", multiple=True, default=("cnn",), show_default=True, help=f"Name{MANY}")
@click.option(
    "--attack", "attacks", multiple=True, default=("fgsm", "pgd"), show_default=True, help=f"Name{MANY}"
)
@click.option(
    "--threat", "threats", multiple=True, default=("linf:0.1",), show_default=True, help=f"Size{MANY}"
)
@click.option(
    "--samples", default=500, show_default=True, type=click.IntRange(1), help="How many test samples."
)
@click.option(
    "--on", "devices", multiple=True, help=f"cpu, cuda, cuda:1{MANY}  [default: cpu, and cuda if any]"
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1), help="The median of so many counts."
)
@with_settings(("seed", "batch_size", "precision", "compile", "eot"))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the times to this file.")
@click.option("--against", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A file of --out: how many times as fast is it now?")  # fmt: skip
@click.option("--worse", type=click.FloatRange(0), help="With --against: end with status 1 where the time "
              "over that of the bare passes has grown by more than so many percent.")  # fmt: skip
@click.option(
    "--figure", type=click.Path(dir_okay=False, path_type=Path), help="Draw bars into this PNG file."
)
@click.option("--ablate", is_flag=True, help="Time every precision, without and with compiled kernels.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def bench(
    ctx: click.Context, /, out: Path | None, against: Path | None, figure: Path | None, as_json: bool,
    devices: Sequence[str], rounds: int, **described: object,
) -> None:  # fmt: skip
    """Time attacks on models, on the CPU and a GPU side by side; nothing is judged.

    over bare: the time over that of the bare forward and backward passes that the attack is made of.
    """
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_table, watching
    from robustbench_lite.core.errors import RobustError
    from robustbench_lite.records.schema import whole
    from robustbench_lite.reports.figures import plots
    from robustbench_lite.reports.figures.rates import speeds
    from robustbench_lite.runs.bench import bench as timed
    from robustbench_lite.runs.bench import beside, keep, kept, regressions
    from robustbench_lite.runs.config import check_names, make

    ablate, worse = bool(described.pop("ablate")), cast("float | None", described.pop("worse"))
    if worse is not None and against is None:
        raise RobustError("--worse needs --against, the times that it compares with")
    settled = make({**{k: v for k, v in described.items() if v is not None}, **chosen(ctx)})
    check_names(settled)
    ask_for_code(settled, False, False)
    before = None if against is None else kept(against)
    with watching(as_json) as watch:
        table = timed(settled, devices, rounds, watch, ablate)
    if out is not None:
        keep(table, out)
    if before is not None:
        table = beside(table, before)
        if table["times_as_fast"].isna().all():
            raise RobustError(f"{against}: holds no times of what was timed: nothing can be compared")
    if figure is not None:
        with whole(figure) as temporary, plots.style():
            speeds(table).savefig(temporary, format="png", dpi=200, facecolor="white")
    if as_json:
        click.echo(table.to_json(orient="records", indent=2))
    else:
        show_table("speed", table, Console())
    slower = [] if worse is None or before is None else regressions(table, worse)
    for line in slower:
        click.echo(line, err=True)
    sys.exit(1 if slower else 0)


@click.command()
@click.argument("times", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--samples", required=True, type=click.IntRange(1), help="How many each model meets.")
@click.option("--devices", default=1, show_default=True, type=click.IntRange(1), help="How many, alike.")
@click.option("--on", "device", help="Which of the devices in TIMES.  [default: the only one]")
@click.option("--asked", help="Which of the settings of --ablate in TIMES.  [default: the only one]")
@click.option("--price", default=0.0, type=click.FloatRange(0, 1e9), help="Of an hour of a device.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    times: Path, samples: int, devices: int, device: str | None, asked: str | None, price: float,
    as_json: bool,
) -> None:  # fmt: skip
    """What a run would take, by the times that `robust bench --out TIMES` wrote on one such device.

    Passes, hours and cost of every model and attack, and how long all devices would be at it.
    """
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_table
    from robustbench_lite.core.errors import RobustError
    from robustbench_lite.reports.format import number
    from robustbench_lite.runs.bench import kept
    from robustbench_lite.runs.forecast import forecast

    table = kept(times)
    for name, chosen_one in (("device", device), ("asked", asked)):
        table = table if chosen_one is None else table.loc[table[name] == chosen_one]
        if table.empty:
            raise RobustError(f"{times}: holds no times of {chosen_one}")
    found = forecast(table, samples, devices, price)
    if as_json:
        answer = {
            "rows": json.loads(found.table.to_json(orient="records")),
            "hours": found.hours, "device_hours": found.device_hours, "cost": found.cost,
        }  # fmt: skip
        click.echo(json.dumps(answer, indent=2))
        return
    show_table("plan", found.table if price else found.table.drop(columns="cost"), Console())
    cost = f", {found.cost:,.2f} in all" if price else ""
    hours = (
        f"at most {number(found.device_hours)} hours of a device{cost}; {number(found.hours)} on {devices}"
    )
    click.echo(f"{hours}; judging, bounds and loading come on top")
