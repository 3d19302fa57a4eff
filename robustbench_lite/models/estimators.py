"""Scikit-learn's estimators and transformers, each as the tensors that decide as it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from torch import Tensor

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.models.kernel import KernelCore
from robustbench_lite.models.lifted import Affine, Core
from robustbench_lite.models.neighbours import NeighbourCore
from robustbench_lite.models.smooth_cores import LinearCore, PerceptronCore
from robustbench_lite.models.trees import Tree, TreeCore, tree_core

LINEAR = (
    RidgeClassifier,
    RidgeClassifierCV,
    LogisticRegression,
    Perceptron,
    SGDClassifier,
    LinearSVC,
    LinearDiscriminantAnalysis,
)
FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
BOOSTED = (GradientBoostingClassifier, HistGradientBoostingClassifier)
TREES = (*FORESTS, *BOOSTED, DecisionTreeClassifier, ExtraTreeClassifier)


class CannotLift(InvalidModel):
    """An estimator or a setting of it that has no lift; it can still run as a function of scores."""


def vector(values: object) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64))


def transform_of(step: BaseEstimator) -> Affine:
    """A fitted transformer, its operations in scikit-learn's order."""
    d = step.n_features_in_ if hasattr(step, "n_features_in_") else 0
    if isinstance(step, StandardScaler):
        mean = step.mean_ if step.with_mean else None
        scale = step.scale_ if step.with_std else None
        return Affine(
            shift=None if mean is None else vector(mean), divisor=None if scale is None else vector(scale)
        )
    if isinstance(step, MinMaxScaler) and not step.clip:
        return Affine(factor=vector(step.scale_), offset=vector(step.min_))
    if isinstance(step, MaxAbsScaler):
        return Affine(divisor=vector(step.scale_))
    if isinstance(step, PCA):
        matrix = step.components_
        if step.whiten:
            matrix = matrix / np.sqrt(step.explained_variance_)[:, None]
        return Affine(shift=vector(np.broadcast_to(step.mean_, (d,))), matrix=vector(matrix))
    raise CannotLift(f"{type(step).__name__} has no lift")


def core_of(estimator: BaseEstimator, transforms: list[Affine]) -> tuple[Core, list[Affine]]:
    """The core of a classifier, and the transforms that stay in front of it."""
    if isinstance(estimator, LINEAR):
        return _linear(estimator), transforms
    if isinstance(estimator, NearestCentroid):
        return _centroids(estimator), transforms
    if isinstance(estimator, SVC | NuSVC):
        return _kernel(estimator), transforms
    if isinstance(estimator, KNeighborsClassifier):
        return _neighbours(estimator), transforms
    if isinstance(estimator, MLPClassifier):
        weights, biases = (tuple(vector(p) for p in ps) for ps in (estimator.coefs_, estimator.intercepts_))
        return PerceptronCore(weights, biases, estimator.activation), transforms
    if isinstance(estimator, TREES):
        return _trees(estimator, transforms)
    raise CannotLift(f"{type(estimator).__name__} has no lift")


def _linear(estimator: BaseEstimator) -> LinearCore:
    weight, bias = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
    bias = np.broadcast_to(bias, (len(weight),))
    softmax = isinstance(estimator, LogisticRegression | LinearDiscriminantAnalysis)
    one_against_rest = getattr(estimator, "solver", "") == "liblinear" and len(weight) > 1
    if len(weight) == 1:  # one decision: the second class wins above 0
        weight, bias = np.vstack([0 * weight, weight]), np.concatenate([[0.0], bias])
    return LinearCore(vector(weight), vector(bias), softmax and not one_against_rest)


def _centroids(estimator: NearestCentroid) -> LinearCore:
    """Of equal priors and squared distances, the nearest is the largest of 2 c·z - |c|²."""
    if estimator.metric != "euclidean":
        raise CannotLift(f"NearestCentroid with metric {estimator.metric!r} has no lift")
    centre = np.asarray(estimator.centroids_, dtype=np.float64)
    return LinearCore(vector(2 * centre), vector(-np.square(centre).sum(1)))


def _kernel(estimator: SVC | NuSVC) -> KernelCore:
    if estimator.kernel not in ("linear", "rbf", "poly", "sigmoid"):
        raise CannotLift(f"an SVC with kernel {estimator.kernel!r} has no lift")
    if estimator.break_ties:
        raise CannotLift("an SVC with break_ties=True has no lift")
    classes = len(estimator.classes_)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    ends = np.concatenate([[0], np.cumsum(estimator.n_support_)])
    dual = estimator._dual_coef_
    coefficients = np.zeros((len(estimator.support_vectors_), len(pairs)))
    for p, (i, j) in enumerate(pairs):
        of_i, of_j = (slice(ends[c], ends[c + 1]) for c in (i, j))
        coefficients[of_i, p] = dual[j - 1, of_i]
        coefficients[of_j, p] = dual[i, of_j]
    first, second = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
    return KernelCore(
        vector(estimator.support_vectors_),
        vector(coefficients),
        vector(estimator._intercept_),
        first,
        second,
        classes,
        estimator.kernel,
        float(estimator._gamma),
        float(estimator.coef0),
        float(estimator.degree),
    )


