"""How fast attacks run: on each device, and beside the bare passes that they are made of."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.core.errors import RobustError, Unsupported
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.machine import forget_peak, peak_memory
from robustbench_lite.core.model import Access, Model, reference_precision
from robustbench_lite.core.settings import Precision
from robustbench_lite.jobs.job import Job, Work, attempt
from robustbench_lite.jobs.make import Watch
from robustbench_lite.records.schema import whole
from robustbench_lite.runs.config import Config
from robustbench_lite.runs.energy import joules, used
from robustbench_lite.runs.plan import Plan, Subject, plan

COLUMNS = [
    "model", "attack", "threat", "device", "asked", "precision", "samples", "images_per_second",
    "passes_per_second", "over_bare", "seconds", "memory_mib", "joules_per_image",
]  # fmt: skip
KEY = COLUMNS[:5]
NEEDED = [*COLUMNS[:4], "images_per_second", "passes_per_second"]
WARM = 8  # samples of the run before the clock starts
ABLATED: tuple[tuple[Precision, bool | None], ...] = (
    ("float32", False), ("float32", True), ("tf32", False), ("bfloat16", False), ("bfloat16", True),
)  # fmt: skip


def bench(
    config: Config, devices: Sequence[str], rounds: int, watch: Watch, ablate: bool = False
) -> pd.DataFrame:
    """Time the searches of a config on devices; nothing is judged, and success ends nothing.

    Parameters
    ----------
    config : Config
        Its goals are taken with `stop=never`, so that the work of every round is the same.
    devices : sequence of str
        `cpu`, `cuda`, `cuda:1`; none: the CPU, and a GPU where there is one.
    rounds : int
        Runs of each search, at least 1; the median counts.
    watch : callable
        Called with (what is going on, fraction of the whole).
    ablate : bool, default False
        Time every precision, without and with kernels of the model's own (TensorFloat-32 on GPUs alone).

    Returns
    -------
    DataFrame
        One row a model, attack, threat, device and setting. asked: precision and compile as they were set;
        precision: what gradients were computed in. images_per_second; passes_per_second, forward and
        backward ones counted alike; over_bare: the time over that of as many bare passes of the model in one
        batch, in its own precision, below 1 where the search runs in a faster one; memory_mib: the peak, on a
        GPU of the search, on the CPU of the process up to then; joules_per_image: where the device's driver
        tells, of all that runs on it.

    Raises
    ------
    RobustError
        Where nothing can be timed.
    """
    every = list(devices) or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows: list[dict[str, object]] = []
    settings = [(config.search.precision, config.search.compile)]
    todo = [(d, s) for d in every for s in (ABLATED if ablate else settings) if s[0] != "tf32" or d != "cpu"]
    for number, (device, (precision, own)) in enumerate(todo):
        search = replace(
            config.search, device=device, certify=0.0, time_limit=None, precision=precision, compile=own
        )
        settled = config.model_copy(update={"search": search, "transfer": False})
        made = plan(settled, Subject(settled.data, settled.models, settled.cells))
        jobs = [job for job in made.jobs if job.begin == 0]
        for index, job in enumerate(jobs):
            watch(f"{job} on {device}", (number + index / len(jobs)) / len(todo))
            rows.append(_timed(job, made, rounds))
    watch("done", 1.0)
    if not rows:
        raise Unsupported("nothing to time")
    return pd.DataFrame(rows, columns=COLUMNS)


def beside(now: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """What was timed now, with how many times as fast it is as what was timed before.

    over_bare_before: the ratio to bare passes at that time, which says more than times on another machine.
    """
    known = before.set_index(KEY)[["images_per_second", "over_bare"]]
    known = known.loc[~known.index.duplicated()]
    past = known.reindex(pd.MultiIndex.from_frame(now[KEY])).set_index(now.index)
    fast = now["images_per_second"] / past["images_per_second"]
    return now.assign(times_as_fast=fast, over_bare_before=past["over_bare"])


def regressions(compared: pd.DataFrame, percent: float) -> list[str]:
    """A line for each row of `beside` whose time over bare passes has grown by more than so many percent."""
    grown = compared["over_bare"] / compared["over_bare_before"] - 1
    slower = compared.loc[grown > percent / 100]
    return [
        f"slower: {' × '.join(str(row[name]) for name in KEY)}: {row['over_bare']:.3g} times the bare "
        f"passes, {row['over_bare_before']:.3g} before"
        for row in slower.to_dict("records")
    ]


def keep(table: pd.DataFrame, file: Path) -> None:
    """Write what was timed, with the machine it was timed on, as JSON."""
    facts = {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "rows": json.loads(table.to_json(orient="records")),
    }
    with whole(file) as temporary:
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def kept(file: Path) -> pd.DataFrame:
    """What `keep` wrote; raises `RobustError` where it cannot be read."""
    try:
        found = pd.DataFrame(json.loads(file.read_text(encoding="utf-8"))["rows"])
        return found[NEEDED].join(found.reindex(columns=[c for c in COLUMNS if c not in NEEDED]))[COLUMNS]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RobustError(f"{file}: holds no times of robust bench: {error}") from None


def _timed(job: Job, made: Plan, rounds: int) -> dict[str, object]:
    """One row: a job's search, warmed up on a few of its samples."""
    shop = made.workshop
    work = shop.work(job)
    work = replace(work, goal=replace(work.goal, stop=False))
    few = torch.arange(min(WARM, len(work.data)))
    attempt(work[few], lambda fraction: None)
    forget_peak(work.model.device)
    outcome = None
    times = []
    energy = []
    for _ in range(rounds):
        began, before = time.perf_counter(), joules(work.model.device)
        outcome = attempt(work, lambda fraction: None)
        times.append(time.perf_counter() - began)
        energy.append(used(before, joules(work.model.device)))
    assert outcome is not None
    seconds = statistics.median(times)
    forwards, backwards = int(outcome.forwards.sum()), int(outcome.backwards.sum())
    memory = peak_memory(work.model.device)
    bare = _bare(work, forwards, backwards, rounds)
    return {
        "model": job.name,
        "attack": str(work.attack),
        "threat": str(work.threat),
        "device": str(work.model.device),
        "asked": _setting(work),
        "precision": outcome.precision,
        "samples": len(work.data),
        "images_per_second": len(work.data) / seconds,
        "passes_per_second": (forwards + backwards) / seconds,
        "over_bare": seconds / bare if bare else float("nan"),
        "seconds": seconds,
        "memory_mib": memory / 2**20,
        "joules_per_image": statistics.median(energy) / len(work.data),
    }


def _setting(work: Work) -> str:
    """Precision and compilation as they were set."""
    told = {None: "", True: ", compiled", False: ", not compiled"}
    return f"{work.search.precision}{told[work.search.compile]}"


def _bare(work: Work, forwards: int, backwards: int, rounds: int) -> float:
    """Seconds that so many passes of the model alone take, by the median of some on one batch."""
    model, x, y = work.model, work.data.x.to(work.model.device), work.data.y.to(work.model.device)
    forward = _each(model, lambda: _forward(model, x), rounds) / len(x)
    if not backwards or model.access < Access.GRADIENT:
        return forward * forwards
    both = _each(model, lambda: _gradient(model, x, y), rounds) / len(x)
    return both * backwards + forward * max(0, forwards - backwards)


def _each(model: Model, run: Callable[[], object], rounds: int) -> float:
    """The median seconds of a call, after one that warms up; a GPU is waited for."""
    times = []
    for number in range(rounds + 2):
        began = time.perf_counter()
        run()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        if number:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _forward(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad(), reference_precision():
        return model.scores(x)


def _gradient(model: Model, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad(), reference_precision():
        (slope,) = torch.autograd.grad(cross_entropy(model.gradient_scores(leaf), y).sum(), leaf)
    return slope
