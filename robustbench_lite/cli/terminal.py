"""What people see in the terminal: progress, tables and the demonstration."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import pandas as pd
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from robustbench_lite.demo import WEIGHTS, Example, ImageExample
from robustbench_lite.jobs.make import Watch
from robustbench_lite.reports.findings import doubts_told, lacking
from robustbench_lite.reports.format import interval, number, percent, printable, proven_to
from robustbench_lite.reports.page.page import sheet
from robustbench_lite.reports.results import Results
from robustbench_lite.runs.observers import JsonLines, Meter, Observer, is_aside


def escape(text: str) -> str:
    """Text for a terminal: no markup, and nothing in it that steers one."""
    return escape_markup(printable(text))


WIDEST = 8  # targets of a matrix that a terminal can show
MIN_WIDTH, SHORT = 9, 14  # of a column of names, and of a name that is not folded
SLIM, NARROW = 50, 78  # columns below which a table keeps one number, or four
SHADES = " ░▒▓█"


@contextlib.contextmanager
def watching(quiet: bool) -> Iterator[Watch]:
    """Whom to tell what goes on: a progress bar, or nobody."""
    with observing("none" if quiet else "bar") as observer:
        yield observer.went_on


@contextlib.contextmanager
def observing(how: str) -> Iterator[Observer]:
    """What shows how far a run has come, on standard error: `bar`, `json` or `none`."""
    if how == "json":
        lines = JsonLines()
        with _told(lines.said):
            yield lines
        return
    if how != "bar":
        yield Observer()
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.stop()


@contextlib.contextmanager
def _told(say: Callable[[str], None]) -> Iterator[None]:
    """Warnings of this package are said in this way, and in no other."""

    class Sayer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                say(self.format(record))
            except Exception:  # standard error is closed, say
                self.handleError(record)

    own, handler = logging.getLogger("robustbench_lite"), Sayer()
    before, own.propagate = own.propagate, False
    own.addHandler(handler)
    try:
        yield
    finally:
        own.removeHandler(handler)
        own.propagate = before


class Bar(Meter):
    """A progress bar on standard error: one task for the jobs, one for every model that is trained."""

    def __init__(self) -> None:
        super().__init__()
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[so_far]}"),
        ]
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self.tasks: dict[str, TaskID] = {}

    def went_on(self, what: str, fraction: float) -> None:
        super().went_on(what, fraction)
        key = what if is_aside(what) else "jobs"
        if key not in self.tasks:
            self.progress.start()
            self.tasks[key] = self.progress.add_task(escape(what), total=1.0, so_far="")
        so_far = ""
        if key == "jobs" and self.success is not None:
            so_far = f"{number(self.rate)} samples/s, {percent(self.success)} % broken"
        self.progress.update(self.tasks[key], completed=fraction, description=escape(what), so_far=so_far)

    def stop(self) -> None:
        """Take it away."""
        if self.tasks:
            self.progress.stop()


def show_result(result: Results, console: Console) -> None:
    """One table a threat and goal, the worst case of every model, and what a reader should know."""
    if len(result.records):
        for (threat, goal), part in result.table("summary").groupby(["threat", "goal"], sort=False):
            console.print(_summary(f"{threat}, {goal}", part, result.records, console.width))
        if len(result.table("answers")):
            console.print(_answers(result.table("answers")))
        if len(result.table("worst_case")):
            console.print(_worst(result.table("worst_case")))
        if len(result.table("defenses")):
            console.print(_defenses(result.table("defenses")))
        if len(result.table("rejections")):
            console.print(_rejections(result.table("rejections")))
        if len(result.table("corruptions")):
            console.print(_corruptions(result.table("corruptions")))
        if len(result.table("gaps")):
            console.print(_gaps(result.table("gaps")))
        for key, part in result.table("transfer").groupby(["attack", "threat", "goal"], sort=False):
            if part["target"].nunique() <= WIDEST:
                console.print(_transfer(", ".join(map(str, key)), part))
    for why in dict.fromkeys(result.refused.values()):
        console.print(f"[dim]not possible: {escape(why)}[/]")
    for job, text in result.failures.items():
        console.print(f"[red]failed:[/] {escape(job)}: {escape(text.strip().splitlines()[-1])}")
    if result.missing:
        console.print(f"[red]missing:[/] {lacking(result)}")
    for note in result.notes:
        console.print(f"[dim]note: {escape(note)}[/]")
    if result.path is not None and (result.path / "report.html").is_file():
        console.print(f"report: {escape(str(result.path / 'report.html'))}", soft_wrap=True)
    if result.path is not None:
        console.print(f"records, tables and adversarial examples: {escape(str(result.path))}", soft_wrap=True)


def _table(title: str, words: list[str], numbers: list[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0)
    for head in words:
        table.add_column(head, overflow="fold", min_width=MIN_WIDTH)
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _summary(title: str, summary: pd.DataFrame, records: pd.DataFrame, width: int) -> Table:
    eight_bit = bool(summary["eight_bit"].notna().any())
    every = ["clean", "success", "95 %", "robust", "L2", "Linf", "queries", "s"] + ["8-bit"] * eight_bit
    kept = 1 if width < SLIM else 4 if width < NARROW else len(every)
    heads = ["success"] if kept == 1 else every[:kept]
    table = _table(escape(title), ["model", "attack"], heads)
    table.columns[1].min_width = max(MIN_WIDTH, min(SHORT, int(summary["attack"].str.len().max())))
    before = None
    for row in summary.to_dict("records"):
        if before not in (None, row["model"]):
            table.add_section()
        first = row["model"] != before
        before = row["model"]
        shown = [
            escape(row["model"]) if first else "",
            escape(row["attack"]),
            percent(row["clean"]) if first else "",
            percent(row["success"]),
            interval(row["low"], row["high"]),
            proven_to(row["proven"], row["robust"]),
            number(row["l2"]),
            number(row["linf"]),
            number(row["queries"]),
            f"{row['seconds']:.2f}",
        ]
        shown += [percent(row["eight_bit"])] * eight_bit
        at = [0, 1, *(2 + place for place, head in enumerate(every) if head in heads)]
        table.add_row(*(shown[place] for place in at))
    doubted = doubts_told(records, summary)
    table.caption = escape("\n".join(doubted)) or None
    return table


def _worst(worst: pd.DataFrame) -> Table:
    title = "Worst case over the attacks, sample by sample"
    table = _table(title, ["model", "threat", "goal", "strongest attack"], ["clean", "robust", "95 %"])
    for row in worst.to_dict("records"):
        names = [escape(str(row[head])) for head in ("model", "threat", "goal", "strongest")]
        table.add_row(
            *names,
            percent(row["clean"]),
            proven_to(row["proven"], row["robust"]),
            interval(row["low"], row["high"]),
        )
    return table


def _answers(answers: pd.DataFrame) -> Table:
    """Shares of wrong pixels or places, and the task's own measure, before and after."""
    measure = "edits" if answers["iou"].isna().all() else "iou"
    title = {"iou": "mean IoU of each answer", "edits": "edits over the length of a string"}[measure]
    heads = ["wrong", "after", "IoU" if measure == "iou" else "edits", "after", "95 %"]
    named = ["model", "attack", "threat", *(["goal"] if answers["goal"].nunique() > 1 else [])]
    table = _table(f"Wrong pixels, places or labels, and {title}", named, heads)
    for row in answers.to_dict("records"):
        names = [escape(str(row[head])) for head in named]
        values = [row["clean_wrong"], row["wrong"], row[f"clean_{measure}"], row[measure]]
        table.add_row(*names, *map(percent, values), interval(row["low"], row["high"]))
    return table


