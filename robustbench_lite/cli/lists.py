"""The commands that tell what there is: `list`, `info` and `demo`."""

from __future__ import annotations

import json

import click

from robustbench_lite.core.registry import KINDS


@click.command("list")
@click.argument("kind", type=click.Choice([*KINDS, "suites"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(kind: str, as_json: bool) -> None:
    """List the attacks, models, defenses, data sets, threats, certifiers or suites there are."""
    from robustbench_lite.core.registry import Entry, entries

    if kind == "suites":
        from robustbench_lite.runs.suite import read_suite, suites

        found = {name: Entry(name, "", read_suite(name).summary) for name in suites()}
    else:
        found = entries(kind)
    if as_json:
        click.echo(json.dumps([vars(entry) for entry in found.values()], indent=2))
        return
    wide = max((len(name) for name in found), default=0)
    for entry in found.values():
        facts = ", ".join(fact for fact in (entry.access, entry.norms) if fact)
        click.echo(f"{entry.name:<{wide}}  {entry.summary}{f'  ({facts})' if facts else ''}")
    if not found:
        click.echo(f"no {kind} yet")
    elif kind == "attacks":
        click.echo("also: attacks of other libraries: robust list peers")
    elif kind == "models":
        click.echo("also: FILE.skops, FILE.onnx, FILE.pt, FILE.ubj, FILE.txt, package.module:function; then")
        click.echo("      ,reject=CLASS ,units=own|scaled ,outputs=…")


@click.command()
@click.argument("kind", type=click.Choice([k if k == "data" else k.removesuffix("s") for k in KINDS]))
@click.argument("name")
def info(kind: str, name: str) -> None:
    """Describe one attack, model, defense, data set, threat or certifier: source and parameters."""
    import inspect

    from robustbench_lite.core.parameters import described, hints_of
    from robustbench_lite.core.registry import load, look_up, read_name
    from robustbench_lite.search.attack import Attack

    kinds = kind if kind == "data" else f"{kind}s"
    entry = look_up(kinds, read_name(kinds, name).head)
    thing = load(entry.where, kind)
    click.echo(f"{entry.name}: {entry.summary}")
    of = " ".join(sorted(thing.tasks)) if isinstance(thing, type) and issubclass(thing, Attack) else ""
    of = entry.task if kind == "model" else of
    facts = ("source", entry.paper), ("access", entry.access), ("norms", entry.norms), ("tasks", of)
    for title, fact in facts:
        if fact:
            click.echo(f"{title}: {fact}")
    click.echo(f"\n{inspect.getdoc(thing) or ''}\n")
    skip = {"model": 1 if entry.inner else 2, "data": 1, "threat": 1}.get(kind, 0)
    skip = 0 if isinstance(thing, type) else skip
    parameters = list(inspect.signature(thing).parameters.values())[skip:] if callable(thing) else []
    hints = hints_of(thing) if parameters else {}
    for p in parameters:
        usual = "" if p.default is p.empty else f" = {p.default}"
        click.echo(f"  {p.name}: {described(hints[p.name])}{usual}")
    if not parameters:
        click.echo("  no parameters")


@click.command()
@click.option("--quiet", is_flag=True, help="No progress.")
def demo(quiet: bool) -> None:
    """Show why a linear model falls: ten numbers, then an image."""
    from rich.console import Console

    from robustbench_lite.cli.terminal import show_demo, watching
    from robustbench_lite.demo import image, ten_numbers

    with watching(quiet) as watch:
        digit = image(report=lambda what, fraction: watch(f"training {what}", fraction))
    show_demo(ten_numbers(), digit, Console())
