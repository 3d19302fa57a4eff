"""The gradient attacks against closed forms, their losses, and the parts they are made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import robustbench_lite as rb
from robustbench_lite.attacks import ATTACKS
from robustbench_lite.attacks.fixed_budget.apgd import APGD
from robustbench_lite.attacks.minimum_norm.lbfgs import _direction as direction
from robustbench_lite.attacks.score_based.square import _pyramid as pyramid
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidParameter, RobustError
from robustbench_lite.core.losses import LOSSES, dlr, margin
from robustbench_lite.core.model import Model
from robustbench_lite.testing.subjects import small_forest
from tests.attacks.structure.test_exact import SIZES
from tests.conftest import (
    attack_class,
    attack_with,
    linear_model,
    samples_of,
    short,
    small_network,
    threats_of,
)

MINIMAL = [
    ("ddn", "l2", 0.005),
    ("fab", "l2", 0.012),
    ("fab", "linf", 0.012),
    ("fab", "l1", 0.012),
    ("fmn", "l2", 0.001),
    ("fmn", "linf", 0.001),
    ("fmn", "l1", 0.002),
    ("fmn", "l0", 0.10),
    ("sigma_zero", "l0", 0.12),
    ("superdeepfool", "l2", 0.002),
    ("superdeepfool", "linf", 0.002),
    ("superdeepfool", "l1", 0.015),
    ("deepfool", "l2", 0.025),
    ("deepfool", "linf", 0.025),
    ("cw", "l2", 0.01),
    ("cw", "linf", 0.25),
    ("cw", "l0", 0.02),
    ("lbfgs", "l2", 0.10),
    ("curve", "l2", 0.02),
    ("curve", "linf", 0.02),
    ("curve", "l1", 0.04),
]

# Their steps are parts of the box, so that in a wide one they pass what is near.
IN_THE_UNIT_BOX = [
    ("alma", "l2", 0.002),
    ("alma", "l1", 0.03),
    ("ead", "l1", 0.15),
    ("ead", "l2", 0.04),
    ("pdgd", "l2", 0.02),
    ("pdpgd", "l1", 0.08),
    ("pdpgd", "l2", 0.02),
    ("trust_region", "l2", 0.01),
    ("trust_region", "linf", 0.01),
    ("brendel_bethge", "l2", 0.05),
    ("brendel_bethge", "linf", 0.05),
    ("brendel_bethge", "l1", 0.05),
    ("newtonfool", "l2", 0.01),
    ("sparsefool:reach=1", "l0", 0.3),
    ("sparsefool:reach=1", "l1", 0.05),
    ("jsma", "l0", 0.25),
    ("vfga", "l0", 0.05),
]


@pytest.mark.parametrize(
    ("attack", "norm", "slack"), IN_THE_UNIT_BOX, ids=[f"{a}-{n}" for a, n, _ in IN_THE_UNIT_BOX]
)
def test_in_the_unit_box_too(attack: str, norm: str, slack: float) -> None:
    test_on_a_linear_model_the_distance_is_the_closed_form(attack, norm, slack, Domain())


@pytest.mark.parametrize(("attack", "norm", "slack"), MINIMAL, ids=[f"{a}-{n}" for a, n, _ in MINIMAL])
@pytest.mark.parametrize("domain", [Domain(), Domain(low=-4.0, high=5.0)], ids=["box", "wide"])
def test_on_a_linear_model_the_distance_is_the_closed_form(
    attack: str, norm: str, slack: float, domain: Domain
) -> None:
    """The mean gap to the exact distance; two classes, for which every attack aims at the same boundary."""
    if attack == "cw" and domain.low != 0:
        attack = "cw:rounds=20,rate=0.01"  # its tanh-space is the box: a wide one asks for smaller steps
    model = linear_model(classes=2, shape=(1, 5, 5), seed=7)
    x, y = samples_of(model, 40, seed=3)
    exact = attack_with(model, x, y, "exact", f"{norm}:min", domain=domain).records[norm].to_numpy(float)
    records = attack_with(model, x, y, attack, f"{norm}:min", domain=domain).records
    assert records["success"].all()
    gap = records[norm].to_numpy(float) / exact - 1
    assert gap.min() >= -1e-5
    assert gap.mean() <= slack


@pytest.mark.parametrize(
    ("attack", "norm", "least"),
    [
        ("iterative", "linf", 0.95),
        ("pgd", "linf", 0.95),
        ("mifgsm", "linf", 0.95),
        ("nifgsm", "linf", 0.95),
        ("apgd", "linf", 0.95),
        ("square", "linf", 0.9),
        ("auto", "linf", 1.0),
        ("iterative", "l2", 0.97),
        ("pgd", "l2", 0.97),
        ("apgd", "l2", 0.97),
        ("square", "l2", 0.8),
        ("auto", "l2", 0.97),
        ("apgd", "l1", 0.9),
        ("auto", "l1", 0.9),
    ],
)
def test_at_a_fixed_eps_what_can_fall_falls(attack: str, norm: str, least: float) -> None:
    """Of the samples whose exact distance is below eps; none of the others."""
    model = linear_model(classes=3, shape=(1, 5, 5), seed=7)
    x, y = samples_of(model, 80, seed=3)
    exact = attack_with(model, x, y, "exact", f"{norm}:min").records[norm].to_numpy(float)
    eps = float(np.median(exact))
    found = attack_with(model, x, y, short(attack), f"{norm}:{eps}").records["success"]
    fell, can = found.to_numpy(bool), exact < 0.98 * eps
    assert not fell[exact > eps * (1 + 1e-5)].any()
    assert fell[can].mean() >= least


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 8), st.floats(0.01, 1e4), st.floats(-50, 50), st.integers(0, 10_000), st.booleans())
def test_the_logit_ratio_knows_no_scale(
    classes: int, scale: float, shift: float, seed: int, targeted: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(6, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (6,), generator=generator)
    target = (y + 1) % classes if targeted else None
    plain, moved = dlr(scores, y, target), dlr(scores * scale + shift, y, target)
    assert torch.allclose(plain, moved, rtol=1e-6, atol=1e-6)
    if target is None:
        assert torch.equal(plain > 0, scores.argmax(1) != y)


def test_the_logit_ratio_by_hand() -> None:
    scores = torch.tensor([[5.0, 3.0, 1.0, 0.0]])
    y = torch.tensor([0])
    assert float(dlr(scores, y)) == pytest.approx((3 - 5) / (5 - 1))
    assert float(dlr(scores, y, torch.tensor([2]))) == pytest.approx((1 - 5) / (5 - (1 + 0) / 2))
    three = scores[:, :3]
    assert float(dlr(three, y, torch.tensor([1]))) == pytest.approx((3 - 5) / (5 - 1))
    two = torch.tensor([[5.0, 3.0]], requires_grad=True)
    assert float(dlr(two, y)) == float(margin(two, y))
    (gradient,) = torch.autograd.grad(dlr(two, y).sum(), two)
    assert gradient.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_loss_rises_towards_success(loss: str) -> None:
    model = small_network(4)
    x, y = samples_of(model, 60)
    success = attack_with(model, x, y, "apgd", "linf:0.3", loss=loss, steps=30).records["success"]
    assert success.sum() >= 0.9 * attack_with(model, x, y, "iterative", "linf:0.3").records["success"].sum()


def test_the_checkpoints_are_the_papers() -> None:
    """p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06), of 100 steps."""
    points = [0, 22]
    while points[-1] < 100:
        points.append(points[-1] + max(points[-1] - points[-2] - 3, 6))
    apgd = APGD(100)
    assert [step - 1 for step in range(1, 101) if apgd._checked(step)] == [p for p in points[1:] if p < 100]


def test_a_curve_is_the_fixed_attack_at_every_eps() -> None:
    model = small_network(3)
    x, y = samples_of(model, 60)
    distance = attack_with(model, x, y, "curve(apgd:steps=20,loss=margin)", "linf:min").records
    reached = np.where(distance["success"], distance["linf"].to_numpy(float), np.inf)
    for eps in (0.02, 0.05, 0.1, 0.2):
        fixed = attack_with(model, x, y, "apgd:steps=20,loss=margin", f"linf:{eps}").records["success"]
        # Bisection ends 2^-8 of the box above the smallest eps that it can see.
        assert (reached <= eps + 0.005).sum() >= fixed.sum() - 2
    with pytest.raises(InvalidParameter, match="fixed eps"):
        attack_with(model, x, y, "curve:attack=ddn", "l2:min")


CASES = [(name, threat) for name in ATTACKS for threat in threats_of(name, SIZES)]


@pytest.mark.parametrize(("attack", "threat"), CASES, ids=[f"{a}-{t}" for a, t in CASES])
def test_what_may_not_change_does_not(attack: str, threat: str) -> None:
    structure = attack_class(attack).access.name == "STRUCTURE"
    model: Model = linear_model(3) if structure else small_network(3)
    if attack == "leaf_tuple":
        model = small_forest(3)
    x, y = samples_of(model, 12)
    mask = torch.arange(16).reshape(1, 4, 4) % 3 != 0
    result = attack_with(model, x, y, short(attack), threat, domain=Domain(mask=mask))
    assert result.records["valid"].all()
    assert torch.equal(result.adversarial[:, ~mask], x[:, ~mask])
    weak = attack_class(attack).control or attack in ("bim", "patch", "rfgsm", "substitute", "universal")
    assert result.records["success"].any() or weak


@pytest.mark.parametrize("attack", ["cw:steps=60,rate=0.1", "deepfool", "fmn", "ddn"])
def test_a_margin_asked_for_is_reached(attack: str) -> None:
    model = linear_model(2)
    x, y = samples_of(model, 30)
    records = attack_with(model, x, y, attack, "l2:min", goal="untargeted,margin=0.5").records
    assert records["success"].mean() >= 0.9


def test_curve_meets_what_its_attack_meets() -> None:
    model = small_network(3)
    x, y = samples_of(model, 6)
    with pytest.raises(RobustError, match="square works in l2, linf; not in l1"):
        attack_with(model, x, y, "curve:attack=square:steps=5", "l1:min")
    scores = rb.ScoreFunction(lambda z: model.scores(torch.from_numpy(z)).numpy(), (1, 4, 4))
    assert (
        attack_with(scores, x, y, "curve:attack=square:steps=50,rounds=3", "linf:min")
        .records["success"]
        .any()
    )


def test_pyramids_have_norm_1_and_two_signs() -> None:
    for tall, wide in ((5, 5), (3, 7), (1, 5), (7, 3)):
        value = pyramid(tall, wide, torch.zeros(1))
        assert float(value.norm()) == pytest.approx(1, abs=1e-6)
        assert bool((value[: tall // 2] >= 0).all())
        assert bool((value[tall // 2 :] <= 0).all())


def test_the_two_loop_direction_is_the_inverse_of_the_curvature() -> None:
    """With as many pairs as dimensions from one quadratic, in exact line searches, it is Newton's."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    curvature = root @ root.T + torch.eye(3, dtype=torch.float64)
    _, vectors = torch.linalg.eigh(curvature)
    steps = vectors.T[None]  # conjugate directions
    changes = steps @ curvature
    slope = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    newton = -torch.linalg.solve(curvature, slope[0])
    assert torch.allclose(direction(slope, steps, changes)[0], newton, atol=1e-10)


