"""Threats: exact projections, never outside in float64, on every norm with the box."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidParameter, UnknownName
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, norms
from robustbench_lite.threats.ball import Lp
from robustbench_lite.threats.box import Box
from robustbench_lite.threats.named import parse_threat

GREY = torch.arange(256, dtype=torch.float32) / 255
NORMS = list(Norm)
SIZES = {Norm.L0: 3.0, Norm.L1: 1.5, Norm.L2: 0.7, Norm.LINF: 8 / 255}


def radii(n: int, eps: float) -> Tensor:
    return torch.full((n,), eps, dtype=torch.float64)


def points(n: int = 64, shape: tuple[int, ...] = (3, 4, 4), spread: float = 1.5) -> tuple[Tensor, Tensor]:
    stream = Stream.of(0, torch.arange(n))
    x0 = GREY[stream.fold("x0").integers(256, shape)]
    return x0, x0 + spread * (stream.fold("x").uniform(shape) * 2 - 1)


def test_plain_float32_addition_leaves_the_ball_and_project_does_not() -> None:
    """papers.md 4.5: 48 of the 248 grey levels with room above."""
    x0 = GREY[GREY <= 1 - 8 / 255].reshape(-1, 1)
    naive = x0 + 8 / 255
    outside = (naive.double() - x0.double()).abs().flatten() > 8 / 255
    assert (len(x0), int(outside.sum())) == (248, 48)
    projected = Lp(Norm.LINF, 8 / 255).project(x0 + 1, x0, radii(len(x0), 8 / 255))
    moved = projected.double() - x0.double()
    assert (moved <= 8 / 255).all()
    assert (8 / 255 - moved <= 6.1e-8).all(), "no further inside than one float32 step"


@settings(deadline=None, max_examples=60)
@given(
    norm=st.sampled_from(NORMS),
    eps=st.sampled_from([0.0, 1e-42, 1e-7, 0.001, 8 / 255, 0.3, 1.0, 2.0, 40.0]),
    spread=st.sampled_from([1e-41, 1e-3, 0.5, 3.0, 1e6]),
    n=st.sampled_from([1, 5]),
    double=st.booleans(),
    seed=st.integers(0, 2**31),
    corner=st.booleans(),
)
def test_project_is_inside_idempotent_and_leaves_inner_points(
    norm: Norm, eps: float, spread: float, n: int, double: bool, seed: int, corner: bool
) -> None:
    eps = float(round(eps)) if norm is Norm.L0 else eps
    stream = Stream.of(seed, torch.arange(n))
    x0 = stream.fold("x0").integers(2, (2, 3, 3)).float() if corner else stream.uniform((2, 3, 3))
    x = x0 + spread * (stream.fold("x").uniform((2, 3, 3)) * 2 - 1)
    if double:
        x0, x = x0.double(), x.double()
    threat = Lp(norm, eps)
    inside = threat.project(x, x0, radii(n, eps))
    assert inside.dtype == x0.dtype
    assert threat.contains(inside, x0, radii(n, eps)).all()
    again = threat.project(inside, x0, radii(n, eps))
    torch.testing.assert_close(again, inside, rtol=0, atol=1e-6)
    within = threat.contains(x, x0, radii(n, eps) * (1 - 1e-9))
    torch.testing.assert_close(inside[within], x[within], rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2])
def test_l1_and_l2_projection_are_the_nearest_points(norm: Norm) -> None:
    """Against a general solver: min ||z - x|| over the ball and the box."""
    rng = np.random.default_rng(1)
    for eps in (0.2, 0.7, 1.4):
        x0 = rng.random(5)
        x = x0 + rng.normal(size=5)
        got = Lp(norm, eps).project(torch.tensor(x[None]), torch.tensor(x0[None]), radii(1, eps))[0].numpy()
        p = 1 if norm is Norm.L1 else 2

        def room(d: np.ndarray, eps: float = eps, p: int = p) -> float:
            up, down = d[:5], d[5:]  # two parts, so that l1 is smooth
            return float(eps - (up + down).sum() if p == 1 else eps**2 - ((up - down) ** 2).sum())

        best = minimize(
            lambda d, x=x, x0=x0: float(((x0 + d[:5] - d[5:] - x) ** 2).sum()),
            np.zeros(10),
            bounds=[(0, 1 - v) for v in x0] + [(0, v) for v in x0],
            constraints={"type": "ineq", "fun": room},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-14},
        )
        assert ((got - x) ** 2).sum() <= best.fun + 1e-7
        np.testing.assert_allclose(got, x0 + best.x[:5] - best.x[5:], atol=1e-3)


@pytest.mark.parametrize("eps", [0.0, 1.0, 2.0])
def test_l0_projection_is_the_best_of_all_choices_of_pixels(eps: float) -> None:
    x0, x = points(8, (2, 2, 2))
    got = Lp(Norm.L0, eps).project(x, x0, radii(8, eps))
    clipped = x.clamp(0, 1)
    best = torch.full((8,), torch.inf)
    for chosen in itertools.combinations(range(4), int(eps)):
        mask = torch.zeros(4, dtype=torch.bool)
        mask[list(chosen)] = True
        candidate = torch.where(mask.reshape(2, 2), clipped, x0)
        best = torch.minimum(best, (candidate - x).flatten(1).norm(dim=1))
    torch.testing.assert_close((got - x).flatten(1).norm(dim=1), best)


@pytest.mark.parametrize("norm", NORMS)
def test_eps_may_differ_from_row_to_row(norm: Norm) -> None:
    x0, x = points(6)
    eps = torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0, 8.0], dtype=torch.float64)
    together = Lp(norm, None).project(x, x0, eps)
    alone = torch.cat([Lp(norm, None).project(x[i : i + 1], x0[i : i + 1], eps[i : i + 1]) for i in range(6)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("norm", NORMS)
def test_masked_features_never_move(norm: Norm) -> None:
    x0, x = points()
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    threat = Lp(norm, SIZES[norm], Domain(mask=mask))
    for moved in (
        threat.project(x, x0, radii(64, SIZES[norm])),
        threat.random(Stream.of(0, torch.arange(64)), x0, radii(64, SIZES[norm])),
    ):
        assert torch.equal(moved[:, :, 2:], x0[:, :, 2:])
        assert threat.contains(moved, x0, radii(64, SIZES[norm])).all()
        assert (moved[:, :, :2] != x0[:, :, :2]).flatten(1).any(1).all()
    assert (threat.steepest(x - x0)[:, :, 2:] == 0).all()
    assert not threat.contains(x.clamp(0, 1), x0, radii(64, 1e9)).any()


def test_a_box_of_its_own_for_each_feature() -> None:
    low, high = torch.tensor([0.0, -2.0, 0.5]), torch.tensor([1.0, 5.0, 0.5])
    threat = Lp(Norm.LINF, 10.0, Domain(low, high))
    x0 = torch.tensor([[0.2, 1.0, 0.5]])
    assert torch.equal(threat.project(x0 + 20, x0, radii(1, 10.0)), high[None])
    assert torch.equal(threat.project(x0 - 20, x0, radii(1, 10.0)), low[None])


def test_stepped_features_land_on_the_grid() -> None:
    domain = Domain(spacing=torch.tensor([0.25, 0.0]))
    x0 = torch.tensor([[0.5, 0.5]])
    x = torch.tensor([[0.70, 0.61]])
    assert domain.snap(x, x0, inward=False).tolist() == [[0.75, pytest.approx(0.61)]]
    assert domain.snap(x, x0, inward=True).tolist() == [[0.5, pytest.approx(0.61)]]
    assert not Lp(Norm.LINF, 1.0, domain).contains(x, x0, radii(1, 1.0)).any()
    assert Lp(Norm.LINF, 1.0, domain).contains(domain.snap(x, x0, inward=False), x0, radii(1, 1.0)).all()


def test_l0_counts_pixels_not_values() -> None:
    x0 = torch.zeros(1, 3, 4, 4)
    x = x0.clone()
    x[0, :, 1, 2] = 1
    assert norms(x - x0, Domain(), Norm.L0).tolist() == [1.0]
    assert norms(x - x0, Domain(pixel_dim=None), Norm.L0).tolist() == [3.0]


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_are_admissible_and_fill_the_ball(norm: Norm) -> None:
    n, eps = 4000, {Norm.L0: 2.0, Norm.L1: 0.5, Norm.L2: 0.4, Norm.LINF: 0.2}[norm]
    x0 = torch.full((n, 1, 2, 2), 0.5)
    threat = Lp(norm, eps)
    x = threat.random(Stream.of(0, torch.arange(n)), x0, radii(n, eps))
    distance = threat.distance(x, x0)
    assert threat.contains(x, x0, radii(n, eps)).all()
    if norm is Norm.L0:
        assert (distance == 2).all()
    else:  # uniform: P(distance <= r) = (r / eps)^d
        share = (distance / eps) ** 4
        assert abs(float(share.mean()) - 0.5) < 0.02
        assert abs(float((share < 0.1).double().mean()) - 0.1) < 0.02
    assert ((x - x0).mean(0).abs() < 0.02).all()


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2, Norm.LINF])
def test_steepest_reaches_the_dual_norm(norm: Norm) -> None:
    gradient = points()[1] - 0.5
    unit = Lp(norm, 1.0).steepest(gradient)
    dual = {Norm.L1: torch.inf, Norm.L2: 2, Norm.LINF: 1}[norm]
    reached = (unit * gradient).flatten(1).sum(1)
    torch.testing.assert_close(reached, torch.linalg.vector_norm(gradient.flatten(1), dual, dim=1))
    assert (norms(unit, Domain(), norm) <= 1 + 1e-6).all()
    assert not Lp(norm, 1.0).steepest(torch.zeros(2, 3)).any()


def test_nan_and_infinity_are_never_contained() -> None:
    x0 = torch.full((2, 3), 0.5)
    x = x0.clone()
    x[0, 0], x[1, 1] = torch.nan, torch.inf
    for threat in (Lp(Norm.LINF, 1.0), Lp(Norm.L0, 1.0), Box()):
        assert not threat.contains(x, x0, radii(2, 1e9)).any()


def test_text_forms() -> None:
    assert parse_threat("linf:8/255") == Lp(Norm.LINF, 8 / 255)
    assert parse_threat(" L2:0.5 ") == Lp(Norm.L2, 0.5)
    assert parse_threat("l1:12") == Lp(Norm.L1, 12.0)
    assert parse_threat("l0:1") == Lp(Norm.L0, 1.0)
    assert parse_threat("l2:min") == Lp(Norm.L2, None)
    assert parse_threat("box") == Box()
    assert str(parse_threat("l2:min")) == "l2:min"
    assert parse_threat(str(Lp(Norm.LINF, 0.1))) == Lp(Norm.LINF, 0.1)


BAD = ["", "linf", "linf:", "linf:x", "linf:-1", "linf:1/0", "l2:nan", "l0:1.5", "box:1"]


@pytest.mark.parametrize("text", BAD)
def test_bad_texts_are_refused_with_a_message(text: str) -> None:
    with pytest.raises(InvalidParameter, match="must be"):
        parse_threat(text)


def test_a_name_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown threat 'l3'"):
        parse_threat("l3:1")
    with pytest.raises(UnknownName, match="did you mean linf"):
        parse_threat("lin:0.1")
