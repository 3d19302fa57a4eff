"""Fitted estimators in files that cannot run code: skops, with a list of the types allowed in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skops.io
from sklearn.base import BaseEstimator
from sklearn.neighbors import BallTree, KDTree
from sklearn.neighbors._base import NeighborsBase

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.guard import one_line
from robustbench_lite.core.npz import require_unfolds

KERNELS = (
    "ConstantKernel", "DotProduct", "ExpSineSquared", "Exponentiation", "Matern", "Product", "RBF",
    "RationalQuadratic", "Sum", "WhiteKernel",
)  # fmt: skip
METRICS = ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
# Beside what skops trusts by itself: scikit-learn's own containers of numbers, and parts of its estimators.
TRUSTED = frozenset(
    {
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.multiclass._ConstantPredictor",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        *(f"sklearn.gaussian_process.kernels.{kernel}" for kernel in KERNELS),
        # Never asked: what was stored is looked through instead.
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        *(f"sklearn.metrics._dist_metrics.{metric}Distance64" for metric in METRICS),
    }
)


def read_estimator(file: Path) -> BaseEstimator:
    """The estimator in a .skops file; raises `InvalidModel` for types that are not on the list."""
    try:
        if file.is_file():
            require_unfolds(file)
        content = file.read_bytes()
        unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - TRUSTED)
        if unknown:
            raise InvalidModel(f"{file}: holds {unknown[0]}, which is not among the types allowed in a file")
        found = skops.io.loads(content, trusted=sorted(TRUSTED))
    except FileNotFoundError:
        raise InvalidModel(f"{file}: no such file") from None
    except InvalidModel:
        raise
    except Exception as error:  # a damaged file fails in as many ways as there are readers in it
        raise InvalidModel(f"{file}: is no estimator that skops wrote: {one_line(error)}") from error
    if not isinstance(found, BaseEstimator):
        raise InvalidModel(f"{file}: holds a {type(found).__name__}; must be a fitted estimator")
    _look_through_all(found, file)
    return found


def _look_through_all(estimator: BaseEstimator, file: Path) -> None:
    """Have neighbours look through all that is stored: a tree in a file may point anywhere.

    Raises `InvalidModel` for a tree that is no estimator's of neighbours.
    """
    waiting, seen = [estimator], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, KDTree | BallTree):
            raise InvalidModel(
                f"{file}: holds a {type(part).__name__} outside of neighbours, which is not read"
            )
        if isinstance(part, NeighborsBase) and hasattr(part, "_tree"):
            part._tree, part._fit_method = None, "brute"
        if isinstance(part, np.ndarray):
            waiting += part.ravel().tolist() if part.dtype == object else []
        elif isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        elif not isinstance(part, type):
            waiting += getattr(part, "__dict__", {}).values()


def write_estimator(estimator: BaseEstimator, file: Path) -> None:
    """A .skops file."""
    skops.io.dump(estimator, file)