def _transfer(title: str, part: pd.DataFrame) -> Table:
    """Sources as rows, targets as columns: success on what the target had right."""
    matrix = part.pivot_table(index="source", columns="target", values="success", sort=False)
    table = _table(escape(f"Made on a row's model, judged by a column's: {title}"), ["source"], [])
    for target in matrix.columns:
        table.add_column(escape(str(target)), justify="right")
    for source, row in matrix.iterrows():
        table.add_row(escape(str(source)), *(percent(row[target]) for target in matrix.columns))
    return table


def _defenses(defenses: pd.DataFrame) -> Table:
    title = "Robust accuracy to an attacker who does not know the defense, and to those who do"
    heads = ["clean", "claimed", "adaptive", "transfer", "black box", "proven", "apparent"]
    table = _table(title, ["model", "threat"], heads)
    for row in defenses.to_dict("records"):
        rates = [percent(row[head.replace(" ", "_")]) for head in heads]
        table.add_row(escape(str(row["model"])), escape(str(row["threat"])), *rates)
    return table


def _rejections(rejections: pd.DataFrame) -> Table:
    title = "Samples refused without an attack, and of those attacked: passed, refused, held"
    heads = ["false rejections", "passed", "refused", "held"]
    table = _table(title, ["model", "attack", "threat"], heads)
    for row in rejections.to_dict("records"):
        rates = [percent(row[head.replace(" ", "_")]) for head in heads]
        table.add_row(*(escape(str(row[head])) for head in ("model", "attack", "threat")), *rates)
    return table


