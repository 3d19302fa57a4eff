"""A run: plan the cells, carry out those that are not there yet, keep every record."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from robustbench_lite.search.attack import Attack, as_text
from robustbench_lite.search.driver import Outcome
from robustbench_lite.jobs.job import Cell, Finished, attempt, concluded, learn
from robustbench_lite.runs.config import Config, as_toml, make
from robustbench_lite.core.errors import UnknownName
from robustbench_lite.data.load import DataLike
from robustbench_lite.models.load import ModelLike
from robustbench_lite.engines.explanations import pictures
from robustbench_lite.runs.plan import Plan, Watch, plan
from robustbench_lite.records.schema import read
from robustbench_lite.reports.build import rebuild
from robustbench_lite.reports.tables.catalogue import TABLES, Styled
from robustbench_lite.records.folder import Store, resolved

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    failures: cell -> traceback; refused: cell -> why it cannot be; notes: what to know of data and models.
    """

    records: pd.DataFrame
    path: Path | None
    failures: Mapping[str, str]
    refused: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def table(self, name: str = "summary") -> pd.DataFrame:
        """A table of the records, by its name in `reports.tables.TABLES`: `summary`, `worst_case`, …"""
        if name not in TABLES:
            raise UnknownName("table", name, TABLES)
        return Styled(TABLES[name](self.records))


def run(
    data: DataLike = "digits",
    models: Sequence[ModelLike] | None = None,
    attacks: Sequence[str | Attack] | None = None,
    threats: Sequence[str] | None = None,
    samples: int | None = 500,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    *,
    goals: Sequence[str] = ("untargeted",),
    transfer: bool = False,
    seed: int = 0,
    data_dir: str | Path | None = None,
    download: bool = False,
    batch_size: int | None = None,
    budget: int | None = None,
    eot: int = 1,
    precision: str = "auto",
    compile: bool | None = None,
    time_limit: float | None = None,
    eight_bit: bool = False,
    watch: Watch = lambda what, fraction: None,
) -> RunResult:
    """Attack models on data and judge every sample; models, attacks, threats None: the default preset's.

    transfer: judge every model's adversarial examples on all the others too. out: a folder for the records
    and tables (None: nothing is written). resume: cells whose records are in `out` already are read, not run
    again. Raises `RobustError` for what the user can put right; a cell that fails by itself is written down
    in `failures` and the run goes on.
    """
    usual = Config()
    config = make(
        {
            "data": _name(data),
            "models": tuple(_name(model) for model in models or usual.models),
            "attacks": tuple(_name(attack) for attack in attacks or usual.attacks),
            "threats": tuple(threats or usual.threats),
            "goals": tuple(goals),
            "transfer": transfer,
            "samples": "all" if samples is None else samples,
            "seed": seed,
            "device": device,
            "data_dir": data_dir,
            "download": download,
            "batch_size": batch_size,
            "budget": budget,
            "eot": eot,
            "precision": precision,
            "compile": compile,
            "time_limit": time_limit,
            "eight_bit": eight_bit,
        }
    )
    made = plan(config, data, models or config.models, attacks or config.attacks, watch)
    return carry_out(made, config, None if out is None else Store.open(Path(out), resume), watch)


def carry_out(
    plan: Plan, config: Config, store: Store | None, watch: Watch = lambda what, fraction: None
) -> RunResult:
    """Run the cells that the store does not hold yet; write what they found, and the tables."""
    if store is not None:
        store.text("config.toml", as_toml(config, resolved(plan)))
    frames: list[pd.DataFrame] = []
    failures: dict[str, str] = {}
    learnt: dict[str, Mapping[str, Tensor] | None] = {}
    found: tuple[str, Outcome] | None = None  # the last search: transferred cells share it
    own: list[str] = []  # files of this run; its folder may hold others, of an earlier one
    for index, cell in enumerate(plan.cells):
        own.append(cell.identity())
        known = None if store is None else store.records_of(cell)
        if known is not None:
            frames.append(known)
            continue

        def progress(fraction: float, what: str = str(cell), done: int = index) -> None:
            watch(what, (done + fraction) / len(plan.cells))

        progress(0.0)
        try:
            origin = cell.sought
            if str(origin) not in learnt:
                held = learnt[str(origin)] = learn(origin, plan.data)
                if held is not None and store is not None:
                    own.append(store.learnt(origin, held))
            if found is None or found[0] != origin.identity():
                found = origin.identity(), attempt(origin, learnt[str(origin)], progress)
            names = ("", "") if store is None else (store.folder.name, store.artifact(cell))
            finished = concluded(cell, found[1], *names)
        except Exception:  # whatever a model or an attack does, the other cells still count
            failures[str(cell)] = traceback.format_exc()
            continue
        frames.append(finished.records)
        if store is not None:
            if config.pictures:
                _show(cell, finished, store)
            store.save(cell, finished)
    watch("done", 1.0)
    records = pd.concat(frames, ignore_index=True) if frames else read([])
    of_models = (f"{model.name}: {note}" for model in plan.models for note in model.notes)
    notes = tuple(dict.fromkeys([*plan.data.notes, *of_models]))
    result = RunResult(records, None if store is None else store.folder, failures, plan.refused, notes)
    if store is not None:
        store.told(failures, plan.refused, notes, plan.data.class_names, own)
        if len(records):
            store.tables(records, TABLES)
            watch("report", 1.0)
            try:
                rebuild([store.folder], ("html", "md"))
            except Exception:  # the records are there; a report can be made again
                log.exception("no report could be made; try: robust report %s", store.folder)
    return result


def _show(cell: Cell, finished: Finished, store: Store) -> None:
    """Keep what a reader is shown; a model that fails at it loses nothing but the pictures."""
    try:
        shown = pictures(cell, finished)
    except Exception as error:
        log.warning("no pictures of %s: %s", cell, error)
        return
    if shown is not None:
        store.pictures(cell, shown)


def _name(thing: object) -> str:
    """What a config calls something that may be an object."""
    if isinstance(thing, Attack):
        return as_text(thing)
    return thing if isinstance(thing, str) else str(getattr(thing, "name", "") or type(thing).__name__)
