"""`lift`: a fitted scikit-learn estimator as tensors that decide exactly as it does.

A lifted model computes in float64 on the features the estimator would be given. Its decisions are compared
with the estimator's own before it is handed out, and the lift is refused at the first that differs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.guard import foreign, one_line
from robustbench_lite.core.model import Model
from robustbench_lite.data.columns import Columns
from robustbench_lite.data.data import Data
from robustbench_lite.models.function import ScoreFunction
from robustbench_lite.models.sklearn.estimators import core_of, transforms_of, vector
from robustbench_lite.models.sklearn.forests import CannotLift
from robustbench_lite.models.sklearn.lifted import Affine, Lifted, Transform
from robustbench_lite.models.sklearn.table import as_fitted, as_matrix, encoder
from robustbench_lite.models.sklearn.trees import TreeCore

PARITY = 2000  # samples on which decisions are compared
Bound = float | Sequence[float] | np.ndarray


def lift(
    estimator: BaseEstimator,
    input_shape: Sequence[int],
    data: Tensor | np.ndarray | None = None,
    low: Bound = 0.0,
    high: Bound = 1.0,
    *,
    name: str = "",
    class_names: Sequence[str] | None = None,
) -> Lifted:
    """A fitted classifier, or a pipeline that ends in one, as a model of x (n, *input_shape) in [0, 1].

    It computes in float64 and decides exactly as the estimator does, which is tried before it is handed out.

    Parameters
    ----------
    estimator : scikit-learn classifier or Pipeline
    input_shape : sequence of int
        Of one sample; as many values as the estimator has features.
    data : Tensor or ndarray, optional
        (n, *input_shape) in [0, 1]: where its decisions are compared; None: random points of the box; around
        the thresholds of trees always.
    low, high : float or sequence of float, default 0.0 and 1.0
        The range of the features it was fitted on, one for all or one each; low below high.
    name : str, optional
        What reports call it; by default the class of the estimator, in a pipeline of the last.
    class_names : sequence of str, optional
        The classes' names in the data's order.

    Returns
    -------
    Lifted
        A `Model` on the CPU.

    Raises
    ------
    CannotLift
        For estimators without a lift, and where the lift decides differently; a kind of `InvalidModel`.
    InvalidModel
        For those that cannot be used: no classifier, not fitted, of another number of features.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> x = np.random.default_rng(0).random((50, 3))
    >>> model = lift(LogisticRegression().fit(x, (x[:, 0] > 0.5).astype(int)), (3,))
    >>> model.num_classes, model.name
    (2, 'LogisticRegression')
    """
    estimator = best_of(estimator)
    _check(estimator, input_shape)
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    last = steps[-1]
    box = _box(low, high, int(np.prod(input_shape)))
    before = [one for step in steps[:-1] if step not in ("passthrough", None) for one in transforms_of(step)]
    transforms: list[Transform] = [*box, *before]
    core, kept = core_of(last, transforms)
    columns, notes = _columns(estimator.classes_, class_names)
    model = Lifted(core, kept, input_shape, columns, name=name or type(last).__name__, notes=notes)
    try:
        prove(model, estimator, box, data)
    except RuntimeError as error:  # its parts do not fit together as was taken for granted
        raise CannotLift(f"{model.name}: its lift cannot be asked: {one_line(error)}") from error
    return model


def lift_or_call(estimator: BaseEstimator, data: Data, name: str = "", own: bool = False) -> Model:
    """The lifted estimator, or where it has no lift a model that calls it: its scores, else its decisions.

    own: it takes the table's own units, or the table itself where that has text or empty cells.
    """
    with foreign(name or type(estimator).__name__, "taking it over"):
        return _lifted_or_called(estimator, data, name, own)


def _lifted_or_called(estimator: BaseEstimator, data: Data, name: str, own: bool) -> Model:
    estimator = best_of(estimator)
    shape, columns = data.x.shape[1:], data.columns if own else None
    framed = columns is not None and (not columns.numeric or _other_order(estimator, columns))
    title = name or type(estimator).__name__
    try:
        if framed:
            assert columns is not None
            return lift_table(estimator, data, columns, name)
        low, high = (0.0, 1.0) if columns is None else (columns.low, columns.low + columns.units)
        box = (np.asarray(low, dtype=float), np.asarray(high, dtype=float))
        return lift(estimator, shape, data.x[:PARITY], *box, name=name, class_names=data.class_names)
    except CannotLift as error:
        why = str(error)
    own_classes = estimator.classes_
    order_of, notes = _columns(own_classes, data.class_names)
    order = np.arange(len(own_classes)) if order_of is None else order_of.numpy()
    scores = next((f for f in ("predict_proba", "decision_function") if hasattr(estimator, f)), None)
    place = {label: int(i) for i, label in enumerate(np.asarray(own_classes)[order])}

    def taken(x: Tensor) -> object:
        if columns is None:
            return x.detach().cpu().flatten(1).numpy().copy()
        named = getattr(estimator, "feature_names_in_", None)
        if named is None and not columns.textual:
            return columns.array(x)
        return as_fitted(estimator, columns.own(x))

    def ask(features: np.ndarray) -> np.ndarray:
        if scores is None:
            return np.array([place[label] for label in estimator.predict(features)])
        found: np.ndarray = np.asarray(getattr(estimator, scores)(features))
        return (found if found.ndim == 2 else np.column_stack([0 * found, found]))[:, order]

    notes = (*notes, f"not lifted: {why}")
    made = ScoreFunction(
        ask, shape, name=title, taken=taken, num_classes=len(order), notes=notes, samples=data.x
    )
    made.limits = why
    return made


def lift_table(estimator: BaseEstimator, data: Data, columns: Columns, name: str = "") -> Lifted:
    """A pipeline on the table's own columns; raises `CannotLift` where it decides differently on the data."""
    x = data.x[:PARITY]
    encode, last = encoder(estimator)
    before: list[Transform] = [*as_matrix(encode, columns, x)]
    core, kept = core_of(last, before)
    order, notes = _columns(estimator.classes_, data.class_names)
    model = Lifted(core, kept, data.x.shape[1:], order, name=name or type(last).__name__, notes=notes)
    number = {label: i for i, label in enumerate(estimator.classes_)}
    theirs = torch.tensor(
        [number[label] for label in estimator.predict(as_fitted(estimator, columns.own(x)))]
    )
    _compare(model, x, theirs)
    return model


