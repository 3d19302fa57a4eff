"""Forests and boosting: proven distances against every cell there is, and two methods against each other."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

import robustbench_lite as rb
from robustbench_lite.certify.certifier import Question
from robustbench_lite.certify.cliques import BOXES, Cliques
from robustbench_lite.certify.ensembles import EnsembleBounds, Programmed
from robustbench_lite.certify.leaves import Leaves
from robustbench_lite.certify.verifier import Verified
from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.goal import Goal, parse_goal
from robustbench_lite.core.structure import Trees
from robustbench_lite.core.threat import Norm, norms
from tests.conftest import attack_with

NORMS = [str(norm) for norm in Norm]
KINDS = ["forest", "extra", "boosting", "histogram", "adaboost", "stumps"]


def estimator_of(kind: str, seed: int, trees: int = 4) -> BaseEstimator:
    return {
        "forest": RandomForestClassifier(trees, max_depth=3, random_state=seed),
        "extra": ExtraTreesClassifier(trees, max_depth=3, random_state=seed),
        "boosting": GradientBoostingClassifier(n_estimators=trees, max_depth=2, random_state=seed),
        "histogram": HistGradientBoostingClassifier(
            max_iter=trees, max_leaf_nodes=4, min_samples_leaf=3, random_state=seed
        ),
        "adaboost": AdaBoostClassifier(
            DecisionTreeClassifier(max_depth=2), n_estimators=trees, random_state=seed
        ),
        "stumps": GradientBoostingClassifier(n_estimators=2 * trees, max_depth=1, random_state=seed),
    }[kind]


def ensemble(kind: str, seed: int, classes: int, features: int = 3, trees: int = 4) -> rb.Model:
    """On points of a coarse grid, so that trees share thresholds and sums tie."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 9, (80, features)) / 8
    y = (x @ random.normal(size=(features, classes)) + 0.3 * random.normal(size=(80, classes))).argmax(1)
    y[:classes] = np.arange(classes)
    return rb.lift(estimator_of(kind, seed, trees).fit(x, y), (features,), x)


def every_cell(model: rb.Model, x: Tensor, domain: rb.Domain) -> Tensor:
    """In each product of cells the point nearest to x (d,) that the domain allows (m, d)."""
    trees = model.structure
    assert isinstance(trees, Trees)
    low, high = (bound.expand(len(x)) for bound in domain.bounds(x[None]))
    inner = trees.left != torch.arange(len(trees.left))
    axes = []
    for f in range(len(x)):
        at = torch.unique(trees.threshold[inner & (trees.feature == f)])
        after = torch.nextafter(at, torch.full_like(at, torch.inf))
        values = torch.cat([x[f : f + 1], at, after])
        fine = (values >= low[f]) & (values <= high[f])
        if domain.mask is not None and not bool(domain.mask[f]):
            fine &= values == x[f]
        axes.append(values[fine].tolist())
    return torch.tensor(list(itertools.product(*axes)), dtype=torch.float32)


def nearest(model: rb.Model, x: Tensor, sought: Tensor, norm: str, domain: rb.Domain) -> float:
    points = every_cell(model, x, domain)
    size = norms(points.double() - x.double(), domain, Norm(norm))
    there = torch.isin(model.prediction(model.scores(points)), sought)
    return float(torch.where(there, size, torch.inf).min())


