"""Robust trees, linear models and neighbours: by brute force, and by the exact answers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import robustbench_lite as rb
from robustbench_lite.certify.certifier import Question, certify
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.classical.neighbours import apart
from robustbench_lite.defenses.classical.splits import Grown, Samples, best_split, between, grow
from robustbench_lite.defenses.classical.trees import worst_of_stumps


def drawn(seed: int, n: int = 12, d: int = 2, eps: float = 0.1) -> Samples:
    random = np.random.default_rng(seed)
    x = random.random((n, d)).round(2)
    sign = np.where(random.random(n) > 0.5, 1.0, -1.0)
    return Samples(x - eps, x + eps, sign, random.random(n) + 0.1)


def worst_loss(samples: Samples, f: int, t: float, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The exponential loss, for each pair of values, where every sample goes to the worse side it reaches."""
    sign = samples.sign[:, None]
    to_left, to_right = ((samples.low[:, f] <= t)[:, None], (samples.high[:, f] > t)[:, None])
    margins = np.minimum(np.where(to_left, sign * left, np.inf), np.where(to_right, sign * right, np.inf))
    losses: np.ndarray = samples.weight @ np.exp(-margins)
    return losses


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6, unique=True))
def test_a_threshold_has_its_neighbours_on_either_side(values: list[float]) -> None:
    ends = np.sort(np.array(values))
    found = between(ends)
    assert (np.float32(found) == found).all()
    for low, high in itertools.pairwise(ends.tolist()):
        own = found[(low <= found) & (found < high)]
        least = np.float32(low)
        if float(least) < low:
            least = np.nextafter(least, np.float32(2))
        assert len(own) == 1 or float(least) >= high


