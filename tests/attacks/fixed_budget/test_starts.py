"""Starts and losses that hold something for every row, and optimisers' steps."""

import pytest
import torch

from tests.conftest import attack_with, linear_model, samples_of, small_network


@pytest.mark.parametrize(
    "spec", ["pgd:steps=5,diversified=2,restarts=2", "apgd:steps=5,diversified=2", "jitter:steps=5"]
)
def test_what_rows_hold_of_their_own_depends_on_no_batch_or_budget(spec: str) -> None:
    model = small_network()
    x, y = samples_of(model, 30)
    whole, parts = (
        attack_with(model, x, y, spec, "linf:0.1", goal="untargeted,stop=never", batch_size=size)
        for size in (30, 7)
    )
    assert torch.allclose(whole.adversarial, parts.adversarial, atol=1e-6)
    records = attack_with(model, x, y, spec, "linf:0.1", budget=9).records
    assert (records["forwards"] + records["backwards"] <= 9).all()


def test_diversified_starts_differ_more_in_what_the_model_says() -> None:
    """Two starts of a sample lie further apart in scores after the steps than before."""
    model = small_network(classes=5)
    x, y = samples_of(model, 40)
    spread = []
    for steps in (0, 2):
        starts = [
            attack_with(model, x, y, f"pgd:steps=1,step_size=1e-9,diversified={steps}", "linf:0.1", seed=seed,
                        goal="untargeted,stop=never").adversarial
            for seed in (0, 1)
        ]  # fmt: skip
        one, other = (model.scores(start) for start in starts)
        spread.append(float((one - other).norm(dim=1).mean()))
    assert spread[1] > spread[0]


@pytest.mark.parametrize(
    "name",
    ["acg", "upgd", "upgd:optimizer=sgd,step_size=2", "upgd:optimizer=momentum", "upgd:optimizer=nesterov"],
)
def test_on_a_binary_linear_model_they_reach_what_can_be_reached(name: str) -> None:
    model = linear_model(classes=2, shape=(1, 5, 5))
    x, y = samples_of(model, 30)
    found, best = (
        attack_with(model, x, y, attack, "linf:0.1").records["success"].astype(bool)
        for attack in (name, "exact")
    )
    assert (found == best).all()
