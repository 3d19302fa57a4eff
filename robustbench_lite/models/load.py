"""`load_model`: a model by name, from `package.module:function`, or what the user already has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import nn

from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.core.guard import foreign
from robustbench_lite.core.model import Model
from robustbench_lite.core.registry import arguments, build, entries, given, load, look_up, read_name
from robustbench_lite.data.data import Data
from robustbench_lite.data.load import DataLike, load_data
from robustbench_lite.models.cache import Report, Trained
from robustbench_lite.models.defense import Defense, defended
from robustbench_lite.models.files import read_model
from robustbench_lite.models.names import Reading, brought, is_reference
from robustbench_lite.models.own import PLAIN, as_model


class Estimator(Protocol):
    """A fitted scikit-learn classifier, or a pipeline that ends in one."""

    classes_: np.ndarray

    def predict(self, X: np.ndarray) -> np.ndarray: ...

    def get_params(self) -> dict[str, object]: ...


ModelLike = str | Model | nn.Module | Estimator | Callable[[np.ndarray], object]
READING = tuple(field.name for field in fields(Reading))


def load_model(
    model: ModelLike,
    data: DataLike = "digits",
    device: torch.device | str = "cpu",
    seed: int = 0,
    report: Report = lambda what, fraction: None,
    reading: Reading = PLAIN,
) -> Model:
    """A model for data, on a device.

    Parameters
    ----------
    model : str, Model, torch.nn.Module, estimator or function
        A name (trained on the data's training split on first use, then cached), one around others such as
        `ensemble(cnn,svm:most=500)` or `transformed(cnn,rotation=15)`, `package.module:function` (called
        without arguments, or with the data where it takes one; what it returns is a model), a file (`.skops`,
        `.onnx`, TorchScript `.pt`), a `torch.nn.Module`, a fitted scikit-learn classifier, a NumPy function
        (n, …) -> (n, K), or a `Model`. What is brought may be followed by how it is read, the fields of
        `models.names.Reading`: `mine:net,outputs=sigmoid`, `file.skops,units=own`, `reject=10`.
    data : str or Data, default "digits"
        What it is for; gives the input shape and, by name, the training split.
    device : str, default "cpu"
    seed : int, default 0
        Of the training.
    report : callable
        Called with (model, fraction trained).
    reading : Reading, optional
        Of a live object: what its outputs are, its units, the class that rejects; a text says so itself.

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
    held = load_data(data)
    train = Trained(seed, torch.device(device), report)
    if isinstance(model, str):
        return _named(model, held, train).to(device)
    return as_model(model, held, reading, device=device)


def _named(text: str, data: Data, train: Trained) -> Model:
    """The model that a text names; its own name is the text where it wraps others."""
    where, options = brought(text)
    if where:
        reading = build(Reading, options)
        if is_reference(where):
            return as_model(_call(where, data), data, reading, where.rpartition(":")[2], train.device)
        file = Path(where).expanduser()
        return as_model(read_model(file, data), data, reading, file.stem, train.device)
    written = read_name("models", text)
    entry = look_up("models", written.head)
    if entry.task and entry.task != data.task.kind:
        known = [name for name, one in entries("models").items() if one.task in ("", data.task.kind)]
        raise Unsupported(
            f"{written.head} is for {entry.task}; {data.name} asks for {data.task.kind}: {', '.join(known)}"
        )
    values = given(entry, written)
    reading = build(Reading, {name: values.pop(name) for name in READING if name in values})
    found = load(entry.where, "model")
    if isinstance(found, type) and issubclass(found, Defense):
        inner = written.inner[0].text
        held = defended(
            build(found, values), inner, written.text, data, train, lambda one: _named(one, data, train)
        )
        return as_model(held, data, reading, device=train.device)
    make = cast(Callable[..., object], found)
    if entry.inner == "chain":
        made = make([one.text for one in written.inner], data, lambda one, seen: _named(one, seen, train))
        cast(Model, made).name = written.text
    elif entry.inner:
        members = [_named(one.text, data, train) for one in written.inner]
        made = make(members if entry.inner == "many" else members[0], **arguments(make, values, skip=1))
        cast(Model, made).name = written.text
    else:
        made = make(data, train, **arguments(make, values, skip=2))
    title = Path(written.first or "").stem if written.head == "weights" else written.first or written.head
    return as_model(made, data, reading, title, train.device)


def _call(where: str, data: Data) -> object:
    function = load(where, "model")
    if isinstance(function, nn.Module) or hasattr(function, "predict"):
        return function
    if not callable(function):
        raise InvalidParameter("model", where, "package.module:function")
    with foreign(where, "the call that makes it"):
        takes = [
            p
            for p in inspect.signature(function).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        return function(data) if takes else function()
