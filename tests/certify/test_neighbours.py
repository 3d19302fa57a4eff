"""Nearest neighbours: proven distances against fine grids, and programmes against plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import robustbench_lite as rb
from robustbench_lite.certify.certifier import Bounds, Question, certify
from robustbench_lite.certify.neighbours import NeighbourBounds, shortest
from robustbench_lite.certify.polytope import smallest_step
from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.goal import Goal, parse_goal
from robustbench_lite.core.structure import Neighbours
from robustbench_lite.core.threat import Norm, norms

NORMS = ("l2", "linf", "l1", "l0")
SIDE = 121


def neighbours(
    seed: int, k: int, classes: int, front: str = "none", stored: int = 25, whole: bool = False
) -> tuple[rb.Model, KNeighborsClassifier]:
    """Two features in [0, 1]; whole: on a coarse grid, where distances tie and samples repeat."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 6, (stored, 2)) / 5 if whole else random.random((stored, 2))
    y = random.integers(0, classes, stored)
    y[:classes] = np.arange(classes)
    plain = KNeighborsClassifier(k, algorithm="brute")
    steps = {"none": (), "scaled": (StandardScaler(),), "mixed": (PCA(2, whiten=True),)}[front]
    made = make_pipeline(*steps, plain).fit(x * [1.0, 0.4], y)
    return rb.lift(made, (2,), low=0.0, high=[1.0, 0.4], name="knn"), made


def ask(model: rb.Model, x: Tensor, norm: str, domain: rb.Domain, goal: str = "untargeted") -> Bounds:
    y = model.prediction(model.scores(x))
    target = None if goal == "untargeted" else ((y + 1) % model.num_classes)[:, None]
    threat = rb.parse_threat(f"{norm}:min", domain)
    return NeighbourBounds().bounds(Question(model, threat, parse_goal(goal), x, y, target))


@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.integers(2, 3),
    st.sampled_from(NORMS),
    st.sampled_from(["none", "scaled", "mixed"]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
@example(3, 4, 2, "l2", "scaled", True, True)  # half-spaces that would meet far outside the box
def test_no_point_of_a_fine_grid_is_nearer_and_exact_is_reached(
    seed: int, k: int, classes: int, norm: str, front: str, whole: bool, masked: bool
) -> None:
    model, _ = neighbours(seed, k, classes, front, whole=whole)
    domain = rb.Domain(pixel_dim=None, mask=torch.tensor([True, False]) if masked else None)
    axis = torch.linspace(0, 1, SIDE)
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed))
    y = model.prediction(model.scores(x))
    found = ask(model, x, norm, domain)
    assert found.nearest is not None
    reached = norms((found.nearest - x).double(), domain, Norm(norm))
    for i in range(len(x)):
        second = x[i, 1:] if masked else torch.cat([axis, x[i, 1:]])  # x's own values, which l0 keeps
        grid = torch.cartesian_prod(torch.cat([axis, x[i, :1]]), second)
        away = norms((grid - x[i]).double(), domain, Norm(norm))
        other = model.prediction(model.scores(grid)) != y[i]
        nearest = float(torch.where(other, away, torch.inf).min())
        bound = float(found.distance[i])
        assert bound <= nearest + 1e-7
        if found.exact[i] and np.isfinite(bound):
            assert model.prediction(model.scores(found.nearest[i : i + 1]))[0] != y[i]
            assert bound <= float(reached[i]) <= bound * (1 + 3e-5)
        if masked:
            assert found.nearest[i, 1] == x[i, 1]


@pytest.mark.parametrize("norm", NORMS)
def test_one_neighbour_is_exact_and_equals_a_programme_with_every_constraint(norm: str) -> None:
    """Against every cell of every other sample, solved whole: no screening, no constraints left for later."""
    for seed in range(3):
        model, _ = neighbours(seed, 1, 3, "scaled")
        held = model.structure
        assert isinstance(held, Neighbours)
        x = torch.rand(4, 2, generator=torch.Generator().manual_seed(seed))
        y = model.prediction(model.scores(x))
        found = ask(model, x, norm, rb.Domain(pixel_dim=None))
        assert found.exact.all()
        image = (held.stored @ held.matrix).numpy()
        for i in range(len(x)):
            at = x[i].double().numpy()
            apart = ((held.stored - (held.matrix @ x[i].double() + held.offset)) ** 2).sum(1).numpy()
            own, lengths = np.flatnonzero(held.labels.numpy() == int(y[i])), []
            for j in np.flatnonzero(held.labels.numpy() != int(y[i])):
                part = (image[j] - image[own], (apart[j] - apart[own]) / 2, -at, 1 - at)
                step = smallest_step(*part, Norm(norm), np.arange(2), np.zeros(2))
                order = {"l2": 2, "linf": np.inf, "l1": 1, "l0": 0}[norm]
                lengths.append(np.inf if step is None else np.linalg.norm(step, ord=order))
            assert float(found.distance[i]) == pytest.approx(min(lengths), rel=3e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_targets_and_sooner_ends_are_bounded_from_below(norm: str) -> None:
    axis = torch.linspace(0, 1, SIDE)
    grid = torch.cartesian_prod(axis, axis)
    for k in (1, 3):
        model, _ = neighbours(5, k, 3)
        x = torch.rand(6, 2, generator=torch.Generator().manual_seed(k))
        y = model.prediction(model.scores(x))
        says = model.prediction(model.scores(grid))
        domain = rb.Domain(pixel_dim=None)
        found = ask(model, x, norm, domain, "given")
        for i in range(len(x)):
            away = norms((grid - x[i]).double(), domain, Norm(norm))
            assert float(found.distance[i]) <= float(away[says == (y[i] + 1) % 3].min()) + 1e-7
        threat = rb.parse_threat(f"{norm}:min", domain)
        little = NeighbourBounds().bounds(Question(model, threat, Goal(), x, y, effort=1e-9))
        full = NeighbourBounds().bounds(Question(model, threat, Goal(), x, y))
        assert (little.distance <= full.distance * (1 + 1e-9)).all()


def test_the_shortest_step_takes_up_the_box_only_where_it_is_left() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        normal, need = random.normal(size=(4, 5)), random.random(4)
        low, high = -random.random(5) * 0.4, random.random(5) * 0.4
        ours = shortest(normal, need, low, high, np.inf)
        theirs = smallest_step(normal, need, low, high, Norm.L2, np.arange(5), np.zeros(5))
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=1e-6)


