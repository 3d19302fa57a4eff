"""Attacks that ask for scores: against exact answers, brute force and their own definitions."""

import itertools

import pytest
import torch

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.task import margin
from tests.conftest import attack_with, linear_model, samples_of, small_network


@pytest.mark.parametrize("name", ["spsa", "nes"])
@pytest.mark.parametrize(("threat", "least"), [("linf:0.1", 0.97), ("l2:0.4", 0.95)])
def test_an_estimated_gradient_breaks_nearly_what_can_be_broken(name: str, threat: str, least: float) -> None:
    model = linear_model(3, (1, 4, 4))
    x, y = samples_of(model, 80)
    estimated, exact = (attack_with(model, x, y, a, threat).success for a in (f"{name}:steps=40", "exact"))
    assert 10 < int(exact.sum()) < 75
    assert not bool((estimated & ~exact).any())
    assert int(estimated.sum()) >= least * int(exact.sum())


def test_every_pair_is_counted() -> None:
    model = small_network()
    x, y = samples_of(model, 10)
    records = attack_with(model, x, y, "spsa:steps=3,pairs=5", "linf:0.0001").records
    assert not records["success"].any()
    assert (records["forwards"] == 3 * 2 * 5 + 1).all()


def test_sparse_search_finds_the_best_pair_of_pixels() -> None:
    """Of every pair of pixels and every pair of corners, on inputs of nine pixels."""
    model = small_network(3, (1, 3, 3))
    x, y = samples_of(model, 12)
    found = attack_with(model, x, y, "sparse_rs:steps=600", "l0:2", goal="untargeted,stop=never")
    ours = margin(model.scores(found.adversarial), y)
    near = 0
    for row in range(len(x)):
        points = []
        for places in itertools.combinations(range(9), 2):
            for values in itertools.product((0.0, 1.0), repeat=2):
                point = x[row].clone().flatten()
                point[list(places)] = torch.tensor(values)
                points.append(point.view(1, 3, 3))
        best = margin(model.scores(torch.stack(points)), y[row].expand(len(points))).max()
        assert float(ours[row]) <= float(best) + 1e-5
        near += float(ours[row]) >= float(best) - 1e-5
    assert near == len(x)
    assert (found.records["l0"] <= 2).all()


def test_sparse_search_is_no_weaker_than_evolution_on_several_pixels() -> None:
    model = small_network(3, (1, 8, 8))
    x, y = samples_of(model, 40)
    sparse = attack_with(model, x, y, "sparse_rs:steps=1000", "l0:2").success
    evolved = attack_with(model, x, y, "one_pixel:steps=9,population=100", "l0:2").success
    assert 5 < int(evolved.sum()) <= int(sparse.sum()) < 40
    with pytest.raises(Unsupported, match="needs a number of pixels"):
        attack_with(model, x, y, "sparse_rs", "l0:0")


def test_simba_asks_up_then_down_and_comes_to_the_corner_of_a_linear_model() -> None:
    model = linear_model(2, (1, 3, 3))
    x, y = samples_of(model, 20)
    found = attack_with(model, x, y, "simba:steps=27,size=0.1", "linf:0.1", goal="untargeted,stop=never")
    exact = attack_with(model, x, y, "linear_demo", "linf:0.1", goal="untargeted,stop=never")
    assert torch.allclose(found.adversarial, exact.adversarial, atol=1e-6)
    assert (found.records["forwards"] <= 2 * 27 + 2).all()
    assert (found.records["forwards"] >= 27 + 1).all()
