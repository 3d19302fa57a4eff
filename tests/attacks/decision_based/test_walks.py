"""Walks by decisions alone, against the nearest point of a linear model; paths, against their own points."""

import pytest
import torch

from tests.conftest import attack_with, linear_model, samples_of, small_network


@pytest.mark.parametrize(
    ("name", "threat", "above"),
    [
        ("boundary:steps=1500", "l2:min", 1.15),
        ("evolutionary:steps=2000,deviation=0.03,share=0.5", "l2:min", 1.15),
        ("surfree:steps=150", "l2:min", 1.1),
        ("geoda:steps=6", "l2:min", 1.1),
        ("sign_opt:steps=12", "l2:min", 1.1),
        ("opt:steps=10,queries=30", "l2:min", 1.1),
        ("qeba:steps=6", "l2:min", 1.35),
        ("sign_flip:steps=800", "linf:min", 1.35),
        ("geoda:steps=6", "linf:min", 1.35),
    ],
)
def test_walks_come_near_the_exact_answer_of_a_linear_model(name: str, threat: str, above: float) -> None:
    model = linear_model(classes=2, shape=(1, 5, 5))
    x, y = samples_of(model, 20)
    found, exact = (
        attack_with(model, x, y, attack, threat).records["distance"].to_numpy(float)
        for attack in (name, "exact")
    )
    assert (found >= exact * (1 - 1e-6)).all()
    assert float((found / exact).mean()) < above


@pytest.mark.parametrize("name", ["contrast", "blended_noise", "salt_and_pepper", "blur"])
def test_the_first_point_of_a_path_that_succeeds_is_found(name: str) -> None:
    """No further along than the first success of a coarser look, and a fixed eps looks within it alone."""
    model = small_network(classes=3, shape=(1, 6, 6))
    x, y = samples_of(model, 60)
    fine, coarse = (attack_with(model, x, y, f"{name}:steps={steps}", "l2:min").records for steps in (200, 5))
    both = (fine["success"] & coarse["success"]).to_numpy(bool)
    assert both.any()
    assert (fine["distance"][both] <= coarse["distance"][both] * (1 + 1e-3)).mean() > 0.9
    eps = round(float(fine["distance"][both].median()), 4)
    within = attack_with(model, x, y, f"{name}:steps=200", f"l2:{eps}").records
    won = within["success"].astype(bool)
    assert (within["distance"][won] <= eps).all()
    near = fine["success"].astype(bool) & (fine["distance"] < eps * 0.999)
    assert (won | ~near).mean() > 0.95


def test_no_contrast_is_the_middle_of_the_box() -> None:
    model = linear_model(classes=2, shape=(1, 4, 4))
    x, y = samples_of(model, 50)
    grey = torch.full_like(x, 0.5)
    turns = model.prediction(model.scores(grey)) != y
    records = attack_with(model, x, y, "contrast", "linf:min").records
    assert (torch.tensor(records["success"].to_numpy(bool)) >= turns).all()
    # A linear model changes its mind once on a straight line: where its scores meet.
    lead = model.scores(x).gather(1, y[:, None]) - model.scores(x).gather(1, 1 - y[:, None])
    end = model.scores(grey).gather(1, y[:, None]) - model.scores(grey).gather(1, 1 - y[:, None])
    share = (lead / (lead - end))[:, 0]
    size = share * (x - 0.5).abs().flatten(1).amax(1)
    found = torch.tensor(records["distance"].to_numpy(float))[turns]
    assert torch.allclose(found, size[turns].double(), rtol=2e-3, atol=1e-5)
