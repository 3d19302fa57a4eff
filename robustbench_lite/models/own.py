"""Whatever a user has, as a model: modules, estimators, functions; and what may be said of how to read it."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import InvalidModel, InvalidParameter
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import parse_number
from robustbench_lite.data.data import Data
from robustbench_lite.models.checks import fitted_to
from robustbench_lite.models.function import LabelFunction, ScoreFunction
from robustbench_lite.models.names import Reading
from robustbench_lite.models.torch.affine import collapsed
from robustbench_lite.models.torch.module import TorchModel

TRIED = 2000  # samples on which units are told apart
BARELY = 0.02  # of accuracy: above always saying the same
FAR = 0.1  # of accuracy: how much better one choice of units has to be to be taken
EXPECTED = "a name, a torch.nn.Module, a fitted scikit-learn classifier or a function"
Device = torch.device | str


PLAIN = Reading()


def as_model(
    made: object, data: Data, reading: Reading = PLAIN, name: str = "", device: Device | None = None
) -> Model:
    """Whatever a user has, as a `Model` for data.

    Parameters
    ----------
    made : Model, torch.nn.Module, estimator or function
        One that already is a `Model` keeps its settings, but for a class that rejects.
    data : Data
        What it is for: ambiguous outputs and units are decided on its samples.
    reading : Reading
        What is known of it.
    name : str, optional
        What reports call it.
    device : str or torch.device, optional
        None: where it is.

    Returns
    -------
    Model

    Raises
    ------
    InvalidModel
        Where it cannot be used, or its units cannot be told.
    """
    if isinstance(made, Model):
        if made.input_shape != tuple(data.x.shape[1:]):
            own, theirs = made.input_shape, tuple(data.x.shape[1:])
            raise InvalidModel(f"{made.name}: takes inputs of shape {own}; {data.name} has {theirs}")
        if made.task.kind != data.task.kind:
            raise InvalidModel(f"{made.name}: is for {made.task.kind}; {data.name} asks for {data.task.kind}")
        if replace(reading, reject=None) != PLAIN:
            told = {f.name: getattr(reading, f.name) for f in fields(reading) if f.name != "reject"}
            field = next(name for name, value in told.items() if value != getattr(PLAIN, name))
            raise InvalidParameter(field, told[field], f"left out: {made.name} is a model already")
        fitted = fitted_to(made, data.num_classes, reading.reject)
        return fitted if device is None else fitted.to(device)
    if data.task.kind == "multilabel" and not isinstance(made, nn.Module):
        if reading != PLAIN:
            told = {f.name: getattr(reading, f.name) for f in fields(reading)}
            field = next(part for part, value in told.items() if value != getattr(PLAIN, part))
            raise InvalidParameter(field, told[field], "left out for an estimator or function of labels")
        return _labeller(made, data, name).to(device or "cpu")
    if data.task.kind != "classification" and not isinstance(made, nn.Module):
        raise InvalidModel(f"{data.name} asks for {data.task.kind}, of which only networks are read")
    if data.columns is not None and data.columns.priced:
        if reading.units == "scaled":
            raise InvalidParameter("units", "scaled", "own: the features of this table are in units of cost")
        return _made(made, data, reading, name, device, own=True)
    if data.columns is None or reading.units == "scaled":
        return _made(made, data, reading, name, device, own=False)
    if reading.units == "own":
        return _made(made, data, reading, name, device, own=True)
    return _in_units_that_fit(made, data, reading, name, device)


def _labeller(made: object, data: Data, name: str) -> Model:
    """An estimator of several labels, or a function that returns them."""
    shape, labels = data.x.shape[1:], data.y.shape[1]
    samples = data.x[:TRIED]
    low, high = samples.amin(0), samples.amax(0)
    drawn = torch.rand(samples.shape, generator=torch.Generator().manual_seed(0))
    samples = torch.cat([samples, low + (high - low) * drawn])
    estimator = hasattr(made, "predict") and hasattr(made, "get_params") and not isinstance(made, type)
    if not estimator:
        if not callable(made) or isinstance(made, type | types.BuiltinFunctionType):
            raise InvalidModel(f"{type(made).__name__} is no model: give {EXPECTED}")
        taken = flattened if hasattr(getattr(made, "__self__", None), "n_features_in_") else None
        function = cast(Callable[[np.ndarray], object], made)
        return LabelFunction(function, shape, labels, name=name, taken=taken, samples=data.x)
    name = name or type(made).__name__
    decided = _asked_for_labels(made, "predict", None, data, name)
    said = decided.prediction(decided.scores(samples))
    for method, shares in (("predict_proba", True), ("decision_function", False)):
        if not hasattr(made, method):
            continue
        try:
            found = _asked_for_labels(made, method, shares, data, name)
        except InvalidModel:  # of a label that was the same in all of training there is one column only
            continue
        if torch.equal(found.prediction(found.scores(samples)), said):
            return found
    decided.notes += ("its scores say other labels than its predictions, or none: its predictions count",)
    return decided


def _asked_for_labels(
    estimator: object, method: str, shares: bool | None, data: Data, name: str
) -> LabelFunction:
    function = cast(Callable[[np.ndarray], object], getattr(estimator, method))
    shape, labels = data.x.shape[1:], data.y.shape[1]
    return LabelFunction(function, shape, labels, name=name, taken=flattened, samples=data.x, shares=shares)


def _in_units_that_fit(made: object, data: Data, reading: Reading, name: str, device: Device | None) -> Model:
    """Both units are tried on the data; one that is far more often right is taken, and told."""
    found: dict[bool, tuple[Model, float]] = {}
    faults: list[InvalidModel] = []
    for own in (False, True):
        try:
            model = _made(made, data, reading, name, device, own)
            found[own] = model, _share_right(model, data)
        except InvalidModel as error:
            faults.append(error)
    if not found:
        raise faults[-1]
    if len(found) == 1:
        own, (model, right) = next(iter(found.items()))
        # Scaled features that say no more than one class always would are not what it was fitted on.
        if not own and right <= float(data.y.bincount().max()) / len(data) + BARELY:
            raise faults[0]
        why = "it takes no others"
    else:
        (scaled, right), (in_own, right_own) = found[False], found[True]
        own, best, worst = right_own > right, max(right, right_own), min(right, right_own)
        why = f"right for {best:.0%}, not {worst:.0%}"
        if abs(right - right_own) < FAR:
            raise InvalidModel(
                f"{scaled.name}: fitted on which units? It is right for {right_own:.0%} of the samples in "
                f"the table's own, for {right:.0%} scaled to [0, 1]; say units=own or units=scaled"
            )
        model = in_own if own else scaled
    told, other = ("the table's own units", "scaled") if own else ("features scaled to [0, 1]", "own")
    model.notes += (f"it is given {told} ({why}); units={other} says otherwise",)
    return model


def _share_right(model: Model, data: Data) -> float:
    x, y = data.x[:TRIED], data.y[:TRIED]
    with torch.no_grad():
        scores = torch.cat([model.scores(part.to(model.device)) for part in torch.split(x, 500)])
    return float((model.prediction(scores).cpu() == y).float().mean())


def _made(made: object, data: Data, reading: Reading, name: str, device: Device | None, own: bool) -> Model:
    """A model of what a user has, in the table's own units or as the data is."""
    if isinstance(made, nn.Module):
        return _network(made, data, reading, name, device, own)
    if hasattr(made, "predict") and hasattr(made, "get_params") and not isinstance(made, type):
        from robustbench_lite.models.sklearn.lift import lift_or_call

        found = lift_or_call(made, data, name, own)
        return fitted_to(found, data.num_classes, reading.reject).to(device or "cpu")
    if callable(made) and not isinstance(made, type | types.BuiltinFunctionType):
        function = cast(Callable[[np.ndarray], object], made)
        flat = hasattr(getattr(made, "__self__", None), "n_features_in_")  # an estimator's own method
        taken = partial(in_own_units, data) if own else flattened if flat else None
        classes = data.num_classes if reading.reject is None else max(data.num_classes, reading.reject + 1)
        asked = ScoreFunction(
            function, data.x.shape[1:], name=name, taken=taken, num_classes=classes, samples=data.x
        )
        return fitted_to(asked, data.num_classes, reading.reject).to(device or "cpu")
    told = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
    raise InvalidModel(f"{told} is no model: give {EXPECTED}")


