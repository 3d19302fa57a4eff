"""Fitted estimators in files that cannot run code: skops, with a list of the types allowed in them."""

from __future__ import annotations

from pathlib import Path

import skops.io
from sklearn.base import BaseEstimator

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.guard import one_line
from robustbench_lite.core.npz import require_unfolds

# Beside what skops trusts by itself: scikit-learn's own containers of numbers.
TRUSTED = frozenset(
    {
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
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
    return found


def write_estimator(estimator: BaseEstimator, file: Path) -> None:
    """A .skops file."""
    skops.io.dump(estimator, file)
