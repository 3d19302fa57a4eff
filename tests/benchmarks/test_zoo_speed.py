"""Lifted estimators beside scikit-learn itself, gradients beside one sample at a time, exact distances.

Ratios are of medians of interleaved runs in one process; they are printed and kept in `extra_info`.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import robustbench_lite as rb
from tests.benchmarks.timing import interleaved, seconds
from tests.conftest import attack_with

pytestmark = pytest.mark.benchmark
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def queries(data: rb.Data, n: int = 10_000) -> Tensor:
    """Noisy digits."""
    generator = torch.Generator().manual_seed(0)
    chosen = data.x[torch.randint(len(data), (n,), generator=generator)]
    return (chosen + 0.05 * torch.randn(chosen.shape, generator=generator)).clamp(0, 1)


def told(benchmark: BenchmarkFixture, **figures: float) -> None:
    benchmark.extra_info.update(figures)
    print("\n  " + ", ".join(f"{name}: {value:.4g}" for name, value in figures.items()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["forest", "knn"])
def test_lifted_scores_beside_scikit_learns(benchmark: BenchmarkFixture, kind: str, device: str) -> None:
    data = rb.load_data("digits")
    training = data.training()
    features, labels = training.x.flatten(1).double().numpy(), training.y.numpy()
    x = queries(data)
    flat = x.flatten(1).double().numpy()
    if kind == "forest":
        forest = RandomForestClassifier(100, random_state=0).fit(features, labels)
        model, theirs = rb.lift(forest, data.x.shape[1:]), lambda: forest.predict_proba(flat)
    else:
        neighbours = KNeighborsClassifier(5).fit(features, labels)
        model, theirs = rb.lift(neighbours, data.x.shape[1:]), lambda: neighbours.predict(flat)
    there, held = model.to(device), x.to(device)

    def ours() -> None:
        there.scores(held)
        if device == "cuda":
            torch.cuda.synchronize()

    times_faster = 1 / interleaved(ours, theirs)
    benchmark.pedantic(ours, rounds=3)
    told(benchmark, times_faster=times_faster)


@pytest.mark.parametrize("device", DEVICES)
def test_sixty_thousand_neighbours(benchmark: BenchmarkFixture, real_data: Path, device: str) -> None:
    data = rb.load_data("mnist", data_dir=real_data)
    training = data.training()
    neighbours = KNeighborsClassifier(5, algorithm="brute")
    neighbours.fit(training.x.flatten(1).numpy(), training.y.numpy())
    model = rb.lift(neighbours, data.x.shape[1:], data.x[:50]).to(device)
    x = data.x[:1000].to(device)
    took = seconds(lambda: model.scores(x))
    benchmark.pedantic(lambda: model.scores(x), rounds=1)
    theirs = seconds(lambda: neighbours.predict(data.x[:1000].flatten(1).numpy()))
    told(benchmark, seconds_for_1000=took, scikit_learn=theirs)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_an_rbf_svm_in_a_batch(benchmark: BenchmarkFixture, device: str) -> None:
    """500 digits, 40 steps, beside the same attack on one sample at a time (20 of them, scaled up)."""
    data = rb.load_data("digits", samples=500)
    model = rb.load_model("svm", data, device=device)

    def attack(n: int, batch: int) -> rb.AttackResult:
        goal = "untargeted,stop=never"
        return attack_with(
            model, data.x[:n], data.y[:n], "iterative:steps=40", "linf:0.1", goal=goal, batch_size=batch
        )

    attack(2, 2)
    took = seconds(lambda: attack(500, 500))
    alone = seconds(lambda: attack(20, 1)) * 25
    success = float(benchmark.pedantic(lambda: attack(500, 500), rounds=1).records["success"].mean())
    told(benchmark, seconds=took, one_at_a_time=alone, times_faster=alone / took, success=success)


@pytest.mark.parametrize("model", ["logistic", "linear_svm", "tree"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_exact(benchmark: BenchmarkFixture, model: str, norm: str) -> None:
    data = rb.load_data("digits", samples=500)
    held = rb.load_model(model, data)
    attack_with(held, data.x[:2], data.y[:2], "exact", f"{norm}:min")
    records = attack_with(held, data.x, data.y, "exact", f"{norm}:min").records
    benchmark.pedantic(lambda: attack_with(held, data.x, data.y, "exact", f"{norm}:min"), rounds=3)
    median = float(np.median(records[norm][records["success"]].to_numpy(float)))
    told(benchmark, search_seconds=float(records["seconds"].sum()), median=median)
