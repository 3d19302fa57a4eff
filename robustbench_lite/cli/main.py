"""The command `robust`: knows click only; everything else is imported when a command runs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustbench_lite import __version__
from robustbench_lite.cli import reports
from robustbench_lite.core.errors import RobustError

if TYPE_CHECKING:
    from robustbench_lite.core.registry import Entry
    from robustbench_lite.runs.plan import Plan

KINDS = ("attacks", "models", "defenses", "data")


class Commands(click.Group):
    """Prints an error the user can put right as one line, and exits with status 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except RobustError as error:
            click.echo(f"robust: {error}", err=True)
            sys.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robust")
def main() -> None:
    """How robust is your classifier, and how far can you trust that number?

    `robust run` with nothing else attacks small models on real digits.
    """


@main.command()
@click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", help="Data set: digits, mnist, folder:PATH, npz:PATH, csv:PATH,label=NAME, …")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where torchvision's files are.")
@click.option("--download", is_flag=True, default=None, help="Fetch a data set that is not there.")
@click.option("--model", "models", multiple=True, help="Name, or package.module:function; may be repeated.")
@click.option("--attack", "attacks", multiple=True, help="Name, such as iterative:steps=10; may be repeated.")
@click.option("--threat", "threats", multiple=True, help="linf:8/255, l2:0.5, l0:1, l2:min; may be repeated.")
@click.option(
    "--goal", "goals", multiple=True, help="untargeted, random, least_likely, top:K; may be repeated."
)
@click.option(
    "--transfer", is_flag=True, default=None, help="Judge what breaks one model on all the others too."
)
@click.option("--samples", help="How many test samples, or all.  [default: 500]")
@click.option("--seed", type=int, help="Of everything random.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:1.  [default: auto]")
@click.option("--batch-size", type=int, help="Samples at once.  [default: what fits in memory]")
@click.option("--budget", type=int, help="Forward and backward passes allowed to a sample.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "tf32", "bfloat16"]),
    help="Of the search for gradients; the verdict is always float32.",
)
@click.option(
    "--compile/--no-compile",
    default=None,
    help="Kernels of its own for the search.  [default: where the planned work repays them]",
)
@click.option("--eot", type=int, help="Draws that a stochastic model is averaged over.")
@click.option("--time-limit", type=float, help="Seconds allowed to a cell.")
@click.option("--eight-bit", is_flag=True, default=None, help="Judge again as an 8-bit image.")
@click.option("--pictures/--no-pictures", default=None, help="Keep what the report shows of samples.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write.  [default: runs/<time>-<data>]"
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out: cells that are done are kept.")
@click.option("--dry-run", is_flag=True, help="Print the cells and an estimate, and stop.")
@click.option("--quiet", is_flag=True, help="No progress and no tables.")
@click.option("--verbose", is_flag=True, help="Tell what is decided on the way, on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def run(
    config: Path | None,
    data: str | None,
    data_dir: Path | None,
    download: bool | None,
    models: Sequence[str],
    attacks: Sequence[str],
    threats: Sequence[str],
    goals: Sequence[str],
    transfer: bool | None,
    samples: str | None,
    seed: int | None,
    device: str | None,
    batch_size: int | None,
    budget: int | None,
    eot: int | None,
    precision: str | None,
    compile: bool | None,
    time_limit: float | None,
    eight_bit: bool | None,
    pictures: bool | None,
    out: Path | None,
    resume: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Attack models on data, judge every sample, print a table and write a folder.

    CONFIG is a TOML file with the same names as the flags, lists in the plural (models, attacks, threats,
    goals); flags go before it.
    """
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_result, watching
    from robustbench_lite.records.folder import Store, new_folder
    from robustbench_lite.runs.config import make, read
    from robustbench_lite.runs.plan import plan
    from robustbench_lite.runs.run import carry_out

    if verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("robustbench_lite").setLevel(logging.INFO)
    if resume and out is None:
        raise RobustError("--resume needs --out, the folder of the run to go on with")
    flags: Mapping[str, object] = {
        "data": data,
        "data_dir": data_dir,
        "download": download,
        "models": models or None,
        "attacks": attacks or None,
        "threats": threats or None,
        "goals": goals or None,
        "transfer": transfer,
        "samples": samples,
        "seed": seed,
        "device": device,
        "batch_size": batch_size,
        "budget": budget,
        "eot": eot,
        "precision": precision,
        "compile": compile,
        "time_limit": time_limit,
        "eight_bit": eight_bit,
        "pictures": pictures,
    }
    kept = Path() if out is None else out / "config.toml"
    written = read(config) if config else read(kept) if resume and kept.is_file() else {}
    settings = make({**written, **{name: value for name, value in flags.items() if value is not None}})
    with watching(quiet or as_json) as watch:
        made = plan(settings, settings.data, settings.models, settings.attacks, watch)
        if not dry_run:
            store = Store.open(out or new_folder(settings.data), resume)
            try:
                result = carry_out(made, settings, store, watch)
            except KeyboardInterrupt:
                click.echo(f"stopped; go on with: robust run --resume --out {store.folder}", err=True)
                sys.exit(130)
    if dry_run:
        _show_plan(made)
        return
    if as_json:
        summary = json.loads(result.table("summary").to_json(orient="records"))
        answer = {"path": str(result.path), "summary": summary, "failures": dict(result.failures)}
        click.echo(json.dumps(answer, indent=2))
    elif not quiet:
        show_result(result, Console())
    sys.exit(1 if result.failures else 0)


def _show_plan(plan: Plan) -> None:
    from robustbench_lite.jobs.job import estimate

    total = 0.0
    for cell in plan.cells:
        passes, seconds = estimate(cell)
        total += seconds
        click.echo(f"{cell}: {len(cell.data)} samples, at most {passes} passes, {seconds:.1f} s")
    for name, reason in plan.refused.items():
        click.echo(f"{name}: not possible: {reason}")
    click.echo(f"{len(plan.cells)} cells, at most {total:.0f} s on {plan.models[0].device}")


@main.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(kind: str, as_json: bool) -> None:
    """List the attacks, models, defenses or data sets there are."""
    from robustbench_lite.core.registry import entries

    found = entries(kind, _table(kind))
    if as_json:
        click.echo(json.dumps([vars(entry) for entry in found.values()], indent=2))
        return
    wide = max((len(name) for name in found), default=0)
    for entry in found.values():
        facts = ", ".join(fact for fact in (entry.access, entry.norms) if fact)
        click.echo(f"{entry.name:<{wide}}  {entry.summary}{f'  ({facts})' if facts else ''}")
    if not found:
        click.echo(f"no {kind} yet")
    elif kind == "models":
        click.echo(
            "also: ensemble(NAME,NAME), transformed(NAME,rotation=15,shift=0.1,scale=0.1,noise=0.05), "
            "FILE.skops, package.module:function"
        )


@main.command()
@click.argument("kind", type=click.Choice([k.removesuffix("s") for k in KINDS]))
@click.argument("name")
def info(kind: str, name: str) -> None:
    """Describe one attack, model, defense or data set: source, parameters with defaults."""
    import inspect

    from robustbench_lite.core.registry import load, look_up

    kinds = kind if kind == "data" else f"{kind}s"
    entry = look_up(kinds, _table(kinds), name.partition(":")[0])
    thing = load(entry.where, kind)
    click.echo(f"{entry.name}: {entry.summary}")
    for title, fact in (("source", entry.paper), ("access", entry.access), ("norms", entry.norms)):
        if fact:
            click.echo(f"{title}: {fact}")
    click.echo(f"\n{inspect.getdoc(thing) or ''}\n")
    skip = 0 if isinstance(thing, type) else {"model": 2, "data": 1}.get(kind, 0)
    parameters = list(inspect.signature(thing).parameters.values())[skip:] if callable(thing) else []
    for p in parameters:
        click.echo(f"  {p.name}: {p.annotation}" + ("" if p.default is p.empty else f" = {p.default}"))
    if not parameters:
        click.echo("  no parameters")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--samples", type=int, help="How many samples to check.  [default: as many as the run's]")
@click.option("--attack", "attacks", multiple=True, help="Of the run's attacks; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diagnose(folder: Path, samples: int | None, attacks: Sequence[str], as_json: bool) -> None:
    """Check whether the gradient attacks of the run in FOLDER can be trusted; writes tables/flags.csv."""
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_flags, watching
    from robustbench_lite.diagnosis.checks import diagnose_run
    from robustbench_lite.records.folder import Store
    from robustbench_lite.runs.config import make, read

    settings = make(read(folder / "config.toml"))
    settings = settings.model_copy(update={"samples": samples} if samples else {})
    with watching(as_json) as watch:
        flags = diagnose_run(settings, attacks, watch)
    Store.open(folder, resume=True).text("tables/flags.csv", flags.to_csv(index=False))
    if as_json:
        click.echo(flags.to_json(orient="records", indent=2))
    else:
        show_flags(flags, Console())


@main.command()
@click.option("--quiet", is_flag=True, help="No progress.")
def demo(quiet: bool) -> None:
    """Show why a linear model falls: ten numbers, then an image."""
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_demo, watching
    from robustbench_lite.demo import image, ten_numbers

    with watching(quiet) as watch:
        digit = image(report=lambda what, fraction: watch(f"training {what}", fraction))
    show_demo(ten_numbers(), digit, Console())


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--model", required=True, help="Name, or package.module:function.")
@click.option("--threat", required=True, help="linf:8/255, l2:0.5, l0:1, …")
@click.option("--data", default="digits", show_default=True, help="What the model is for.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where torchvision's files are.")
@click.option("--goal", default="untargeted", show_default=True, help="untargeted, or given (array target).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--seed", default=0, show_default=True, help="Of the data's split and the model's training.")
@click.option("--eight-bit", is_flag=True, help="Judge again as an 8-bit image.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the records to this Parquet file.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def judge(
    file: str,
    model: str,
    threat: str,
    data: str,
    data_dir: Path | None,
    goal: str,
    device: str,
    seed: int,
    eight_bit: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Judge adversarial examples made elsewhere.

    FILE is an .npz with the array `adversarial`, and either `x` and `y` or the `ids` of samples of --data.
    """
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_result
    from robustbench_lite.jobs.foreign import judge_file
    from robustbench_lite.records.schema import write
    from robustbench_lite.runs.run import RunResult

    records, notes = judge_file(file, model, threat, data, data_dir, goal, device, seed, eight_bit)
    if out is not None:
        write(records, out)
    result = RunResult(records, out, {}, {}, notes)
    if as_json:
        click.echo(result.table("summary").to_json(orient="records", indent=2))
    else:
        show_result(result, Console())


for _command in (reports.report, reports.show, reports.serve, reports.leaderboard):
    main.add_command(_command)


def _table(kind: str) -> Mapping[str, Entry]:
    import importlib

    module = importlib.import_module(f"robustbench_lite.{kind}")
    table: Mapping[str, Entry] = getattr(module, kind.upper())
    return table
