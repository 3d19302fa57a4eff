"""The driver: runs any attack over a whole data set, in batches, on the samples that are still unbroken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.goal import Goal, Targets
from robustbench_lite.core.ledger import Keep, Ledger
from robustbench_lite.core.model import Model
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.problem import Observer, Pool, Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Search
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import Task
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import AnyAttack, Composite, Schedule
from robustbench_lite.search.batching import batch_size, oracle_for
from robustbench_lite.search.normal import NormalForm

Progress = Callable[[float], None]
TWENTIETH = 0.05  # of the proven samples that are searched all the same


@dataclass(frozen=True)
class Outcome:
    """What an attack brought back, one entry a sample, on the CPU; the judge says what it is worth.

    Parameters
    ----------
    z : Tensor
        (n, …): the origin where nothing better was seen.
    attacked : Tensor of bool
        (n,): whether search was spent.
    cut : Tensor of bool
        (n,): whether the time limit or the budget left the sample unattacked.
    target : Tensor or None
        (n, k, …): classes to reach.
    forwards, backwards : Tensor
        (n,) int64, passes.
    queries_at_success : Tensor
        (n,) int64, forward passes; -1 where nothing was found.
    zero_gradients, nans : Tensor
        (n,): gradients of zero and answers of NaN that were met.
    winner : Tensor
        (n,): index into attacks; -1 where nothing was found.
    seconds : Tensor
        (n,) float64.
    precision : str
        Of the gradients.
    attacks : list of str
        What was run.
    """

    z: Tensor
    attacked: Tensor
    cut: Tensor
    target: Tensor | None
    forwards: Tensor
    backwards: Tensor
    queries_at_success: Tensor
    zero_gradients: Tensor
    nans: Tensor
    winner: Tensor
    seconds: Tensor
    precision: str
    attacks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Samples:
    """What is attacked.

    Parameters
    ----------
    x : Tensor
        (n, …) float32, in the threat's domain.
    y : Tensor
        (n, …) int64, true classes.
    ids : Tensor
        (n,) int64, names that key the random numbers.
    clean_scores : Tensor
        (n, K, …): the true scores, of a stochastic model their mean.
    prediction : Tensor
        (n, …): the class without an attack.
    given : Tensor, optional
        (n, …): targets a user chose.
    lower_bound : Tensor, optional
        (n,) float64: what certifiers have proven.
    nearest : Tensor, optional
        (n, …): the nearest adversarial examples that certifiers met, x where none was.
    pool : Pool, optional
        Samples that attacks may begin at.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    clean_scores: Tensor
    prediction: Tensor
    given: Tensor | None = None
    lower_bound: Tensor | None = None
    nearest: Tensor | None = None
    pool: Pool | None = None

    def seen(self, form: NormalForm, threat: Threat) -> Samples:
        """The same in the form in which attacks see them."""
        bound = None if self.lower_bound is None else form.sizes(self.lower_bound, threat.norm)
        pool = None if self.pool is None else replace(self.pool, x=form.inputs(self.pool.x))
        nearest = None if self.nearest is None else form.inputs(self.nearest)
        return replace(self, x=form.inputs(self.x), lower_bound=bound, nearest=nearest, pool=pool)


