"""The driver: runs any attack over a whole data set, in batches, on the samples that are still unbroken."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustbench_lite.core.errors import Unsupported, require
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.model import Access, Effort, Model, Precision
from robustbench_lite.core.oracle import Oracle, saved_bytes_per_sample
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.search.attack import Attack, Composite, Fitted, Iterate, as_text
from robustbench_lite.threats.ball import Lp
from robustbench_lite.threats.box import Box
from robustbench_lite.threats.named import with_domain

Progress = Callable[[float], None]
MANY = 500  # steps, about, of an attack that does not know them beforehand
LONG = 8  # steps: making a faster copy takes about as long as a few of them
ROWS = {"cpu": 1024, "cuda": 8192}  # beyond these a larger batch is no faster
QUEUE = 16  # batches of points made ahead by attacks that ask for many at once


@dataclass(frozen=True)
class Search:
    """How a search is carried out.

    seed; batch_size: samples at once (None: from memory); budget: forward and backward passes allowed to a
    sample (None: as many as the attack takes); time_limit: seconds for the whole set, fitting not counted
    (None: no limit); eot: draws that a stochastic model's answers are averaged over. precision: of the
    gradients. compile: the model into kernels of its own to search with (None: where the work repays it).
    """

    seed: int = 0
    batch_size: int | None = None
    budget: int | None = None
    time_limit: float | None = None
    eot: int = 1
    precision: Precision = Precision.AUTO
    compile: bool | None = None

    def __post_init__(self) -> None:
        require(self.batch_size is None or self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(self.budget is None or self.budget >= 1, "budget", self.budget, "at least 1")
        require(self.time_limit is None or self.time_limit > 0, "time_limit", self.time_limit, "above 0")
        require(self.eot >= 1, "eot", self.eot, "at least 1")


@dataclass(frozen=True)
class Outcome:
    """What an attack brought back, one entry a sample, on the CPU; the judge says what it is worth.

    adversarial (n, …): the original where nothing better was seen; attacked (n,): whether search was spent;
    late (n,): whether the time limit came first;
    target (n, k): classes to reach or None; forwards, backwards, queries_at_success (n,) int64, the last -1
    where nothing was found; winner (n,): index into attacks, -1 likewise; seconds (n,); precision: of the
    gradients.
    """

    adversarial: Tensor
    attacked: Tensor
    late: Tensor
    target: Tensor | None
    forwards: Tensor
    backwards: Tensor
    queries_at_success: Tensor
    winner: Tensor
    seconds: Tensor
    precision: str
    attacks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Samples:
    """What is attacked: x (n, …), y (n,), ids (n,), the true clean scores (n, K), given targets (n,)."""

    x: Tensor
    y: Tensor
    ids: Tensor
    clean_scores: Tensor
    given: Tensor | None = None


def search(
    attack: Attack,
    model: Model,
    threat: Lp | Box,
    goal: Goal,
    samples: Samples,
    how: Search | None = None,
    artifact: Mapping[str, Tensor] | None = None,
    progress: Progress = lambda fraction: None,
) -> Outcome:
    """Run an attack on samples; a `Fitted` one needs the artifact that `fit` made.

    Raises `Unsupported` when the attack cannot meet this model or threat.
    """
    how = how or Search()
    _check(attack, model, threat)
    if isinstance(attack, Fitted):
        if artifact is None:
            raise Unsupported(f"{attack.name} has to be fitted before it is applied")
        attack = _Applied(attack, artifact)
    target = _targets(goal, samples, how)
    chunk = ROWS.get(model.device.type, 1024) // (1 if attack.points == 1 else 4)  # best without gradients
    oracle = Oracle(model, _search_copy(attack, model, how, len(samples.y)), chunk, how.eot)
    outcome = _nothing_yet(samples, target, oracle.precision)
    attackable = torch.ones_like(samples.y, dtype=torch.bool)
    if not attack.every_sample:
        attackable = samples.clean_scores.argmax(1) == samples.y
    if target is not None:
        attackable &= (target.cpu() != samples.y[:, None]).any(1)
    chosen = attackable.nonzero()[:, 0]
    lanes = attack.lanes * max(1, attack.aims if target is None else target.shape[1])
    size = how.batch_size or batch_size(attack, model, samples.x[:1], lanes)
    deadline = None if how.time_limit is None else time.monotonic() + how.time_limit
    for begin in range(0, len(chosen), size):
        if deadline is not None and time.monotonic() >= deadline:
            outcome.late[chosen[begin:]] = True
            break
        part = chosen[begin : begin + size]
        began = time.perf_counter()
        problem = _problem(oracle, threat, goal, samples, outcome.target, part, how)
        tell = _portion(progress, begin / len(chosen), len(part) / len(chosen))
        for one, rows in _parts(attack, problem):
            _run(one, rows, deadline, tell)
        _store(outcome, part, problem.ledger, time.perf_counter() - began)
    progress(1.0)
    return outcome


def fit(
    attack: Fitted, model: Model, threat: Lp | Box, goal: Goal, samples: Samples, how: Search | None = None
) -> Mapping[str, Tensor]:
    """What a fitted attack learns from samples."""
    how = how or Search()
    _check(attack, model, threat)
    target = _targets(goal, samples, how)
    chunk = how.batch_size or batch_size(attack, model, samples.x[:1], 1)
    oracle = Oracle(model, _search_copy(attack, model, how, len(samples.y)), chunk, how.eot)
    problem = _problem(oracle, threat, goal, samples, target, torch.arange(len(samples.y)), how)
    problem.ledger.attacks.append(as_text(attack))
    return attack.fit(_in_lanes(attack, problem))


def batch_size(attack: Attack, model: Model, x: Tensor, lanes: int) -> int:
    """How many samples to attack at once: what fits in half of the free memory, at most `ROWS` rows."""
    device = model.device
    row = 16 * x[0].nbytes  # the points an attack keeps, and the float64 copies a projection makes
    if attack.access >= Access.GRADIENT:
        row += 2 * saved_bytes_per_sample(model, x.to(device))
    most = ROWS.get(device.type, 1024) * (1 if attack.points == 1 else QUEUE)
    rows = min(most, _free_bytes(device) // 2 // row)
    return max(1, int(rows) // (lanes * attack.points))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return 2 << 30


@dataclass(frozen=True)
class _Applied(Attack):
    """A fitted attack with what it has learnt: one-shot."""

    attack: Fitted
    artifact: Mapping[str, Tensor]

    every_sample = True

    def start(self, problem: Problem) -> Iterate:
        return Iterate(x=problem.project(self.attack.apply(problem, self.artifact)))


def _check(attack: Attack, model: Model, threat: Lp | Box) -> None:
    refusal = attack.refuses(model, threat)
    if refusal:
        raise Unsupported(refusal)


def _targets(goal: Goal, samples: Samples, how: Search) -> Tensor | None:
    stream = Stream.of(how.seed, samples.ids)
    return goal.resolve(samples.clean_scores, samples.y, stream, given=samples.given)


def _portion(progress: Progress, done: float, share: float) -> Progress:
    return lambda fraction: progress(done + share * fraction)


def _search_copy(attack: Attack, model: Model, how: Search, samples: int) -> Model | None:
    """A copy to search with, where making one costs less than it saves."""
    steps = MANY if isinstance(attack, Composite | Fitted) else attack.iterations
    if attack.access not in (Access.SCORE, Access.GRADIENT) or steps < LONG:
        return None
    lanes = attack.lanes * max(1, attack.aims)
    return model.for_search(how.precision, Effort(samples * lanes, steps, how.compile))


def _nothing_yet(samples: Samples, target: Tensor | None, precision: str) -> Outcome:
    n = len(samples.y)
    count = torch.zeros(n, dtype=torch.int64)
    return Outcome(
        adversarial=samples.x.clone(),
        attacked=torch.zeros(n, dtype=torch.bool),
        late=torch.zeros(n, dtype=torch.bool),
        target=None if target is None else target.cpu(),
        forwards=count,
        backwards=count.clone(),
        queries_at_success=torch.full_like(count, -1),
        winner=torch.full_like(count, -1),
        seconds=torch.zeros(n, dtype=torch.float64),
        precision=precision,
    )


def _problem(
    oracle: Oracle,
    threat: Lp | Box,
    goal: Goal,
    samples: Samples,
    target: Tensor | None,
    part: Tensor,
    how: Search,
) -> Problem:
    """The samples of one batch as a problem, on the model's device: one row for every target."""
    device = oracle.model.device
    threat = with_domain(threat, threat.domain.to(device))
    x0, y, ids = (t[part].to(device) for t in (samples.x, samples.y, samples.ids))
    keep = "first" if goal.stop else "margin"
    ledger = Ledger(x0, "nearest" if threat.eps is None and isinstance(threat, Lp) else keep, how.budget)
    eps = torch.full((len(part),), torch.inf if threat.eps is None else threat.eps, dtype=torch.float64)
    row = torch.arange(len(part), device=device)
    problem = Problem(
        oracle, threat, goal, ledger, x0, y, eps.to(device), ids, row, torch.zeros_like(row), seed=how.seed
    )
    if target is None:
        return problem
    wide = problem.in_lanes(target.shape[1])
    return replace(wide, target=target[part].to(device).flatten())


