"""Estimators in files: what people fit comes back as it decided, and nothing in a file is asked blindly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_wine
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.gaussian_process import GaussianProcessClassifier, kernels
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier, OutputCodeClassifier
from sklearn.neighbors import KDTree, KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, QuantileTransformer, StandardScaler
from sklearn.svm import LinearSVC

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.models.sklearn.files import read_estimator, write_estimator


def tree(neighbours: int = 3, kind: str = "kd_tree") -> KNeighborsClassifier:
    return KNeighborsClassifier(neighbours, algorithm=kind)


ESTIMATORS: dict[str, Callable[[], BaseEstimator]] = {
    "neighbours in a tree": tree,
    "neighbours in balls": lambda: KNeighborsClassifier(3, algorithm="ball_tree", p=1),
    "neighbours in a radius": lambda: RadiusNeighborsClassifier(0.7, outlier_label=0),
    "neighbours of a pipeline": lambda: make_pipeline(StandardScaler(), tree()),
    "neighbours in bags": lambda: BaggingClassifier(tree(), n_estimators=3, random_state=0),
    "neighbours that vote": lambda: VotingClassifier([("k", tree()), ("l", LogisticRegression())]),
    "neighbours calibrated": lambda: CalibratedClassifierCV(tree(), cv=2),
    "isotonic": lambda: CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=2),
    "process": lambda: GaussianProcessClassifier(1.0 * kernels.RBF(1.5) + kernels.WhiteKernel(0.1)),
    "codes": lambda: OutputCodeClassifier(LinearSVC(), code_size=3, random_state=0),
    "rest": lambda: OneVsRestClassifier(LogisticRegression()),
    "quantiles": lambda: make_pipeline(
        QuantileTransformer(n_quantiles=20), KBinsDiscretizer(), LogisticRegression()
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_what_is_read_decides_as_what_was_written(name: str, tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    x = ((x - x.min(0)) / np.ptp(x, 0)).astype(np.float32).astype(np.float64)
    estimator = ESTIMATORS[name]().fit(x, y)
    file = tmp_path / "mine.skops"
    write_estimator(estimator, file)
    assert (read_estimator(file).predict(x) == estimator.predict(x)).all()
    data = rb.load_data((x.astype(np.float32), y))
    model = rb.load_model(str(file), data)
    assert not any("not lifted" in note for note in model.notes)
    assert (model.prediction(model.scores(data.x)).numpy() == estimator.predict(x)).all()


def test_trees_of_neighbours_in_a_file_are_never_asked(tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    for made in (tree(), make_pipeline(StandardScaler(), tree(kind="ball_tree"))):
        write_estimator(made.fit(x, y), tmp_path / "mine.skops")
        found = read_estimator(tmp_path / "mine.skops")
        last = found[-1] if hasattr(found, "steps") else found
        assert last._tree is None
        assert last._fit_method == "brute"


def test_a_tree_hidden_elsewhere_is_found(tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    hidden = VotingClassifier([("k", tree()), ("l", LogisticRegression(max_iter=3000))]).fit(x, y)
    hidden.estimators_ = np.array(hidden.estimators_, dtype=object)
    write_estimator(hidden, tmp_path / "mine.skops")
    assert read_estimator(tmp_path / "mine.skops").estimators_[0]._tree is None
    odd = LogisticRegression(max_iter=3000).fit(x, y)
    odd.left_behind_ = [KDTree(x)]
    write_estimator(odd, tmp_path / "odd.skops")
    with pytest.raises(InvalidModel, match="KDTree outside of neighbours"):
        read_estimator(tmp_path / "odd.skops")


def test_functions_of_others_in_a_file_are_refused(tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    step = FunctionTransformer(np.log1p).fit(x)
    step.func = tree  # a function of this file
    write_estimator(make_pipeline(step, LogisticRegression().fit(x, y)), tmp_path / "mine.skops")
    with pytest.raises(InvalidModel, match="not among the types allowed"):
        read_estimator(tmp_path / "mine.skops")