def _neighbours(estimator: KNeighborsClassifier) -> NeighbourCore:
    metric = estimator.effective_metric_
    power = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": np.inf}.get(metric)
    if metric == "minkowski":
        power = float(estimator.effective_metric_params_.get("p", 2))
    if power is None or estimator.weights not in ("uniform", "distance"):
        how = f"metric {metric!r} and weights {estimator.weights!r}"
        raise CannotLift(f"KNeighborsClassifier with {how} has no lift")
    stored = vector(estimator._fit_X)
    core = NeighbourCore(
        stored,
        torch.as_tensor(np.asarray(estimator._y)).long(),
        len(estimator.classes_),
        estimator.n_neighbors,
        float(power),
        estimator.weights == "distance",
        power == 2 and estimator._fit_method == "brute",
        1.0,
    )
    some = stored[:: max(1, len(stored) // 500)]
    near = core.distances(some).topk(min(estimator.n_neighbors + 1, len(stored)), dim=1, largest=False).values
    width = float(near[:, -1].median()) / 4
    return replace(core, width=width or 1.0)


def _trees(estimator: BaseEstimator, transforms: list[Affine]) -> tuple[TreeCore, list[Affine]]:
    """Thresholds in the input itself where every transform moves each feature by itself."""
    # Histogram boosting compares float64 features, all others float32 ones.
    kind = np.float64 if isinstance(estimator, HistGradientBoostingClassifier) else np.float32
    direct = all(transform.each_feature for transform in transforms)
    kept = [] if direct else transforms

    def in_x(feature: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        return largest_below(transforms if direct else [], feature, threshold, kind)

    # The input lies in [0, 1]; what a matrix has mixed is measured on random inputs.
    scale = np.ones(estimator.n_features_in_)
    if kept:
        z = torch.rand(256, _inputs(kept, estimator), generator=torch.Generator().manual_seed(0)).double()
        for transform in kept:
            z = transform(z)
        scale = z.std(0).numpy()
    if isinstance(estimator, HistGradientBoostingClassifier):
        if estimator.is_categorical_ is not None:
            raise CannotLift("HistGradientBoostingClassifier with categorical features has no lift")
        width = estimator.n_trees_per_iteration_
        trees = [
            _binned_tree(one.nodes, k, width)
            for stage in estimator._predictors
            for k, one in enumerate(stage)
        ]
        return tree_core(trees, in_x, estimator._baseline_prediction, "logits", scale), kept
    if isinstance(estimator, GradientBoostingClassifier):
        if not isinstance(estimator.init_, str) and type(estimator.init_).__name__ != "DummyClassifier":
            raise CannotLift("GradientBoostingClassifier with an init of its own has no lift")
        start = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32))
        width, rate = estimator.n_trees_per_iteration_, estimator.learning_rate
        trees = [
            _tree(one.tree_, _column(rate * one.tree_.value[:, 0, 0], k, width))
            for stage in estimator.estimators_
            for k, one in enumerate(stage)
        ]
        scores = "logits" if estimator.loss == "log_loss" else "margin"
        return tree_core(trees, in_x, start, scores, scale), kept
    parts = estimator.estimators_ if isinstance(estimator, FORESTS) else [estimator]
    trees = [_tree(part.tree_, part.tree_.value[:, 0, :]) for part in parts]
    return tree_core(trees, in_x, np.zeros(len(estimator.classes_)), "probabilities", scale), kept


def _tree(tree: object, value: np.ndarray) -> Tree:
    names = ("children_left", "children_right", "feature", "threshold")
    left, right, feature, threshold = (np.asarray(getattr(tree, name)) for name in names)
    return Tree(left, right, feature, threshold, value)


def _binned_tree(nodes: np.ndarray, k: int, width: int) -> Tree:
    """A tree of histogram gradient boosting: its leaves' children are 0 and 0."""
    left, right = (np.where(nodes["is_leaf"], 0, nodes[side]).astype(np.int64) for side in ("left", "right"))
    feature = nodes["feature_idx"].astype(np.int64)
    return Tree(left, right, feature, nodes["num_threshold"], _column(nodes["value"], k, width))


def _column(values: np.ndarray, k: int, width: int) -> np.ndarray:
    """Values (m,) as column k of (m, width)."""
    wide = np.zeros((len(values), width))
    wide[:, k] = values
    return wide


def _inputs(transforms: Sequence[Affine], estimator: BaseEstimator) -> int:
    """How many features go in."""
    for transform in transforms:
        for part in (transform.shift, transform.divisor, transform.factor, transform.offset):
            if part is not None:
                return len(part)
        if transform.matrix is not None:
            return transform.matrix.shape[1]
    return int(estimator.n_features_in_)


def largest_below(
    transforms: Sequence[Affine], feature: np.ndarray, threshold: np.ndarray, kind: type[np.floating]
) -> np.ndarray:
    """The largest float32 input whose feature, cast to `kind`, is at most the threshold (m,).

    Scikit-learn's trees compare features with float64 thresholds; found by bisection over the float32
    numbers, so `x <= this` decides exactly as the tree does behind its transforms.
    """
    if not transforms:
        single = threshold.astype(np.float32)
        return np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single)
    picked = [transform.of_features(torch.from_numpy(feature)) for transform in transforms]
    low = np.full(len(threshold), _ordered(np.float32(-3e38)), dtype=np.int64)
    high = np.full(len(threshold), _ordered(np.float32(3e38)), dtype=np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        z = torch.from_numpy(_float(middle).astype(np.float64))
        for transform in picked:
            z = transform(z)
        with np.errstate(over="ignore"):
            below = z.numpy().astype(kind) <= threshold
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _float(low)


def _ordered(value: np.float32) -> int:
    """A whole number for a float32, in the same order."""
    bits = int(np.asarray(value).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _float(order: np.ndarray) -> np.ndarray:
    size = np.abs(order).astype(np.int32).view(np.float32)
    signed: np.ndarray = np.where(order < 0, -size, size)
    return signed
