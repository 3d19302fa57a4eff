"""The commands that load a run's models: `run`, `diagnose` and `verify`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import click

from robustbench_lite.cli.options import chosen, with_settings
from robustbench_lite.core.errors import RobustError

if TYPE_CHECKING:
    from robustbench_lite.runs.config import Config
    from robustbench_lite.runs.plan import Plan

MANY = "; may be repeated."


@click.command()
@click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--suite", help="lectures (the default), quick, standard, papers, or FILE.toml.")
@click.option("--data", help="Data set: digits, mnist, folder:PATH, npz:PATH, csv:PATH,label=NAME, …")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where torchvision's files are.")
@click.option("--download", is_flag=True, default=None, help="Fetch a data set that is not there.")
@click.option("--model", "models", multiple=True, help=f"Name, or package.module:function{MANY}")
@click.option("--attack", "attacks", multiple=True, help=f"Name, such as iterative:steps=10{MANY}")
@click.option("--threat", "threats", multiple=True, help=f"linf:8/255, l2:0.5, l0:1, l2:min, box{MANY}")
@click.option("--goal", "goals", multiple=True, help=f"untargeted, random, least_likely, top:K{MANY}")
@click.option("--transfer", is_flag=True, default=None, help="Judge what breaks a model on all others too.")
@click.option("--samples", help="How many test samples, or all.  [default: 500]")
@click.option("--workers", type=click.IntRange(1), help="Processes that do jobs side by side.  [default: 1]")
@click.option("--engine", type=click.Choice(["local", "ray"]), help="What has workers: this machine, or a "
              "cluster of Ray (extra [ray]).  [default: local]")  # fmt: skip
@click.option("--ray-address", help="auto, ray://HOST:10001; by default a cluster of this machine alone.")
@click.option("--worker-cpus", type=click.IntRange(1), help="Cores of a worker of Ray.  [default: 1]")
@click.option("--worker-gpus", type=click.FloatRange(0), help="GPUs of a worker of Ray, such as 0.5.")
@click.option("--stop-after", type=click.FloatRange(0, min_open=True), help="Begin no job after so many "
              "seconds; what is there is reported, and --resume goes on.")  # fmt: skip
@click.option("--author", help="Whom a leaderboard names for this run.")
@click.option("--pictures/--no-pictures", default=None, help="Keep what the report shows of samples.")
@with_settings()
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/<time>-<data>]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out: jobs that are done are kept.")
@click.option("--shard", metavar="I/N", help="Carry out this part of the jobs alone, into an --out that all "
              "parts share; auto: as SLURM or torchrun says.  Then: --resume")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the jobs and an estimate, and stop.")
@click.option("--progress", type=click.Choice(["bar", "json", "none"]), default="bar", show_default=True,
              help="On standard error; json: an object a line, for job systems.")  # fmt: skip
@click.option("--log", "logs", multiple=True,
              help=f"Report to tensorboard:FOLDER, mlflow:URI or wandb:PROJECT{MANY}")  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress and no tables.")
@click.option("--verbose", is_flag=True, help="Tell what is decided on the way, on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--trust", is_flag=True, help="Call the code that CONFIG or --out names without asking.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    config: Path | None,
    out: Path | None,
    resume: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **described: object,
) -> None:
    """Attack models on data, judge every sample, print a table and write a folder.

    CONFIG is a TOML file with the same names as the flags, lists in the plural (models, attacks, threats,
    goals); flags go before it.
    """
    from robustbench_lite.runs.config import check_names, make, read
    from robustbench_lite.runs.shard import parse_shard

    if out is not None:
        if out == Path():
            raise RobustError("--out: name a folder")
        out = out.expanduser()
    if resume and out is None:
        raise RobustError("--resume needs --out, the folder of the run to go on with")
    shard = described.pop("shard")
    part = parse_shard(shard, os.environ) if isinstance(shard, str) else None
    if part is not None and out is None:
        raise RobustError("--shard needs --out, the folder that all parts share")
    trust, progress = bool(described.pop("trust")), str(described.pop("progress"))
    logs = cast("Sequence[str]", described.pop("logs"))
    flags = {name: value for name, value in described.items() if value not in (None, ())}
    kept = Path() if out is None else out / "config.toml"
    written = read(config) if config else read(kept) if resume and kept.is_file() else {}
    if resume and not kept.is_file():
        click.echo(f"{out} holds no run yet: a new one begins", err=True)
    settled = make({**written, **flags, **chosen(ctx)})
    check_names(settled)
    if resume and written and settled.search.seed != make(written).search.seed:
        raise RobustError(
            f"{out}: was run with another seed; take another folder for seed {settled.search.seed}"
        )
    others = bool(written) or ((settled.suite or "").endswith(".toml") and "models" not in flags)
    ask_for_code(settled, others, trust)
    if verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("robustbench_lite").setLevel(logging.INFO)

    from rich.console import Console

    from robustbench_lite.cli.terminal import observing, show_result
    from robustbench_lite.records.folder import Folder, new_folder
    from robustbench_lite.runs.loggers import logger
    from robustbench_lite.runs.observers import JsonLines
    from robustbench_lite.runs.plan import Subject, plan
    from robustbench_lite.runs.run import carry_out, carry_out_part

    aside = _nothing_on_stdout if as_json else contextlib.nullcontext
    shown = "none" if quiet or (as_json and progress == "bar") else progress
    trackers = [logger(text) for text in logs]
    tell = JsonLines().said if shown == "json" else partial(click.echo, err=True)
    with aside(), observing(shown) as bar:  # what a model prints is no JSON
        made = plan(settled, Subject.of(settled), bar.went_on)
        if not dry_run:
            folder = Folder.create(out or new_folder(settled.data), resume or part is not None)
            try:
                if part is None:
                    result = carry_out(made, settled, folder, (bar, *trackers))
                else:
                    done = carry_out_part(made, settled, folder, part, (bar, *trackers))
            except KeyboardInterrupt:
                tell(f"stopped; go on with: robust run --resume --out {folder.path}")
                sys.exit(130)
    if dry_run:
        with aside():
            rows = _estimated(made)
        if as_json:
            click.echo(json.dumps({"jobs": rows, "refused": dict(made.refused)}, indent=2))
        else:
            _show_plan(made, rows)
        return
    if part is not None:
        failures = [one for one in done if one.failure]
        for one in failures:
            tell(f"{one.job} failed: {one.failure.strip().splitlines()[-1]}")
        own = len(part.of(made.jobs))
        if not quiet:
            click.echo(
                f"shard {part}: {len(done) - len(failures)} of its {own} jobs done, of {len(made.jobs)} in "
                f"all; when all shards are, robust run --resume --out {folder.path}",
                err=as_json,
            )
        sys.exit(1 if failures or len(done) < own else 0)
    if as_json:
        summary = json.loads(result.table("summary").to_json(orient="records"))
        answer = {"path": str(result.path), "summary": summary, "failures": dict(result.failures)}
        click.echo(json.dumps(answer, indent=2))
    elif not quiet:
        show_result(result, Console())
    else:
        for job, failure in result.failures.items():
            tell(f"{job} failed: {failure.strip().splitlines()[-1]}")
    if result.missing:
        tell(f"go on with: robust run --resume --out {result.path}")
    sys.exit(1 if result.failures or result.missing else 0)


@contextlib.contextmanager
def _nothing_on_stdout() -> Iterator[None]:
    """What anything prints goes to standard error: what is written in Python, and by libraries in C."""
    kept = None
    with contextlib.suppress(OSError):  # standard output or error may be closed
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def ask_for_code(config: Config, from_file: bool, trust: bool) -> None:
    """Let a user see the code that a config from a file names, before it is called."""
    from robustbench_lite.runs.trust import references, remember, unknown

    names = references(config)
    strange = unknown(names) if from_file and not trust else []
    if strange:
        said = f"the config calls code: {', '.join(strange)}"
        if not sys.stdin.isatty():
            raise RobustError(f"{said}; --trust runs it")
        click.confirm(f"{said}; run it?", abort=True, err=True)
    remember(names)


class Estimated(TypedDict):
    """What a job takes at most; None where nobody knows."""

    job: str
    samples: int
    passes: int | None
    seconds: float | None


def _estimated(plan: Plan) -> list[Estimated]:
    """What every job takes at most."""
    from robustbench_lite.runs.plan import estimate

    rows: list[Estimated] = []
    for job in plan.jobs:
        passes, seconds = estimate(plan.workshop.outline(job)) or (None, None)
        rows.append({"job": str(job), "samples": job.end - job.begin, "passes": passes, "seconds": seconds})
    return rows


def _show_plan(plan: Plan, rows: Sequence[Estimated]) -> None:
    for row in rows:
        known = row["passes"] is not None and row["seconds"] is not None
        told = (
            f"at most {row['passes']} passes, {row['seconds']:.1f} s"
            if known
            else "nobody knows how many passes"
        )
        click.echo(f"{row['job']}: {row['samples']} samples, {told}")
    for name, reason in plan.refused.items():
        click.echo(f"{name}: not possible: {reason}")
    each = [row["seconds"] for row in rows if row["seconds"] is not None]
    open_ended = len(rows) - len(each)
    said = [f"{len(each)} of at most {sum(each):.0f} s together"] if each else []
    said += [f"{open_ended} of nobody knows how long"] if open_ended else []
    jobs = f"{len(plan.jobs)} job{'s' * (len(plan.jobs) > 1)}"
    click.echo(f"{jobs} on {plan.workshop.device}: {', '.join(said)}")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--samples", type=int, help="How many samples to check.  [default: as many as the run's]")
@click.option("--attack", "attacks", multiple=True, help=f"Of the run's attacks{MANY}")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--trust", is_flag=True, help="Call the code that the run names without asking.")
def diagnose(folder: Path, samples: int | None, attacks: Sequence[str], as_json: bool, trust: bool) -> None:
    """Check whether the gradient attacks of the run in FOLDER can be trusted; writes tables/flags.csv."""
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_flags, watching
    from robustbench_lite.diagnosis.run import diagnose_run
    from robustbench_lite.records.folder import Folder
    from robustbench_lite.runs.config import make, read

    settled = make(read(folder / "config.toml"))
    ask_for_code(settled, True, trust)
    settled = settled.model_copy(update={"samples": samples} if samples else {})
    with watching(as_json) as watch:
        flags = diagnose_run(settled, attacks, watch)
    Folder.open(folder).text("tables/flags.csv", flags.to_csv(index=False))
    if as_json:
        click.echo(flags.to_json(orient="records", indent=2))
    else:
        show_flags(flags, Console())


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--device", help="cpu, cuda, cuda:1 or auto.  [default: the run's]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--trust", is_flag=True, help="Call the code that the run names without asking.")
def verify(folder: Path, device: str | None, as_json: bool, trust: bool) -> None:
    """Judge the adversarial examples that the run in FOLDER has stored once more, and search nothing.

    Ends with status 1 where a claim is refuted or nothing could be judged. That a sample was held is no
    point to judge: it says that the run's attacks found none.
    """
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_table, watching
    from robustbench_lite.records.folder import Folder
    from robustbench_lite.runs.config import make, read
    from robustbench_lite.runs.verify import Verdict, verify_run

    held = Folder.open(folder)
    written = read(folder / "config.toml")
    settled = make({**written, "device": device} if device else written)
    ask_for_code(settled, True, trust)
    with watching(as_json) as watch:
        table = verify_run(settled, held, watch)
    verdict = Verdict.of(table)
    if as_json:
        click.echo(table.to_json(orient="records", indent=2))
    else:
        show_table("claims", table, Console())
        click.echo(verdict)
    sys.exit(0 if verdict.confirmed and not verdict.refuted else 1)