@given(
    st.sampled_from(KINDS), st.sampled_from(NORMS), st.integers(0, 10_000), st.integers(2, 3), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_no_cell_is_nearer_than_what_is_proven_and_exact_is_reached(
    kind: str, norm: str, seed: int, classes: int, masked: bool
) -> None:
    model = ensemble(kind, seed, classes)
    assume(isinstance(model.structure, Trees))  # boosting may stop at one tree
    domain = rb.Domain(pixel_dim=None, mask=torch.tensor([True, False, True]) if masked else None)
    x = torch.from_numpy(np.random.default_rng(seed + 1).integers(0, 17, (4, 3)) / 16).float()
    y = model.prediction(model.scores(x))
    found = EnsembleBounds().bounds(Question(model, rb.parse_threat(f"{norm}:min", domain), Goal(), x, y))
    assert found.nearest is not None
    for i in range(len(x)):
        others = torch.tensor([c for c in range(classes) if c != int(y[i])])
        truth, bound = nearest(model, x[i], others, norm, domain), float(found.distance[i])
        assert bound <= truth
        if not found.exact[i]:  # the model's own sum of a tie was rounded its way
            assert ties_at(model, x[i], norm, domain, bound)
        elif norm == "linf":  # to the last float
            assert bound == truth
        else:
            assert bound == pytest.approx(truth, rel=3e-6)


@given(
    st.sampled_from(KINDS), st.sampled_from(NORMS), st.integers(0, 10_000), st.sampled_from([8, 64, 10**6])
)
@settings(max_examples=40, deadline=None)
def test_groups_of_trees_prove_no_more_than_there_is_and_one_group_all_of_it(
    kind: str, norm: str, seed: int, boxes: int
) -> None:
    model = ensemble(kind, seed, 3)
    held = model.structure
    assume(isinstance(held, Trees))
    assert isinstance(held, Trees)
    domain = rb.Domain(pixel_dim=None)
    x = torch.from_numpy(np.random.default_rng(seed + 1).integers(0, 17, (4, 3)) / 16).float()
    y = model.prediction(model.scores(x))
    sought = torch.arange(3)[None] != y[:, None]
    cliques = Cliques(held, Leaves.of(held, 3), Norm(norm), domain, boxes / BOXES)
    none, most = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), torch.inf).double()
    found = cliques.largest(x, y, sought, none, most)
    whole = len(cliques.groups) == 1
    for i in range(len(x)):
        truth = nearest(model, x[i], sought[i].nonzero()[:, 0], norm, domain)
        assert float(found[i]) <= truth
        points = every_cell(model, x[i], domain)
        size = norms(points.double() - x[i].double(), domain, Norm(norm))
        first, second = model.scores(points).topk(2, dim=1).values.unbind(1)
        tied = (
            float(size[first - second < 1e-9].min().nan_to_num())
            if bool((first - second < 1e-9).any())
            else truth
        )
        if whole and np.isfinite(truth):
            assert float(found[i]) >= min(truth, tied) - 3 * 2**-8  # eight halvings of a box


def test_no_near_point_is_lost_to_what_a_solver_may_miss() -> None:
    """Squared distances near 1e-3, of which HiGHS misses 1e-6: a row whose bound once was above a point."""
    data = rb.load_data("breast_cancer")
    training = data.training()
    made = GradientBoostingClassifier(random_state=0).fit(training.x.numpy(), training.y.numpy())
    model = rb.lift(made, (30,), training.x.numpy())
    threat = rb.parse_threat("l2:min", data.domain)
    x, y = data.x[103:104], data.y[103:104]
    found = EnsembleBounds().bounds(Question(model, threat, Goal(), x, y))
    reached = rb.attack(model, x, y, "leaf_tuple", threat, search=rb.Search(certify=0.0)).records
    assert float(found.distance[0]) <= float(reached["distance"].iloc[0])
    assert bool(found.exact[0])


def ties_at(model: rb.Model, x: Tensor, norm: str, domain: rb.Domain, distance: float) -> bool:
    """Whether there is a cell at a distance whose two best scores are equal but for rounding."""
    points = every_cell(model, x, domain)
    size = norms(points.double() - x.double(), domain, Norm(norm))
    first, second = model.scores(points[(size - distance).abs() < 1e-5]).topk(2, dim=1).values.unbind(1)
    return bool((first - second < 1e-9).any())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_targets_are_bounded_from_below(kind: str, norm: str) -> None:
    for seed in range(4):
        model = ensemble(kind, seed, 3)
        x = torch.from_numpy(np.random.default_rng(seed).random((3, 3))).float()
        y = model.prediction(model.scores(x))
        target = (y + 1) % 3
        threat = rb.parse_threat(f"{norm}:min", rb.Domain(pixel_dim=None))
        asked = Question(model, threat, parse_goal("given"), x, y, target[:, None])
        found = EnsembleBounds().bounds(asked)
        for i in range(len(x)):
            truth = nearest(model, x[i], target[i : i + 1], norm, rb.Domain(pixel_dim=None))
            assert float(found.distance[i]) <= truth
            if found.exact[i]:
                assert float(found.distance[i]) == pytest.approx(truth, rel=3e-6)


@pytest.mark.parametrize("kind", ["forest", "boosting", "stumps"])
def test_the_verifier_and_the_programme_agree_on_every_sample(kind: str) -> None:
    """Two methods that share nothing but the trees, on real data: the same robust error at eps 0.3 too."""
    data = rb.load_data("breast_cancer")
    training = data.training()
    made = estimator_of(kind, 0, 8).fit(training.x.double().numpy(), training.y.numpy())
    model = rb.lift(made, data.x.shape[1:], training.x)
    right = model.prediction(model.scores(data.x)) == data.y
    asked = Question(model, rb.parse_threat("linf:min", data.domain), Goal(), data.x[right], data.y[right])
    one = Verified(asked)
    first, second = one.bounds(), Programmed(one, one.climbed()).bounds()
    assert first.exact.all()
    assert second.exact.all()
    assert first.by == "verifier"
    assert second.by == "programme"
    assert torch.allclose(first.distance, second.distance, rtol=3e-6)
    assert torch.equal(first.distance > 0.3, second.distance > 0.3)