def search(
    attack: AnyAttack,
    model: Model,
    threat: Threat,
    goal: Goal,
    samples: Samples,
    settings: Search | None = None,
    progress: Progress = lambda fraction: None,
    observers: tuple[Observer, ...] = (),
) -> Outcome:
    """Run an attack on samples; of a `Fitted` one, what was made of it by `fitting.Applied`.

    Parameters
    ----------
    attack : Attack
    model : Model
    threat : Threat
    goal : Goal
    samples : Samples
        On the CPU.
    settings : Search, optional
        Seed, batch size, budget and the like.
    progress : callable
        Called with the fraction done.
    observers : tuple of Observer
        Are told of every question for gradients and its answer.

    Returns
    -------
    Outcome

    Raises
    ------
    Unsupported
        When the attack cannot meet this model, threat or goal.

    Examples
    --------
    >>> import robustbench_lite as rb
    >>> from robustbench_lite.attacks.named import get_attack
    >>> from robustbench_lite.judging.judge import look_clean
    >>> digits, model = rb.load_data("digits", samples=5), rb.load_model("linear")
    >>> clean = look_clean(model, digits.x, digits.y, digits.ids)
    >>> samples = Samples(digits.x, digits.y, digits.ids, clean.scores, clean.prediction)
    >>> search(get_attack("fgsm"), model, rb.parse_threat("linf:0.1"), Goal(), samples).z.shape
    torch.Size([5, 1, 8, 8])
    """
    settings = settings or Search()
    check(attack, model, threat, goal)
    form = NormalForm.of(model.input_shape, threat.domain)
    if not form.plain:
        seen = form.attack(attack), form.model(model), form.threat(threat)
        outcome = search(*seen, goal, samples.seen(form, threat), settings, progress, observers)
        named = outcome.attacks if isinstance(attack, Composite) else [str(attack)] * len(outcome.attacks)
        return replace(outcome, z=form.back(outcome.z) if threat.over_inputs else outcome.z, attacks=named)
    target = targets_of(goal, model.task, samples, settings)
    model = attack.face(model)
    schedule = attack.schedule(model, threat)
    oracle = oracle_for(attack, model, threat, settings, len(samples.y))
    outcome = nothing_yet(threat, samples, target, oracle.precision)
    chosen = attackable(attack, model.task, threat, samples, target, settings).nonzero()[:, 0]
    lanes = schedule.restarts * (max(1, schedule.targets) if target is None else target.shape[1])
    size = settings.batch_size or batch_size(attack, model, threat, samples.x[:1], lanes)
    deadline = None if settings.time_limit is None else time.monotonic() + settings.time_limit
    for begin in range(0, len(chosen), size):
        if deadline is not None and time.monotonic() >= deadline:
            outcome.cut[chosen[begin:]] = True
            break
        part = chosen[begin : begin + size]
        began = time.perf_counter()
        problem = problem_of(oracle, threat, goal, samples, outcome.target, part, settings)
        problem = replace(problem, observers=observers)
        tell = _portion(progress, begin / len(chosen), len(part) / len(chosen))
        for one, rows in _parts(attack, problem):
            _run(one, rows, deadline, tell)
        _store(outcome, part, problem.ledger, time.perf_counter() - began)
    if settings.budget is not None:
        outcome.cut.logical_or_(outcome.attacked & (outcome.forwards + outcome.backwards == 0))
    progress(1.0)
    return outcome


def check(attack: AnyAttack, model: Model, threat: Threat, goal: Goal) -> None:
    """Raise `Unsupported` when the attack cannot meet this model, threat or goal."""
    refusal = attack.refuses(model, threat, goal)
    if refusal:
        raise Unsupported(refusal)


def targets_of(goal: Goal, task: Task, samples: Samples, settings: Search) -> Tensor | None:
    """The classes that each sample is to become (n, k, …), never the one that rejects; None if untargeted."""
    stream, scores, y, reject = (
        Stream.of(settings.seed, samples.ids),
        samples.clean_scores,
        samples.y,
        task.reject,
    )
    if reject is None or goal.targets in (Targets.NONE, Targets.GIVEN, Targets.CLASS):
        return goal.resolve(scores, y, stream, samples.given, task)
    found = goal.resolve(
        torch.cat([scores[:, :reject], scores[:, reject + 1 :]], 1), y - (y > reject).long(), stream
    )
    return None if found is None else found + (found >= reject).long()


def attackable(
    attack: AnyAttack, task: Task, threat: Threat, samples: Samples, target: Tensor | None, settings: Search
) -> Tensor:
    """Samples that the model has right, not of the class to reach, and not proven to resist (n,)."""
    chosen = torch.ones_like(samples.ids, dtype=torch.bool)
    if not attack.every_sample:
        chosen = task.open(samples.prediction, samples.y, None if target is None else target.cpu())
    if target is not None:
        chosen &= (target.cpu() != samples.y[:, None]).flatten(1).any(1)
    if settings.skip_proven and samples.lower_bound is not None and threat.eps is not None:
        spared = Stream.of(settings.seed, samples.ids).fold("proven").uniform(()) >= TWENTIETH
        chosen &= ~((samples.lower_bound > threat.eps) & spared)
    return chosen


def _portion(progress: Progress, done: float, share: float) -> Progress:
    return lambda fraction: progress(done + share * fraction)


def nothing_yet(threat: Threat, samples: Samples, target: Tensor | None, precision: str) -> Outcome:
    """The outcome of a search before it has begun."""
    n = len(samples.y)
    no, count = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
    return Outcome(
        z=threat.origin(samples.x).clone(),
        attacked=no,
        cut=no.clone(),
        target=None if target is None else target.cpu(),
        forwards=count,
        backwards=count.clone(),
        queries_at_success=torch.full_like(count, -1),
        zero_gradients=count.clone(),
        nans=count.clone(),
        winner=torch.full_like(count, -1),
        seconds=torch.zeros(n, dtype=torch.float64),
        precision=precision,
    )


