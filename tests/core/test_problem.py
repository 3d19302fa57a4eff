"""The problem: what an attack may ask, what that costs, and what is remembered."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Model
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.problem import Pool, Problem
from robustbench_lite.core.task import margin
from robustbench_lite.testing.subjects import flat_model
from robustbench_lite.threats.named import parse_threat
from tests.conftest import linear_model, samples_of, small_network


def problem_on(model: Model, threat: str = "linf:0.3", n: int = 6, budget: int | None = None) -> Problem:
    x, y = samples_of(model, n)
    within = parse_threat(threat)
    row = torch.arange(n)
    eps = torch.full((n,), within.eps or torch.inf, dtype=torch.float64)
    ledger = Ledger(x, "first", budget, attacks=["some"])
    return Problem(Oracle(model), within, Goal(), ledger, x, y, eps, row, row, 0 * row, 0 * eps)


def test_a_gradient_is_the_models_and_costs_a_pass_each_way() -> None:
    model = small_network()
    problem = problem_on(model)
    leaf = problem.x0.clone().requires_grad_()
    (expected,) = torch.autograd.grad(cross_entropy(model.scores(leaf), problem.y).sum(), leaf)
    found = problem.evaluate(problem.x0, cross_entropy)
    assert torch.allclose(found.gradient, expected, atol=1e-6)
    assert problem.ledger.forwards.tolist() == problem.ledger.backwards.tolist() == [1] * 6
    assert problem.ledger.zero_gradients.tolist() == [0] * 6


def test_where_no_slope_shows_a_unit_direction_of_its_own_stands_in() -> None:
    problem = problem_on(flat_model())
    one, again = (problem.evaluate(problem.x0, margin).gradient for _ in range(2))
    assert torch.allclose(torch.linalg.vector_norm(one.flatten(1), dim=1), torch.ones(6))
    assert torch.equal(one, again)
    alone = problem[torch.tensor([3])].evaluate(problem.x0[3:4], margin).gradient
    assert torch.equal(alone, one[3:4])
    later = replace(problem, step=10).evaluate(problem.x0, margin).gradient
    assert not torch.equal(later, one)
    assert problem.ledger.zero_gradients.tolist() == [3, 3, 3, 4, 3, 3]
    jacobian, _ = problem.jacobian(problem.x0, torch.tensor([[0, 1]] * 6))
    assert not jacobian.any()  # it stays true
    raw = replace(problem, explore=False).evaluate(problem.x0, margin).gradient
    assert not raw.any()


def test_what_may_not_change_gets_no_direction() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0] = True
    problem = problem_on(flat_model())
    masked = replace(problem, threat=problem.threat.within(Domain(mask=mask)))
    gradient = masked.evaluate(problem.x0, margin).gradient
    assert not gradient[:, ~mask].any()
    assert gradient[:, mask].any()


def test_random_numbers_are_told_apart_by_tag_parts_and_step() -> None:
    problem = problem_on(linear_model())
    streams = [
        problem.random("a"), problem.random("b"), problem.random("a", 1), problem.random("a", 2),
        replace(problem, step=1).random("a"), problem.steady("a"),
        replace(problem, lane=problem.lane + 1).random("a"),
    ]  # fmt: skip
    drawn = [tuple(stream.key.tolist()) for stream in streams]
    assert len(set(drawn)) == len(drawn)
    assert problem.steady("a").key.equal(replace(problem, step=7).steady("a").key)
    assert problem[torch.tensor([2])].random("a").key.equal(problem.random("a").key[2:3])


def test_margins_are_those_of_the_goal_and_nothing_is_less_than_any() -> None:
    model = linear_model()
    problem = problem_on(model, budget=1)
    expected = margin(model.scores(problem.x0), problem.y)
    assert torch.allclose(problem.margins(problem.x0), expected)
    assert problem.margins(problem.x0).tolist() == [-torch.inf] * 6  # the budget is spent
    aimed = replace(problem_on(model), target=(problem.y + 1) % 3)
    assert torch.allclose(aimed.margins(aimed.x0), margin(model.scores(aimed.x0), aimed.y, aimed.target))


def test_an_observer_is_told_what_was_asked_and_changes_nothing() -> None:
    told: list[tuple[Tensor, Tensor]] = []

    class Watching:
        def asked(self) -> None:
            told.append((torch.zeros(0), torch.zeros(0)))

        def evaluated(self, problem: Problem, z: Tensor, scores: Tensor) -> None:
            told.append((z.clone(), scores.clone()))

    model = small_network()
    plain, watched = problem_on(model), replace(problem_on(model), observers=(Watching(),))
    one, other = (p.evaluate(p.x0, cross_entropy) for p in (plain, watched))
    assert torch.equal(one.gradient, other.gradient)
    assert len(told) == 1
    assert torch.equal(told[0][0], watched.x0)
    assert torch.allclose(told[0][1], model.scores(watched.x0))


def test_rows_share_the_budget_of_their_sample() -> None:
    problem = problem_on(linear_model(), budget=3).in_lanes(2)
    problem.scores(problem.x0)
    assert problem.remaining.tolist() == [1] * 12
    scores = problem.scores(problem.x0)
    assert scores.isnan().all(1).tolist() == [False, True] * 6


@pytest.mark.parametrize("threat", ["linf:0.3", "rotation:20"])
def test_a_change_of_nothing_is_the_origin(threat: str) -> None:
    problem = problem_on(linear_model(), threat)
    assert torch.allclose(problem.threat.render(problem.origin, problem.x0), problem.x0, atol=1e-6)
    assert not problem.threat.distance(problem.origin, problem.x0).any()


def test_starts_are_of_the_class_to_reach_and_the_nearest_first() -> None:
    x = torch.rand((30, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    y = torch.arange(30) % 3
    problem = replace(problem_on(small_network(), "l2:0.3", 5), x0=x[:5], y=y[:5])
    points, rows = replace(problem, pool=Pool(x, y)).starts(4)
    for row in range(5):
        mine = points[rows == row]
        distance = (mine - x[row]).flatten(1).norm(dim=1)
        others = (x[y != y[row]] - x[row]).flatten(1).norm(dim=1).sort().values
        assert torch.allclose(distance, others[:4], atol=1e-5)
    aimed, rows = replace(problem, pool=Pool(x, y), target=(y[:5] + 1) % 3).starts(2)
    for point, row in zip(aimed, rows, strict=True):
        place = (x == point).flatten(1).all(1).nonzero()[0, 0]
        assert y[place] == (y[row] + 1) % 3