def test_little_effort_gives_less_and_never_more() -> None:
    digits = rb.load_data("digits", samples=12)
    model = rb.load_model("forest(trees=40)")
    right = model.prediction(model.scores(digits.x)) == digits.y
    threat = rb.parse_threat("linf:min", digits.domain)
    asked = Question(model, threat, Goal(), digits.x[right], digits.y[right])
    full, little = (EnsembleBounds().bounds(replace(asked, effort=effort)) for effort in (1.0, 1e-6))
    assert (little.distance <= full.distance).all()
    assert full.exact.sum() >= little.exact.sum()
    assert (little.distance > 0).all()
    for found in (full, little):
        assert found.nearest is not None
        reached = threat.distance(found.nearest, asked.x0)
        assert (reached >= found.distance).all()
        assert (model.prediction(model.scores(found.nearest)) != asked.y).all()


def test_steps_and_choices_leave_bounds_sound() -> None:
    """Whole steps allow fewer points than the bound was proven for: by enumeration."""
    domain = rb.Domain(spacing=torch.full((3,), 0.25, dtype=torch.float64), pixel_dim=None)
    axis = torch.arange(5) / 4
    grid = torch.cartesian_prod(axis, axis, axis)
    for seed, kind in itertools.product(range(3), ("forest", "boosting")):
        model = ensemble(kind, seed, 2)
        x = grid[::7]
        y = model.prediction(model.scores(x))
        says = model.prediction(model.scores(grid))
        for norm in NORMS:
            threat = rb.parse_threat(f"{norm}:min", domain)
            found = EnsembleBounds().bounds(Question(model, threat, Goal(), x, y))
            for i in range(len(x)):
                away = norms((grid - x[i]).double(), domain, Norm(norm))[says != y[i]]
                if len(away):
                    assert float(found.distance[i]) <= float(away.min()) * (1 + 1e-6), (seed, kind, norm)
                    if found.exact[i]:
                        assert float(found.distance[i]) == pytest.approx(float(away.min()), rel=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_leaf_tuples_come_near_what_is_exact(norm: str) -> None:
    data = rb.load_data("breast_cancer", samples=60)
    training = data.training()
    made = GradientBoostingClassifier(n_estimators=10, random_state=0)
    model = rb.lift(made.fit(training.x.double().numpy(), training.y.numpy()), data.x.shape[1:], name="gb")
    run = rb.run(data=data, models=[model], attacks=["exact", "leaf_tuple"], threats=[f"{norm}:min"])
    records = run.records
    exact, near = (records.loc[records["attack_name"] == name] for name in ("exact", "leaf_tuple"))
    won = exact["success"].to_numpy(bool)
    assert won.mean() > 0.9
    assert (exact["bound_kind"] == "exact").all()
    assert near["success"].to_numpy(bool).tolist() == won.tolist()
    assert np.allclose(exact.loc[won, "distance"], exact.loc[won, "lower_bound"], rtol=1e-5)
    assert near.loc[near["success"], "distance"].mean() <= 1.03 * exact.loc[won, "distance"].mean()


@pytest.mark.parametrize("norm", NORMS)
def test_trees_that_ask_nothing_are_never_moved(norm: str) -> None:
    x, y = np.full((40, 3), 0.5), np.arange(40) % 2
    for made in (GradientBoostingClassifier(n_estimators=3), RandomForestClassifier(3)):
        model = rb.lift(made.fit(x, y), (3,), x)
        points = torch.rand(6, 3)
        said = model.prediction(model.scores(points))
        for attack in ("leaf_tuple", "exact"):
            found = rb.attack(model, points, said, attack, f"{norm}:min")
            assert not found.success.any()


def test_exact_and_leaf_tuple_answer_at_a_fixed_eps_and_for_targets() -> None:
    model = ensemble("boosting", 3, 3)
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    y = model.prediction(model.scores(x))
    for goal in ("untargeted", "random"):
        exact = attack_with(model, x, y, "exact", "linf:0.3", goal=goal, domain=rb.Domain(pixel_dim=None))
        near = attack_with(model, x, y, "leaf_tuple", "linf:0.3", goal=goal, domain=rb.Domain(pixel_dim=None))
        assert near.records["success"].sum() <= exact.records["success"].sum() or goal != "untargeted"
        assert exact.records["success"].any()
        assert exact.records["valid"].all()
        assert near.records["valid"].all()
    refused = "needs a sum of trees"
    with pytest.raises(RobustError, match=refused):
        rb.attack("logistic", torch.rand(2, 1, 8, 8), torch.zeros(2).long(), "leaf_tuple", "linf:0.1")
