"""Facts of mathematics and of the papers: closed forms, brute force, and published error rates."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

import robustbench_lite as rb
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.structure import Linear
from robustbench_lite.core.threat import Norm
from robustbench_lite.models.zoo.linear import LinearModel
from robustbench_lite.threats.named import parse_threat
from tests.conftest import attack_with, linear_model, samples_of


def gap(model: LinearModel, x: Tensor, y: Tensor) -> Tensor:
    """Score of the other class less that of y, float64."""
    scores = x.flatten(1).double() @ model.structure.weight.T + model.structure.bias
    return (scores.gather(1, 1 - y[:, None]) - scores.gather(1, y[:, None]))[:, 0]


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.5])
def test_fgsm_on_a_binary_linear_model_is_the_closed_form_worst_case(eps: float) -> None:
    """The drop is the sum of |w_i| · min(eps, room_i), room to the box in the direction that hurts."""
    model = linear_model(classes=2, shape=(1, 8, 8))
    x, y = samples_of(model, 100)
    result = attack_with(model, x, y, "fgsm", f"linf:{eps}", goal="untargeted,stop=never")
    weight = model.structure.weight
    w = (weight[1 - y] - weight[y]).reshape(x.shape)
    room = torch.where(w > 0, 1 - x.double(), x.double())
    expected = gap(model, x, y) + (w.abs() * room.clamp_max(eps)).flatten(1).sum(1)
    closed_form = (x.double() + eps * w.sign()).clamp(0, 1)
    assert torch.allclose(result.adversarial.double(), closed_form, atol=1e-6)
    # The score of float32 points: each coordinate is rounded, so the error is measured against ||w||_1.
    assert torch.allclose(gap(model, result.adversarial, y), expected, atol=1e-6 * float(w[0].abs().sum()))
    assert result.records["success"].tolist() == (expected > 0).tolist()


@pytest.mark.parametrize("threat", ["linf:0.3", "l2:0.7", "l1:1.3", "l0:2"])
def test_linear_demo_is_the_best_of_a_fine_grid(threat: str) -> None:
    """Two inputs, every point of a 201 × 201 grid of the box that lies in the ball."""
    model = linear_model(classes=3, shape=(2,), seed=3)
    x, y = samples_of(model, 12)
    result = attack_with(model, x, y, "linear_demo", threat, goal="untargeted,stop=never")
    within = parse_threat(threat)

    def margin(points: Tensor, label: Tensor) -> Tensor:
        scores = points.double() @ model.structure.weight.T + model.structure.bias
        own = scores.gather(1, label[:, None])
        return (scores.scatter(1, label[:, None], -torch.inf).amax(1, keepdim=True) - own)[:, 0]

    side = torch.linspace(0, 1, 201)
    grid = torch.tensor(list(itertools.product(side.tolist(), side.tolist())))
    reached = margin(result.adversarial, y)
    for row in range(len(x)):
        near = within.contains(grid, x[row].expand_as(grid), torch.full((len(grid),), within.eps))
        if within.norm is Norm.L0:  # the grid rarely holds x itself: add the lines through it
            lines = [
                torch.stack([side, x[row, 1].expand(201)], 1),
                torch.stack([x[row, 0].expand(201), side], 1),
            ]
            candidates = torch.cat([*lines, grid[near]])
        else:
            candidates = grid[near]
        assert float(reached[row]) >= float(margin(candidates, y[row].expand(len(candidates))).max()) - 1e-6


@pytest.mark.parametrize("threat", ["linf:0.2", "l2:0.5", "l1:1", "l0:3"])
def test_no_attack_beats_the_closed_form_on_a_linear_model(threat: str) -> None:
    model = linear_model(classes=4, shape=(1, 5, 5))
    x, y = samples_of(model, 80)
    exact = attack_with(model, x, y, "linear_demo", threat).records["success"].astype(bool)
    for attack in ("fgsm", "iterative", "noise"):
        if attack != "noise" and threat.startswith("l0"):
            continue
        found = attack_with(model, x, y, attack, threat).records["success"].astype(bool)
        assert not (found & ~exact).any(), attack


def test_targeted_linear_demo_reaches_whatever_can_be_reached() -> None:
    model = linear_model(classes=3)
    x, y = samples_of(model, 40)
    target = (y + 1) % 3
    exact = attack_with(model, x, y, "linear_demo", "linf:0.3", targets=target).records["success"].sum()
    other = attack_with(model, x, y, "iterative", "linf:0.3", targets=target).records["success"].sum()
    # Only the gain on y is maximised, so a third class may come between; it rarely does.
    assert exact >= 0.9 * other
    assert exact > 0


@pytest.mark.slow
def test_goodfellow_softmax_regression_on_mnist_falls_to_fgsm(real_data: Path) -> None:
    """Goodfellow et al. 2014, section 4: 99.9 % error at eps 0.25; clean accuracy at least 92 %."""
    data = rb.load_data("mnist", data_dir=real_data)
    model = rb.load_model("logistic", data)
    assert isinstance(model.structure, Linear)
    clean = float((model.scores(data.x).argmax(1) == data.y).float().mean())
    result = attack_with(model, data.x, data.y, "fgsm", "linf:0.25")
    says = result.records["adversarial_prediction"]
    assert clean >= 0.92
    assert float((says != result.records["label"]).mean()) >= 0.995


@pytest.mark.slow
def test_goodfellow_logistic_three_against_seven(real_data: Path) -> None:
    """Goodfellow et al. 2014, section 5: clean error 1.6 %, 99 % at eps 0.25, not clipped to [0, 1].

    Inside the box the exact worst case is about 97 %, and FGSM finds it.
    """
    data = rb.load_data("mnist:classes=3|7", data_dir=real_data)
    model = rb.load_model("logistic", data)
    clean = float((model.scores(data.x).argmax(1) != data.y).float().mean())

    def error(attack: str, domain: Domain | None) -> float:
        records = attack_with(model, data.x, data.y, attack, "linf:0.25", domain=domain).records
        return float((records["adversarial_prediction"] != records["label"]).mean())

    assert 0.01 <= clean <= 0.02
    assert error("fgsm", Domain(-1.0, 2.0)) >= 0.99
    assert error("fgsm", None) == pytest.approx(error("linear_demo", None), abs=1e-3)


def test_the_gradient_survives_a_model_that_is_very_sure() -> None:
    """At a margin of 40, p(y) is 1 in float32; the direction must still be w_other - w_y."""
    scores = torch.tensor([[40.0, 0.0, -3.0]], requires_grad=True)
    for target, sign in ((None, 1.0), (torch.tensor([1]), 1.0)):
        loss = cross_entropy(scores, torch.tensor([0]), target).sum()
        (gradient,) = torch.autograd.grad(loss, scores)
        assert gradient[0, 1] * sign > 0
        assert gradient[0, 0] < 0
        assert float(gradient.sum() / gradient.abs().max()) == pytest.approx(0, abs=1e-6)
    x = torch.randn(50, 7)
    y = torch.arange(50) % 7
    assert torch.allclose(
        cross_entropy(x, y), torch.nn.functional.cross_entropy(x, y, reduction="none"), atol=1e-6
    )


def test_batches_of_7_and_500_give_the_same_records() -> None:
    data = rb.load_data("digits", samples=250)
    model = rb.load_model("cnn", data)
    for attack in ("noise", "iterative:steps=20"):
        one, other = (
            attack_with(model, data.x, data.y, attack, "linf:0.1", batch_size=size) for size in (7, 500)
        )
        same = one.records["success"] == other.records["success"]
        assert same.mean() >= 0.995
        if attack == "noise":  # the very same points wherever both kept the same draw
            kept = (one.adversarial == other.adversarial).flatten(1).all(1)
            assert kept.float().mean() >= 0.995
