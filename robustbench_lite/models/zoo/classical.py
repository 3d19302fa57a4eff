"""Support vector machines, neighbours, trees and perceptrons: trained by scikit-learn, then lifted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import Trained, remember_estimator
from robustbench_lite.models.sklearn.lift import lift
from robustbench_lite.models.sklearn.lifted import Lifted

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

Arrays = tuple[np.ndarray, np.ndarray]
PARITY = 2000  # training samples on which the lifted decisions are compared


def train_svm(data: Data, train: Trained, most: int = 10_000) -> Lifted:
    """RBF kernel, C = 10, gamma of scikit-learn's "scale"; on at most `most` samples: it grows squarely."""
    from sklearn.svm import SVC

    return _lifted(f"svm {most}", data, train, lambda x, y: SVC(C=10.0).fit(x, y), most)


def train_linear_svm(data: Data, train: Trained) -> Lifted:
    """One hyperplane a class against the rest, squared hinge loss, C = 1."""
    from sklearn.svm import LinearSVC

    return _lifted("linear_svm", data, train, lambda x, y: LinearSVC(random_state=train.seed).fit(x, y))


def train_knn(data: Data, train: Trained, k: int | None = None) -> Lifted:
    """Euclidean, equal votes; k from 1, 3, 5, 7 by a fifth of the training split (at most 2,000 samples)."""
    from sklearn.neighbors import KNeighborsClassifier

    def fit(x: np.ndarray, y: np.ndarray) -> BaseEstimator:
        held = min(len(x) // 5, 2000)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(train.seed)).numpy()
        some, rest = order[:held], order[held:]

        def model(k: int) -> BaseEstimator:
            return KNeighborsClassifier(k, algorithm="brute")

        def right(k: int) -> float:
            return float(model(k).fit(x[rest], y[rest]).score(x[some], y[some]))

        choices = [c for c in (1, 3, 5, 7) if c <= len(rest)]
        return model(max(choices, key=right) if k is None else k).fit(x, y)

    return _lifted(f"knn {k}", data, train, fit)


def train_tree(data: Data, train: Trained, max_depth: int | None = None) -> Lifted:
    """A decision tree by Gini impurity, grown until its leaves are pure or `max_depth` is reached."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=max_depth, random_state=train.seed)
    return _lifted(f"tree {max_depth}", data, train, tree.fit)


def train_forest(data: Data, train: Trained, trees: int = 100) -> Lifted:
    """A random forest of 100 trees."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(trees, random_state=train.seed, n_jobs=-1)
    return _lifted(f"forest {trees}", data, train, forest.fit)


def train_boosting(data: Data, train: Trained, stages: int = 100) -> Lifted:
    """Histogram gradient boosting, 100 stages of trees with at most 31 leaves."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    boosting = HistGradientBoostingClassifier(
        max_iter=stages, random_state=train.seed, categorical_features=None
    )
    return _lifted(f"boosting {stages}", data, train, boosting.fit)


def train_mlp(data: Data, train: Trained) -> Lifted:
    """One hidden layer of 128 rectified units, Adam, 20 to 200 epochs."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    def fit(x: np.ndarray, y: np.ndarray) -> BaseEstimator:
        epochs = max(20, min(200, 300_000 // len(x)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is the recipe
            return MLPClassifier((128,), random_state=train.seed, max_iter=epochs).fit(x, y)

    return _lifted("mlp", data, train, fit)


def _lifted(
    recipe: str,
    data: Data,
    train: Trained,
    fit: Callable[[np.ndarray, np.ndarray], BaseEstimator],
    most: int | None = None,
) -> Lifted:
    """Fitted on the training split, or `most` of it chosen by the seed; then lifted and compared on it."""
    training = data.training()

    def fitted() -> BaseEstimator:
        chosen = training
        if most is not None and len(training) > most:
            order = torch.randperm(len(training), generator=torch.Generator().manual_seed(train.seed))
            chosen = training[order[:most].sort().values]
        return fit(chosen.x.flatten(1).double().numpy(), chosen.y.numpy())

    estimator = remember_estimator(recipe, 1, data, train, fitted)
    name = recipe.partition(" ")[0]
    return lift(estimator, data.x.shape[1:], training.x[:PARITY], name=name).to(train.device)