def _network(
    made: nn.Module, data: Data, reading: Reading, name: str, device: Device | None, own: bool
) -> Model:
    mean, std = (
        [parse_number(n, field) for n in text.split("|")] if text else None
        for field, text in (("mean", reading.mean), ("std", reading.std))
    )
    if own:
        assert data.columns is not None
        if not data.columns.numeric:
            title = name or type(made).__name__
            raise InvalidModel(f"{title}: a network takes numbers; {data.name} has text or empty cells")
        if mean is not None:
            raise InvalidParameter("mean", reading.mean, "left out where units=own")
        # x · unit + low, as a normalisation: (x - mean) / std
        mean, std = (-data.columns.low / data.columns.units).tolist(), (1 / data.columns.units).tolist()
    model = TorchModel(
        made,
        data.x.shape[1:],
        name=name,
        mean=mean,
        std=std,
        outputs=reading.outputs,
        device=device or next((p.device for p in made.parameters()), "cpu"),
        data=data,
    )
    return fitted_to(collapsed(model), data.num_classes, reading.reject)


def flattened(x: Tensor) -> np.ndarray:
    """Inputs (n, …) as an array (n, d) of its own."""
    array: np.ndarray = x.detach().cpu().flatten(1).numpy().copy()
    return array


def in_own_units(data: Data, x: Tensor) -> object:
    """Features (n, d) as the table they stand for: an array where all are numbers, else a DataFrame."""
    assert data.columns is not None
    return data.columns.own(x) if data.columns.textual else data.columns.array(x)