def _corruptions(corruptions: pd.DataFrame) -> Table:
    """Corruptions as rows, models as columns: the mean error over severities, the clean error first."""
    table = _table("Errors on corrupted samples, in the mean over severities", ["corruption"], [])
    table.min_width = len(str(table.title))
    models = list(dict.fromkeys(corruptions["model"]))
    for model in models:
        table.add_column(escape(str(model)), justify="right")
    clean = corruptions.groupby("model", sort=False)["clean_error"].first()
    table.add_row("none", *(percent(clean[model]) for model in models))
    errors = corruptions.pivot_table(index="corruption", columns="model", values="error", sort=False)
    for kind in dict.fromkeys(corruptions["corruption"]):
        table.add_row(escape(str(kind)), *(percent(errors.loc[kind, model]) for model in models))
    return table


def _gaps(gaps: pd.DataFrame) -> Table:
    heads = ["distance", "exact", "ratio", "95 % gap", "bound"]
    several = ["goal"] if gaps["goal"].nunique() > 1 else []
    named = ["model", "threat", *several, "attack"]
    table = _table("Medians against proven distances", [*named, "its gradient"], heads)
    for row in gaps.to_dict("records"):
        face = "" if not row["surrogate"] else "weak surrogate" if row["weak"] else "surrogate"
        names = [escape(str(row[head])) for head in named]
        numbers = [number(row[head]) for head in ("distance", "exact", "ratio")]
        table.add_row(*names, face, *numbers, percent(row["gap_95"]), number(row["bound"]))
    return table


def show_table(title: str, table: pd.DataFrame, console: Console) -> None:
    """Any table, as the page would show it."""
    shown = sheet(title, title, table)
    drawn = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for head, is_number in shown.heads:
        drawn.add_column(escape(head), justify="right" if is_number else "left", no_wrap=True)
    for row in shown.rows:
        drawn.add_row(*(escape(one.text) for one in row))
    everything = console.measure(drawn, options=console.options.update(width=10_000)).maximum
    Console(file=console.file, width=max(console.width, everything)).print(drawn)


def show_flags(flags: pd.DataFrame, console: Console) -> None:
    """What is raised, in full; what is not, in a line a job."""
    for job, part in flags.groupby(["model", "attack", "threat", "goal"], sort=False):
        raised = part.loc[part["raised"]]
        title = f"{' × '.join(map(str, job))}: {len(raised)} of {len(part)} checks raised"
        if len(raised):
            table = _table(escape(title), ["check", "what it means", "run next"], ["value", "limit"])
            for row in raised.to_dict("records"):
                words = [escape(str(row[head])) for head in ("check", "meaning", "next")]
                table.add_row(*words, number(row["value"]), number(row["limit"]))
            console.print(table)
        else:
            console.print(escape(title))
    if flags.empty:
        console.print("nothing to check: only gradient attacks on classes, at a fixed eps, can be diagnosed")


def show_demo(example: Example, digit: ImageExample | None, console: Console) -> None:
    """The lecture's ten numbers, then a digit."""
    console.print("[bold]A logistic model of ten inputs[/]")
    console.print("weight " + "".join(f"{w:>+5.0f}" for w in WEIGHTS), highlight=False)
    rows = zip(
        ("x", "moved"), (example.before, example.after), example.scores, example.probabilities, strict=True
    )
    for name, values, score, probability in rows:
        numbers = "".join(f"{v:>5g}" for v in values)
        console.print(f"{name:<7}{numbers}  score {score:>2g}  P(1) {probability:.4f}", highlight=False)
    console.print("Every input moved by 0.5 the way its weight points: ten small moves add up to 5.\n")
    if digit is None:
        return
    console.print("[bold]The same on an image[/]")
    before, after = (_picture(image) for image in (digit.image, digit.adversarial))
    for left, right in zip(before, after, strict=True):
        console.print(f"  {left}      {right}", highlight=False)
    first, second = digit.confidences
    captions = f"{digit.label}, {first:.1%} sure", f"{digit.prediction}, {second:.1%} sure"
    wide = 2 * digit.image.shape[1]
    console.print(f"  {captions[0]:<{wide}}      {captions[1]}", highlight=False)
    console.print(f"Softmax regression; no pixel moves by more than {digit.eps:g}. The weights of the two")
    total = (
        f"classes differ by {digit.gain:.1f} in sum: so many moves can shift the score by {digit.shift:.1f}."
    )
    console.print(total)


def _picture(image: torch.Tensor) -> list[str]:
    levels = (image.clamp(0, 1) * (len(SHADES) - 1)).round().int()
    return ["".join(SHADES[level] * 2 for level in row) for row in levels.tolist()]
