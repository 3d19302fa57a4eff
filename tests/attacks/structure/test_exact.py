"""`exact` against brute force on tiny problems, and every attack against `exact`."""

import functools
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linprog
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

import robustbench_lite as rb
from robustbench_lite.attacks import ATTACKS
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.model import Model
from robustbench_lite.core.threat import Norm, norms
from tests.conftest import attack_with, linear_model, samples_of, short, threats_of

NORMS = ("linf", "l2", "l1", "l0")
BOXES = (
    Domain(),
    Domain(low=-0.5, high=1.5),
    Domain(low=torch.tensor([0.0, 0.2]), high=torch.tensor([1.0, 0.9])),
    Domain(mask=torch.tensor([True, False])),
)


def grid(domain: Domain, x: Tensor, side: int = 301) -> Tensor:
    """Points of the box, x's own coordinates among those of each axis, that the mask allows (m, d)."""
    low, high = (bound.expand(1, len(x)).double() for bound in domain.bounds(x))
    axes = []
    for i in range(len(x)):
        free = domain.mask is None or bool(domain.mask[i])
        between = torch.linspace(float(low[0, i]), float(high[0, i]), side).tolist() if free else []
        axes.append([*between, float(x[i])])
    return torch.tensor(list(itertools.product(*axes)), dtype=torch.float32)


def nearest(model: Model, points: Tensor, x: Tensor, wanted: Tensor, norm: str) -> float:
    """The distance of the nearest of points that the model puts into one of the wanted classes."""
    size = norms(points.double() - x.double(), Domain(pixel_dim=None), Norm(norm))
    return float(torch.where(torch.isin(model.scores(points).argmax(1), wanted), size, torch.inf).min())


