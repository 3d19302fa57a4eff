"""Searches by scores on linear models, where the best point is known."""

import pytest
import torch

from robustbench_lite.attacks.universal.procedural import _perlin
from robustbench_lite.core.random import Stream
from tests.conftest import attack_with, linear_model, samples_of, small_network

NEVER = "untargeted,stop=never"


@pytest.mark.parametrize("name", ["signhunter:steps=127", "parsimonious:steps=600"])
def test_signs_found_one_by_one_are_the_worst_corner_of_a_linear_model(name: str) -> None:
    """The margin is a sum over features: whatever the blocks before, single ones put it right."""
    model = linear_model(classes=2, shape=(1, 8, 8))
    x, y = samples_of(model, 20)
    found = attack_with(model, x, y, name, "linf:0.1", goal=NEVER).adversarial
    best = attack_with(model, x, y, "fgsm", "linf:0.1", goal=NEVER).adversarial
    assert torch.allclose(found, best, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("bandits:steps=400", 0.75),
        ("nattack", 0.8),
        ("genattack", 0.6),
        ("square:steps=400", 0.8),
        ("cma:side=6", 0.8),
    ],
)
def test_estimates_come_near_the_worst_case_of_a_linear_model(name: str, share: float) -> None:
    """In the fall of the margin, of what is possible at most."""
    model = linear_model(classes=2, shape=(1, 6, 6))
    x, y = samples_of(model, 20)
    x = 0.25 + x / 2  # away from the edges of the box
    y = model.prediction(model.scores(x))

    def fall(attack: str) -> float:
        found = attack_with(model, x, y, attack, "linf:0.1", goal=NEVER).adversarial
        lead = [
            model.scores(z).gather(1, y[:, None]) - model.scores(z).gather(1, 1 - y[:, None])
            for z in (x, found)
        ]
        return float((lead[0] - lead[1]).mean())

    assert share * fall("fgsm") <= fall(name) <= fall("fgsm") * (1 + 1e-6)


def test_cornersearch_with_one_pixel_is_exhaustive() -> None:
    model = small_network(shape=(1, 5, 5))
    x, y = samples_of(model, 40)
    found = attack_with(model, x, y, "cornersearch:batch=7,steps=1", "l0:1").records["success"].astype(bool)
    every = torch.stack(
        [x.flatten(1).index_fill(1, torch.tensor([p]), v) for p in range(25) for v in (0.0, 1.0)]
    )
    answers = model.prediction(model.scores(every.flatten(0, 1).reshape(-1, 1, 5, 5))).view(50, -1)
    assert found.tolist() == (answers != y).any(0).tolist()


def test_cornersearch_for_the_fewest_pixels_counts_up() -> None:
    model = small_network(shape=(1, 5, 5))
    x, y = samples_of(model, 30)
    records = attack_with(model, x, y, "cornersearch", "l0:min").records
    single = attack_with(model, x, y, "cornersearch", "l0:1").records["success"].astype(bool)
    assert ((records["distance"] == 1) == single).all()
    assert records["success"].mean() > single.mean()


def test_pixle_uses_values_of_the_image_alone() -> None:
    model = small_network(shape=(2, 5, 5))
    x, y = samples_of(model, 10)
    found = attack_with(model, x, y, "pixle:steps=60", "l0:4", goal=NEVER).adversarial
    for one, plain in zip(found.flatten(2), x.flatten(2), strict=True):
        colours = {tuple(c) for c in plain.T.tolist()}
        assert {tuple(c) for c in one.T.tolist()} <= colours


def test_perlin_noise_is_zero_where_cells_meet() -> None:
    stream = Stream.of(3, torch.arange(1))
    noise = _perlin(stream, (12, 12), [3.0, 4.0], 1)
    assert torch.equal(noise[::4, ::3], torch.zeros(3, 4, dtype=noise.dtype))
    assert float(noise.abs().max()) > 0.1


@pytest.mark.parametrize("name", ["procedural", "substitute"])
def test_what_learns_from_decisions_ends_at_the_time_limit(name: str) -> None:
    model = linear_model(classes=2, shape=(1, 8, 8))
    records = attack_with(model, *samples_of(model, 20), name, "linf:0.1", time_limit=1e-6).records
    assert (records["outcome"] == "unattacked").all()


def test_a_perturbation_a_class_is_as_good_as_one_for_all() -> None:
    """Of two classes each is pushed over its own way."""
    model = linear_model(classes=2, shape=(1, 4, 4))
    x, y = samples_of(model, 100)
    one, each = (
        attack_with(model, x, y, f"universal{options}", "linf:0.15").records["success"].mean()
        for options in ("", ":per_class=true")
    )
    worst = attack_with(model, x, y, "fgsm", "linf:0.15").records["success"].mean()
    assert one < each <= worst


def test_zoo_comes_near_the_exact_distance_of_a_linear_model() -> None:
    model = linear_model(shape=(1, 4, 4))
    x, y = samples_of(model, 20)
    found, exact = (
        attack_with(model, x, y, name, "l2:min").records["distance"] for name in ("zoo:steps=100", "exact")
    )
    assert (found >= exact - 1e-9).all()
    assert (found / exact).median() < 1.03


def test_few_pixels_takes_the_best_single_pixel_and_then_the_next() -> None:
    """On a linear model pixels add up: the best two are the best one by one."""
    model = linear_model(classes=2, shape=(1, 4, 4))
    x, y = samples_of(model, 20)
    y = model.prediction(model.scores(x))

    def lead(points: torch.Tensor) -> torch.Tensor:
        scores = model.scores(points)
        return (scores.gather(1, y[:, None]) - scores.gather(1, 1 - y[:, None]))[:, 0]

    every = torch.stack(
        [x.flatten(1).index_fill(1, torch.tensor([p]), v) for p in range(16) for v in (0.0, 1.0)]
    )
    gain = torch.stack([lead(x) - lead(points.view(-1, 1, 4, 4)) for points in every])
    best_of_pixel = gain.view(16, 2, -1).amax(1)
    for pixels in (1, 2):
        name = f"few_pixels:steps={pixels},candidates=600,near=0.01"
        found = attack_with(model, x, y, name, f"l0:{pixels}", goal=NEVER).adversarial
        fall = lead(x) - lead(found)
        assert torch.allclose(fall, best_of_pixel.topk(pixels, dim=0).values.sum(0), atol=1e-5)
