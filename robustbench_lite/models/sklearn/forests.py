"""Scikit-learn's trees and the groups it makes of them, as one table of nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.models.sklearn.lifted import Transform
from robustbench_lite.models.sklearn.trees import Tree, TreeCore, tree_core

GROUPS = (RandomForestClassifier, ExtraTreesClassifier, BaggingClassifier)
TREES = (
    *GROUPS,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    AdaBoostClassifier,
    DecisionTreeClassifier,
    ExtraTreeClassifier,
)


class CannotLift(InvalidModel):
    """An estimator or a setting of it that has no lift; it can still run as a function of scores."""


def only_trees(estimator: BaseEstimator) -> bool:
    """Whether a group's members are trees; scikit-learn's own groups of trees are by their kind."""
    if not isinstance(estimator, AdaBoostClassifier | BaggingClassifier):
        return True
    return all(isinstance(one, DecisionTreeClassifier | ExtraTreeClassifier) for one in estimator.estimators_)


def of_trees(estimator: BaseEstimator, transforms: list[Transform]) -> tuple[TreeCore, list[Transform]]:
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
            _tree(one.tree_, column_of(rate * one.tree_.value[:, 0, 0], k, width))
            for stage in estimator.estimators_
            for k, one in enumerate(stage)
        ]
        scores = "logits" if estimator.loss == "log_loss" else "margin"
        return tree_core(trees, in_x, start, scores, scale), kept
    if isinstance(estimator, AdaBoostClassifier):
        pairs = zip(estimator.estimators_, estimator.estimator_weights_, strict=False)
        trees = [_tree(one.tree_, _share_of_vote(one.tree_.value[:, 0, :], weight)) for one, weight in pairs]
        return tree_core(trees, in_x, np.zeros(len(estimator.classes_)), "margin", scale), kept
    parts = estimator.estimators_ if isinstance(estimator, GROUPS) else [estimator]
    every = np.arange(estimator.n_features_in_)
    columns = (
        estimator.estimators_features_ if isinstance(estimator, BaggingClassifier) else [every] * len(parts)
    )
    trees = [
        _tree(part.tree_, part.tree_.value[:, 0, :], chosen)
        for part, chosen in zip(parts, columns, strict=True)
    ]
    return tree_core(trees, in_x, np.zeros(len(estimator.classes_)), "probabilities", scale), kept


def _share_of_vote(value: np.ndarray, weight: float) -> np.ndarray:
    """What a tree of AdaBoost adds: its weight for the class of a leaf, spread against the others."""
    classes = value.shape[1]
    against = np.full(value.shape, -1 / (classes - 1) * weight)
    against[np.arange(len(value)), value.argmax(1)] = weight
    return against


def _tree(tree: object, value: np.ndarray, columns: np.ndarray | None = None) -> Tree:
    """columns: the input's features that the tree was given, where not all in order."""
    names = ("children_left", "children_right", "feature", "threshold")
    left, right, feature, threshold = (np.asarray(getattr(tree, name)) for name in names)
    if columns is not None:
        feature = np.where(feature >= 0, np.asarray(columns)[feature.clip(0)], feature)
    return Tree(left, right, feature, threshold, value)


def _binned_tree(nodes: np.ndarray, k: int, width: int) -> Tree:
    """A tree of histogram gradient boosting: its leaves' children are 0 and 0."""
    left, right = (np.where(nodes["is_leaf"], 0, nodes[side]).astype(np.int64) for side in ("left", "right"))
    feature = nodes["feature_idx"].astype(np.int64)
    return Tree(left, right, feature, nodes["num_threshold"], column_of(nodes["value"], k, width))


def column_of(values: np.ndarray, k: int, width: int) -> np.ndarray:
    """Values (m,) as column k of (m, width)."""
    wide = np.zeros((len(values), width))
    wide[:, k] = values
    return wide


def _inputs(transforms: Sequence[Transform], estimator: BaseEstimator) -> int:
    """How many features go in."""
    for transform in transforms:
        count = transform.inputs()
        if count is not None:
            return count
    return int(estimator.n_features_in_)


def largest_below(
    transforms: Sequence[Transform], feature: np.ndarray, threshold: np.ndarray, kind: type[np.floating]
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