def problem_of(
    oracle: Oracle,
    threat: Threat,
    goal: Goal,
    samples: Samples,
    target: Tensor | None,
    part: Tensor,
    settings: Search,
) -> Problem:
    """The samples of one batch as a problem, on the model's device: one row for every target."""
    device = oracle.model.device
    threat = threat.within(threat.domain.to(device))
    x0, y, ids = (t[part].to(device) for t in (samples.x, samples.y, samples.ids))
    keep: Keep = "nearest" if threat.minimum else "mean" if oracle.model.stochastic else "first"
    if keep == "first" and (not goal.stop or oracle.model.task.graded):
        keep = "margin"
    ledger = Ledger(threat.origin(x0), keep, settings.budget)
    eps = torch.full((len(part),), torch.inf if threat.eps is None else threat.eps, dtype=torch.float64)
    bound = torch.zeros_like(eps) if samples.lower_bound is None else samples.lower_bound[part]
    row = torch.arange(len(part), device=device)
    problem = Problem(
        oracle, threat, goal, ledger, x0, y, eps.to(device), ids, row, torch.zeros_like(row),
        bound.to(device), None if samples.nearest is None else samples.nearest[part].to(device),
        seed=settings.seed, pool=samples.pool,
    )  # fmt: skip
    if target is None:
        return problem
    wide = problem.in_lanes(target.shape[1])
    return replace(wide, target=target[part].to(device).flatten(0, 1))


def in_lanes(schedule: Schedule, problem: Problem) -> Problem:
    """The problem with a lane for every restart, and for every class the attack aims at of its own accord."""
    if schedule.targets and problem.target is None:
        likeliest = problem.likeliest(problem.scores(problem.origin), schedule.targets)
        problem = replace(problem.in_lanes(likeliest.shape[1]), target=likeliest.flatten())
    return problem.in_lanes(schedule.restarts)


def _parts(attack: AnyAttack, problem: Problem) -> Iterator[tuple[AnyAttack, Problem]]:
    """A composite's attacks, one after the other; any other attack itself."""

    def named(one: AnyAttack, rows: Problem) -> tuple[AnyAttack, Problem]:
        problem.ledger.attacks.append(str(one))
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


def _run(attack: AnyAttack, problem: Problem, deadline: float | None, progress: Progress) -> None:
    """One attack on the rows of a problem: start, steps while rows are left, and a last look."""
    problem = problem[~problem.settled]
    if not len(problem):
        return
    schedule = attack.schedule(problem.oracle.model, problem.threat)
    problem = in_lanes(schedule, problem)
    state = attack.start(problem)
    head_count = _HeadCount()
    for step in range(1, schedule.steps + 1):
        progress((step - 1) / schedule.steps)
        if deadline is not None and time.monotonic() >= deadline:
            break
        active = ~problem.settled & (problem.remaining > 0)
        if state.done is not None:
            active &= ~state.done
        if problem.idle is not None:  # who has ended does not begin again, however long it idles
            active &= ~problem.idle
        if len(problem) - head_count(active) >= max(1, len(problem) // 16):
            replace(problem[~active], idle=None).conclude(state.z[~active])
            problem, state, head_count = problem[active], state[active], _HeadCount()  # none idles now
            if not len(problem):
                return
            active = active[active]
        problem = replace(problem, step=step, idle=~active)
        ahead = attack.step(problem, state)
        if active.is_cuda or not bool(active.all()):  # a row stays where it ended, however long it idles
            ahead = replace(ahead, z=torch.where(per_row(active, ahead.z), ahead.z, state.z))
        state = ahead
    replace(problem, step=schedule.steps + 1, idle=None).conclude(state.z)


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
    outcome.z[part] = ledger.best_z.cpu()
    outcome.attacked[part] = True
    for name in ("forwards", "backwards", "queries_at_success", "zero_gradients", "nans"):
        getattr(outcome, name)[part] = getattr(ledger, name).cpu()
    known = {name: i for i, name in enumerate(outcome.attacks)}
    for name in ledger.attacks:
        known.setdefault(name, len(known))
    outcome.attacks[:] = list(known)
    place = torch.tensor([known[name] for name in ledger.attacks] + [-1])
    outcome.winner[part] = place[ledger.winner.cpu()]
    outcome.seconds[part] = seconds / len(part)