@pytest.mark.parametrize("domain", BOXES, ids=["unit", "wide", "uneven", "masked"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_no_point_of_a_fine_grid_is_nearer_on_a_linear_model(
    norm: str, targeted: bool, domain: Domain
) -> None:
    """The point returned is adversarial, so it bounds the optimum from above; the grid finds none below it.

    And it is within the grid's spacing of the grid's best wherever the grid finds one.
    """
    model = linear_model(classes=4, shape=(2,), seed=5)
    x, y = samples_of(model, 12, seed=1)
    x = torch.minimum(torch.maximum(x, domain.bounds(x)[0]), domain.bounds(x)[1])
    y = model.scores(x).argmax(1)
    target = (y + 1) % 4 if targeted else None
    records = attack_with(model, x, y, "exact", f"{norm}:min", domain=domain, targets=target).records
    found = np.where(records["success"], records[norm].to_numpy(float), np.inf)
    spacing = 2 * 2.0 / 300
    for row in range(len(x)):
        wanted = torch.arange(4)[torch.arange(4) != y[row]] if target is None else target[row : row + 1]
        best = nearest(model, grid(domain, x[row]), x[row], wanted, norm)
        assert found[row] <= best * (1 + 1e-5)
        if norm != "l0" and best < np.inf:
            assert found[row] >= best - spacing


@pytest.mark.parametrize("targeted", [False, True])
def test_the_fewest_pixels_are_found_by_trying_every_subset(targeted: bool) -> None:
    """Whether a set of features can reach a class: a linear programme for every subset of six."""
    model = linear_model(classes=3, shape=(6,), seed=2)
    x, y = samples_of(model, 8, seed=4)
    target = (y + 1) % 3 if targeted else None
    records = attack_with(
        model, x, y, "exact", "l0:min", domain=Domain(pixel_dim=None), targets=target
    ).records
    weight, bias = model.structure.weight.numpy(), model.structure.bias.numpy()

    def reached(row: int, subset: tuple[int, ...], to: int) -> bool:
        origin = x[row].double().numpy()
        others = np.arange(3) != to if targeted else np.arange(3) == int(y[row])
        rows, room = weight[others] - weight[to], bias[to] - bias[others]
        bounds = [(0, 1) if i in subset else (v, v) for i, v in enumerate(origin)]
        # maximise the least margin s: rows @ x + s <= room
        found = linprog(
            [0] * 6 + [-1], np.hstack([rows, np.ones((len(rows), 1))]), room, bounds=[*bounds, (None, None)]
        )
        return bool(found.status == 0 and -found.fun > 1e-9)

    for row in range(len(x)):
        aims = [int(target[row])] if target is not None else [c for c in range(3) if c != int(y[row])]
        sizes = (
            size
            for size in range(7)
            for subset in itertools.combinations(range(6), size)
            if any(reached(row, subset, to) for to in aims)
        )
        assert records["l0"][row] == next(sizes)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_leaf_is_the_nearest_of_all_corners(norm: str, targeted: bool) -> None:
    """The nearest point has in every feature the sample's own value or the end of an interval."""
    generator = np.random.default_rng(0)
    data = generator.random((60, 3)).astype(np.float32)
    labels = generator.integers(0, 3, 60)
    tree = DecisionTreeClassifier(random_state=0, max_leaf_nodes=12).fit(data, labels)
    model = rb.lift(tree, (3,))
    x = torch.from_numpy(generator.random((15, 3)).astype(np.float32))
    y = model.scores(x).argmax(1)
    target = (y + 1) % 3 if targeted else None
    records = attack_with(
        model, x, y, "exact", f"{norm}:min", domain=Domain(pixel_dim=None), targets=target
    ).records
    inner = tree.tree_.children_left != tree.tree_.children_right
    for row in range(len(x)):
        axes = []
        for i in range(3):
            ends = tree.tree_.threshold[inner & (tree.tree_.feature == i)]
            on = ends.astype(np.float32)
            on = np.where(on.astype(float) > ends, np.nextafter(on, np.float32(-1)), on)  # on the left side
            axes.append([float(x[row, i]), *on.tolist(), *np.nextafter(on, np.float32(2)).tolist()])
        corners = np.array(list(itertools.product(*axes)), dtype=np.float32)
        says = tree.predict(corners)
        size = norms(torch.from_numpy(corners).double() - x[row].double(), Domain(pixel_dim=None), Norm(norm))
        wanted = says == int(target[row]) if target is not None else says != int(y[row])
        assert records["success"][row]
        assert records[norm][row] == float(size[torch.from_numpy(wanted)].min())


def test_a_decision_that_cannot_change_has_no_distance() -> None:
    """One feature decides; it may not move: no success, and the sample itself comes back."""
    data = np.array([[0.2, 0.5], [0.8, 0.5]])
    tree = rb.lift(DecisionTreeClassifier().fit(data, [0, 1]), (2,))
    line = rb.lift(LogisticRegression(C=1e4).fit(data, [0, 1]), (2,))
    x, y = torch.from_numpy(data).float(), torch.tensor([0, 1])
    for model in (tree, line):
        fixed = Domain(mask=torch.tensor([False, True]))
        result = attack_with(model, x, y, "exact", "l2:min", domain=fixed)
        assert not result.records["success"].any()
        assert result.records["valid"].all()
        assert torch.equal(result.adversarial, x)
        free = attack_with(model, x, y, "exact", "l2:min").records
        assert free["success"].all()
        assert np.allclose(free["l2"].to_numpy(float), 0.3, atol=0.01)


def test_scaling_and_projections_are_folded_in() -> None:
    """A pipeline of affine steps is one linear function; its nearest points lie on its own boundary."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    held = torch.from_numpy(x[:40]).float().reshape(-1, 1, 8, 8)
    for steps in (
        [StandardScaler(), LinearSVC()],
        [MinMaxScaler(), PCA(20), LogisticRegression()],
        [PCA(10), LinearDiscriminantAnalysis()],
        [StandardScaler(), NearestCentroid()],
    ):
        model = rb.lift(make_pipeline(*steps).fit(x, y), (1, 8, 8), held)
        labels = model.scores(held).argmax(1)
        result = attack_with(model, held, labels, "exact", "l2:min")
        assert result.records["success"].all()
        scores = model.scores(result.adversarial).topk(2, dim=1).values
        assert bool((scores[:, 0] - scores[:, 1] <= 1e-3 * scores.abs().amax()).all())


def test_models_without_a_closed_form_are_refused() -> None:
    x, y = load_digits(return_X_y=True)
    voting = rb.lift(SVC(kernel="linear").fit(x / 16, y), (1, 8, 8))
    held = torch.from_numpy(x[:4] / 16).float().reshape(-1, 1, 8, 8)
    with pytest.raises(RobustError, match="structure access"):
        attack_with(voting, held, torch.from_numpy(y[:4]), "exact", "l2:min")


SIZES = {Norm.LINF: 0.25, Norm.L2: 0.8, Norm.L1: 2.5, Norm.L0: 3}
AGAINST = [(name, threat) for name in ATTACKS for threat in threats_of(name, SIZES)]


@functools.cache
def solved(kind: str, norm: str, targeted: bool) -> tuple[Model, Tensor, Tensor, Tensor | None, pd.DataFrame]:
    """A model, samples, the classes to reach, and the exact answers."""
    if kind == "linear":
        model: Model = linear_model(classes=4, shape=(1, 5, 5), seed=7)
    else:
        generator = np.random.default_rng(1)
        data = generator.random((150, 25))
        model = rb.lift(DecisionTreeClassifier(random_state=0).fit(data, data[:, :4].argmax(1)), (1, 5, 5))
    x, y = samples_of(model, 10, seed=3)
    targets = (y + 1) % 4 if targeted else None
    return model, x, y, targets, attack_with(model, x, y, "exact", f"{norm}:min", targets=targets).records


@pytest.mark.parametrize("kind", ["linear", "tree"])
@pytest.mark.parametrize(("attack", "threat"), AGAINST)
def test_no_attack_reports_a_smaller_distance_than_exact(attack: str, threat: str, kind: str) -> None:
    """Strictly on a tree; on a linear model by the rounding of a float32 point."""
    if attack == "leaf_tuple" or (kind == "tree" and attack == "linear_demo"):
        pytest.skip(f"{attack} is for others")
    norm = threat.partition(":")[0]
    for targeted in (False, True):
        model, x, y, targets, exact = solved(kind, norm, targeted)
        other = attack_with(model, x, y, short(attack), threat, targets=targets, certify=0.0).records
        broken = other["success"].to_numpy(bool)
        room = 1e-5 if kind == "linear" else 0.0
        assert (exact["success"].to_numpy(bool) | ~broken).all()
        least = exact[norm].to_numpy(float)[broken] * (1 - room)
        assert (other[norm].to_numpy(float)[broken] >= least).all()


def test_goals_that_ask_for_more_than_a_class_are_answered_or_refused() -> None:
    model = linear_model()
    x, y = samples_of(model, 20)
    found = attack_with(model, x, y, "exact", "l2:min", goal="untargeted,margin=0.5")
    assert found.records["success"].all()
    scores = model.scores(found.adversarial).double()
    own = scores.gather(1, y[:, None])[:, 0]
    most = scores.scatter(1, y[:, None], -torch.inf).amax(1)
    assert torch.allclose(most - own, torch.full_like(own, 0.5), atol=0.02)
    with pytest.raises(RobustError, match="confidence"):
        attack_with(model, x, y, "exact", "l2:min", goal="untargeted,confidence=0.9")