def _in_lanes(attack: Attack, problem: Problem) -> Problem:
    """The problem with a lane for every restart, and for every class the attack aims at of its own accord."""
    if attack.aims and problem.target is None:
        scores = problem.scores(problem.x0).scatter(1, problem.y[:, None], -torch.inf)
        likeliest = scores.topk(min(attack.aims, scores.shape[1] - 1), dim=1).indices
        problem = replace(problem.in_lanes(likeliest.shape[1]), target=likeliest.flatten())
    return problem.in_lanes(attack.lanes)


def _parts(attack: Attack, problem: Problem) -> Iterator[tuple[Attack, Problem]]:
    """A composite's attacks, one after the other; any other attack itself."""

    def named(one: Attack, rows: Problem) -> tuple[Attack, Problem]:
        problem.ledger.attacks.append(as_text(one.attack if isinstance(one, _Applied) else one))
        return one, replace(rows, attack=len(problem.ledger.attacks) - 1)

    if not isinstance(attack, Composite):
        yield named(attack, problem)
        return
    course = attack.course(problem)
    try:
        one, rows = next(course)
        while True:
            yield from _parts(one, rows) if isinstance(one, Composite) else [named(one, rows)]
            one, rows = course.send(problem.ledger)
    except StopIteration:
        return


def _run(attack: Attack, problem: Problem, deadline: float | None, progress: Progress) -> None:
    """One attack on the rows of a problem: start, steps while rows are left, and a last look."""
    problem = problem[~problem.settled]
    if not len(problem):
        return
    problem = _in_lanes(attack, problem)
    state = attack.start(problem)
    head_count = _HeadCount()
    length = attack.length(problem)
    for step in range(1, length + 1):
        progress((step - 1) / length)
        if deadline is not None and time.monotonic() >= deadline:
            break
        active = ~problem.settled & (problem.remaining > 0)
        if state.done is not None:
            active &= ~state.done
        if len(problem) - head_count(active) >= max(1, len(problem) // 16):
            _look(replace(problem[~active], idle=None), state[~active])
            problem, state, head_count = problem[active], state[active], _HeadCount()
            if not len(problem):
                return
            active = active[active]
        problem = replace(problem, step=step, idle=~active)
        state = attack.step(problem, state)
    _look(replace(problem, step=length + 1, idle=None), state)


def _look(problem: Problem, state: Iterate) -> None:
    """Score the iterates of rows that stop, so that none goes unseen."""
    unseen = ~problem.settled
    problem[unseen].scores(state.x[unseen])


class _HeadCount:
    """How many rows are active; on a CUDA device one step ago, so that a step never waits for the device."""

    def __init__(self) -> None:
        self.before: tuple[Tensor, torch.cuda.Event] | None = None

    def __call__(self, active: Tensor) -> int:
        if active.device.type != "cuda":
            return int(active.sum())
        before = self.before
        host = torch.empty((), dtype=torch.int64, pin_memory=True)
        host.copy_(active.sum(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self.before = host, event
        if before is None:
            return len(active)
        before[1].synchronize()
        return int(before[0])


def _store(outcome: Outcome, part: Tensor, ledger: Ledger, seconds: float) -> None:
    outcome.adversarial[part] = ledger.best_x.cpu()
    outcome.attacked[part] = True
    for name in ("forwards", "backwards", "queries_at_success"):
        getattr(outcome, name)[part] = getattr(ledger, name).cpu()
    known = {name: i for i, name in enumerate(outcome.attacks)}
    for name in ledger.attacks:
        known.setdefault(name, len(known))
    outcome.attacks[:] = list(known)
    place = torch.tensor([known[name] for name in ledger.attacks] + [-1])
    outcome.winner[part] = place[ledger.winner.cpu()]
    outcome.seconds[part] = seconds / len(part)