def test_no_attack_is_nearer_on_digits_and_exact_is_what_is_proven() -> None:
    attacks = ["exact", "hopskipjump:steps=10", "fmn:steps=50"]
    digits = rb.load_data("digits", samples=25)
    run = rb.run(data=digits, models=["knn(k=1)"], attacks=attacks, threats=["l2:min"])
    assert not run.failures
    records = run.records
    exact = records.loc[records["attack_name"] == "exact"]
    right = exact["clean_prediction"] == exact["label"]
    assert (exact["bound_kind"] == "exact").all()
    assert exact.loc[right, "success"].all()
    gaps = run.table("gaps").set_index("attack")
    assert gaps.loc["exact", "gap_95"] < 3e-5
    assert (gaps["gap"] >= -1e-6).all()
    assert gaps.loc["hopskipjump:steps=10", "gap"] > 0


def test_samples_stored_in_one_place_are_ties_whatever_rounding_makes_of_them() -> None:
    """Equal samples of other labels, which a projection writes a rounding apart."""
    for seed in range(30):
        random = np.random.default_rng(seed)
        base = random.random((12, 2))
        x = np.vstack([base, base[:6]])
        y = np.concatenate([random.integers(0, 2, 12), random.integers(0, 2, 6)])
        y[:2] = 0, 1
        made = make_pipeline(PCA(2, whiten=True), KNeighborsClassifier(1, algorithm="brute")).fit(x, y)
        try:
            model = rb.lift(made, (2,), base)
        except InvalidModel:  # it decides such ties by rounding itself
            continue
        points = torch.from_numpy(base[::3]).float()
        found = ask(model, points, "l2", rb.Domain(pixel_dim=None))
        held = model.structure
        assert isinstance(held, Neighbours)
        says = model.prediction(model.scores(torch.from_numpy(x).float()))
        label = model.prediction(model.scores(points))
        for i in range(len(points)):
            away = (torch.from_numpy(x) - points[i].double()).norm(dim=1)[says != label[i]]
            assert not len(away) or float(found.distance[i]) <= float(away.min()) + 1e-9


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_search_ends_at_the_optimum_of_a_grid(classes: int, k: int, norm: str) -> None:
    """Even numbers of neighbours too, where half of the votes is a tie that the smaller class wins.

    Of three classes some bounds are sound alone, since those who outvote may have to be of one class.
    """
    random = np.random.default_rng(k)
    steps = np.linspace(-0.5, 0.5, 41)
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    size = np.abs(grid).max(1) if norm == "linf" else np.linalg.norm(grid, axis=1)
    for _ in range(6):
        stored, labels = random.random((14, 2)), random.permutation(14) % classes
        estimator = KNeighborsClassifier(k).fit(stored, labels)
        model = rb.load_model(estimator, rb.load_data((stored.astype("float32"), labels)))
        x = torch.from_numpy(random.random((1, 2))).float()
        y = model.scores(x).argmax(1)
        found = certify(Question(model, rb.parse_threat(f"{norm}:min"), Goal(), x, y, effort=4.0))
        assert found is not None
        around = x + torch.from_numpy(grid).float()
        inside = ((around >= 0) & (around <= 1)).all(1)
        other = inside & (model.scores(around).argmax(1) != y)
        best = size[other.numpy()].min(initial=np.inf)
        assert float(found.distance[0]) <= best + 1e-6
        if classes == 2 or bool(found.exact[0]):
            assert bool(found.exact[0])
            assert best == np.inf or float(found.distance[0]) > best - 0.06
