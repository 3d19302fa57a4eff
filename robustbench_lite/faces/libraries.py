"""Our models as other libraries take them: anything that can be loaded here can be attacked there."""

from __future__ import annotations

from typing import Any

from torch import nn

from robustbench_lite.attacks.peers.peer import Shown
from robustbench_lite.core.errors import RobustError
from robustbench_lite.data.load import DataLike
from robustbench_lite.models.load import ModelLike, load_model


def as_foolbox(model: ModelLike, data: DataLike = "digits") -> Any:
    """A model as a `foolbox.PyTorchModel`.

    Parameters
    ----------
    model : str or model
        A name, a module, a fitted estimator, a function, or a `Model`.
    data : str or Data, default "digits"
        What it is for, as in `load_model`.

    Returns
    -------
    foolbox.PyTorchModel
        Inputs in [0, 1] to scores; its gradients are those of `gradient_scores`, where there are such.

    Raises
    ------
    RobustError
        Where Foolbox is not installed.
    """
    try:
        import foolbox
    except ImportError:
        raise RobustError("foolbox is not installed: pip install foolbox") from None
    shown = Shown(load_model(model, data)).eval()
    return foolbox.PyTorchModel(shown, bounds=(0.0, 1.0), device=shown.model.device)


def as_art(model: ModelLike, data: DataLike = "digits") -> Any:
    """A model as an `art.estimators.classification.PyTorchClassifier`.

    Parameters
    ----------
    model : str or model
        A name, a module, a fitted estimator, a function, or a `Model`.
    data : str or Data, default "digits"
        What it is for, as in `load_model`.

    Returns
    -------
    PyTorchClassifier
        Inputs in [0, 1] to scores.

    Raises
    ------
    RobustError
        Where ART is not installed.
    """
    try:
        from art.estimators.classification import PyTorchClassifier
    except ImportError:
        raise RobustError("art is not installed: pip install adversarial-robustness-toolbox") from None
    held = load_model(model, data)
    return PyTorchClassifier(
        Shown(held).eval(), nn.CrossEntropyLoss(), tuple(held.input_shape), held.num_classes,
        clip_values=(0.0, 1.0), device_type="gpu" if held.device.type == "cuda" else "cpu",
    )  # fmt: skip