def closest(model: rb.Model, x: Tensor, y: Tensor, attack: str) -> float:
    records = attack_with(model, x, y, attack, "l2:min").records
    return float(np.median(np.where(records["success"], records["l2"].to_numpy(float), np.inf)))


@pytest.mark.slow
def test_on_a_digits_network_the_attacks_agree_on_the_distance() -> None:
    data = rb.load_data("digits", samples=200)
    model = rb.load_model("cnn", data)
    best = closest(model, data.x, data.y, "ddn")
    assert closest(model, data.x, data.y, "fmn") <= 1.05 * best
    assert closest(model, data.x, data.y, "fab") <= 1.00 * best
    assert closest(model, data.x, data.y, "cw") <= 1.10 * best
    assert closest(model, data.x, data.y, "curve") <= 1.10 * best
    assert closest(model, data.x, data.y, "deepfool") <= 1.30 * best
    assert closest(model, data.x, data.y, "lbfgs") <= 1.60 * best


def test_fab_breaks_at_a_fixed_eps_whom_its_smallest_perturbation_breaks() -> None:
    """Outside the ball it goes on towards the sample, so that both goals find the same."""
    model = small_network()
    x, y = samples_of(model, 60)
    smallest = attack_with(model, x, y, "fab:steps=40", "linf:min").records["linf"]
    eps = float(smallest.median())
    fixed = attack_with(model, x, y, "fab:steps=40", f"linf:{eps}").records["success"]
    assert ((smallest <= eps) == fixed).mean() >= 0.98
    assert 20 < fixed.sum() < 40