@settings(max_examples=30, deadline=None)
@example(8527)  # ends that float32 does not tell apart
@given(st.integers(0, 10_000))
def test_a_split_is_the_best_of_a_grid(seed: int) -> None:
    samples = drawn(seed)
    extra = 1e-9
    split = best_split(samples, extra)
    values = np.linspace(-2, 2, 21)
    ends = np.unique(np.concatenate([samples.low, samples.high]))
    left, right = (side.ravel() for side in np.meshgrid(values, values))
    least = min(worst_loss(samples, f, t, left, right).min() for f in range(2) for t in between(ends))
    plain = worst_loss(samples, 0, -1, values, values).min()
    if split is None:
        assert least >= plain * (1 - 1e-3)
        return
    assert split.loss <= least + 1e-6
    if max(abs(split.left), abs(split.right)) < 2:  # not cut off
        sides = np.array([split.left]), np.array([split.right])
        again = worst_loss(samples, split.feature, split.threshold, *sides)
        assert again[0] == pytest.approx(split.loss, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_what_an_adversary_reaches_of_a_tree(seed: int, depth: int) -> None:
    samples = drawn(seed, n=20)
    tree = grow(samples, depth, 1e-3)
    least, most = tree.reached(samples.low, samples.high)
    random = np.random.default_rng(seed)

    def value(x: np.ndarray) -> float:
        node = 0
        while tree.left[node] != node:
            right = x[tree.feature[node]] > tree.threshold[node]
            node = tree.right[node] if right else tree.left[node]
        return tree.value[node]

    for i in range(len(samples.sign)):
        edges = [np.unique([samples.low[i, f], samples.high[i, f],
                            *(t + s for t, g in zip(tree.threshold, tree.feature, strict=True) if g == f
                              for s in (0, 1e-9))]) for f in range(2)]  # fmt: skip
        inside = [e[(e >= samples.low[i, f]) & (e <= samples.high[i, f])] for f, e in enumerate(edges)]
        found = [value(np.array(point)) for point in itertools.product(*inside)]
        assert (min(found), max(found)) == pytest.approx((least[i], most[i]))
        assert least[i] <= value(random.uniform(samples.low[i], samples.high[i])) <= most[i]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_worst_of_stumps_is_exact(seed: int) -> None:
    samples = drawn(seed, n=8)
    random = np.random.default_rng(seed)
    trees: list[Grown] = []
    for _ in range(5):
        left, right = random.normal(size=2)
        split = float(random.random().__round__(2)), int(random.integers(2))
        trees.append(Grown([1, 1, 2], [2, 1, 2], [split[1], 0, 0], [split[0], 0.0, 0.0], [0.0, left, right]))
    trees.append(Grown.leaf(0.3))
    found = worst_of_stumps(trees, samples.low, samples.high, samples.sign)
    for i, sign in enumerate(samples.sign):
        sides = (np.linspace(a, b, 201) for a, b in zip(samples.low[i], samples.high[i], strict=True))
        points = np.stack([side.ravel() for side in np.meshgrid(*sides)], 1)
        margins = sign * sum(
            np.full(len(points), t.value[0])
            if len(t.left) == 1
            else np.where(points[:, t.feature[0]] > t.threshold[0], t.value[2], t.value[1])
            for t in trees
        )
        assert margins.min() == pytest.approx(found[i])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_pruning_keeps_classes_apart_and_as_many_as_it_can(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.random((9, 2)), random.integers(0, classes, 9)
    stays = apart(x, y, 0.4, "euclidean")

    def legal(kept: np.ndarray) -> bool:
        a, b = x[kept], y[kept]
        near = np.linalg.norm(a[:, None] - a, axis=2) < 0.4
        return not (near & (b[:, None] != b)).any()

    assert legal(stays)
    subsets = [np.array(s) for s in itertools.product([False, True], repeat=9)]
    best = max(int(s.sum()) for s in subsets if legal(s))
    if len(np.unique(y)) <= 2:
        assert stays.sum() == best
    else:
        assert 9 - stays.sum() <= 2 * (9 - best)


def exact_error(model: Model, data: Data, eps: float) -> tuple[float, float]:
    """Clean accuracy, and the exact share that is wrong or can be made so within eps."""
    right = model.scores(data.x).argmax(1) == data.y
    threat = rb.parse_threat("linf:min", data.domain)
    bounds = certify(Question(model, threat, Goal(), data.x[right], data.y[right]))
    assert bounds is not None
    assert bool(bounds.exact.all())
    return float(right.float().mean()), 1 - float(right.sum() * (bounds.distance > eps).float().mean()) / len(
        data
    )


@pytest.mark.parametrize(
    ("plain", "robust"),
    [
        ("boosting:stages=50", "robust_trees(boosting,eps=0.1,depth=6,rounds=100)"),
        ("tree", "robust_trees(tree,eps=0.1)"),
        ("tree", "robust_trees(forest,eps=0.1,depth=6,rounds=30)"),
        ("logistic", "dual_norm(logistic,eps=0.1)"),
        ("linear_svm", "dual_norm(linear_svm,eps=0.1)"),
    ],
)
def test_robust_training_lowers_the_exact_robust_error(plain: str, robust: str) -> None:
    data = rb.load_data("breast_cancer")
    (clean, error), (still, less) = (
        exact_error(rb.load_model(name, data), data, 0.1) for name in (plain, robust)
    )
    assert less < 0.6 * error
    assert still > clean - 0.05


def test_the_worst_case_of_a_linear_model_is_what_was_trained_on() -> None:
    data = rb.load_data("breast_cancer", samples=100)
    model = rb.load_model("dual_norm(logistic,eps=0.1,norm=l2)", data)
    assert model.access.name == "STRUCTURE"
    assert float((model.scores(data.x).argmax(1) == data.y).float().mean()) > 0.9


def test_what_they_are_for() -> None:
    with pytest.raises(Unsupported, match="not for knn:k=5"):
        rb.load_model("adversarial_pruning(knn:k=5)")
    for name, fits, other in (
        ("robust_trees", "tree, forest and boosting", "knn"),
        ("dual_norm", "logistic", "tree"),
        ("adversarial_pruning", "knn", "tree"),
    ):
        with pytest.raises(Unsupported, match=fits):
            rb.load_model(f"{name}({other})")
    with pytest.raises(Unsupported, match="is left at radius"):
        rb.load_model("adversarial_pruning(knn,radius=5)", "breast_cancer")
    kept = rb.load_model("adversarial_pruning(knn,radius=0.1,norm=l2)", "breast_cancer")
    assert "training samples were kept" in kept.notes[-1]
    assert torch.isfinite(kept.scores(rb.load_data("breast_cancer", samples=5).x)).all()
