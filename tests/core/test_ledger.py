"""The ledger: the best of each sample, and what it has cost."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lite.core.ledger import Ledger


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_it_keeps_what_a_loop_would_keep(data: st.DataObject) -> None:
    samples = data.draw(st.integers(1, 4))
    keep = data.draw(st.sampled_from(["first", "nearest", "margin"]))
    ledger = Ledger(torch.zeros(samples, 1), keep)
    best: dict[int, tuple[bool, float, float, float]] = {}  # success, distance, margin, point
    point = 0.0
    for _ in range(data.draw(st.integers(1, 5))):
        m = data.draw(st.integers(1, 6))
        rows = data.draw(st.lists(st.integers(0, samples - 1), min_size=m, max_size=m))
        success = data.draw(st.lists(st.booleans(), min_size=m, max_size=m))
        distance = data.draw(st.lists(st.integers(1, 5).map(float), min_size=m, max_size=m))
        margins = [abs(v) + 0.5 if s else -abs(v) - 0.5 for s, v in zip(success, data.draw(
            st.lists(st.integers(0, 5).map(float), min_size=m, max_size=m)), strict=True)]  # fmt: skip
        points = [point + i + 1 for i in range(m)]
        point += m
        ledger.see(
            torch.tensor(rows), torch.tensor(points)[:, None], torch.tensor(success),
            torch.tensor(distance, dtype=torch.float64), torch.tensor(margins), 0,
        )  # fmt: skip
        for sample in set(rows):  # of one look: successes first, then the best rank, then the earliest
            here = [i for i in range(m) if rows[i] == sample]
            for i in sorted(
                here, key=lambda i: (not success[i], _rank(keep, success[i], distance[i], margins[i]))
            ):
                now = best.get(sample)
                new = (success[i], distance[i], margins[i], points[i])
                if (
                    now is None
                    or (new[0] and not now[0])
                    or (new[0] == now[0] and _rank(keep, *new[:3]) < _rank(keep, *now[:3]))
                ):
                    best[sample] = new
    for sample, (won, far, rise, at) in best.items():
        assert bool(ledger.found[sample]) == won
        assert float(ledger.best_z[sample]) == at
        assert float(ledger.best_margin[sample]) == rise
        assert float(ledger.best_distance[sample]) == (far if won else torch.inf)


def _rank(keep: str, success: bool, distance: float, margin: float) -> float:
    if not success:
        return -margin
    return {"first": 0.0, "nearest": distance, "margin": -margin}[keep]


def test_of_random_answers_the_highest_rate_over_fresh_draws_is_kept() -> None:
    ledger = Ledger(torch.zeros(2, 1), "mean")
    rows, nowhere = torch.tensor([0, 1]), torch.full((2,), 0.1, dtype=torch.float64)
    ledger.propose(
        rows, torch.tensor([[1.0], [1.0]]), torch.tensor([True, False]), 1, torch.tensor([5.0, -1.0])
    )
    assert ledger.candidate_z.flatten().tolist() == ledger.best_z.flatten().tolist() == [1.0, 1.0]
    assert not ledger.found.any()  # a lucky draw is no success
    ledger.measure(
        rows, torch.tensor([[1.0], [1.0]]), torch.tensor([0.4, 0.7]), nowhere, torch.tensor([0.0, 1.0]), 0
    )
    assert ledger.found.tolist() == [False, True]
    ledger.measure(
        rows, torch.tensor([[2.0], [2.0]]), torch.tensor([0.6, 0.6]), nowhere, torch.tensor([0.0, 9.0]), 0
    )
    assert ledger.best_z.flatten().tolist() == [2.0, 1.0]
    assert ledger.found.all()
    ledger.propose(
        rows, torch.tensor([[3.0], [3.0]]), torch.tensor([True, True]), 4, torch.tensor([9.0, 9.0])
    )
    assert ledger.streak.tolist() == [5, 4]
    assert ledger.best_z.flatten().tolist() == [2.0, 1.0]  # measured points are not displaced by hopes


def test_a_budget_is_divided_in_order() -> None:
    ledger = Ledger(torch.zeros(2, 1), "first", budget=3)
    rows = torch.tensor([1, 0, 1, 1, 0, 1])
    assert ledger.affordable(rows, 1) is not None
    assert ledger.affordable(rows, 1).tolist() == [True, True, True, True, True, False]  # type: ignore[union-attr]
    ledger.charge(rows, 1, 0, torch.tensor([False, False, False, True, True, False]))
    assert ledger.forwards.tolist() == [1, 3]
