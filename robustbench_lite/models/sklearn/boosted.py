"""XGBoost's and LightGBM's classifiers as the table of nodes that scikit-learn's trees are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.models.sklearn.forests import CannotLift, column_of, largest_below
from robustbench_lite.models.sklearn.lifted import Transform
from robustbench_lite.models.sklearn.trees import Tree, TreeCore, tree_core

Node = Mapping[str, Any]  # of a model as its library writes it in JSON


class LightGBMBooster(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """LightGBM's own kind of model, which a file holds, as the classifier that it was; classes from 0.

    Raises `InvalidModel` for one that does not classify.
    """

    def __init__(self, booster_: Any) -> None:
        facts = booster_.dump_model(num_iteration=1)
        kind = str(facts["objective"]).split(" ")[0]
        if kind not in ("binary", "multiclass", "multiclassova"):
            raise InvalidModel(f"LightGBM with objective {kind} is no classifier")
        self.booster_, self.best_iteration_ = booster_, 0
        self.n_features_in_ = booster_.num_feature()
        self.classes_ = np.arange(max(2, int(facts["num_class"])))

    def fit(self, x: np.ndarray, y: np.ndarray) -> LightGBMBooster:
        """What scikit-learn asks of every estimator; this one is read, not fitted."""
        raise NotImplementedError("a model from a file is not fitted again")

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """(n, K)."""
        shares: np.ndarray = np.asarray(self.booster_.predict(x))
        return np.column_stack([1 - shares, shares]) if shares.ndim == 1 else shares

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n,)."""
        chosen: np.ndarray = self.predict_proba(x).argmax(1)
        return chosen


def is_boosted(estimator: BaseEstimator) -> bool:
    """Whether an estimator is one of these libraries' classifiers."""
    names = ("XGBClassifier", "XGBRFClassifier", "LGBMClassifier", "LightGBMBooster")
    return type(estimator).__name__ in names


def of_boosted(estimator: BaseEstimator, transforms: list[Transform]) -> tuple[TreeCore, list[Transform]]:
    """The trees of a classifier, their thresholds in the input itself."""
    if not all(transform.each_feature for transform in transforms):
        raise CannotLift(f"{type(estimator).__name__} behind a transform that mixes features has no lift")
    made = _xgboost if type(estimator).__name__.startswith("XGB") else _lightgbm
    return made(estimator, transforms), []


def _xgboost(estimator: BaseEstimator, transforms: Sequence[Transform]) -> TreeCore:
    """A sample goes left where its float32 feature is below the split; leaves are summed in float32."""
    booster = estimator.get_booster()
    learner = json.loads(booster.save_raw("json"))["learner"]
    if learner["gradient_booster"]["name"] != "gbtree":
        raise CannotLift(f"XGBoost with booster {learner['gradient_booster']['name']} has no lift")
    objective = learner["objective"]["name"]
    if objective not in ("binary:logistic", "multi:softprob", "multi:softmax"):
        raise CannotLift(f"XGBoost with objective {objective} has no lift")
    held = learner["gradient_booster"]["model"]
    facts = learner["learner_model_param"]
    width = max(1, int(facts["num_class"]))
    groups = held["tree_info"]
    last = getattr(estimator, "best_iteration", None) if estimator.early_stopping_rounds else None
    rounds = len(held["trees"]) if last is None else held["iteration_indptr"][last + 1]
    if any(tree["categories"] for tree in held["trees"]):
        raise CannotLift("XGBoost with categorical splits has no lift")
    if any(len(tree["base_weights"]) and isinstance(tree["base_weights"][0], list) for tree in held["trees"]):
        raise CannotLift("XGBoost with trees of several outputs has no lift")
    base = [float(v) for v in str(facts["base_score"]).strip("[]").split(",")]
    start = np.full(width, base[0]) if len(base) == 1 else np.array(base)
    if objective == "binary:logistic":
        start = -np.log(1 / start - 1)
    trees = [_xgboost_tree(tree, groups[i], width) for i, tree in enumerate(held["trees"][:rounds])]

    def in_x(feature: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        below = np.nextafter(threshold.astype(np.float32), np.float32(-np.inf))
        return largest_below(transforms, feature, below.astype(np.float64), np.float32)

    return tree_core(trees, in_x, start, "logits", np.ones(estimator.n_features_in_), np.float32)


def _xgboost_tree(tree: Node, group: int, width: int) -> Tree:
    left, right = (np.array(tree[f"{side}_children"], dtype=np.int64) for side in ("left", "right"))
    condition = np.array(tree["split_conditions"], dtype=np.float64)
    value = column_of(np.where(left < 0, condition, 0.0), group, width)
    return Tree(left, right, np.array(tree["split_indices"], dtype=np.int64), condition, value)


def _lightgbm(estimator: BaseEstimator, transforms: Sequence[Transform]) -> TreeCore:
    """A sample goes left where its float64 feature is at most the threshold."""
    last = estimator.best_iteration_ or None
    held = estimator.booster_.dump_model(num_iteration=last)
    if held["average_output"]:
        raise CannotLift("LightGBM with boosting rf has no lift")
    width = held["num_tree_per_iteration"]
    every = enumerate(held["tree_info"])
    trees = [_lightgbm_tree(one["tree_structure"], i % width, width) for i, one in every]

    def in_x(feature: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        return largest_below(transforms, feature, threshold, np.float64)

    kind = "margin" if held["objective"].startswith("multiclassova") else "logits"
    return tree_core(trees, in_x, np.zeros(width), kind, np.ones(estimator.n_features_in_))


def _lightgbm_tree(root: Node, group: int, width: int) -> Tree:
    left: list[int] = []
    right: list[int] = []
    feature, threshold, value = [], [], []
    waiting: list[tuple[Node, int, str]] = [(root, -1, "")]
    while waiting:
        node, parent, side = waiting.pop()
        place = len(left)
        if side:
            (left if side == "left" else right)[parent] = place
        leaf = "split_index" not in node
        if leaf and "leaf_const" in node:
            raise CannotLift("LightGBM with linear trees has no lift")
        if not leaf and (node["decision_type"] != "<=" or node["missing_type"] == "Zero"):
            raise CannotLift("LightGBM with categorical splits, or zeros as missing values, has no lift")
        left.append(-1)
        right.append(-1)
        feature.append(-1 if leaf else node["split_feature"])
        threshold.append(math.nan if leaf else float(node["threshold"]))
        value.append(float(node["leaf_value"]) if leaf else 0.0)
        if not leaf:
            waiting += [(node["left_child"], place, "left"), (node["right_child"], place, "right")]
    columns = column_of(np.array(value), group, width)
    return Tree(np.array(left), np.array(right), np.array(feature), np.array(threshold), columns)
