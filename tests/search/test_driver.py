"""The driver and the problem, through tiny attacks of every shape."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from robustbench_lite.attacks.fixed_budget.bim import Iterative
from robustbench_lite.attacks.fixed_budget.fgsm import FGSM
from robustbench_lite.attacks.noise import Noise
from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.core.goal import Goal, parse_goal
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.oracle import Oracle, OutOfMemory
from robustbench_lite.core.problem import MEASURED, Problem
from robustbench_lite.core.settings import Search
from robustbench_lite.core.task import margin as margin_loss
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Attack, Composite, Fitted, Iterate, Schedule
from robustbench_lite.search.batching import batch_size
from robustbench_lite.search.driver import Outcome, search
from robustbench_lite.search.fitting import Applied
from robustbench_lite.threats.named import parse_threat
from tests.conftest import learnt_by, linear_model, samples_for, samples_of, small_network


def attacked(
    attack: Attack,
    model: Model,
    threat: str = "linf:0.3",
    goal: str = "untargeted",
    n: int = 20,
    **how: int,
) -> Outcome:
    x, y = samples_of(model, n)
    samples = samples_for(x, y, torch.arange(n), model.scores(x))
    return search(attack, model, parse_threat(threat), parse_goal(goal), samples, Search(**how))


def fooled(model: Model, outcome: Outcome, n: int = 20) -> Tensor:
    return model.scores(outcome.z).argmax(1) != samples_of(model, n)[1]


@dataclass(frozen=True)
class Candidates(Attack):
    """Row i asks for i % 4 random points a step: rows ask unevenly."""

    steps: int = 3
    name = "candidates"
    access = Access.SCORE

    def start(self, problem: Problem) -> Iterate:
        return Iterate(z=problem.x0)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        rows = torch.arange(len(problem)).repeat_interleave(problem.ids % 4)
        points = problem.threat.random(problem.random("points")[rows].fold(torch.arange(len(rows))),
                                       problem.x0[rows], problem.eps[rows])  # fmt: skip
        scores = problem.scores(points, rows)
        assert scores.shape == (len(rows), 3)
        return state


def test_candidates_are_counted_for_the_row_that_asked() -> None:
    model = linear_model()
    outcome = attacked(Candidates(), model, "linf:0.0001")
    assert outcome.forwards.tolist() == [3 * (i % 4) + 1 for i in range(20)]  # and the last look
    assert outcome.backwards.sum() == 0


def test_what_candidates_find_is_remembered() -> None:
    model = linear_model()
    outcome = attacked(Candidates(steps=20), model, "linf:1")
    found = outcome.queries_at_success > 0
    assert (fooled(model, outcome) == found).all()
    assert found[torch.arange(20) % 4 > 0].all()
    assert not found[torch.arange(20) % 4 == 0].any()


@dataclass(frozen=True)
class Restarts(Attack):
    """Random points in several lanes."""

    restarts: int = 3
    steps: int = 2
    name = "restarts"
    access = Access.SCORE

    def start(self, problem: Problem) -> Iterate:
        starts = problem.random_start()
        if self.restarts > 1:
            same = (starts[0] == starts[1]).all()
            assert not same, "lanes of a sample draw different numbers"
        return Iterate(z=starts)

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        problem.scores(state.z)
        return Iterate(z=problem.random_start())


def test_lanes_share_the_ledger_of_their_sample() -> None:
    outcome = attacked(Restarts(), linear_model(), "linf:0.0001")
    assert outcome.forwards.tolist() == [9] * 20  # 3 lanes, 3 points each


def test_siblings_of_a_lane_that_succeeds_leave() -> None:
    model = linear_model()
    few, many = (attacked(Restarts(steps=40, restarts=r), model, "linf:0.5") for r in (1, 4))
    assert (many.queries_at_success > 0).sum() >= (few.queries_at_success > 0).sum()
    won = many.queries_at_success > 0
    assert (many.forwards[won] <= many.queries_at_success[won] + 3).all()


def test_targets_run_side_by_side() -> None:
    model = small_network(classes=4)
    outcome = attacked(Iterative(steps=20), model, "linf:0.5", "top:3")
    assert outcome.target is not None
    assert outcome.target.shape == (20, 3)
    prediction = model.scores(outcome.z).argmax(1)
    won = outcome.queries_at_success > 0
    assert won.any()
    assert (outcome.target[won] == prediction[won, None]).any(1).all()


@dataclass(frozen=True)
class Aiming(Iterative):
    """Aims at the two likeliest wrong classes though any will do."""

    name = "aiming"

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, targets=2)


def test_an_attack_may_aim_though_the_goal_does_not() -> None:
    model = small_network()
    outcome = attacked(Aiming(steps=5), model, "linf:0.0001")
    assert outcome.target is None
    assert outcome.forwards.tolist() == [1 + 2 * 6] * 20  # the likeliest classes, then two lanes


@dataclass(frozen=True)
class Halving(Composite):
    """The smallest eps by bisection: every sample has an eps of its own."""

    rounds: int = 12
    name = "halving"
    minimum_norm = True

    def course(self, problem: Problem) -> Generator[tuple[Attack, Problem], Ledger, None]:
        low, high = torch.zeros_like(problem.eps), torch.ones_like(problem.eps)
        for _ in range(self.rounds):
            middle = (low + high) / 2
            yield FGSM(), replace(problem, eps=middle)
            fell = problem.best_distance <= middle
            low, high = torch.where(fell, low, middle), torch.where(fell, middle, high)


def test_a_composite_with_an_eps_a_sample_finds_the_smallest_distance() -> None:
    model = linear_model(classes=2)
    outcome = attacked(Halving(), model, "linf:min")
    x, y = samples_of(model)
    scores = model.scores(x).double()
    weight = model.structure.weight
    gap = (scores.gather(1, y[:, None]) - scores.gather(1, 1 - y[:, None]))[:, 0]
    # Without the box the smallest distance is gap / ||w||_1; the box only makes it larger.
    least = gap / (weight[0] - weight[1]).abs().sum()
    distance = (outcome.z - x).abs().amax((1, 2, 3)).double()
    won = outcome.queries_at_success > 0
    assert won.sum() >= 15
    assert (distance[won] >= least[won] - 1e-6).all()
    inside = won & (
        ((x - least.reshape(-1, 1, 1, 1)) >= 0) & ((x + least.reshape(-1, 1, 1, 1)) <= 1)
    ).flatten(1).all(1)
    assert torch.allclose(distance[inside], least[inside], atol=1e-3)


@dataclass(frozen=True)
class InTurn(Composite):
    """Noise, then FGSM on what is left."""

    name = "in_turn"

    def course(self, problem: Problem) -> Generator[tuple[Attack, Problem], Ledger, None]:
        ledger = yield Noise(steps=0), problem
        assert ledger is problem.ledger
        yield FGSM(), problem


def test_a_composite_names_the_winner_and_attacks_survivors_only() -> None:
    model = linear_model()
    outcome = attacked(InTurn(), model, "linf:0.2")
    assert outcome.attacks == ["noise:steps=0", "fgsm"]
    won = outcome.winner >= 0
    assert (won == fooled(model, outcome)).all()
    assert set(outcome.winner[won].tolist()) == {0, 1}
    assert (outcome.forwards[outcome.winner == 0] == 1).all()
    assert (outcome.forwards[outcome.winner != 0] == 3).all()


@dataclass(frozen=True)
class MeanStep(Fitted):
    """One direction for all: the sign of the mean gradient."""

    name = "mean_step"

    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        gradient = problem.evaluate(problem.x0, cross_entropy).gradient
        return {"direction": gradient.mean(0).sign()}

    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        return problem.x0 + problem.size() * artifact["direction"]


def test_a_fitted_attack_is_learnt_on_one_set_and_applied_to_another() -> None:
    model = linear_model()
    x, y = samples_of(model, 30, seed=1)
    wrong = (y + 1) % 3  # samples that are wrong already are attacked too
    threat, goal = parse_threat("linf:0.2"), Goal()
    samples = samples_for(x, y, torch.arange(30), model.scores(x))
    learnt = learnt_by(MeanStep(), model, threat, goal, samples)
    outcome = search(Applied(MeanStep(), learnt), model, threat, goal, replace(samples, y=wrong))
    expected = (x + 0.2 * learnt["direction"]).clamp(0, 1)
    assert outcome.attacked.all()
    assert torch.allclose(outcome.z, expected, atol=1e-6)
    with pytest.raises(NotImplementedError, match="fits this attack"):
        search(MeanStep(), model, threat, goal, samples)


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("attack", [Iterative(steps=20), Noise(steps=20), Restarts(), Candidates(steps=9)])
def test_no_attack_passes_its_budget(attack: Attack, budget: int) -> None:
    outcome = attacked(attack, linear_model(), "linf:0.0001", budget=budget)
    spent = outcome.forwards + outcome.backwards
    assert (spent <= budget).all()
    if isinstance(attack, Noise):
        assert (spent == budget).all()


class Asking(Attack):
    """Remembers how many points were refused."""

    name = "asking"
    access = Access.SCORE

    def start(self, problem: Problem) -> Iterate:
        rows = torch.arange(len(problem)).repeat_interleave(5)
        scores = problem.scores(problem.x0[rows], rows)
        assert scores.isnan().all(1).reshape(-1, 5).sum(1).tolist() == [2] * len(problem)
        assert problem.remaining.tolist() == [0] * len(problem)
        return Iterate(z=problem.x0)


def test_the_first_points_are_answered_and_the_rest_are_nan() -> None:
    outcome = attacked(Asking(), linear_model(), "linf:0.1", budget=3)
    assert outcome.forwards.tolist() == [3] * 20


def test_restarts_and_batches_do_not_change_what_a_sample_meets() -> None:
    model = small_network()
    one = attacked(Noise(), model, "linf:0.2", n=20)
    for size in (1, 7, 20):
        other = attacked(Noise(), model, "linf:0.2", n=20, batch_size=size)
        assert torch.equal(one.z, other.z)
        assert torch.equal(one.forwards, other.forwards)


def test_samples_that_are_wrong_already_are_not_attacked() -> None:
    model = linear_model()
    x, y = samples_of(model)
    y = torch.where(torch.arange(20) < 5, (y + 1) % 3, y)
    outcome = search(
        FGSM(), model, parse_threat("linf:0.2"), Goal(), samples_for(x, y, torch.arange(20), model.scores(x))
    )
    assert outcome.attacked.tolist() == [False] * 5 + [True] * 15
    assert torch.equal(outcome.z[:5], x[:5])
    assert (outcome.forwards[:5] == 0).all()


def test_a_sample_that_resists_returns_its_highest_margin() -> None:
    model = small_network()
    seen: list[Tensor] = []

    class Watching(Attack):
        name = "watching"
        access = Access.SCORE

        def schedule(self, model: Model, threat: Threat) -> Schedule:
            return Schedule(5)

        def start(self, problem: Problem) -> Iterate:
            return Iterate(z=problem.random_start())

        def step(self, problem: Problem, state: Iterate) -> Iterate:
            seen.append(state.z)
            problem.scores(state.z)
            return Iterate(z=problem.random_start())

    _x, y = samples_of(model)
    outcome = attacked(Watching(), model, "linf:0.01")
    assert (outcome.queries_at_success < 0).all()

    def margin(points: Tensor) -> Tensor:
        scores = model.scores(points)
        return scores.scatter(1, y[:, None], -torch.inf).amax(1) - scores.gather(1, y[:, None])[:, 0]

    best = torch.stack([margin(points) for points in seen]).amax(0)
    assert (margin(outcome.z) >= best - 1e-6).all()


def test_smallest_distance_is_kept_where_no_eps_is_given() -> None:
    @dataclass(frozen=True)
    class Shrinking(Attack):
        steps: int = 8
        name = "shrinking"
        access = Access.SCORE
        minimum_norm = True

        def start(self, problem: Problem) -> Iterate:
            return Iterate(z=problem.project(problem.x0 + 1 - 2 * (problem.x0 > 0.5).float()))

        def step(self, problem: Problem, state: Iterate) -> Iterate:
            problem.scores(state.z)
            return Iterate(z=(state.z + problem.x0) / 2)

    model = linear_model()
    outcome = attacked(Shrinking(), model, "l2:min")
    x, y = samples_of(model)
    start = (x + 1 - 2 * (x > 0.5).float()).clamp(0, 1)
    for i in range(20):
        path = [x[i] + (start[i] - x[i]) * 0.5**k for k in range(9)]
        lengths = [float((p - x[i]).norm()) for p in path if model.scores(p[None]).argmax() != y[i]]
        if lengths:
            assert float((outcome.z[i] - x[i]).norm()) == pytest.approx(min(lengths), abs=1e-5)


def test_stop_never_goes_on_to_a_higher_margin() -> None:
    model = small_network()
    _x, y = samples_of(model)

    def margin(outcome: Outcome) -> Tensor:
        scores = model.scores(outcome.z)
        return scores.scatter(1, y[:, None], -torch.inf).amax(1) - scores.gather(1, y[:, None])[:, 0]

    first, highest = (
        attacked(Iterative(steps=30), model, "linf:0.5", goal)
        for goal in ("untargeted", "untargeted,stop=never")
    )
    assert (margin(highest) >= margin(first) - 1e-5).all()
    assert margin(highest).mean() > margin(first).mean() + 0.01
    assert (highest.backwards == 30).all()


class Starved(Model):
    """Runs out of memory above three rows."""

    name, family, num_classes, input_shape, device = "starved", "test", 3, (1, 4, 4), torch.device("cpu")

    def __init__(self, most: int) -> None:
        self.inner, self.most = linear_model(), most

    def scores(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner.scores(x)

    def to(self, device: torch.device | str) -> Model:
        return self

    def fingerprint(self) -> str:
        return "starved"


def test_a_batch_that_does_not_fit_is_halved() -> None:
    whole, starved = linear_model(), Starved(3)
    x, y = samples_of(whole)
    samples = samples_for(x, y, torch.arange(20), whole.scores(x))
    threat = parse_threat("linf:0.2")
    one = search(Iterative(steps=5), whole, threat, Goal(), samples)
    other = search(Iterative(steps=5), starved, threat, Goal(), samples, Search(batch_size=20))
    assert torch.allclose(one.z, other.z, atol=1e-6)
    assert torch.equal(one.forwards, other.forwards)
    with pytest.raises(OutOfMemory, match="one sample does not fit"):
        search(FGSM(), Starved(0), threat, Goal(), samples, Search(batch_size=20))


class Noisy(Model):
    """Linear scores plus noise of its own at every call."""

    name, family, num_classes, input_shape, device = "noisy", "test", 3, (1, 4, 4), torch.device("cpu")
    stochastic = True

    def __init__(self, key: Tensor | None = None) -> None:
        self.inner, self.key = linear_model(), key

    def scores(self, x: Tensor) -> Tensor:
        from robustbench_lite.core.random import Stream

        assert self.key is not None, "a stochastic model is asked through its draws"
        return self.inner.scores(x) + 0.5 * Stream(self.key).normal((3,))

    def draw(self, stream: object) -> Model:
        from robustbench_lite.core.random import Stream

        assert isinstance(stream, Stream)
        return Noisy(stream.key)

    def to(self, device: torch.device | str) -> Model:
        return self

    def fingerprint(self) -> str:
        return "noisy"


def test_a_stochastic_model_is_averaged_and_every_draw_is_counted() -> None:
    model = Noisy()
    x, y = samples_of(model.inner)
    samples = samples_for(x, y, torch.arange(20), model.inner.scores(x))
    runs = [
        search(FGSM(), model, parse_threat("linf:0.0001"), Goal(), samples, Search(eot=4, batch_size=size))
        for size in (20, 3)
    ]
    assert torch.equal(runs[0].z, runs[1].z)
    # A gradient with 4 draws, 4 for the last look, and fresh draws of the best candidate and the last point.
    assert set((runs[0].forwards - 8).tolist()) <= {MEASURED, 2 * MEASURED}
    assert (runs[0].backwards == 4).all()


class StandIn(Model):
    """Hard votes as truth, a smooth surrogate for gradients: what the surrogate believes is confirmed."""

    name, family, num_classes, input_shape, device = "surrogate", "test", 3, (1, 4, 4), torch.device("cpu")

    def __init__(self) -> None:
        self.inner = linear_model()

    def scores(self, x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.inner.scores(x).argmax(1), 3).float()

    def gradient_scores(self, x: Tensor) -> Tensor:
        return self.inner.scores(x) + torch.tensor([0.5, 0.0, 0.0])  # not quite the truth

    def to(self, device: torch.device | str) -> Model:
        return self

    def fingerprint(self) -> str:
        return "surrogate"


def test_a_surrogate_is_never_believed() -> None:
    model = StandIn()
    outcome = attacked(Iterative(steps=20), model, "linf:0.2")
    won = outcome.queries_at_success > 0
    assert won.any()
    assert (fooled(model, outcome) == won).all()
    assert (outcome.forwards == 2 * outcome.backwards + 1)[~won].all()  # each gradient asks the truth too


def test_a_faster_search_is_only_a_candidate() -> None:
    truth, x = small_network(), samples_of(small_network())[0]
    y = truth.scores(x).argmax(1)
    wrong = small_network(seed=5)
    oracle = Oracle(truth, search=wrong)
    row = torch.arange(len(x))
    ledger = Ledger(x, "first", attacks=["x"])
    eps = torch.full((len(x),), 0.3, dtype=torch.float64)
    bound = torch.zeros_like(eps)
    problem = Problem(oracle, parse_threat("linf:0.3"), Goal(), ledger, x, y, eps, row, row, row, bound)
    believed = problem.evaluate(x, cross_entropy)
    assert (believed.scores.argmax(1) != y).any()  # the search copy calls some broken
    assert not believed.adversarial.any()
    assert not problem.found.any()
    candidates = (believed.scores.argmax(1) != y).long()
    assert torch.equal(ledger.forwards, 1 + candidates)  # only those were asked of the truth


def test_the_best_point_of_a_faster_search_is_remembered_before_any_succeeds() -> None:
    """Later attacks of a cascade begin there; what lies outside the ball is no such point."""
    model = small_network()
    x, y = samples_of(model)
    row = torch.arange(len(x))
    eps = torch.full((len(x),), 1e-3, dtype=torch.float64)
    ledger, oracle = Ledger(x, "first", attacks=["x"]), Oracle(model, search=small_network())
    problem = Problem(oracle, parse_threat("linf:0.001"), Goal(), ledger, x, y, eps, row, row, row, 0 * eps)
    gradient = problem.evaluate(x, margin_loss).gradient
    better, outside = problem.project(x + gradient.sign()), x + gradient.sign()
    problem.evaluate(better, margin_loss)
    assert torch.equal(problem.best_z[~problem.found], better[~problem.found])
    problem.evaluate(outside, margin_loss)
    assert torch.equal(problem.best_z[~problem.found], better[~problem.found])
    assert not problem.found.all()


def test_batch_size_shrinks_with_lanes_and_depth() -> None:
    model = small_network()
    x = torch.rand(1, 1, 4, 4)
    threat = parse_threat("linf:0.1")
    assert batch_size(FGSM(), model, threat, x, 1) == 4 * batch_size(FGSM(), model, threat, x, 4)
    assert batch_size(FGSM(), model, threat, x, 10**9) == 1


def test_progress_goes_from_nothing_to_all() -> None:
    seen: list[float] = []
    model = linear_model()
    x, y = samples_of(model)
    samples = samples_for(x, y, torch.arange(20), model.scores(x))
    how = Search(batch_size=6)
    search(Iterative(steps=5), model, parse_threat("linf:0.001"), Goal(), samples, how, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert len(seen) == 4 * 5 + 1


def test_a_time_limit_leaves_the_rest_alone() -> None:
    model = linear_model()
    x, y = samples_of(model)
    samples = samples_for(x, y, torch.arange(20), model.scores(x))
    how = Search(batch_size=5, time_limit=1e-9)
    outcome = search(Iterative(), model, parse_threat("linf:0.001"), Goal(), samples, how)
    assert not outcome.attacked.any()
    assert outcome.cut.all()
    assert torch.equal(outcome.z, x)


def test_refusals_and_wrong_settings_name_what_is_allowed() -> None:
    model = linear_model()
    with pytest.raises(Unsupported, match="fgsm works in l1, l2, linf; not in l0"):
        attacked(FGSM(), model, "l0:1")
    with pytest.raises(Unsupported, match="fgsm needs a fixed eps"):
        attacked(FGSM(), model, "l2:min")
    with pytest.raises(InvalidParameter, match="budget = 0: must be at least 1"):
        Search(budget=0)
    with pytest.raises(InvalidParameter, match="steps"):
        Iterative(steps=0)
