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
from robustbench_lite.core.parameters import Amount, converted
from robustbench_lite.core.registry import arguments, given, load, look_up, read_name
from robustbench_lite.data.data import Data
from robustbench_lite.data.load import DataLike, load_data
from robustbench_lite.models import MODELS
from robustbench_lite.models.cache import Report, Trained
from robustbench_lite.models.checks import fitted_to
from robustbench_lite.models.function import ScoreFunction
from robustbench_lite.models.torch.module import TorchModel

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

    Parameters
    ----------
    model : str, Model, torch.nn.Module, estimator or function
        A name (trained on the data's training split on first use, then cached), one around others such as
        `ensemble(cnn,svm:most=500)` or `transformed(cnn,rotation=15)`, `package.module:function` (called
        without arguments, or with the data where it takes one; what it returns is a model), a `.skops` file,
        a `torch.nn.Module`, a fitted scikit-learn classifier, a NumPy function (n, …) -> (n, K), or a
        `Model`. A name may say `reject=C`: the class that means "I will not say".
    data : str or Data, default "digits"
        What it is for; gives the input shape and, by name, the training split.
    device : str, default "cpu"
    seed : int, default 0
        Of the training.
    report : callable
        Called with (model, fraction trained).

    Returns
    -------
    Model

    Raises
    ------
    UnknownName, InvalidParameter, InvalidModel

    Examples
    --------
    >>> load_model("linear").family
    'linear'
    """
    if isinstance(model, Model):
        return model.to(device)
    held = load_data(data)
    train = Trained(seed, torch.device(device), report)
    if isinstance(model, str):
        return _named(model, held, train).to(device)
    return as_model(model, held.x.shape[1:], held.num_classes, "", held.x, held.class_names).to(device)


def _named(text: str, data: Data, train: Trained) -> Model:
    """The model that a text names; its own name is the text where it wraps others."""
    shape = data.x.shape[1:]
    if text.endswith(".skops"):
        from robustbench_lite.models.sklearn.files import read_estimator

        found = read_estimator(Path(text))
        return as_model(found, shape, data.num_classes, Path(text).stem, data.x, data.class_names)
    where, _, options = text.partition(",")
    if is_reference(where):
        reject = _reject(options, text)
        made, name = _call(where, data), where.rpartition(":")[2]
        return as_model(made, shape, data.num_classes, name, data.x, data.class_names, reject)
    written = read_name("models", text)
    entry = look_up("models", written.head)
    values = given(entry, written)
    reject = _reject(f"reject={values.pop('reject')}" if "reject" in values else "", text)
    make = cast(Callable[..., Model], load(entry.where, "model"))
    if entry.inner:
        inner = [_named(one.text, data, train) for one in written.inner]
        made_of = make(inner if entry.inner == "many" else inner[0], **arguments(make, values, skip=1))
        made_of.name = written.text
    else:
        made_of = make(data, train, **arguments(make, values, skip=2))
    return fitted_to(made_of, made_of.num_classes, reject)


def _reject(options: str, text: str) -> int | None:
    """The class in `reject=C`, all that may follow a reference."""
    if not options:
        return None
    key, _, value = options.partition("=")
    if key.strip() != "reject":
        raise InvalidParameter("model", text, "package.module:function or package.module:function,reject=C")
    return int(cast(int, converted("reject", value.strip(), Amount)))


def as_model(
    made: object,
    input_shape: Sequence[int],
    num_classes: int | None = None,
    name: str = "",
    x: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    reject: int | None = None,
) -> Model:
    """Whatever a user has, as a `Model` where it is; one that already is a `Model` keeps its settings.

    x (n, *input_shape), class_names: the data's, on which an estimator's decisions are compared.
    """
    if isinstance(made, Model):
        return made if reject is None else fitted_to(made, num_classes, reject)
    if isinstance(made, nn.Module):
        device = next((p.device for p in made.parameters()), torch.device("cpu"))
        return fitted_to(TorchModel(made, input_shape, name=name, device=device), num_classes, reject)
    if hasattr(made, "predict") and hasattr(made, "get_params"):
        from robustbench_lite.models.sklearn.lift import lift_or_call

        sample = None if x is None else x[:PARITY]
        found = lift_or_call(made, input_shape, sample, name, class_names)
        return fitted_to(found, found.num_classes, reject)
    if callable(made):
        function = cast(Callable[[np.ndarray], object], made)
        flat = hasattr(getattr(made, "__self__", None), "n_features_in_")  # an estimator's own method
        classes = num_classes if reject is None or reject != num_classes else reject + 1
        asked = ScoreFunction(function, input_shape, name=name, flatten=flat, num_classes=classes)
        return fitted_to(asked, num_classes, reject)
    what = "a name, a torch.nn.Module, a fitted scikit-learn classifier or a function"
    raise InvalidModel(f"{type(made).__name__} is no model: give {what}")


def is_reference(text: str) -> bool:
    """Whether a text means `package.module:function` rather than `name:key=value`."""
    _, colon, name = text.partition(":")
    known = text.partition(":")[0] in MODELS or "(" in text
    return bool(colon) and not known and name.replace(".", "").isidentifier() and "=" not in name


def _call(where: str, data: Data) -> object:
    function = load(where, "model")
    if not callable(function):
        raise InvalidParameter("model", where, "package.module:function")
    takes = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return function(data) if takes else function()
