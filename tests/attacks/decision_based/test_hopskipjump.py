"""Decisions alone: against closed forms, with every query counted."""

import numpy as np
import pytest
import torch

import robustbench_lite as rb
from robustbench_lite.models.function import ScoreFunction
from tests.conftest import attack_with, linear_model, samples_of, small_network


@pytest.mark.parametrize(("threat", "gap"), [("l2:min", 1.02), ("linf:min", 1.15)])
def test_it_comes_close_to_the_exact_distance(threat: str, gap: float) -> None:
    model = linear_model(3, (1, 4, 4))
    x, y = samples_of(model, 40)
    walked, exact = (attack_with(model, x, y, name, threat).records for name in ("hopskipjump", "exact"))
    norm = threat.partition(":")[0]
    assert walked["success"].all()
    ratio = walked[norm] / exact[norm]
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= gap


def test_decisions_are_enough_and_every_query_is_counted() -> None:
    model = small_network()
    x, y = samples_of(model, 10)
    asked = 0

    def decide(points: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(points)
        return model.scores(torch.from_numpy(points)).argmax(1).numpy()

    function = ScoreFunction(decide, (1, 4, 4), num_classes=3)
    asked = 0
    clean, judged, again = 10, 10, 10
    found = attack_with(function, x, y, "hopskipjump:steps=5,queries=20", "l2:min")
    assert found.success.all()
    assert asked == int(found.records["forwards"].sum()) + clean + judged + again
    assert (found.records["backwards"] == 0).all()


def test_more_steps_come_nearer_and_a_fixed_size_ends_the_search() -> None:
    model = small_network()
    x, y = samples_of(model, 20)
    far, near = (attack_with(model, x, y, f"hopskipjump:steps={s}", "l2:min").records for s in (1, 20))
    assert (near["l2"] <= far["l2"] + 1e-9).all()
    assert near["l2"].median() < 0.9 * far["l2"].median()
    eps = float(near["l2"].median()) * 1.1
    within = attack_with(model, x, y, "hopskipjump:steps=20", f"l2:{eps:.4f}").records
    assert 10 <= within["success"].sum() < 20
    assert (within.loc[within["success"], "l2"] <= eps).all()
    assert within.loc[within["success"], "forwards"].mean() < near["forwards"].mean()


def test_a_target_is_reached_where_a_start_is_found() -> None:
    model = small_network()
    x, y = samples_of(model, 20)
    found = attack_with(model, x, y, "hopskipjump:steps=3", "l2:min", goal="random").records
    won = found["success"]
    assert won.sum() >= 10
    assert (found["adversarial_prediction"] == found["target"])[won].all()


def test_without_a_start_the_sample_stays_as_it_is() -> None:
    def always(points: np.ndarray) -> np.ndarray:
        return np.zeros(len(points), dtype=np.int64)

    function = ScoreFunction(always, (1, 4, 4), num_classes=3)
    x = torch.rand(5, 1, 4, 4)
    found = attack_with(function, x, torch.zeros(5, dtype=torch.int64), "hopskipjump:steps=3", "l2:min")
    assert not found.success.any()
    assert (found.records["forwards"] >= 100 + 2 * 10).all()


def test_where_noise_never_succeeds_samples_of_other_classes_are_starts() -> None:
    """Noise is of one class only: the nearest sample of another class is where a row of that class begins."""
    random = np.random.default_rng(0)
    x = random.uniform(0, 0.2, (40, 1, 4, 4)).astype(np.float32)
    x[::4] += 0.7

    def bright(points: np.ndarray) -> np.ndarray:
        return (points.reshape(len(points), -1).mean(1) > 0.25).astype(int)

    y = bright(x)
    found = rb.attack(bright, x, y, "hopskipjump:steps=3", "l2:min")
    assert found.success.all()
    targeted = rb.attack(bright, x, y, "hopskipjump:steps=3", "l2:min", goal=1 - y)
    assert targeted.success.all()
    furthest = np.linalg.norm((x[y == 0][:, None] - x[y == 1][None]).reshape(30, 10, -1), axis=2).max()
    assert found.records["distance"].max() <= furthest
