"""Features that may not pass one another: what is moved keeps them, and comes no further from the sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import robustbench_lite as rb
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.orders import Order, drawn_back, evened, kept
from robustbench_lite.core.threat import Norm, norms

CHAIN = (Order(0, 1), Order(1, 2, 2.0, 1.0, 0.25), Order(3, 4, room=-0.1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_what_is_drawn_back_keeps_every_order_between_the_point_and_the_sample(
    seed: int, whole: bool, broken: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(20, 6, generator=generator)
    x0 = torch.rand(20, 6, generator=generator)
    if not broken:
        x0 = x0.sort(1).values * torch.tensor([0.3, 0.3, 0.9, 0.4, 1.0, 1.0])
        x0[:, 4] = x0[:, 3] + 0.3
    back = drawn_back(CHAIN, x, x0, whole)
    assert kept(CHAIN, back, x0).all()
    between = (torch.minimum(x, x0) - 1e-6 <= back) & (back <= torch.maximum(x, x0) + 1e-6)
    assert between.all()
    fine = kept(CHAIN, x, x0)
    assert torch.equal(back[fine], x[fine])
    assert torch.equal(back[:, 5], x[:, 5])  # which no order binds


def test_two_that_passed_each_other_meet_where_both_go_least_far() -> None:
    x = torch.tensor([[0.9, 0.1]])
    assert torch.allclose(evened([Order(0, 1)], x), torch.tensor([[0.5, 0.5]]))
    held = x.double()
    evened([Order(0, 1)], held)
    assert torch.equal(held, x.double())  # what is given stays as it is
    fixed = evened([Order(0, 1, 1e9, 1e9)], x, torch.tensor([False, False]))
    assert torch.equal(fixed, x)
    uneven = evened([Order(0, 1, 2.0, 1.0, 0.5)], torch.tensor([[0.9, 0.1]]))[0]
    assert float(2 * uneven[0] - uneven[1]) == pytest.approx(0.5)
    way = uneven - torch.tensor([0.9, 0.1])
    assert float(way[0] / way[1]) == pytest.approx(-2.0, rel=1e-5)  # straight onto the border


@pytest.mark.parametrize(
    ("attack", "threat"),
    [("pgd:steps=10", "linf:0.3"), ("square:steps=100", "linf:0.3"), ("fab:steps=10", "l2:min"),
     ("hopskipjump:steps=4", "l2:min"), ("sparse_rs:steps=60", "l0:2"), ("noise", "l1:0.5"),
     ("pointwise:steps=40", "l1:min"), ("cw:steps=20,rounds=2", "l2:min")],
)  # fmt: skip
@pytest.mark.parametrize("stepped", [False, True])
def test_no_attack_breaks_an_order_and_some_still_succeed(attack: str, threat: str, stepped: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(60, 4, generator=generator) * 20).round() / 20
    x = torch.cat([x[:, :2].sort(1).values, x[:, 2:].sort(1).values], 1)
    weight = torch.tensor([1.0, -1.0, 1.0, -0.7])  # wants both pairs to cross
    net = torch.nn.Sequential(torch.nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.stack([-weight, weight]))
        net[0].bias.copy_(torch.tensor([-0.35, 0.35]))
    orders = (Order(0, 1), Order(2, 3))
    spacing = torch.tensor([0.05, 0.05, 0.0, 0.05]) if stepped else None
    domain = Domain(spacing=spacing, pixel_dim=None, orders=orders)
    y = net(x).argmax(1)
    result = rb.attack(net, x, y, attack, rb.parse_threat(threat, domain))
    assert result.records["valid"].all(), result.records["reason"].unique()
    assert kept(orders, result.adversarial, x).all()
    assert result.success.any()
    free = rb.attack(net, x, y, attack, rb.parse_threat(threat, Domain(spacing=spacing, pixel_dim=None)))
    if "min" not in threat:
        assert free.success.sum() >= result.success.sum()
    bound = result.records["lower_bound"].to_numpy()
    there = result.success.numpy() & ~np.isnan(bound)
    assert (result.records["distance"].to_numpy()[there] >= bound[there] * (1 - 1e-6)).all()
    assert (result.records["bound_kind"] != "exact").all()


def test_an_order_moves_with_its_units_and_changes_the_fingerprint() -> None:
    domain = Domain(orders=(Order(0, 1),), pixel_dim=None)
    assert domain.fingerprint() != Domain(pixel_dim=None).fingerprint()
    assert not domain.whole
    assert domain.to("cpu").orders == domain.orders
    x0, x = torch.tensor([[0.2, 0.3]]), torch.tensor([[0.4, 0.3]])
    assert domain.admits(x, x0).tolist() == [False]
    assert domain.admits(x, x).tolist() == [True]  # broken in the sample itself: no worse
    inside = domain.snap(x, x0, inward=True)
    assert domain.admits(inside, x0).all()
    far, near = (norms((part - x0).double(), domain, Norm.L1) for part in (x, inside))
    assert bool((near <= far).all())


def test_what_meets_is_not_taken_back_for_a_rounding_and_what_is_held_stays() -> None:
    generator = torch.Generator().manual_seed(2)
    order = Order(0, 1, 37.3, 51.7, -3.2)
    domain = Domain(mask=torch.tensor([True, False]), orders=(order,), pixel_dim=None)
    x0 = torch.rand(2000, 2, generator=generator)
    x0 = x0[order.over(x0.double())[0] < -1]
    x = x0.clone()
    x[:, 0] += 0.6
    broken = order.over(x.double())[0] > 0
    for inward in (False, True):
        moved = domain.snap(x, x0, inward=inward)[broken]
        fine = domain.changed_only_allowed(moved, x0[broken])
        assert fine.all()
        assert (moved[:, 0] > x0[broken, 0]).all()
        assert torch.equal(moved[:, 1], x0[broken, 1])
