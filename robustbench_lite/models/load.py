"""`load_model`: a model by name, from `package.module:function`, or what the user already has."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import InvalidModel, InvalidParameter
from robustbench_lite.core.model import Model
from robustbench_lite.core.registry import arguments, load, look_up
from robustbench_lite.core.text import parse_name, split_outside, with_first
from robustbench_lite.data.data import Data
from robustbench_lite.data.load import DataLike, load_data
from robustbench_lite.models import MODELS
from robustbench_lite.models.cache import Report, Trained
from robustbench_lite.models.ensemble import Ensemble
from robustbench_lite.models.function import ScoreFunction
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.transformed import Transformed

FIRST = {"torchvision": "name", "weights": "path"}  # what follows the colon needs no key
PARITY = 2000  # samples on which a lifted estimator's decisions are compared


class Estimator(Protocol):
    """A fitted scikit-learn classifier, or a pipeline that ends in one."""

    classes_: np.ndarray

    def predict(self, X: np.ndarray) -> np.ndarray: ...

    def get_params(self) -> dict[str, object]: ...


ModelLike = str | Model | nn.Module | Estimator | Callable[[np.ndarray], object]


def load_model(
    model: ModelLike,
    data: DataLike = "digits",
    device: torch.device | str = "cpu",
    seed: int = 0,
    report: Report = lambda what, fraction: None,
) -> Model:
    """A model for data, on a device.

    model: a name (trained on the data's training split on first use, then cached), several as
    `ensemble(cnn,svm)`, one behind random transformations as `transformed(cnn,rotation=15)`,
    `package.module:function` (called without arguments, or with the data where it takes one; what it returns
    is a model), a `.skops` file, a `torch.nn.Module`, a fitted scikit-learn classifier, a NumPy function
    (n, …) -> (n, K), or a `Model`. data: what it is for; gives the input shape and, by name,
    the training split. Raises `UnknownName`, `InvalidModel`.
    """
    if isinstance(model, Model):
        return model.to(device)
    held = load_data(data)
    device = torch.device(device)
    shape, classes = held.x.shape[1:], held.num_classes
    if isinstance(model, str) and model.startswith("ensemble(") and model.endswith(")"):
        names = split_outside(model[len("ensemble(") : -1])
        return Ensemble([load_model(name, held, device, seed, report) for name in names], model)
    if isinstance(model, str) and model.startswith("transformed(") and model.endswith(")"):
        inner, *given = split_outside(model[len("transformed(") : -1])
        made_of = load_model(inner, held, device, seed, report)
        settings = dict(one.partition("=")[::2] for one in given)
        recipe = cast(Callable[..., Model], Transformed)
        return recipe(made_of, name=model, **arguments(Transformed.__init__, settings, skip=2))
    if isinstance(model, str) and not is_reference(model) and not model.endswith(".skops"):
        name, parameters = parse_name(with_first(model, FIRST.get(model.partition(":")[0])))
        recipe = cast(Callable[..., Model], load(look_up("models", MODELS, name).where, "model"))
        return recipe(held, Trained(seed, device, report), **arguments(recipe, parameters, skip=2))
    made: object = model
    name = ""
    if isinstance(model, str) and is_reference(model):
        made, name = _call(model, held), model.rpartition(":")[2]
    elif isinstance(model, str):
        from robustbench_lite.models.sklearn.files import read_estimator

        made, name = read_estimator(Path(model)), Path(model).stem
    return as_model(made, shape, classes, name, held.x, held.class_names).to(device)


def as_model(
    made: object,
    input_shape: Sequence[int],
    num_classes: int | None = None,
    name: str = "",
    x: Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> Model:
    """Whatever a user has, as a `Model` where it is; one that already is a `Model` keeps its settings.

    x (n, *input_shape), class_names: the data's, on which an estimator's decisions are compared.
    """
    if isinstance(made, Model):
        return made
    if isinstance(made, nn.Module):
        device = next((p.device for p in made.parameters()), torch.device("cpu"))
        return TorchModel(made, input_shape, name=name, num_classes=num_classes, device=device)
    if hasattr(made, "predict") and hasattr(made, "get_params"):
        from robustbench_lite.models.sklearn.lift import lift_or_call

        return lift_or_call(made, input_shape, None if x is None else x[:PARITY], name, class_names)
    if callable(made):
        function = cast(Callable[[np.ndarray], object], made)
        flat = hasattr(getattr(made, "__self__", None), "n_features_in_")  # an estimator's own method
        return ScoreFunction(function, input_shape, name=name, flatten=flat, num_classes=num_classes)
    what = "a name, a torch.nn.Module, a fitted scikit-learn classifier or a function"
    raise InvalidModel(f"{type(made).__name__} is no model: give {what}")


def is_reference(text: str) -> bool:
    """Whether a text means `package.module:function` rather than `name:key=value`."""
    _, colon, name = text.partition(":")
    known = text.partition(":")[0] in MODELS
    return bool(colon) and not known and name.replace(".", "").isidentifier() and "=" not in name


def _call(where: str, data: Data) -> object:
    function = load(where, "model")
    if not callable(function):
        raise InvalidParameter("model", where, "package.module:function")
    takes = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return function(data) if takes else function()
