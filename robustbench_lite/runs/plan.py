"""A plan: every job of a run, made before the first is carried out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.data.load import DataLike
from robustbench_lite.engines.engine import Hung, ended_by
from robustbench_lite.jobs.job import Job, Judged, Work, title
from robustbench_lite.jobs.make import Source, Watch, Workshop, identity_of, told_apart
from robustbench_lite.models.load import ModelLike
from robustbench_lite.models.names import brought
from robustbench_lite.runs.config import Config
from robustbench_lite.runs.suite import Cell, Named
from robustbench_lite.search.attack import parameters_json, unreachable
from robustbench_lite.search.normal import NormalForm
from robustbench_lite.threats.named import doubts_of

SLICES = 8  # jobs that the samples of a cell are shared among, for workers to do side by side
FEWEST, MOST = 500, 2000  # samples a job: enough to fill a batch; what a crash can lose


AnyCell = Cell[Any, Any]  # names, or live attacks and threats


@dataclass(frozen=True)
class Subject:
    """What a run is about, as it was given: names, or live objects of this process."""

    data: DataLike
    models: Sequence[ModelLike]
    cells: Sequence[AnyCell]

    @classmethod
    def of(cls, config: Config) -> Subject:
        """What a config names."""
        return cls(config.data, config.models, config.cells)


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, in order, those that cannot be, with the reason, and what makes them real."""

    jobs: tuple[Job, ...]
    refused: Mapping[str, str]
    workshop: Workshop
    models: tuple[Judged, ...]
    notes: tuple[str, ...] = ()


def plan(config: Config, subject: Subject, watch: Watch = lambda what, fraction: None) -> Plan:
    """Load data and models and make the jobs; raises `Unsupported` when not one of them can be.

    What is given twice is done once.
    """
    folder = None if config.data_dir is None else str(config.data_dir)
    source = Source(subject.data, config.limit, folder, config.download)
    shop = Workshop(source, config.search, watch)
    if all(isinstance(text, str) and not brought(text)[0] for text in subject.models):
        # Models of ours know the classes of the data: what none can reach is told before one is trained.
        told = [shop.goal(cell.goal).misfit(shop.data.num_classes, shop.data.task) for cell in subject.cells]
        if any(told):
            raise Unsupported("; ".join(dict.fromkeys(filter(None, told))))
    jobs: list[Job] = []
    refused: dict[str, str] = {}
    models, notes = _models(shop, subject.models, refused)
    cells = _cells(shop, subject.cells)
    base = Job(
        data=shop.data_text, model="", name="", attack="", threat="", goal="", search=config.search,
        samples=None, begin=0, end=0, of=0, domain=shop.data.domain.fingerprint(),
    )  # fmt: skip
    for one in models:
        others = tuple(other for other in models if config.transfer and other is not one)
        for cell in cells:
            if cell.models and one.model not in cell.models:
                refused[title(one.name, cell.attack, cell.threat, cell.goal)] = (
                    f"the suite runs {cell.attack} on {', '.join(cell.models)} only"
                )
                continue
            attack, threat, goal = shop.attack(cell.attack), shop.threat(cell.threat), shop.goal(cell.goal)
            reason = attack.refuses(shop.model_named(one.model, one.name), threat, goal)
            if reason:
                refused[title(one.name, attack, threat, goal)] = reason
                continue
            named = title(one.name, attack, threat, goal)
            unfit = {o: why for o in others if (why := unreachable(goal, shop.model_named(o.model, o.name)))}
            refused |= {f"{named}, judged by {o.name}": why for o, why in unfit.items()}
            judges = tuple(other for other in others if other not in unfit)
            samples = min(filter(None, (cell.samples, config.limit)), default=None)
            n = len(shop.rows(samples))
            job = replace(
                base, model=one.model, name=one.name, attack=cell.attack, threat=cell.threat, goal=cell.goal,
                others=judges, samples=samples, of=n, parameters=parameters_json(attack),
                revision=attack.revision,
            )  # fmt: skip
            jobs += [replace(job, begin=begin, end=end) for begin, end in slices(n)]
    wide = [doubt for cell in cells for doubt in doubts_of(shop.threat(cell.threat))]
    reported = [f"{c.attack}, {c.threat}: reported: {c.reported}" for c in cells if c.reported]
    if not jobs:
        raise Unsupported("; ".join(dict.fromkeys(refused.values())))
    return Plan(tuple(jobs), refused, shop, tuple(models), (*notes, *dict.fromkeys(wide), *reported))


def slices(n: int) -> list[tuple[int, int]]:
    """Beginning and end of the slices that n samples are carried out in; they depend on nothing else."""
    size = min(MOST, max(FEWEST, -(-n // SLICES)))
    return [(begin, min(n, begin + size)) for begin in range(0, n, size)]


def _models(
    shop: Workshop, given: Sequence[ModelLike], refused: dict[str, str]
) -> tuple[list[Judged], tuple[str, ...]]:
    """The models by text and name, each of what they are once; and a note where one was given twice.

    One that does not answer long after the time limit is refused; what is trained here takes its time.
    """
    texts: dict[str, str] = {}
    notes: list[str] = []
    for one in given:
        own = isinstance(one, str) and not brought(one)[0]
        try:
            with ended_by(None if own else shop.search.time_limit):
                text = shop.text_of_model(one)
                model = shop.model(text)
            with ended_by(shop.search.time_limit):
                shop.clean(text)
        except Hung as error:
            refused[one if isinstance(one, str) else type(one).__name__] = f"does not answer: {error}"
            continue
        known = f"{model.name} {model.fingerprint()}"
        if known in texts:
            notes.append(f"{model.name} was given twice, and is counted once")
        texts.setdefault(known, text)
    names = told_apart([shop.model(text) for text in texts.values()])
    return [Judged(text, name) for text, name in zip(texts.values(), names, strict=True)], tuple(notes)


def _cells(shop: Workshop, given: Sequence[AnyCell]) -> list[Named]:
    """The cells with their texts, each of what it is once."""
    found: dict[tuple[object, ...], Named] = {}
    for cell in given:
        attack, threat = shop.text_of_attack(cell.attack), shop.text_of_threat(cell.threat)
        what = repr(shop.attack(attack)), identity_of(shop.threat(threat)), repr(shop.goal(cell.goal))
        named = Named(
            attack=attack, threat=threat, goal=cell.goal, samples=cell.samples, models=cell.models,
            reported=cell.reported,
        )  # fmt: skip
        found.setdefault((*what, cell.samples, cell.models), named)
    return list(found.values())


def estimate(work: Work) -> tuple[int, float] | None:
    """Passes a job takes at most, and their seconds, from the speed of the model on a few samples.

    None where nobody knows: attacks made of attacks, and those of other libraries.
    """
    form = NormalForm.of(work.model.input_shape, work.threat.domain)
    schedule = form.attack(work.attack).schedule(form.model(work.model), form.threat(work.threat))
    most = schedule.most_passes
    if most is None:
        return None
    passes = len(work.data) * most * (work.search.eot if work.model.stochastic else 1)
    x = work.data.x[:64].to(work.model.device)
    work.model.scores(x[:2])
    began = time.perf_counter()
    work.model.scores(x)
    each = (time.perf_counter() - began) / len(x)
    return passes, 1.5 * passes * each  # a backward pass costs about two forward ones