def best_of(estimator: BaseEstimator) -> BaseEstimator:
    """What a search over parameters found, by whose word it answers."""
    return best_of(estimator.best_estimator_) if hasattr(estimator, "best_estimator_") else estimator


def _other_order(estimator: BaseEstimator, columns: Columns) -> bool:
    """Whether an estimator names its columns, and not as the table has them in order."""
    named = getattr(estimator, "feature_names_in_", None)
    return named is not None and list(named) != columns.features


def prove(
    model: Lifted, estimator: BaseEstimator, box: Sequence[Affine], data: Tensor | np.ndarray | None = None
) -> None:
    """Compare decisions on data, or random points, and around every threshold; raises `InvalidModel`."""
    shape = model.input_shape
    if data is None:
        x = torch.rand((512, *shape), generator=torch.Generator().manual_seed(0))
    else:
        x = torch.as_tensor(data).float().reshape(-1, *shape)
    if isinstance(model.core, TreeCore) and not model.transforms:
        x = torch.cat([x, _around(model.core, x)])
    features = x.flatten(1).double()
    for part in box:
        features = part(features)
    number = {label: i for i, label in enumerate(estimator.classes_)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        theirs = torch.tensor([number[label] for label in estimator.predict(features.numpy())])
    _compare(model, x, theirs)


def _compare(model: Lifted, x: Tensor, theirs: Tensor) -> None:
    """Raise `CannotLift` at the first point where a lift decides otherwise than the estimator did (n,)."""
    with torch.no_grad():
        ours = model.prediction(torch.cat([model.scores(part) for part in torch.split(x, 1000)]))
        undecided = model.core.undecided(model.features(x))
    if model.columns is not None:
        theirs = model.columns.argsort()[theirs]
    wrong = ((ours != theirs) & ~undecided).nonzero()
    if len(wrong):
        i = int(wrong[0])
        what = f"class {int(ours[i])} where the estimator decides {int(theirs[i])}"
        raise CannotLift(f"{model.name}: its lift decides {what}, first at point {i} of {len(x)}")


def _around(core: TreeCore, x: Tensor, most: int = 4000) -> Tensor:
    """Points of x with one feature on a threshold, or one float above it."""
    inner = (core.left != torch.arange(len(core.left))).nonzero()[:, 0]
    inner = inner[:: max(1, len(inner) // most)]
    base = x[torch.arange(len(inner)) % len(x)].flatten(1)
    on, above = base.clone(), base.clone()
    rows = torch.arange(len(inner))
    on[rows, core.feature[inner]] = core.threshold[inner]
    above[rows, core.feature[inner]] = torch.nextafter(core.threshold[inner], torch.tensor(torch.inf))
    return torch.cat([on, above]).reshape(-1, *x.shape[1:])


def _check(estimator: BaseEstimator, input_shape: Sequence[int]) -> None:
    name = type(estimator).__name__
    if not is_classifier(estimator):
        raise InvalidModel(f"{name} is no classifier; a regressor has no classes to attack")
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise InvalidModel(f"{name} is not fitted; call fit first") from None
    if isinstance(estimator.classes_, list) or np.ndim(estimator.classes_) != 1:
        raise InvalidModel(f"{name} has several outputs; one class a sample is needed")
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    kind = getattr(getattr(last, "_label_binarizer", None), "y_type_", "")
    if getattr(last, "multilabel_", False) or str(kind).startswith("multilabel"):
        raise InvalidModel(f"{name} says several labels of a sample; this data has one class each")
    if len(estimator.classes_) < 2:
        raise InvalidModel(f"{name} knows one class only: {estimator.classes_[0]!r}")
    d = int(np.prod(input_shape))
    features = getattr(estimator, "n_features_in_", d)  # one with a kernel of its own does not tell
    if features != d:
        raise InvalidModel(f"{name} was fitted on {features} features; {tuple(input_shape)} has {d}")


def _columns(classes: np.ndarray, names: Sequence[str] | None) -> tuple[Tensor | None, tuple[str, ...]]:
    """Where each class of the data stands among the estimator's (None: as they are), and a note on labels."""
    own = [str(label) for label in classes]
    plain = own == [str(i) for i in range(len(own))]
    notes = () if plain else ("its labels: " + ", ".join(f"{i} = {label}" for i, label in enumerate(own)),)
    if names is None or list(names) == own:
        return None, notes
    if sorted(names) == sorted(own):
        return torch.tensor([own.index(name) for name in names]), notes
    if plain and len(own) == len(names):
        return None, ()
    if set(names) < set(own):  # the data has not all of its classes
        others = [label for label in own if label not in names]
        return torch.tensor([own.index(label) for label in [*names, *others]]), notes
    raise InvalidModel(f"the estimator's classes are {', '.join(own)}; the data's {', '.join(names)}")


def _box(low: Bound, high: Bound, d: int) -> list[Affine]:
    """x in [0, 1] -> features; nothing where they are the same."""
    least, most = (np.broadcast_to(np.asarray(b, dtype=np.float64), (d,)) for b in (low, high))
    if not (least < most).all():
        raise InvalidModel(f"low = {low}: must be below high = {high}, feature by feature")
    if (least == 0).all() and (most == 1).all():
        return []
    return [Affine(factor=vector(most - least), offset=vector(least))]
